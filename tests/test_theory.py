"""The regime number and gradient alignment, against densely computed ones."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from reference import batch
from test_inference import problem
from test_networks import drawn_like, patterned, two_stages

import mupc
from mupc.learning import first_gradients
from mupc.theory import (
    alignment,
    gradient_alignment,
    mean_regime_number,
    precision_for,
    regime_number,
    relative_change,
    sensitivity,
)

pytestmark = pytest.mark.usefixtures("float64")


def jacobian(energy, i, errors):
    """J of the output of sample i by all hidden errors, and the output, by a dense Jacobian."""
    network, x = energy.network, energy.x[i : i + 1]
    banks = lambda e: network.in_banks(e.reshape(network.depth, 1, -1))
    run = lambda e: network.feedforward(x, banks(e)).output[0]
    e = network.in_order(errors)[:, i].ravel()
    return jax.jacobian(run)(e), run(e)


@pytest.mark.few(1)
@pytest.mark.parametrize("precisions", [None, np.array([0.5, 2.0, 1.0, 4.0])])
@pytest.mark.parametrize("make", [mupc.Gaussian, mupc.Categorical])
def test_the_regime_number_of_a_sample_is_the_formula_at_any_point(make, precisions):
    energy, _ = problem(jnp.tanh)
    targets = jax.nn.softmax(3 * energy.y)  # distributions, that a categorical likelihood needs
    factors = jnp.array([1.0, 0.5, 0.1, 2.0, 1.0])
    energy = mupc.FreeEnergy(energy.network, energy.x, targets, make(0.7), (), precisions, factors)
    inverse = 1.0 if precisions is None else np.repeat(1 / precisions, 5)
    moved = energy.at(drawn_like(energy.network, energy.x))
    numbers = regime_number(energy), regime_number(energy, moved)
    for point, seen in zip((energy.run(), moved), numbers, strict=True):
        each, precision = sensitivity(energy, point).each, 0.7 * np.asarray(factors)
        for i in range(5):
            J, output = jacobian(energy, i, point.errors)
            g = jax.grad(lambda out, i=i: energy.likelihood.loss(targets[i], out))(output)
            expected = float(np.sum(inverse * (J.T @ g) ** 2) / np.sum(g**2))
            assert each[i] == pytest.approx(expected, rel=1e-10)
            assert seen[i] == pytest.approx(precision[i] * expected, rel=1e-10)


def test_the_regime_number_is_the_share_of_the_energy_that_moves_into_hidden_layers():
    """At equilibrium ½‖e‖² is ρ times ½π‖r‖², as ρ becomes small: by its meaning."""
    energy, _ = problem(jnp.tanh)
    energy = eqx.tree_at(lambda e: e.likelihood, energy, mupc.Gaussian(1e-6))
    end = mupc.infer(energy, mupc.GaussNewton(3), energy.run(), max_steps=3)
    *hidden, output = energy.layers(end.point)
    np.testing.assert_allclose(np.sum(hidden, 0) / output, regime_number(energy), rtol=1e-4)


class WithMargin(mupc.Likelihood):
    """What is right but for round-off has no gradient at all."""

    precision: jax.Array

    def terms(self, y, output):
        return 0.5 * jnp.maximum(jnp.abs(output - y) - 1e-9, 0) ** 2


def test_the_mean_is_over_what_is_learned():
    """Σ ρ_i s_i / Σ s_i with s = ‖Jᵀg‖², the gradient by the hidden errors."""
    energy, _ = problem(jnp.tanh)
    point = energy.run()
    output = energy.network.feedforward(energy.x).output
    for y in (energy.y, energy.y.at[2].set(output[2]), output):
        here = eqx.tree_at(lambda e: (e.y, e.likelihood), energy, (y, WithMargin(jnp.asarray(0.3))))
        squares = sum(np.sum(np.asarray(a) ** 2, axis=(0, 2)) for a in here.adjoint(point))
        each = np.asarray(regime_number(here))
        expected = np.sum(squares * each) / max(np.sum(squares), 1e-300)
        assert mean_regime_number(here) == pytest.approx(expected, rel=1e-10)
    assert mean_regime_number(here) == 0


def test_before_anything_is_learned_the_regime_number_is_about_that_of_any_direction():
    """π tr(JJᵀ)/O: the residual has no direction that the network prefers."""
    network = mupc.residual_mlp(16, 10, width=256, depth=8, key=jax.random.key(0))
    x, y = (jnp.asarray(v) for v in batch(16, 10, 200))
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(0.4))
    point = energy.run()
    unit = lambda k: network.pullback(x, point.activities, jnp.zeros((200, 10)).at[:, k].set(1.0))
    squares = lambda k: sum(jnp.sum(a**2, axis=(0, 2)) for a in unit(k))
    trace = 0.4 * np.mean(np.sum([jax.jit(squares)(k) for k in range(10)], axis=0)) / 10
    assert mean_regime_number(energy) == pytest.approx(float(trace), rel=0.15)


def test_the_precision_for_a_regime_gives_it():
    energy, _ = problem(jnp.tanh)
    precision = precision_for(0.3, energy)
    there = eqx.tree_at(lambda e: e.likelihood, energy, mupc.Gaussian(precision))
    assert mean_regime_number(there) == pytest.approx(0.3, rel=1e-10)


@pytest.mark.few(2)
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
    data = (energy.x, energy.y)
    exact, _ = first_gradients(rule, energy.network, data, None, jax.random.key(0))
    gaps = []
    for rho in (2e-3, 1e-3, 5e-4):
        precision = precision_for(rho, energy)
        there = eqx.tree_at(lambda e: e.likelihood, energy, mupc.Gaussian(precision))
        stopping = mupc.Tolerance(1e-11, patience=0)
        end = mupc.infer(there, mupc.GaussNewton(3), start, max_steps=50, stopping=stopping)
        learned = there.weight_gradient(end.point)
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
    # With fewer steps no error would reach the entry, whose gradient would be round-off.
    rule = mupc.PredictiveCoding(mupc.GradientDescent(0.2), 5, mupc.Gaussian(2.0))
    back = mupc.Backpropagation(mupc.Gaussian(2.0))
    a, b = (
        first_gradients(r, energy.network, (energy.x, energy.y), None, jax.random.key(0))[0]
        for r in (rule, back)
    )
    stacks = [
        [n.stages[0].entry.weights, *n.stages[0].blocks[0].weights, n.readout.weights]
        for n in (a, b)
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


def test_relative_change_is_told_in_the_order_of_layers():
    """Entry, then repetition by repetition the places of the pattern, then the readout."""
    network, _ = patterned()
    where = lambda n: n.stages[0].blocks[1].module[1].weight
    moved = eqx.tree_at(where, network, where(network).at[2].mul(1.25))
    expected = np.zeros(14)
    expected[1 + 2 * 3 + 1] = 0.25
    np.testing.assert_allclose(relative_change(network, moved), expected, rtol=1e-12)


@pytest.mark.parametrize("terms", [(), (mupc.WeightDecay(0.01),)])
def test_a_rule_near_backpropagation_is_compared_in_its_own_unit(terms):
    """π of the regime is the yardstick's too: else weight decay counts for another share of it."""
    energy, _ = problem(jnp.tanh, size=16)
    rule = mupc.PredictiveCoding(rho=1e-3, regularisers=terms)
    seen = gradient_alignment(energy.network, (energy.x, energy.y), rule)
    np.testing.assert_allclose(seen.cosine, 1, atol=1e-3)
    np.testing.assert_allclose(seen.ratio, 1, atol=0.01)


@pytest.mark.full
def test_extreme_eigenvalues_hold_with_activity_decay():
    energy, _ = problem(jnp.tanh)
    decayed = eqx.tree_at(lambda e: e.regularisers, energy, (mupc.ActivityDecay(0.3),))
    z = energy.run().activities
    seen = mupc.theory.extreme_eigenvalues(decayed, z)
    for i in range(2):
        one = decayed.of_sample(i)
        flat, shaped = ravel_pytree([bank[:, i][:, None] for bank in z])
        total = lambda v, one=one, shaped=shaped: one.samples(one.at(tuple(shaped(v))))[0]
        values = np.linalg.eigvalsh(jax.hessian(total)(flat))
        np.testing.assert_allclose([seen.smallest[i], seen.largest[i]], values[[0, -1]], rtol=1e-8)
