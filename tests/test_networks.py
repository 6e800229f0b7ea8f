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


def test_reprs_have_the_values_of_numbers_and_the_shapes_of_arrays():
    assert repr(mupc.Gaussian(precision=0.1)) == "Gaussian(precision=0.1)"
    rule = repr(mupc.PredictiveCoding(rho=0.2))
    assert "rho=0.2" in rule
    assert "max_steps=1" in rule
    assert jax.jit(lambda p: len(repr(mupc.Gaussian(p))))(0.1) == len("Gaussian(precision=f32[])")

    class Drawn(mupc.Stopping):
        key: jax.Array
        number: jax.Array
        tolerance = stalled = None

    number = jnp.ones(())
    drawn = Drawn(jax.random.key(0), number)
    number.delete()
    assert "key=key<" in repr(drawn)
    assert "number=f32[]" in repr(drawn)
    network = build()
    energy = mupc.FreeEnergy(network, *batch(6, 3), mupc.Gaussian())
    assert len(repr(energy.run())) < 200
    assert {"fit", "FreeEnergy", "load_network"} <= set(dir(mupc))
    assert not {"Any", "importlib"} & set(dir(mupc))


def test_sizes_are_whole_numbers(unchecked):
    with pytest.raises(TypeError, match=r"depth must be a whole number; got 2\.5"):
        build(depth=2.5)
    with pytest.raises(TypeError, match=r"blocks must be a whole number; got 3\.5"):
        mupc.conv_resnet((8, 8, 1), 2, blocks=(2, 3.5), channels=2, key=jax.random.key(0))


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
    return with_random_biases(network, jax.random.key(seed + 1))


def with_random_biases(network, key):
    """An MLP whose biases are drawn: zero ones would hide a mistake."""
    blocks = range(len(network.stages[0].blocks))
    layers = lambda n: (n.stages[0].entry, *(n.stages[0].blocks[i] for i in blocks), n.readout)
    where = lambda n: tuple(layer.biases for layer in layers(n))
    keys = jax.random.split(key, len(where(network)))
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
    with_errors = network.feedforward(x, network.in_banks(z))
    predictions, output = network.predictions(x, network.in_banks(z))
    predictions, joined = network.in_order(predictions), network.in_order(seen.activities)
    below = [x, *z]
    np.testing.assert_allclose(joined, plain.feedforward(x)[0], atol=1e-12)
    np.testing.assert_allclose(seen.output, plain.feedforward(x)[1], atol=1e-12)
    joined = network.in_order(with_errors.activities)
    np.testing.assert_allclose(joined, plain.feedforward(x, z)[0], atol=1e-12)
    for i in range(4):
        np.testing.assert_allclose(predictions[i], plain.layer(i, below[i]), atol=1e-12)
    np.testing.assert_allclose(output, plain.layer(4, z[-1]), atol=1e-12)


def drawn_like(network, x, seed=1):
    """Random activities of a network."""
    generator = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.feedforward, x).activities
    return tuple(jnp.asarray(generator.normal(size=z.shape)) for z in shapes)


MAKERS = {
    "an MLP": lambda: build(biases=True),
    "depth one": lambda: build(depth=1, biases=True),
    "two stages": lambda: two_stages()[0],
    "a pattern": lambda: patterned()[0],
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_pushforward_and_pullback_are_the_derivatives_of_the_pass_with_errors(make):
    """Linearised at known activities, against autodiff through the feedforward pass."""
    network = make()
    x, y = batch(6, 3)
    errors, changes, gradients = (drawn_like(network, x, seed) for seed in (1, 2, 3))
    z = network.feedforward(x, errors).activities
    # Both ways in one program, which compiles faster than its parts.
    both = lambda name: eqx.filter_jit(
        lambda *args: [getattr(kind, name)(network, x, z, *args) for kind in (type(network), base)]
    )
    base = mupc.networks.Network
    push, pull = both("pushforward"), both("pullback")
    ahead, slow = push(changes)
    np.testing.assert_allclose(ahead, slow, atol=1e-12)
    for given in (gradients, None):
        down, slow = pull(y, given)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), down, slow)
    # And the two are each other's transpose.
    inner = sum(jnp.sum(a * b) for a, b in zip(down, changes, strict=True))
    np.testing.assert_allclose(jnp.sum(ahead * y), inner, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_depth_one_is_entry_and_readout_alone():
    network = build(depth=1)
    x, _ = batch(6, 3)
    z = network.stages[0].entry.multiplier * x @ network.stages[0].entry.weights.T
    expected = network.readout.multiplier * np.maximum(z, 0) @ network.readout.weights.T
    np.testing.assert_allclose(network.feedforward(x).output, expected, atol=1e-12)
    assert network.depth == 1


class Bottleneck(eqx.Module):
    """A user's branch: two matrices."""

    down: eqx.nn.Linear
    up: eqx.nn.Linear

    def __init__(self, width, key):
        keys = jax.random.split(key)
        self.down = eqx.nn.Linear(width, 2, use_bias=True, key=keys[0])
        self.up = eqx.nn.Linear(2, width, use_bias=False, key=keys[1])

    def __call__(self, z):
        return self.up(jnp.tanh(self.down(z)))


def scales(role, *multipliers):
    """Scales of a module's arrays: a number for a weight, None for a bias."""
    return tuple(
        mupc.Scale(role, "bias") if a is None else mupc.Scale(role, multiplier=a)
        for a in multipliers
    )


def two_stages():
    """Give a chain whose stages differ in width, and a plain loop over the same layers."""

    def stage(inputs, width, blocks, key):
        linear = eqx.nn.Linear(inputs, width, key=key)
        entry = mupc.Scaled(linear, scales("hidden", 0.5, None), affine=True)
        own = scales("hidden", 0.5, None, 0.25)
        make = lambda key: mupc.Scaled(Bottleneck(width, key), own, branch=0.7)
        return mupc.Stage(entry, eqx.filter_vmap(make)(jax.random.split(key, blocks)))

    keys = jax.random.split(jax.random.key(0), 3)
    readout = mupc.Scaled.keep(eqx.nn.Linear(4, 3, key=keys[2]), "readout")
    network = mupc.Chain((stage(6, 5, 2, keys[0]), stage(5, 4, 3, keys[1])), readout)

    def loop(x):
        z, hidden = x, []
        for index, (inputs, width, blocks) in enumerate([(6, 5, 2), (5, 4, 3)]):
            entry = eqx.nn.Linear(inputs, width, key=keys[index])
            z = 0.5 * entry.weight @ z + entry.bias
            hidden.append(z)
            for key in jax.random.split(keys[index], blocks):
                block = Bottleneck(width, key)
                inner = jnp.tanh(0.5 * block.down.weight @ z + block.down.bias)
                z = z + 0.7 * 0.25 * block.up.weight @ inner
                hidden.append(z)
        return hidden, eqx.nn.Linear(4, 3, key=keys[2])(z)

    return network, loop


def patterned():
    """Give a chain of a pattern of three places of different widths, and a plain loop over it."""
    keys = jax.random.split(jax.random.key(0), 4)
    sizes = [(5, 4), (4, 2), (2, 5)]
    linear = lambda place, key: eqx.nn.Linear(*sizes[place], key=key)
    activated = lambda place: (
        lambda key: mupc.Scaled.keep(
            eqx.nn.Sequential([eqx.nn.Lambda(jnp.tanh), linear(place, key)]), "hidden"
        )
    )
    blocks = [
        eqx.filter_vmap(activated(place))(jax.random.split(keys[place], 4)) for place in range(3)
    ]
    entry = mupc.Scaled.keep(eqx.nn.Linear(6, 5, key=keys[3]), "input", linear=True)
    readout = mupc.Scaled.keep(eqx.nn.Linear(5, 3, key=keys[3]), "readout")

    def loop(x):
        z = eqx.nn.Linear(6, 5, key=keys[3])(x)
        hidden = [z]
        for i in range(4):
            for place in range(3):
                z = linear(place, jax.random.split(keys[place], 4)[i])(jnp.tanh(z))
                hidden.append(z)
        return hidden, eqx.nn.Linear(5, 3, key=keys[3])(z)

    return mupc.Chain((mupc.Stage(entry, blocks),), readout), loop


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (two_stages, [(1, 5, 5), (2, 5, 5), (1, 5, 4), (3, 5, 4)]),
        (patterned, [(1, 5, 5), (4, 5, 4), (4, 5, 2), (4, 5, 5)]),
    ],
)
def test_chain_of_a_users_own_blocks(make, shapes):
    """Widths differ within a pattern and between stages; matrices are multiplied, biases not."""
    network, loop = make()
    x, y = batch(6, 3)
    seen = network.feedforward(x)
    wanted = [loop(v) for v in x]
    np.testing.assert_allclose(seen.output, np.stack([y for _, y in wanted]), atol=1e-12)
    assert [z.shape for z in seen.activities] == shapes
    assert network.depth == sum(shape[0] for shape in shapes)
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian())
    np.testing.assert_allclose(energy.layers(energy.at(seen.activities))[:-1], 0, atol=1e-28)
    # In order, banks are the layers of the loop; and parted again they are the banks.
    sizes = network.in_order([jnp.sum(z**2, axis=2) for z in seen.activities])
    layers = [[jnp.sum(z**2) for z in hidden] for hidden, _ in wanted]
    np.testing.assert_allclose(sizes, np.transpose(layers), rtol=1e-12)
    for bank, z in zip(network.in_banks(sizes), seen.activities, strict=True):
        np.testing.assert_allclose(bank, jnp.sum(z**2, axis=2), rtol=1e-12)


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


@pytest.mark.usefixtures("unchecked")
def test_an_activation_must_be_a_function():
    with pytest.raises(ValueError, match=r"a function such as jax.nn.relu, not 'relu'"):
        mupc.residual_mlp(2, 2, width=2, depth=2, activation="relu", key=jax.random.key(0))


def test_input_of_the_wrong_width_is_named():
    with pytest.raises(ValueError, match=r"input layer takes an input of shape \(6,\).*not \(7,\)"):
        build().feedforward(jnp.zeros((2, 7)))
