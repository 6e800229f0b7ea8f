"""The regime report: what a record says is what a plain computation of it gives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import batch
from test_inference import problem

import mupc
from mupc import Tolerance
from mupc.theory import gradient_alignment, mean_regime_number
from mupc.training import RegimeRecord, TraceRecord
from mupc.training.report import Model, regime_report, trace_report

KEY = jax.random.key(0)


@pytest.mark.usefixtures("float64")
def test_a_regime_record_is_what_its_parts_say():
    energy, start = problem(jnp.tanh, size=16)
    network, points = energy.network, (energy.x, energy.y)
    first = jax.tree.map(lambda w: 0.9 * w if eqx.is_inexact_array(w) else w, network)
    stopping = Tolerance(0.05)
    rule = mupc.PredictiveCoding(
        mupc.GradientDescent(0.2), 7, mupc.Gaussian(2.0), stopping=stopping
    )
    seen = regime_report(Model(first, network, rule, None), points, KEY, step=3, seconds=1.5)
    end = mupc.infer(energy, rule.solver, start, max_steps=7, stopping=stopping)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-12)
    close(seen.energy_before, np.mean(energy.layers(energy.run()), axis=1))
    close(seen.energy_after, np.mean(energy.layers(end.point), axis=1))
    close(seen.residual, np.median(end.relative_residual))
    close(seen.at_equilibrium, np.mean(end.relative_residual <= 0.01))
    assert seen.diverged == 0
    close(seen.inference_steps, np.mean(end.steps))
    close(seen.sweeps, 2 * np.mean(end.steps))
    close(seen.rho, mean_regime_number(energy))
    assert seen.diagnostics == {}
    aligned = gradient_alignment(network, points, rule)
    close(seen.cosine, aligned.cosine)
    close(seen.ratio, aligned.ratio)
    close(seen.change, np.full(5, 0.1 / 0.9))
    output = network.feedforward(energy.x).output
    squares = np.mean(network.in_order(start) ** 2, axis=(1, 2))
    close(seen.scale, [*np.sqrt(squares), np.sqrt(np.mean(output**2))])
    assert (seen.step, seen.precision, seen.seconds) == (3, 2.0, 1.5)


@pytest.mark.usefixtures("float64")
def test_a_trace_begins_and_ends_where_inference_does():
    energy, start = problem(jnp.tanh, size=16)
    stopping = Tolerance(0.0)
    rule = mupc.PredictiveCoding(
        mupc.GradientDescent(0.2), 7, mupc.Gaussian(2.0), stopping=stopping
    )
    points = (energy.x, energy.y)
    model = Model(energy.network, energy.network, rule, None)
    seen = trace_report(model, points, KEY, step=4)
    assert seen.step == 4
    assert len(seen.energy) == len(seen.residual) == 8
    for steps in (1, 4, 7):
        end = mupc.infer(energy, rule.solver, start, max_steps=steps, stopping=stopping)
        np.testing.assert_allclose(seen.energy[steps], np.mean(end.energy), rtol=1e-3)
        np.testing.assert_allclose(
            seen.residual[steps], np.median(end.relative_residual), rtol=1e-3
        )
    assert seen.residual[0] == 1.0


def test_a_trace_ends_when_the_last_sample_has_converged():
    energy, _ = problem(jnp.tanh, size=16)
    stopping = Tolerance(0.1)
    rule = mupc.PredictiveCoding(mupc.GaussNewton(3), 30, mupc.Gaussian(2.0), stopping=stopping)
    model = Model(energy.network, energy.network, rule, None)
    seen = trace_report(model, (energy.x, energy.y), KEY, step=0)
    start = energy.network.feedforward(energy.x).activities
    end = mupc.infer(energy, rule.solver, start, max_steps=30, stopping=stopping)
    assert len(seen.energy) == len(seen.residual) == int(np.max(end.steps)) + 1 < 31


def test_inference_that_diverges_is_not_called_none():
    energy, _ = problem(jnp.tanh, size=16)
    rule = mupc.PredictiveCoding(
        mupc.GradientDescent(1e4), 30, mupc.Gaussian(2.0), stopping=Tolerance(0.0)
    )
    model = Model(energy.network, energy.network, rule, None)
    seen = regime_report(model, (energy.x, energy.y), KEY, step=0, seconds=0)
    assert seen.diverged == 1
    assert seen.at_equilibrium == 0
    assert "diverged in 100% of samples" in seen.sentence()


def test_a_network_of_one_layer_has_a_report():
    energy, _ = problem(jnp.tanh, depth=1)
    rule = mupc.PredictiveCoding(mupc.GaussNewton(3), 1, mupc.Gaussian(2.0))
    seen = regime_report(
        Model(energy.network, energy.network, rule, None),
        (energy.x, energy.y),
        KEY,
        step=5,
        seconds=0,
    )
    assert len(seen.change) == len(seen.cosine) == len(seen.energy_after) == 2
    assert "hidden layers" not in seen.sentence()


def test_backpropagation_has_changes_and_no_inference():
    energy, _ = problem(jnp.tanh)
    model = Model(energy.network, energy.network, mupc.Backpropagation(), None)
    seen = regime_report(model, (energy.x, energy.y), KEY, step=0, seconds=0)
    assert (seen.residual, seen.at_equilibrium, seen.sweeps, seen.cosine, seen.rho) == (None,) * 5
    assert seen.energy_before == seen.energy_after
    assert seen.change == (0.0,) * 5
    assert trace_report(model, (energy.x, energy.y), KEY, step=0) is None


def record(**changes):
    fields = {
        "step": 100,
        "precision": 0.05,
        "rho": 0.04,
        "inference_steps": 4.0,
        "sweeps": 16.0,
        "residual": 3e-4,
        "at_equilibrium": 1.0,
        "diverged": 0.0,
        "energy_before": (0.0, 0.0, 0.5),
        "energy_after": (0.1, 0.1, 0.2),
        "scale": (1.0, 1.0, 0.5),
        "cosine": (0.9, 0.94, 1.0, float("nan")),
        "ratio": (1.0, 1.0, 1.0, float("nan")),
        "change": (5.0, 0.3, 0.02, 0.04, 7.0),
        "seconds": 2.0,
    }
    return RegimeRecord(**{**fields, **changes})


def test_a_record_says_in_words_what_a_reader_must_know():
    assert record().sentence() == (
        "gradient-weighted ρ 0.04 (precision 0.05); "
        "inference: residual 0.0003 after 4 steps (16 sweeps), 100% of samples at equilibrium, "
        "energy lowered by 20.0%; cosine with backprop: median 0.940, minimum 0.900, in 3 "
        "layers (1 without a gradient); "
        "2 of 3 hidden weight matrices learning (relative change 0.02–0.3)"
    )
    for after, words in [(0.4998, "lowered by 0.0%"), (0.5002, "lowered by 0.0%"),
                         (0.55, "raised by 10.0%")]:  # fmt: skip
        assert f"energy {words};" in record(energy_after=(0.0, 0.0, after)).sentence()
    without = record(
        rho=None,
        residual=None,
        sweeps=None,
        at_equilibrium=None,
        cosine=None,
        change=(1.0, 0.0, 0.0, 1.0),
    )
    assert without.sentence() == ("0 of 2 hidden weight matrices learning (relative change 0–0)")


def small_fit(**options):
    data = mupc.data.load("digits", validation=0.1).flattened()
    network = mupc.residual_mlp(64, 10, width=16, depth=4, key=KEY)
    rule = mupc.PredictiveCoding(mupc.GaussNewton(), 2, mupc.Gaussian(1.0), hold=True)
    return mupc.fit(network, data, rule, optax.adam(0.01), steps=25, key=KEY, **options)


def test_reports_come_at_their_interval_and_change_nothing():
    plain, seen = small_fit(), small_fit(report_every=10)
    for a, b in zip(*(jax.tree.leaves(r.network) for r in (plain, seen)), strict=True):
        np.testing.assert_array_equal(a, b)
    reports = [r for r in seen.records if isinstance(r, RegimeRecord)]
    assert [r.step for r in reports] == [0, 10, 20, 25]
    assert reports[0].change == (0.0,) * 5
    assert reports[1].change < reports[2].change
    assert [r.step for r in seen.records if isinstance(r, TraceRecord)] == [25]
    assert not any(isinstance(r, RegimeRecord | TraceRecord) for r in plain.records)


def test_the_last_report_is_of_the_network_that_is_kept():
    seen = small_fit(report_every=100, evaluate_every=5)
    last = [r for r in seen.records if isinstance(r, RegimeRecord)][-1]
    assert last.step == seen.step
    first = mupc.residual_mlp(64, 10, width=16, depth=4, key=KEY)
    change = mupc.theory.relative_change(first, seen.network)
    np.testing.assert_allclose(last.change, change, rtol=1e-3)


# Prices


def alive(jaxpr):
    """The equations that an output depends on: a compiler leaves the others out."""
    needed, kept = {v for v in jaxpr.outvars if not hasattr(v, "val")}, []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            kept.append(equation)
            needed.update(v for v in equation.invars if not hasattr(v, "val"))
    return kept


def products(jaxpr, branch):
    """Multiplications in matrix products: a loop of known length counts as often as it runs."""
    total = 0
    for equation in alive(jaxpr):
        inner = [
            getattr(value, "jaxpr", value)
            for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns"))
            if hasattr(getattr(value, "jaxpr", value), "eqns")
        ]
        if equation.primitive.name == "dot_general":
            a = equation.invars[0].aval.shape
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += np.prod(equation.outvars[0].aval.shape) * np.prod([a[i] for i in contracted])
        elif equation.primitive.name == "cond":
            total += branch(products(one, branch) for one in inner)
        else:
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            total += times * sum(products(one, branch) for one in inner)
    return float(total)


PRICED = {
    "gradient descent": mupc.GradientDescent(0.1),
    "momentum": mupc.GradientDescent(0.1, 0.9),
    "stable step": mupc.GradientDescent(mupc.StableStep()),
    "in errors": mupc.InErrors(mupc.GradientDescent(0.1)),
    "adam": mupc.Optax(optax.adam(0.1)),
    "gauss-newton 1": mupc.GaussNewton(1),
    "gauss-newton 3": mupc.GaussNewton(3),
    "l-bfgs": mupc.LBFGS(),
    "l-bfgs in errors": mupc.InErrors(mupc.LBFGS()),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("solver", PRICED.values(), ids=PRICED)
def test_a_solver_costs_the_matrix_products_that_it_says(solver):
    """Counted in the traced program, at widths all equal so that a sweep is one product a layer."""
    width, depth, size = 64, 16, 8
    network = mupc.residual_mlp(
        width, width, width=width, depth=depth, activation=jnp.tanh, key=KEY
    )
    x, y = (jnp.asarray(v, jnp.float32) for v in batch(width, width, size))
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(1.0))
    position, keys = solver.enter(energy, energy.run()), jax.random.split(KEY, size)
    sweep = (depth + 1) * size * width**2
    begin = jax.make_jaxpr(lambda p: solver.init(energy, p))(position)
    state = solver.init(energy, position)

    def step(position, state, keys):
        move, state, seen = solver.step(energy, position, state, keys)
        return move(jnp.ones(size, bool)), state, seen

    each = jax.make_jaxpr(step)(position, state, keys)
    # A first step may begin with what the start has computed already: that is the cheap branch.
    count = lambda program, branch: products(program.jaxpr, branch) / sweep
    nothing, one = (float(solver.cost(jnp.asarray([n]))[0]) for n in (0, 1))
    assert count(begin, max) + count(each, min) == pytest.approx(one, abs=0.6)
    assert count(each, max) == pytest.approx(one - nothing, abs=0.6)


def test_solvers_without_a_fixed_price_do_not_name_one():
    schedule = mupc.Schedule(((mupc.GaussNewton(), 1), (mupc.LBFGS(), 3)))
    for solver in (schedule, mupc.GradientFlow(), mupc.LinearSolve()):
        assert solver.cost(jnp.arange(3)) is None
