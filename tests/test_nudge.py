"""Nudging: to the target, away from it, or alternately, and the order of the bias."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import batch

import mupc
from mupc.learning import first_gradients
from mupc.settings import ConfigError, Configuration

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


def bias(problem, nudge, rho):
    """The relative difference from backpropagation's gradient, at accurate minima.

    Every sample stands in the batch twice: alternately it is nudged both ways.
    """
    network, x, y = problem()
    pairs = jnp.repeat(x, 2, axis=0), jnp.repeat(y, 2, axis=0)
    stopping = mupc.Tolerance(1e-12)
    rule = mupc.PredictiveCoding(
        mupc.GaussNewton(3), 12, rho=rho, hold=False, nudge=nudge, stopping=stopping
    )
    found, info = first_gradients(rule, network, pairs, rule.init(network, KEY), KEY)
    assert np.max(info.phases["inference"].relative_residual) < 1e-6
    likelihood = mupc.Gaussian(info.unit)
    exact, _ = first_gradients(mupc.Backpropagation(likelihood), network, pairs, None, KEY)
    a, b = (jnp.concatenate([v.ravel() for v in jax.tree.leaves(tree)]) for tree in (found, exact))
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("problem", [dense, convolutional])
@pytest.mark.parametrize(("nudge", "order"), [("positive", 1), ("negative", 1), ("alternating", 2)])
def test_the_bias_of_one_way_is_of_first_order_and_of_alternation_of_second(problem, nudge, order):
    rhos = np.array([0.01, 0.02, 0.04])
    biases = [bias(problem, nudge, rho) for rho in rhos]
    slope = np.polyfit(np.log(rhos), np.log(biases), 1)[0]
    assert slope == pytest.approx(order, abs=0.15 * order)


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
        ({"rho": 2.0}, "positive"),
        ({"likelihood": mupc.Gaussian(0.1)}, "positive"),
        ({"likelihood": mupc.Gaussian(0.1), "hold": True}, "positive"),
        ({"nudge": "negative"}, "negative"),
    ],
)
def test_the_default_alternates_where_rho_is_held_below_one(options, nudge):
    assert mupc.PredictiveCoding(**options).nudge == nudge


def test_nudging_that_has_no_equilibrium_is_refused():
    with pytest.raises(ValueError, match="nudge must be one of positive, negative, alternating"):
        mupc.PredictiveCoding(nudge="both")
    with pytest.raises(ValueError, match="with rho 2 nudge must be positive"):
        mupc.PredictiveCoding(rho=2.0, nudge="alternating")
    with pytest.raises(ConfigError, match="with nudge alternating, rho must be below 1"):
        Configuration().changed({"rho": 2.0})
    assert Configuration().changed({"rho": 2.0, "nudge": "positive"}).rule.build(4).nudge == (
        "positive"
    )


def test_a_linear_network_is_solved_where_all_samples_have_one_precision():
    settings = {"activation": "linear", "solver": "linear-solve"}
    with pytest.raises(ConfigError, match="linear-solve is for one precision of all samples"):
        Configuration().changed(settings)
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
