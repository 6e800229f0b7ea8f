"""Nudging: to the target, away from it, or alternately, and the order of the bias."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import batch

import mupc
from mupc.commands.main import main
from mupc.learning import explain, first_gradients
from mupc.settings import ConfigError, Configuration
from mupc.training.report import Model, trace_report

KEY = jax.random.key(0)


def dense(activation=jnp.tanh):
    network = mupc.residual_mlp(6, 3, width=5, depth=4, activation=activation, key=KEY)
    return network, *map(jnp.asarray, batch(6, 3, 4))


def convolutional():
    network = mupc.conv_resnet(
        (6, 6, 2), 3, blocks=(1, 1), channels=3, activation=jnp.tanh, key=KEY
    )
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2))
    return network, jnp.asarray(x), jnp.asarray(batch(6, 3, 4)[1])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("likelihood", [mupc.Gaussian, mupc.Categorical])
def test_gauss_newton_of_a_nudged_linear_network_is_the_closed_form(likelihood):
    """Towards and away: (I + f JᵀΛJ) e = f Jᵀ(−g), as many conjugate gradient steps as outputs."""
    network, x, y = dense(mupc.identity)
    factors = np.array([0.1, -0.1, -0.05, 0.2])
    energy = mupc.FreeEnergy(network, x, y, likelihood(0.8), factors=factors)
    solution = mupc.infer(energy, mupc.GaussNewton(3), energy.run(), max_steps=1)
    got = network.in_order(solution.point.errors).transpose(1, 0, 2).reshape(4, 20)
    banks = lambda e: network.in_banks(e.reshape(4, 1, 5))
    for i, f in enumerate(factors):
        run = lambda e, i=i: network.feedforward(x[i][None], banks(e)).output[0]
        loss = lambda out, i=i: 0.8 * likelihood().loss(y[i], out)
        J, output = np.asarray(jax.jacobian(run)(jnp.zeros(20))), run(jnp.zeros(20))
        g, curvature = np.asarray(jax.grad(loss)(output)), np.asarray(jax.hessian(loss)(output))
        e = np.linalg.solve(np.eye(20) + f * J.T @ curvature @ J, -f * J.T @ g)
        np.testing.assert_allclose(got[i], e, rtol=1e-9, atol=1e-12)
    assert np.all(solution.energy < energy.samples(energy.run()))


def flat(tree):
    return jnp.concatenate([v.ravel() for v in jax.tree.leaves(tree)])


def bias(problem, nudge, rho, keys):
    """The relative difference from backpropagation's gradient, a mean over keys, at minima."""
    network, *batch = problem()
    batch = tuple(batch)
    rule = mupc.PredictiveCoding(
        mupc.GaussNewton(3), 12, rho=rho, nudge=nudge, stopping=mupc.Tolerance(1e-12)
    )
    found = []
    for key in keys:
        gradients, info = first_gradients(rule, network, batch, rule.init(network, KEY), key)
        assert np.max(info.phases["inference"].relative_residual) < 1e-6
        found.append(flat(gradients))
    likelihood = mupc.Gaussian(info.unit)
    exact = flat(first_gradients(mupc.Backpropagation(likelihood), network, batch, None, KEY)[0])
    return float(jnp.linalg.norm(sum(found) / len(found) - exact) / jnp.linalg.norm(exact))


def both_firsts():
    """Keys with which the first sample of a batch is nudged to its target, and away from it."""
    network, *batch = dense()
    batch = tuple(batch)
    rule = mupc.PredictiveCoding()
    state = rule.init(network, KEY)
    keys = [jax.random.key(seed) for seed in range(8)]
    # As `first_gradients` splits them.
    begun = [rule.begin(network, batch, state, jax.random.split(key)[0])[0] for key in keys]
    return dict(zip((float(np.sign(b.energy.precision[0])) for b in begun), keys, strict=True))


@pytest.mark.few(2)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("problem", [dense, convolutional])
@pytest.mark.parametrize(
    ("nudge", "firsts", "order"),
    [
        ("positive", [1], 1),
        ("negative", [1], 1),
        ("alternating", [1], 1),
        ("alternating", [1, -1], 2),
    ],
)
def test_the_bias_of_alternation_is_of_second_order_in_expectation(problem, nudge, firsts, order):
    keys = both_firsts()
    rhos = np.array([0.01, 0.02, 0.04])
    biases = [bias(problem, nudge, rho, [keys[first] for first in firsts]) for rho in rhos]
    slope = np.polyfit(np.log(rhos), np.log(biases), 1)[0]
    assert slope == pytest.approx(order, abs=0.1 * (1 + order))


@pytest.mark.usefixtures("float64")
def test_where_no_minimum_lies_away_from_the_target_the_energy_still_falls():
    """πJJᵀ has an eigenvalue above 1: the first direction of conjugate gradients leads upwards.

    Of one sample the first does not, and a later one does.
    """
    network, x, y = dense()
    factors = jnp.array([-20.0, -2.0, 20.0, 5.0])
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(), factors=factors)
    gradient = energy.error_gradient(energy.run())
    maps = energy.gauss_newton(energy.run())
    r, w = maps.residual(gradient)
    first = np.asarray(jnp.sum(r**2, 1) - jnp.sum(network.in_order(w) ** 2, (0, 2)))
    units = [jnp.broadcast_to(unit, r.shape) for unit in jnp.eye(r.shape[1])]
    K = np.stack([maps.up(maps.down(unit)) for unit in units], axis=2)
    least = 1 - np.linalg.eigvalsh(K)[:, -1]
    assert first[0] < 0 < first[1]
    assert np.all(least[:2] < 0)
    for steps in (1, 3):
        solution = mupc.infer(energy, mupc.GaussNewton(steps), energy.run(), max_steps=1)
        assert np.all(solution.energy < energy.samples(energy.run()))


def test_every_second_sample_is_moved_away_and_the_first_by_the_key():
    network, x, y = dense()
    rule = mupc.PredictiveCoding()
    state = rule.init(network, KEY)
    firsts = set()
    for seed in range(8):
        carry, _ = rule.begin(network, (x, y), state, jax.random.key(seed))
        signs = np.sign(carry.energy.precision)
        np.testing.assert_array_equal(signs, signs[0] * np.array([1, -1, 1, -1]))
        firsts.add(float(signs[0]))
    assert firsts == {-1.0, 1.0}
    away = mupc.PredictiveCoding(rho=0.1, nudge="negative")
    carry, _ = away.begin(network, (x, y), away.init(network, KEY), KEY)
    assert np.all(carry.energy.precision < 0)
    assert np.all(mupc.theory.regime_number(carry.energy) > 0)


@pytest.mark.usefixtures("float64")
def test_of_samples_moved_away_the_energy_that_inference_takes_is_shown():
    network, x, y = dense()
    rule = mupc.PredictiveCoding(rho=0.3)
    state = rule.init(network, KEY)
    _, info = first_gradients(rule, network, (x, y), state, KEY)
    energy = rule.begin(network, (x, y), state, jax.random.split(KEY)[0])[0].energy
    losses = np.abs(energy.samples(energy.run()))
    np.testing.assert_allclose(np.sum(info.before), np.mean(losses), rtol=1e-12)
    taken = np.mean(energy.samples(energy.run()) - info.phases["inference"].energy)
    np.testing.assert_allclose(np.sum(info.before) - np.sum(info.layers), taken, rtol=1e-9)
    assert 0 < taken < 0.3 * np.mean(losses)
    assert info.precision > 0


@pytest.mark.parametrize(
    ("options", "nudge"),
    [
        ({}, "alternating"),
        ({"rho": 0.5, "hold": False}, "positive"),
        ({"start": mupc.ZeroStart()}, "positive"),
        ({"rho": 2.0}, "positive"),
        ({"likelihood": mupc.Gaussian(0.1)}, "positive"),
        ({"likelihood": mupc.Gaussian(0.1), "hold": True}, "positive"),
        ({"nudge": "negative"}, "negative"),
    ],
)
def test_the_default_alternates_where_rho_is_held_below_one(options, nudge):
    assert mupc.PredictiveCoding(**options).nudge == nudge


@pytest.mark.usefixtures("float64")
def test_activities_decay_whichever_way_outputs_are_nudged():
    """What the decay adds to the gradient is the same, but for the order of ρ."""
    network, *batch = dense()
    batch = tuple(batch)

    def added(nudge):
        def learned(*terms):
            rule = mupc.PredictiveCoding(
                mupc.InErrors(mupc.LBFGS()),
                200,
                rho=0.02,
                nudge=nudge,
                regularisers=terms,
                stopping=mupc.Tolerance(1e-10),
            )
            state = rule.init(network, KEY)
            return flat(first_gradients(rule, network, batch, state, KEY)[0])

        return np.asarray(learned(mupc.ActivityDecay(0.001)) - learned())

    ways = [added(nudge) for nudge in ("positive", "negative", "alternating")]
    for other in ways[1:]:
        cosine = ways[0] @ other / np.linalg.norm(ways[0]) / np.linalg.norm(other)
        assert cosine > 0.95
        assert np.linalg.norm(other) == pytest.approx(np.linalg.norm(ways[0]), rel=0.2)


@pytest.mark.usefixtures("unchecked")
def test_nudging_that_has_no_equilibrium_is_refused():
    with pytest.raises(ValueError, match="nudge must be one of positive, negative, alternating"):
        mupc.PredictiveCoding(nudge="both")
    for options, needed in [
        ({"rho": 2.0}, "a rho below 1 that is held"),
        ({"likelihood": mupc.Gaussian(10.0), "hold": True}, "a rho below 1 that is held"),
        ({"start": mupc.ZeroStart()}, "inference that starts at the feedforward pass"),
    ]:
        with pytest.raises(ValueError, match=f"nudge negative needs {needed}"):
            mupc.PredictiveCoding(nudge="negative", **options)
    for settings, reason in [
        ({"rho": 2.0}, "rho must be below 1"),
        ({"start": "zeros"}, "inference must have start feedforward"),
    ]:
        with pytest.raises(ConfigError, match=f"with nudge alternating, {reason}"):
            Configuration().changed(settings)
    assert Configuration().changed({"rho": 2.0, "nudge": "positive"}).rule.build(4).nudge == (
        "positive"
    )


@pytest.mark.usefixtures("float64")
def test_the_trace_of_inference_shows_what_is_taken_whichever_way():
    network, x, y = dense()
    rule = mupc.PredictiveCoding(mupc.GaussNewton(), 3, rho=0.3)
    state = rule.init(network, KEY)
    model = Model(network, network, rule, state)
    trace = trace_report(model, (x, y), KEY, step=0)
    assert np.all(np.diff(trace.energy) <= 0)
    energy = rule.begin(network, (x, y), state, jax.random.split(KEY)[0])[0].energy
    size = np.mean(np.abs(energy.samples(energy.run())))
    assert trace.energy[0] == pytest.approx(size, rel=1e-3)
    assert 0.5 * size < trace.energy[-1] < size


def test_energies_that_fall_out_of_bounds_are_explained():
    network, x, y = dense()
    rule = mupc.PredictiveCoding(
        mupc.InErrors(mupc.GradientDescent(50.0)), 40, rho=0.9, nudge="negative"
    )
    said = explain(rule, network, (x, y), rule.init(network, KEY), KEY)
    assert said.startswith("in inference, whose energy ")


def test_options_are_checked_once_all_are_read(tmp_path, capsys):
    linear = ["train", "--activation", "linear", "--solver", "linear-solve", "--steps", "2"]
    linear += ["--depth", "2", "--width", "4", "--out", str(tmp_path / "run")]
    assert main(linear) == 2
    assert "linear-solve is for one precision of all samples" in capsys.readouterr().err
    assert main([*linear, "--regime", "initial"]) == 0
    file = tmp_path / "own.toml"
    file.write_text("solver = 'linear-solve'\n")
    assert main(["train", "--file", str(file)]) == 2
    assert f"in {file}: solver linear-solve is for activation linear" in capsys.readouterr().err


def test_a_linear_network_is_solved_where_all_samples_have_one_precision():
    settings = {"activation": "linear", "solver": "linear-solve"}
    network, x, y = dense(mupc.identity)
    rule = Configuration().changed({**settings, "regime": "initial"}).rule.build(4)
    accurate = mupc.PredictiveCoding(mupc.GaussNewton(3), 2, rho=0.05, hold=False)
    ours, theirs = (
        first_gradients(r, network, (x, y), r.init(network, KEY), KEY)[0] for r in (rule, accurate)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
        *(eqx.filter(tree, eqx.is_array) for tree in (ours, theirs)),
    )
