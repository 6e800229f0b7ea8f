"""What single solvers promise, beyond the battery of test_inference."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Reference, batch
from test_inference import PRECISE, activities_of, norms_of, problem
from test_networks import patterned, two_stages

import mupc
from mupc import FixedSteps, InferenceResult, Tolerance
from mupc.energies import ErrorView

pytestmark = pytest.mark.usefixtures("float64")


def with_likelihood(energy, likelihood):
    return eqx.tree_at(lambda e: e.likelihood, energy, likelihood)


@pytest.mark.few(3)
@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_the_closed_form_of_a_linear_network_is_a_dense_solve(skips, biases, depth):
    energy, start = problem(skips=skips, biases=biases, depth=depth)
    expected, _ = Reference(energy.network, None, skips).linear_equilibrium(
        np.asarray(energy.x), np.asarray(energy.y), 2.0
    )
    stopping = Tolerance(1e-10)
    solution = mupc.infer(energy, mupc.LinearSolve(), start, max_steps=1, stopping=stopping)
    np.testing.assert_allclose(activities_of(energy, solution), expected, atol=1e-12)
    assert np.all(solution.result == InferenceResult.CONVERGED)


@pytest.mark.parametrize("skips", [True, False])
def test_gauss_newton_solves_a_linear_network_in_one_iteration(skips):
    """With as many conjugate gradient steps as outputs; with fewer it does not."""
    energy, start = problem(skips=skips)
    solve = lambda solver: activities_of(energy, mupc.infer(energy, solver, start, max_steps=1))
    expected = solve(mupc.LinearSolve())
    np.testing.assert_allclose(solve(mupc.GaussNewton(3)), expected, atol=1e-11)
    assert np.max(np.abs(solve(mupc.GaussNewton(1)) - expected)) > 1e-3


def test_gauss_newton_is_newtons_method_for_a_linear_network_and_any_likelihood():
    """Categorical, I + JᵀBBᵀJ is the exact Hessian: iterations converge quadratically."""
    energy, start = problem()
    energy = with_likelihood(energy, mupc.Categorical(2.0))
    view, banks = ErrorView(energy), energy.network.in_banks
    total = lambda e: jnp.sum(view.samples(view.at(banks(e.reshape(4, 5, 5)))))
    e = jnp.zeros(100)
    newton = e - np.linalg.solve(jax.hessian(total)(e), jax.grad(total)(e))
    one = mupc.infer(energy, mupc.GaussNewton(3), start, max_steps=1)
    errors = energy.network.in_order(one.point.errors)
    np.testing.assert_allclose(errors.ravel(), newton, atol=1e-10)
    stopping = Tolerance(1e-10)
    solution = mupc.infer(energy, mupc.GaussNewton(3), start, max_steps=8, stopping=stopping)
    assert np.all(solution.result == InferenceResult.CONVERGED)
    assert np.all(solution.steps <= 6)


@pytest.mark.few(4)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("likelihood", [mupc.Gaussian(0.4), mupc.Categorical(0.4)])
def test_conjugate_gradients_are_the_best_in_their_directions(likelihood, elsewhere, steps):
    r"""δ = D⁻¹(−h ± JᵀBs), s the best of r and of what is left after each step, all dense.

    Samples nudged both ways, precisions, multipliers, and a target known in part.
    """
    energy, start = problem(depth=4)
    known = np.arange(len(energy.x)) != 1
    if isinstance(likelihood, mupc.Gaussian):
        known = np.array([True, False, True]) | known[:, None]
    energy = dataclasses.replace(
        energy,
        likelihood=likelihood,
        y=jnp.where(known if known.ndim > 1 else known[:, None], jax.nn.softmax(energy.y), jnp.nan),
        precisions=jnp.array([0.5, 1.0, 2.0, 3.0]),
        factors=jnp.where(jnp.arange(len(energy.x)) % 2, -1.0, 1.0),
        multipliers=jax.tree.map(lambda z: 0.1 * jnp.cos(z), start),
        observed=known,
    )
    point = energy.at(start) if elsewhere else energy.run()
    end = mupc.infer(energy, mupc.GaussNewton(steps), point, max_steps=1, stopping=FixedSteps())
    order, banks = energy.network.in_order, energy.network.in_banks
    size, units = start[0].shape[-1], energy.output(point).shape[-1]
    weights = np.repeat(energy.precisions, size)
    for i in range(len(energy.x)):
        one = energy.of_sample(i)
        shaped = lambda e, one=one: one.run(banks(e.reshape(4, 1, size)))
        e = order(point.errors)[:, i].ravel()
        energy_of, output_of = (
            lambda e, f=f, at=shaped: f(at(e))[0] for f in (one.samples, one.output)
        )
        h, J = np.asarray(jax.grad(energy_of)(e)), np.asarray(jax.jacobian(output_of)(e))
        output, sign = energy.output(point)[i], (-1) ** i
        seen = known[i] if known.ndim > 1 else np.full(units, known[i])
        strength = np.sqrt(float(likelihood.precision)) * seen
        root = np.stack([likelihood.root(output, unit) for unit in jnp.eye(units)], axis=1)
        B = strength[:, None] * root
        system = np.eye(units) + sign * B.T @ (J / weights) @ J.T @ B
        right = B.T @ (J / weights) @ h
        assert np.all(np.linalg.eigvalsh(system) > 0)
        y = np.where(seen, energy.y[i], 0)
        space = [sign * strength * np.asarray(likelihood.pearson_residual(y, output))]
        for _ in range(steps):
            S = np.stack(space, axis=1)
            s = S @ np.linalg.lstsq(S.T @ system @ S, S.T @ right, rcond=None)[0]
            space.append(right - system @ s)
        step = (-h + sign * J.T @ B @ s) / weights
        found = order(end.point.errors)[:, i].ravel() - e
        np.testing.assert_allclose(found, step, atol=1e-9)


def test_gauss_newton_never_raises_the_energy_where_a_full_step_does():
    energy, start = problem(jnp.tanh, size=64)
    energy = with_likelihood(energy, mupc.Gaussian(500.0))
    view, point = ErrorView(energy), energy.run()
    banks, order = energy.network.in_banks, energy.network.in_order
    maps = energy.gauss_newton(point)
    flat = lambda v: order(v).transpose(1, 0, 2).reshape(64, 20)
    gradient = flat(energy.error_gradient(point))
    unit = lambda k: banks(jnp.broadcast_to(jnp.eye(20)[k].reshape(4, 1, 5), (4, 64, 5)))
    column = eqx.filter_jit(lambda v: flat(maps.down(maps.up(v))))
    columns = [column(unit(k)) for k in range(20)]
    step = -np.linalg.solve(np.eye(20) + np.stack(columns, 2), gradient[..., None])[..., 0]
    full = banks(jnp.asarray(step.reshape(64, 4, 5).transpose(1, 0, 2)))
    before = energy.samples(point)
    # Unguarded, some samples go up.
    assert np.sum(view.samples(view.at(full)) > before) > 3
    every = {"stopping": FixedSteps(), "trace": True}
    for steps in (1, 2, 5):
        seen = mupc.infer(energy, mupc.GaussNewton(3), start, max_steps=steps, **every)
        assert np.all(np.diff(seen.trace.energy, axis=0) <= 1e-12)
        assert np.all(seen.energy <= before)
    assert np.mean(seen.energy < before) > 0.9


def test_a_point_whose_errors_are_known_changes_nothing():
    energy, start = problem(jnp.tanh)
    for solver in (mupc.GaussNewton(2), mupc.InErrors(mupc.LBFGS())):
        one = mupc.infer(energy, solver, start, max_steps=3)
        other = mupc.infer(energy, solver, energy.run(), max_steps=3)
        ends = activities_of(energy, one), activities_of(energy, other)
        np.testing.assert_allclose(*ends, atol=1e-13)
        pairs = one.point.errors, energy.at(one.point.activities).errors
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), *pairs)


@pytest.mark.full
def test_coordinates_do_not_change_the_equilibrium_nor_what_is_learned_there():
    energy, start = problem(jnp.tanh, size=16)
    solvers = (
        mupc.GradientDescent(0.3, momentum=0.5),
        mupc.InErrors(mupc.GradientDescent(0.1, momentum=0.5)),
        mupc.InErrors(mupc.LBFGS()),
        mupc.GaussNewton(2),
        mupc.InErrors(mupc.GradientFlow(controller=PRECISE, rtol=1e-9)),
    )
    stopping = Tolerance(1e-8, patience=0)
    ends = [mupc.infer(energy, s, start, max_steps=5000, stopping=stopping) for s in solvers]
    gradients = [jax.tree.leaves(energy.weight_gradient(end.point)) for end in ends]
    rest = activities_of(energy, ends[0])
    for end, gradient in zip(ends[1:], gradients[1:], strict=True):
        np.testing.assert_allclose(activities_of(energy, end), rest, atol=1e-6)
        for a, b in zip(gradient, gradients[0], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.few(1)
@pytest.mark.parametrize("make", [two_stages, patterned])
@pytest.mark.parametrize("solver", [mupc.GaussNewton(2), mupc.InErrors(mupc.LBFGS())])
def test_chains_of_any_kind_settle_to_the_minimum_that_descent_finds(solver, make):
    network, _ = make()
    x, y = batch(6, 3)
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(0.5))
    run = lambda solver, steps, stopping: mupc.infer(
        energy, solver, energy.run(), max_steps=steps, stopping=stopping
    )
    slow = run(mupc.GradientDescent(0.2), 20_000, Tolerance(1e-9))
    fast = run(solver, 500, Tolerance(1e-9, patience=0))
    for a, b in zip(fast.point.activities, slow.point.activities, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_flow_of_one_variable_is_the_exponential():
    """One linear layer of width one: F = ½(z − u)² + ½(y − wz)², whose flow is known."""
    network = mupc.residual_mlp(
        1, 1, width=1, depth=1, activation=mupc.identity, key=jax.random.key(0)
    )
    x, y = jnp.array([[1.0], [2.0]]), jnp.array([[0.5], [-1.0]])
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(1.0))
    start = network.feedforward(x).activities
    w = float(network.readout.weights[0, 0] * network.readout.multiplier)
    flow = mupc.GradientFlow(controller=PRECISE, rtol=0.0, horizon=0.7)
    end = activities_of(energy, mupc.infer(energy, flow, start, max_steps=1))[0, :, 0]
    u = start[0][0, :, 0]
    rest = (u + w * y[:, 0]) / (1 + w**2)
    expected = rest + (u - rest) * np.exp(-(1 + w**2) * 0.7)
    np.testing.assert_allclose(end, expected, rtol=1e-8)


def test_a_schedule_hands_each_sample_from_one_solver_to_the_next():
    energy, start = problem(jnp.tanh, size=8)
    descent, exact = mupc.GradientDescent(0.3), mupc.GaussNewton(2)
    schedule = mupc.Schedule(((descent, 3), (exact, 2)))
    fixed = {"stopping": FixedSteps()}
    both = mupc.infer(energy, schedule, start, **fixed)  # of five steps by itself
    first = mupc.infer(energy, descent, start, max_steps=3, **fixed)
    second = mupc.infer(energy, exact, first.point, max_steps=2, **fixed)
    ends = activities_of(energy, both), activities_of(energy, second)
    np.testing.assert_allclose(*ends, atol=1e-13)
    np.testing.assert_array_equal(both.steps, 5)
    # Residuals are relative to the very start, and the limit is on all steps together.
    np.testing.assert_allclose(both.initial.residual, first.initial.residual)
    four = mupc.infer(energy, schedule, start, max_steps=4, **fixed)
    np.testing.assert_array_equal(four.steps, 4)
    # What has converged stays; what has stalled goes on.
    near = {"stopping": Tolerance(1e-6)}
    longer = mupc.Schedule(((descent, 1), (exact, 200)))
    flat = mupc.infer(energy, longer, start, max_steps=201, **near)
    assert np.all(flat.result == InferenceResult.CONVERGED)
    done = mupc.infer(energy, exact, start, max_steps=200, **near)
    again = mupc.Schedule(((exact, 200), (mupc.GradientDescent(0.1), 9)))
    kept = mupc.infer(energy, again, start, max_steps=300, **near)
    ends = activities_of(energy, kept), activities_of(energy, done)
    np.testing.assert_allclose(*ends, atol=1e-13)
    with pytest.raises(ValueError, match="a schedule needs at least one pair"):
        mupc.Schedule(())
    assert mupc.PredictiveCoding(schedule).limit == 5
    traced = mupc.infer(energy, schedule, start, trace=True, **fixed)
    assert traced.trace.energy.shape == (5, 8)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_solver_or_no_start_is_named():
    energy, start = problem(jnp.tanh)
    missing = "max_steps is missing, the largest number of steps: only a schedule has its own"
    with pytest.raises(ValueError, match=missing):
        mupc.infer(energy, mupc.GaussNewton(), start)
    with pytest.raises(ValueError, match=missing):
        mupc.PredictiveCoding(mupc.LBFGS())
    sentence = r"solver must be a mupc.Solver, e.g. mupc.GaussNewton\(\); got the class LBFGS"
    with pytest.raises(TypeError, match=sentence):
        mupc.infer(energy, mupc.LBFGS, start, max_steps=3)
    with pytest.raises(ValueError, match=r"start must be a point, .* or a tuple of activities"):
        mupc.infer(energy, mupc.LBFGS(), energy.x, max_steps=3)
    with pytest.raises(ValueError, match="GaussNewton has coordinates of its own"):
        mupc.InErrors(mupc.GaussNewton())


@pytest.mark.parametrize("solver", [mupc.GradientDescent(0.3), mupc.GaussNewton(1)])
def test_a_trace_is_what_shorter_runs_report(solver):
    energy, start = problem(jnp.tanh)
    run = lambda steps, **more: mupc.infer(
        energy, solver, start, max_steps=steps, stopping=FixedSteps(), **more
    )
    trace = run(4, trace=True).trace
    assert trace.energy.shape == trace.residual.shape == (4, 5)
    np.testing.assert_allclose(trace.energy[0], energy.samples(energy.run()))
    for steps in (1, 2, 3):
        end = run(steps)
        np.testing.assert_allclose(trace.energy[steps], end.energy, rtol=1e-12)
        np.testing.assert_allclose(trace.residual[steps], end.residual, rtol=1e-10)
    # Samples that are done repeat their last figures, as do steps that nobody made.
    near = {"stopping": Tolerance(0.5)}
    short = mupc.infer(energy, solver, start, max_steps=500, trace=True, **near)
    assert short.trace.energy.shape == (500, 5)
    for i, steps in enumerate(np.asarray(short.steps)):
        np.testing.assert_allclose(short.trace.energy[steps:, i], short.energy[i], rtol=1e-12)
        np.testing.assert_allclose(short.trace.residual[steps:, i], short.residual[i], rtol=1e-10)
        assert np.all(np.diff(short.trace.energy[: steps + 1, i]) < 0)


def test_residuals_are_measured_only_if_wanted():
    energy, start = problem(jnp.tanh)
    for solver in (mupc.GaussNewton(), mupc.GradientDescent(0.1)):
        run = lambda solver=solver, **more: mupc.infer(
            energy, solver, start, max_steps=2, stopping=FixedSteps(), **more
        )
        seen, whole = run(measure=False), run()
        assert np.all(np.isinf(seen.residual))
        assert np.all(np.isinf(seen.relative_residual))
        np.testing.assert_allclose(seen.energy, whole.energy, rtol=1e-12)
        np.testing.assert_array_equal(seen.result, whole.result)
        assert np.all(np.isfinite(whole.residual))


@pytest.mark.parametrize(
    ("solver", "change", "sentence"),
    [
        (mupc.LinearSolve(), {"activation": jnp.tanh}, "closed form is for linear networks"),
        (mupc.LinearSolve(), {"likelihood": mupc.Categorical()}, "closed form is for the Gaussian"),
        (mupc.GaussNewton(), {"decay": 0.1}, "takes no activity decay"),
    ],
)
def test_problems_that_a_solver_cannot_solve_get_a_sentence(solver, change, sentence):
    energy, start = problem(change.get("activation", mupc.identity))
    energy = with_likelihood(energy, change.get("likelihood", energy.likelihood))
    if "decay" in change:
        energy = mupc.FreeEnergy(
            energy.network, energy.x, energy.y, energy.likelihood, (mupc.ActivityDecay(0.1),)
        )
    with pytest.raises(ValueError, match=sentence):
        mupc.infer(energy, solver, start, max_steps=1)


def test_counts_of_solvers_are_checked():
    with pytest.raises(ValueError, match="a whole number of at least 1, not 0"):
        mupc.GaussNewton(0)
    with pytest.raises(ValueError, match="a whole number of at least 1, not 0"):
        mupc.LBFGS(0)


MONOTONE = {
    "gauss-newton 1": mupc.GaussNewton(1),
    "gauss-newton 3": mupc.GaussNewton(3),
    "l-bfgs in errors": mupc.InErrors(mupc.LBFGS(5)),
    "l-bfgs": mupc.LBFGS(5),
}


@pytest.mark.full
@settings(max_examples=12)
@given(
    solver=st.sampled_from(sorted(MONOTONE)),
    activation=st.sampled_from([mupc.identity, jnp.tanh, jax.nn.relu]),
    categorical=st.booleans(),
    skips=st.booleans(),
    rho=st.sampled_from([0.05, 0.1, 1.0, 20.0]),
    depth=st.sampled_from([1, 5]),
    seed=st.integers(0, 10**6),
)
def test_random_small_problems(solver, activation, categorical, skips, rho, depth, seed):
    """Energy never ends above its start; converged means a small residual; minima agree."""
    network = mupc.residual_mlp(
        4, 3, width=5, depth=depth, activation=activation, skips=skips, key=jax.random.key(seed)
    )
    x, y = (jnp.asarray(v) for v in batch(4, 3, 6, seed))
    make = mupc.Categorical if categorical else mupc.Gaussian
    precision = mupc.theory.precision_for(rho, mupc.FreeEnergy(network, x, y, make(1.0)))
    energy = mupc.FreeEnergy(network, x, y, make(precision))
    start = energy.run()
    run = lambda solver, steps, patience: mupc.infer(
        energy, solver, start, max_steps=steps, stopping=Tolerance(1e-6, patience=patience)
    )
    end = run(MONOTONE[solver], 400, 50)
    before = energy.samples(start)
    assert np.all(end.energy <= before * (1 + 1e-12))
    norms = norms_of(energy.activity_gradient(energy.at(end.point.activities)))
    began = norms_of(energy.activity_gradient(start))
    converged = np.asarray(end.result == InferenceResult.CONVERGED)
    assert np.all(norms[converged] <= 1.0001e-6 * began[converged])
    if activation is not jax.nn.relu and rho <= 0.1:
        assert np.all(converged)
        slow = run(mupc.InErrors(mupc.GradientDescent(0.5)), 5000, 0)
        assert np.all(slow.result == InferenceResult.CONVERGED)
        one, two = (energy.weight_gradient(s.point) for s in (end, slow))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * np.max(np.abs(b), initial=0))
