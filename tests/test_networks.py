"""Networks against plain loops over layers."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import ACTIVATIONS, Reference, batch

import mupc

PARAMETERISATIONS = [mupc.standard(), mupc.ntk(), mupc.mupc(gamma=2.0)]
CASES = list(itertools.product(PARAMETERISATIONS, [True, False], [True, False], ["relu", "tanh"]))


def build(parameterisation=None, skips=True, biases=False, activation="relu", depth=4, seed=0):
    network = mupc.residual_mlp(
        6,
        3,
        width=5,
        depth=depth,
        activation=ACTIVATIONS[activation][0],
        skips=skips,
        biases=biases,
        parameterisation=parameterisation,
        key=jax.random.key(seed),
    )
    if not biases:
        return network
    # Zero biases would hide a mistake: draw them.
    where = lambda n: (n.stages[0].entry.biases, n.stages[0].blocks.biases, n.readout.biases)
    keys = jax.random.split(jax.random.key(seed + 1), 3)
    drawn = tuple(jax.random.normal(k, b.shape) for k, b in zip(keys, where(network), strict=True))
    return eqx.tree_at(where, network, drawn)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("parameterisation", "skips", "biases", "activation"), CASES)
def test_stacked_network_equals_a_loop_over_layers(parameterisation, skips, biases, activation):
    network = build(parameterisation, skips, biases, activation)
    plain = Reference(network, activation, skips)
    x, _ = batch(6, 3)
    z = np.random.default_rng(1).normal(size=(4, 5, 5))
    seen = network.feedforward(x)
    with_errors = network.feedforward(x, (z,))
    (predictions,), output = network.predictions(x, (z,))
    below = [x, *z]
    np.testing.assert_allclose(seen.activities[0], plain.feedforward(x)[0], atol=1e-12)
    np.testing.assert_allclose(seen.output, plain.feedforward(x)[1], atol=1e-12)
    np.testing.assert_allclose(with_errors.activities[0], plain.feedforward(x, z)[0], atol=1e-12)
    for i in range(4):
        np.testing.assert_allclose(predictions[i], plain.layer(i, below[i]), atol=1e-12)
    np.testing.assert_allclose(output, plain.layer(4, z[-1]), atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [build, lambda: build(depth=1), lambda: two_stages()[0]])
def test_pushforward_and_pullback_are_the_derivatives_of_the_pass_with_errors(make):
    """Linearised at known activities, against autodiff through the feedforward pass."""
    network = make()
    x, y = batch(6, 3)
    generator = np.random.default_rng(1)
    drawn = lambda: jax.tree.map(
        lambda z: jnp.asarray(generator.normal(size=z.shape)), network.feedforward(x).activities
    )
    errors, changes, gradients = drawn(), drawn(), drawn()
    z = network.feedforward(x, errors).activities
    plain = lambda name, *args: getattr(mupc.networks.Network, name)(network, x, z, *args)
    np.testing.assert_allclose(
        network.pushforward(x, z, changes), plain("pushforward", changes), atol=1e-12
    )
    for given in (None, gradients):
        fast, slow = network.pullback(x, z, y, given), plain("pullback", y, given)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), fast, slow)
    # And the two are each other's transpose.
    down = network.pullback(x, z, y)
    inner = sum(jnp.sum(a * b) for a, b in zip(down, changes, strict=True))
    np.testing.assert_allclose(jnp.sum(network.pushforward(x, z, changes) * y), inner, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_depth_one_is_entry_and_readout_alone():
    network = build(depth=1)
    x, _ = batch(6, 3)
    z = network.stages[0].entry.scale.multiplier * x @ network.stages[0].entry.weights.T
    expected = network.readout.scale.multiplier * np.maximum(z, 0) @ network.readout.weights.T
    np.testing.assert_allclose(network.feedforward(x).output, expected, atol=1e-12)
    assert network.depth == 1


class Bottleneck(eqx.Module):
    """A user's block: two matrices, and a skip of its own."""

    down: eqx.nn.Linear
    up: eqx.nn.Linear

    def __init__(self, width, key):
        keys = jax.random.split(key)
        self.down = eqx.nn.Linear(width, 2, use_bias=True, key=keys[0])
        self.up = eqx.nn.Linear(2, width, use_bias=False, key=keys[1])

    def __call__(self, z):
        return z + self.up(jnp.tanh(self.down(z)))


def two_stages():
    """Give a chain whose stages differ in width, and a plain loop over the same layers."""
    scale = mupc.Scale(role="hidden", multiplier=0.5)

    def stage(inputs, width, blocks, key):
        entry = mupc.Scaled(eqx.nn.Linear(inputs, width, key=key), scale, linear=True)
        make = lambda key: mupc.Scaled(Bottleneck(width, key), scale)
        return mupc.Stage(entry, eqx.filter_vmap(make)(jax.random.split(key, blocks)))

    keys = jax.random.split(jax.random.key(0), 3)
    readout = mupc.Scaled(eqx.nn.Linear(4, 3, key=keys[2]), mupc.Scale(role="readout"))
    network = mupc.Chain((stage(6, 5, 2, keys[0]), stage(5, 4, 3, keys[1])), readout)

    def loop(x):
        z = x
        for index, (inputs, width, blocks) in enumerate([(6, 5, 2), (5, 4, 3)]):
            entry = eqx.nn.Linear(inputs, width, key=keys[index])
            z = 0.5 * entry.weight @ z + entry.bias
            for key in jax.random.split(keys[index], blocks):
                block = Bottleneck(width, key)
                inner = jnp.tanh(0.5 * block.down.weight @ z + block.down.bias)
                z = z + 0.5 * block.up.weight @ inner
        return eqx.nn.Linear(4, 3, key=keys[2])(z)

    return network, loop


@pytest.mark.usefixtures("float64")
def test_chain_of_two_stages_of_a_users_own_blocks():
    """Stages differ in width; only matrices are multiplied, biases are not."""
    network, loop = two_stages()
    x, y = batch(6, 3)
    seen = network.feedforward(x)
    np.testing.assert_allclose(seen.output, np.stack([loop(v) for v in x]), atol=1e-12)
    assert [z.shape for z in seen.activities] == [(3, 5, 5), (4, 5, 4)]
    assert network.depth == 7
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian())
    np.testing.assert_allclose(energy.layers(seen.activities)[:-1], 0, atol=1e-28)


def test_linear_is_asked_of_every_layer():
    linear = mupc.residual_mlp(
        2, 2, width=3, depth=3, activation=mupc.identity, key=jax.random.key(0)
    )
    assert linear.linear
    assert not build().linear


@pytest.mark.parametrize("size", ["inputs", "outputs", "width", "depth"])
def test_impossible_sizes_are_named(size):
    sizes = {"inputs": 2, "outputs": 2, "width": 2, "depth": 2, size: 0}
    with pytest.raises(ValueError, match=f"{size} must be at least 1, not 0"):
        mupc.residual_mlp(**sizes, key=jax.random.key(0))


def test_an_activation_must_be_a_function():
    with pytest.raises(ValueError, match=r"a function such as jax.nn.relu, not 'relu'"):
        mupc.residual_mlp(2, 2, width=2, depth=2, activation="relu", key=jax.random.key(0))


def test_input_of_the_wrong_width_is_named():
    with pytest.raises(ValueError, match=r"input layer takes an input of shape \(6,\).*not \(7,\)"):
        build().feedforward(jnp.zeros((2, 7)))
