"""Outputs with axes of positions before the last one, and inputs of any shape and of tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mupc
from mupc.data import Dataset, Split
from mupc.learning import sensitivity

pytestmark = pytest.mark.usefixtures("float64")

POSITIONS, CLASSES, WIDTH = 5, 7, 6


class Spread(eqx.Module):
    """A matrix from one vector to outputs (positions, classes)."""

    weight: jax.Array

    def __call__(self, z):
        return (self.weight @ z).reshape(POSITIONS, CLASSES)


def network(depth=3, activation=mupc.identity, key=0):
    chain = mupc.residual_mlp(
        4, 3, width=WIDTH, depth=depth, activation=activation, key=jax.random.key(key)
    )
    weight = jax.random.normal(jax.random.key(key + 1), (POSITIONS * CLASSES, WIDTH)) / WIDTH**0.5
    readout = mupc.Scaled.keep(Spread(weight), "readout", linear=True)
    return eqx.tree_at(lambda n: n.readout, chain, readout)


def targets(size=4):
    labels = jax.random.randint(jax.random.key(3), (size, POSITIONS), 0, CLASSES)
    return jax.random.normal(jax.random.key(2), (size, 4)), jax.nn.one_hot(labels, CLASSES)


@pytest.mark.few(2)
@pytest.mark.parametrize("likelihood", [mupc.Gaussian(), mupc.Bernoulli(), mupc.Categorical()])
@pytest.mark.parametrize("shape", [(CLASSES,), (POSITIONS, CLASSES), (2, 3, CLASSES)])
def test_the_root_is_one_of_the_hessian_at_any_number_of_positions(likelihood, shape):
    output = 2 * jax.random.normal(jax.random.key(0), shape)
    y = jax.nn.softmax(jax.random.normal(jax.random.key(1), shape))
    size = output.size
    loss = lambda flat: likelihood.loss(y, flat.reshape(shape))
    hessian = jax.hessian(loss)(output.ravel())
    B = jnp.stack(
        [likelihood.root(output, unit.reshape(shape)).ravel() for unit in jnp.eye(size)], axis=1
    )
    np.testing.assert_allclose(B @ B.T, hessian, atol=1e-10)
    residual = likelihood.pearson_residual(y, output).ravel()
    np.testing.assert_allclose(B @ residual, jax.grad(loss)(output.ravel()), atol=1e-10)


def test_gauss_newton_meets_a_dense_solve():
    """A linear chain with outputs (5, 7): z* of F written out as one system per sample."""
    chain, (x, y) = network(), targets()
    energy = mupc.FreeEnergy(chain, x, y, mupc.Gaussian(0.8))
    start = energy.run()
    flat = lambda v: energy.samples(energy.at(chain.in_banks(v.reshape(3, 4, WIDTH))))
    z0 = chain.in_order(start.activities)
    solver = mupc.GaussNewton(POSITIONS * CLASSES)
    end = mupc.infer(energy, solver, start, max_steps=1)
    for i in range(4):
        one = energy.of_sample(i)
        total = lambda v, one=one: one.samples(one.at(chain.in_banks(v.reshape(3, 1, WIDTH))))[0]
        v = z0[:, i].ravel()
        expected = v - jnp.linalg.solve(jax.hessian(total)(v), jax.grad(total)(v))
        np.testing.assert_allclose(
            chain.in_order(end.point.activities)[:, i].ravel(), expected, atol=1e-8
        )
    assert flat(z0).shape == (4,)


@pytest.mark.parametrize("likelihood", [mupc.Gaussian(0.5), mupc.Categorical(0.5)])
def test_the_regime_number_is_the_formula_with_the_whole_jacobian(likelihood):
    chain, (x, y) = network(activation=jnp.tanh), targets()
    energy = mupc.FreeEnergy(chain, x, y, likelihood)
    seen = mupc.theory.regime_number(energy)
    for i in range(4):
        one = energy.of_sample(i)
        zeros = one.run().errors
        J = jax.jacobian(lambda e, one=one: one.network.feedforward(one.x, e).output[0])(zeros)
        J = np.concatenate([np.asarray(j).reshape(POSITIONS * CLASSES, -1) for j in J], axis=1)
        output = one.network.feedforward(one.x).output[0]
        p = jax.nn.softmax(output) if isinstance(likelihood, mupc.Categorical) else output
        g = np.asarray(p - y[i]).ravel()
        expected = 0.5 * np.sum((J.T @ g) ** 2) / np.sum(g**2)
        np.testing.assert_allclose(seen[i], expected, rtol=1e-10)


def test_a_sample_with_nothing_to_learn_has_no_regime_number():
    chain, (x, y) = network(), targets()
    y = y.at[1].set(chain.feedforward(x).output[1])
    energy = mupc.FreeEnergy(chain, x, y, mupc.Gaussian())
    each = sensitivity(energy, energy.run()).each
    assert each[1] == 0
    assert np.all(each[jnp.array([0, 2, 3])] > 0)


def test_accuracy_is_of_positions_and_exactly_one_for_a_perfect_predictor():
    chain, (x, _) = network(), targets(6)
    output = chain.feedforward(x).output
    best = jax.nn.one_hot(jnp.argmax(output, axis=-1), CLASSES)
    seen = mupc.evaluate(chain, Split(np.asarray(x), np.asarray(best)))
    assert seen.accuracy == 1.0
    half = best.at[:3, 0].set(jnp.roll(best[:3, 0], 1, axis=-1))
    seen = mupc.evaluate(chain, Split(np.asarray(x), np.asarray(half)))
    assert seen.accuracy == pytest.approx(1 - 3 / (6 * POSITIONS))
    plain = 0.5 * np.sum((np.asarray(output) - np.asarray(best)) ** 2) / 6 / POSITIONS
    assert mupc.evaluate(chain, Split(np.asarray(x), np.asarray(best))).loss == pytest.approx(plain)


def test_a_result_is_evaluated_by_its_own_likelihood_unless_another_is_asked_for():
    chain, (x, y) = network(activation=jnp.tanh), targets(8)
    split = Split(np.asarray(x, np.float32), np.asarray(y, np.float32))
    data = Dataset("positions", split, None, split, "none")
    rule = mupc.PredictiveCoding(rho=0.05, likelihood=mupc.Categorical())
    result = mupc.fit(
        chain, data, rule, optax.adam(0.01), steps=3, batch_size=4, key=jax.random.key(0)
    )
    output = result.network.feedforward(jnp.asarray(split.x, float)).output
    cross = -np.sum(np.asarray(y) * np.asarray(jax.nn.log_softmax(output))) / 8 / POSITIONS
    squared = 0.5 * np.sum((np.asarray(y) - np.asarray(output)) ** 2) / 8 / POSITIONS
    own = mupc.evaluate(result, split)
    assert own.loss == pytest.approx(cross, rel=1e-6)
    assert own.perplexity == pytest.approx(np.exp(cross), rel=1e-6)
    logged = [record for record in result.records if record.kind == "train"]
    assert logged[-1].perplexity == pytest.approx(np.exp(logged[-1].loss), rel=1e-6)
    other = mupc.evaluate(result, split, likelihood=mupc.Gaussian())
    assert other.loss == pytest.approx(squared, rel=1e-6)
    assert other.perplexity is None
    assert mupc.evaluate(result.network, split).loss == pytest.approx(squared, rel=1e-6)


def test_a_residual_mlp_takes_rows_and_says_how_images_become_such():
    chain = mupc.residual_mlp(12, 3, width=5, depth=2, key=jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (4, 2, 3, 2))
    assert chain.feedforward(images.reshape(4, 12)).output.shape == (4, 3)
    words = r"the input layer takes an input of shape \(12,\) per sample, not \(2, 3, 2\)"
    with pytest.raises(ValueError, match=rf"{words}: give it rows, as data\.flattened\(\) makes"):
        chain.feedforward(images)
    with pytest.raises(ValueError, match=r"of shape \(12,\) per sample, not \(3, 2\)(?!:)"):
        chain.feedforward(images[:, 0])
