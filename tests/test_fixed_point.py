"""Layered Hopfield networks of states on a box, and the fixed point iteration that settles them."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from reference import batch

import mupc
from mupc.energies import HopfieldEnergy
from mupc.learning import ImplicitGradient, first_gradients
from mupc.networks import identity
from mupc.settings import ConfigError, Configuration

KEY = jax.random.key(0)
TO_THE_END = mupc.Tolerance(1e-13, patience=50)


def images(pool="max"):
    """Convolution, pooling, a layer of a width, and states of the output."""
    network = mupc.layered_hopfield((6, 6, 2), 3, layers="4p d5", pool=pool, key=KEY)
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2))
    return network, jnp.asarray(x), jnp.asarray(batch(6, 3, 4)[1])


def rows():
    network = mupc.layered_hopfield((6,), 3, layers="d5 d4", key=KEY)
    return network, *map(jnp.asarray, batch(6, 3, 4))


def stronger(network, size=4.0):
    """Multiply all weights, so that some states are on the border."""
    return jax.tree.map(lambda v: size * v + 0.1 if eqx.is_inexact_array(v) else v, network)


def rule(phases="centred", beta=1e-4, **more):
    return mupc.EquilibriumPropagation(
        mupc.FixedPoint(),
        max_steps=400,
        nudged_steps=400,
        beta=beta,
        phases=phases,
        stopping=TO_THE_END,
        **more,
    )


def flat(tree):
    return jnp.concatenate([v.ravel() for v in jax.tree.leaves(tree)])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("factor", [0.0, 0.5, -0.5])
def test_a_step_puts_every_other_layer_where_its_neighbours_drive_it(factor):
    network, x, y = rows()
    network = stronger(network)
    first, second, third = (stage.entry for stage in network.chain.stages)
    w1, w2, w3 = (np.asarray(b.multipliers[0] * b.weights) for b in (first, second, third))
    c1, c2, c3 = (np.asarray(b.biases) for b in (first, second, third))
    rng = np.random.default_rng(1)
    begin = rng.uniform(size=(4, 5)), rng.uniform(size=(4, 4)), rng.normal(size=(4, 3))
    pull = factor * 0.8
    s1 = np.clip(np.asarray(x) @ w1.T + c1 + begin[1] @ w2, 0, 1)
    s3 = (begin[1] @ w3.T + c3 + pull * np.asarray(y)) / max(1 + pull, 1)
    if pull < 0:  # a step of the gradient, whose energy bends by less than 1
        s3 = begin[2] - ((1 + pull) * begin[2] - s3)
    s2 = np.clip(s1 @ w2.T + c2 + s3 @ w3, 0, 1)
    energy = HopfieldEnergy(network, x, y, mupc.Gaussian(0.8), factors=jnp.full(4, factor))
    start = tuple(jnp.asarray(s)[None] for s in begin)
    solution = mupc.infer(energy, mupc.FixedPoint(), start, max_steps=1)
    for got, wanted in zip(solution.point.activities, (s1, s2, s3), strict=True):
        np.testing.assert_allclose(got[0], wanted, rtol=1e-12)
    assert 0 < np.mean((s1 == 0) | (s1 == 1)) < 1


@pytest.mark.few(8)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("pool", ["max", "average"])
@pytest.mark.parametrize("factor", [None, 0.0, -0.5, 3.0])
@pytest.mark.parametrize(
    "likelihood", [mupc.Gaussian(0.8), mupc.Categorical(0.8), mupc.Bernoulli(0.8)]
)
@pytest.mark.parametrize("relaxation", [1.0, 1.9])
def test_energy_never_rises_whatever_the_weights(pool, factor, likelihood, relaxation):
    network, x, y = images(pool)
    if not isinstance(likelihood, mupc.Gaussian):
        y = jax.nn.one_hot(jnp.arange(4) % 3, 3)
    factors = None if factor is None else jnp.full(4, factor)
    energy = HopfieldEnergy(stronger(network, 10.0), x, y, likelihood, factors=factors)
    solution = mupc.infer(
        energy,
        mupc.FixedPoint(relaxation),
        energy.run(),
        max_steps=30,
        stopping=mupc.Endless(),
        trace=True,
    )
    assert np.all(np.diff(solution.trace.energy, axis=0) <= 1e-10)
    assert np.ptp(solution.trace.energy, axis=0).min() > 0.1


@pytest.mark.usefixtures("float64")
def test_it_settles_where_a_bounded_minimiser_does():
    network, x, y = rows()
    energy = HopfieldEnergy(network, x, y, mupc.Gaussian(0.8))
    solution = mupc.infer(
        energy, mupc.FixedPoint(), energy.run(), max_steps=400, stopping=TO_THE_END
    )
    assert np.all(solution.result == mupc.InferenceResult.CONVERGED)
    start, unflatten = jax.flatten_util.ravel_pytree(energy.run().activities)
    total = jax.jit(jax.value_and_grad(lambda s: jnp.sum(energy.layers(energy.at(unflatten(s))))))
    bounds = [(0, 1)] * (4 * 9) + [(None, None)] * (4 * 3)
    found = scipy.optimize.minimize(
        lambda s: [np.asarray(v) for v in total(s)],
        start,
        jac=True,
        bounds=bounds,
        method="L-BFGS-B",
        options={"ftol": 0, "gtol": 1e-12},
    )
    ours = jax.flatten_util.ravel_pytree(solution.point.activities)[0]
    np.testing.assert_allclose(ours, found.x, atol=1e-8)
    assert 0 < np.mean(np.asarray(ours[:36]) == 0) < 1


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("problem", [images, rows])
def test_gradients_are_those_of_the_cost_of_what_settled(problem):
    """Along random directions, by differences of the cost at the free equilibrium."""
    network, x, y = problem()
    network = stronger(network, 1.0)

    @jax.jit
    def cost(weights):
        other = eqx.combine(weights, fixed)
        return jnp.mean(jnp.sum(0.5 * (y - rule().predict(other, x)) ** 2, axis=-1))

    weights, fixed = eqx.partition(network, eqx.is_inexact_array)
    vector, unflatten = jax.flatten_util.ravel_pytree(weights)
    directions = jax.random.normal(jax.random.key(5), (4, len(vector)))
    size = 1e-6
    wanted = [
        (cost(unflatten(vector + size * d)) - cost(unflatten(vector - size * d))) / (2 * size)
        for d in directions
    ]
    for one in (rule(), ImplicitGradient(rule())):
        gradient = flat(first_gradients(one, network, (x, y), None, KEY)[0])
        np.testing.assert_allclose(directions @ gradient, wanted, rtol=3e-5)
    longer = dataclasses.replace(network, steps=400)
    through = first_gradients(mupc.Backpropagation(), longer, (x, y), None, KEY)[0]
    np.testing.assert_allclose(directions @ flat(through), wanted, rtol=3e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("phases", "order"), [("one-sided", 1), ("centred", 2)])
def test_the_bias_is_of_the_order_that_phases_promise(phases, order):
    network, x, y = rows()
    network = stronger(network, 1.0)
    exact = flat(first_gradients(ImplicitGradient(rule()), network, (x, y), None, KEY)[0])
    betas = np.array([1e-3, 4e-4, 1.6e-4])  # smaller than what puts a state on the border
    bias = [
        jnp.linalg.norm(
            flat(first_gradients(rule(phases, beta), network, (x, y), None, KEY)[0]) - exact
        )
        for beta in betas
    ]
    assert abs(np.polyfit(np.log(betas), np.log(bias), 1)[0] - order) < 0.2


def test_methods_that_leave_the_box_are_refused_and_others_that_have_none():
    network, x, y = rows()
    energy = HopfieldEnergy(network, x, y, mupc.Gaussian())
    for solver in (mupc.LBFGS(), mupc.InErrors(mupc.LBFGS()), mupc.GradientDescent(0.1)):
        with pytest.raises(ValueError, match=r"would leave the box .*: give mupc\.FixedPoint\(\)"):
            mupc.infer(energy, solver, energy.run(), max_steps=2)
    chain = mupc.residual_hopfield(6, 3, width=4, depth=3, key=KEY)
    free = HopfieldEnergy(chain, x, y, mupc.Gaussian())
    with pytest.raises(ValueError, match="FixedPoint is for activities on a box"):
        mupc.infer(free, mupc.FixedPoint(), free.run(), max_steps=2)
    with pytest.raises(ValueError, match="above 0 and below 2"):
        mupc.FixedPoint(2.0)
    with pytest.raises(ValueError, match="moves activities on a box, which errors are not on"):
        mupc.InErrors(mupc.FixedPoint())
    with pytest.raises(ValueError, match=r"takes no mupc\.Laplace"):
        HopfieldEnergy(network, x, y, mupc.Laplace())
    with pytest.raises(ValueError, match="take no regulariser on activities"):
        HopfieldEnergy(network, x, y, mupc.Gaussian(), [mupc.ActivityDecay(0.1)])
    with pytest.raises(ValueError, match="no Hessian"):
        mupc.theory.activity_hessian(energy, energy.run().activities)
    with pytest.raises(ValueError, match="the output must be the last state"):
        mupc.networks.Hopfield(network.chain, identity, skips=False, box=True)
    with pytest.raises(ValueError, match="give it no activation"):
        mupc.networks.Hopfield(network.chain, jnp.tanh, skips=False, inside=True, box=True)
    with pytest.raises(ValueError, match="without skips, each a stage of its own"):
        mupc.networks.Hopfield(network.chain, identity, inside=True, box=True)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"network": "layered-hopfield", "solver": "l-bfgs"}, "would leave the box"),
        ({"network": "layered-hopfield", "activation": "tanh"}, "is for states on a box"),
        ({"network": "layered-hopfield", "activity_decay": 0.1}, "take no activity_decay"),
        ({"network": "layered-hopfield", "likelihood": "laplace"}, "take no likelihood laplace"),
        ({"network": "layered-hopfield", "rho": 1.0}, "rho must be below 1 with"),
        ({"network": "layered-hopfield", "beta": 2.0}, "beta must be below 1"),
        ({"solver": "fixed-point"}, "is for states on a box"),
        ({"network": "residual-hopfield", "solver": "fixed-point"}, "is for states on a box"),
    ],
)
def test_settings_say_which_method_settles_what(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Configuration().changed(settings)


def test_a_start_outside_of_the_box_is_moved_to_its_border():
    network, x, y = rows()
    energy = HopfieldEnergy(network, x, y, mupc.Gaussian())
    end = lambda start: (
        mupc.infer(
            energy, mupc.FixedPoint(), start, max_steps=3, stopping=mupc.Endless()
        ).point.activities
    )
    inside = energy.run().activities
    inside = (jnp.ones_like(inside[0]), jnp.zeros_like(inside[1]), inside[2])
    outside = (7 * inside[0], inside[1] - 2, inside[2])
    jax.tree.map(np.testing.assert_array_equal, end(outside), end(inside))


def test_an_activation_takes_the_method_that_others_do():
    given = {"network": "layered-hopfield", "activation": "tanh", "solver": "l-bfgs"}
    config = Configuration().changed(given)
    assert config.rule.solver.kind == "l-bfgs"
