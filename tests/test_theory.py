"""The regime number and gradient alignment, against densely computed ones."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import batch
from test_inference import problem
from test_networks import two_stages

import mupc
from mupc.theory import (
    alignment,
    gradient_alignment,
    learned_regime_number,
    precision_for,
    regime_number,
    relative_change,
)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("make", [mupc.Gaussian, mupc.Categorical])
def test_the_regime_number_is_the_trace_it_says(make):
    energy, _ = problem(jnp.tanh)
    likelihood = make(0.7)
    energy = eqx.tree_at(lambda e: e.likelihood, energy, likelihood)
    for i, rho in enumerate(regime_number(energy)):
        x = energy.x[i : i + 1]
        run = lambda e, x=x: energy.network.feedforward(x, (e.reshape(4, 1, 5),)).output[0]
        J = jax.jacobian(run)(jnp.zeros(20))
        output = run(jnp.zeros(20))
        loss = lambda out, i=i: likelihood.precision * likelihood.loss(energy.y[i], out)
        hessian = jax.hessian(loss)(output)
        assert rho == pytest.approx(float(jnp.trace(hessian @ J @ J.T)) / 3, rel=1e-10)


@pytest.mark.parametrize("make", [mupc.Gaussian, mupc.Categorical])
def test_the_learned_regime_number_weighs_samples_by_what_they_teach(make):
    energy, _ = problem(jnp.tanh)
    targets = jax.nn.softmax(3 * energy.y)  # distributions, that a categorical likelihood needs
    energy = eqx.tree_at(lambda e: (e.likelihood, e.y), energy, (make(0.7), targets))
    above, below = 0.0, 0.0
    for i in range(len(energy.x)):
        x = energy.x[i : i + 1]
        run = lambda e, x=x: energy.network.feedforward(x, (e.reshape(4, 1, 5),)).output[0]
        J = jax.jacobian(run)(jnp.zeros(20))
        loss = lambda out, i=i: 0.7 * energy.likelihood.loss(energy.y[i], out)
        q = -jax.grad(loss)(run(jnp.zeros(20)))
        trace = jnp.trace(jax.hessian(loss)(run(jnp.zeros(20))))
        share = jnp.sum((J.T @ q) ** 2)
        above, below = above + trace / 3 * share**2 / jnp.sum(q**2), below + share
    seen = learned_regime_number(energy, energy.network.feedforward(energy.x))
    assert seen == pytest.approx(float(above / below), rel=1e-10)


def test_the_learned_regime_number_is_about_the_regime_number_before_anything_is_learned():
    network = mupc.residual_mlp(16, 10, width=256, depth=8, key=jax.random.key(0))
    x, y = (jnp.asarray(v) for v in batch(16, 10, 200))
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(0.4))
    seen = learned_regime_number(energy, network.feedforward(x))
    assert seen == pytest.approx(float(jnp.mean(regime_number(energy))), rel=0.15)


def test_the_precision_for_a_regime_gives_it():
    energy, _ = problem(jnp.tanh)
    precision = precision_for(0.3, energy)
    there = eqx.tree_at(lambda e: e.likelihood, energy, mupc.Gaussian(precision))
    assert jnp.mean(regime_number(there)) == pytest.approx(0.3, rel=1e-10)


@pytest.mark.parametrize(("activation", "slope"), [(mupc.identity, 1.0), (jax.nn.relu, 0.5)])
@pytest.mark.parametrize(("depth", "width"), [(16, 256), (64, 128), (64, 512)])
def test_the_regime_number_grows_like_depth_over_width(activation, slope, depth, width):
    """ρ = π (H/N)(exp c − 1), c = E φ'² : every layer adds c/L of the variance above it."""
    network = mupc.residual_mlp(
        32, 10, width=width, depth=depth, activation=activation, key=jax.random.key(0)
    )
    x, y = (jnp.asarray(v) for v in batch(32, 10, 16))
    rho = jnp.mean(regime_number(mupc.FreeEnergy(network, x, y, mupc.Gaussian(0.4))))
    expected = 0.4 * depth / width * (np.exp(slope) - 1)
    assert rho == pytest.approx(expected, rel=0.25)


def test_learning_tends_to_backpropagation_with_the_regime_number():
    """Oracle 7, layer by layer: the gradient over π differs from it by an amount of order ρ."""
    energy, start = problem(jnp.tanh, size=16)
    rule = mupc.Backpropagation(mupc.Gaussian(1.0))
    exact, _, _ = rule.gradients(energy.network, (energy.x, energy.y), None, jax.random.key(0))
    gaps = []
    for rho in (2e-3, 1e-3, 5e-4):
        precision = precision_for(rho, energy)
        there = eqx.tree_at(lambda e: e.likelihood, energy, mupc.Gaussian(precision))
        end = mupc.infer(there, mupc.GaussNewton(3), start, max_steps=50, rtol=1e-11, patience=0)
        learned = there.weight_gradient(end.activities, end.errors)
        difference = jax.tree.map(lambda a, b, p=precision: a / p - b, learned, exact)
        gaps.append([float(jnp.linalg.norm(v)) for v in jax.tree.leaves(difference)])
    orders = np.log2(np.asarray(gaps[:-1]) / np.asarray(gaps[1:]))
    np.testing.assert_allclose(orders, 1.0, atol=0.1)


def test_alignment_is_one_where_inference_does_nothing_and_less_where_it_does():
    energy, _ = problem(jnp.tanh, size=16)
    align = lambda precision: (
        gradient_alignment(
            energy.network,
            (energy.x, energy.y),
            mupc.PredictiveCoding(mupc.GaussNewton(3), 30, mupc.Gaussian(precision)),
        ).cosine
    )
    assert align(1.0).shape == (5,)
    np.testing.assert_allclose(align(1e-6), 1.0, atol=1e-5)
    assert np.min(align(100.0)) < 0.95


def test_alignment_of_a_layer_is_the_cosine_and_the_norm_ratio_of_its_gradients():
    energy, _ = problem(jnp.tanh, biases=False)
    rule = mupc.PredictiveCoding(mupc.GradientDescent(0.2), 3, mupc.Gaussian(2.0))
    back = mupc.Backpropagation(mupc.Gaussian(2.0))
    a, b = (
        r.gradients(energy.network, (energy.x, energy.y), None, jax.random.key(0))[0]
        for r in (rule, back)
    )
    stacks = [
        [n.stages[0].entry.weights, *n.stages[0].blocks.weights, n.readout.weights] for n in (a, b)
    ]
    cosine = lambda v, w: np.sum(v * w) / (np.linalg.norm(v) * np.linalg.norm(w))
    expected = [cosine(v, w) for v, w in zip(*stacks, strict=True)]
    ratios = [np.linalg.norm(v) / np.linalg.norm(w) for v, w in zip(*stacks, strict=True)]
    seen = gradient_alignment(energy.network, (energy.x, energy.y), rule)
    np.testing.assert_allclose(seen.cosine, expected, rtol=1e-10)
    np.testing.assert_allclose(seen.ratio, ratios, rtol=1e-10)


def test_alignment_sees_gradients_whose_squares_underflow():
    energy, _ = problem(biases=False)
    tiny = jax.tree.map(lambda w: 1e-200 * w if eqx.is_inexact_array(w) else w, energy.network)
    seen = alignment(tiny, energy.network)
    np.testing.assert_allclose(seen.cosine, 1.0, rtol=1e-12)
    np.testing.assert_allclose(seen.ratio, 1e-200, rtol=1e-12)


def test_relative_change_counts_every_layer_of_every_stage():
    network, _ = two_stages()
    double = jax.tree.map(lambda w: 1.5 * w if eqx.is_inexact_array(w) else w, network)
    np.testing.assert_allclose(relative_change(network, double), np.full(8, 0.5), rtol=1e-12)
