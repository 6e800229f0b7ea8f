"""Networks from Equinox modules and from matrices: they compute what those computed."""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_training import toy

import mupc

KEYS = jax.random.split(jax.random.key(1), 6)
X = jax.random.normal(KEYS[5], (7, 4))


def linear(inputs, outputs, i):
    return eqx.nn.Linear(inputs, outputs, key=KEYS[i])


class Residual(eqx.Module):
    inner: eqx.nn.Linear

    def __call__(self, z):
        return z + jnp.tanh(self.inner(z))


def through(layers, x):
    for layer in layers:
        x = layer(x)
    return x


def test_modules_and_functions_between_them_become_layers():
    layers = [linear(4, 8, 0), jax.nn.relu, linear(8, 8, 1), jax.nn.relu, linear(8, 8, 2)]
    layers += [Residual(linear(8, 8, 3)), jax.nn.gelu, linear(8, 3, 4), jax.nn.softmax]
    chain = mupc.chain_from_modules(layers, X[0])
    assert [stage.depth for stage in chain.stages] == [3, 1]  # one kind is one stack
    assert chain.depth == 4
    assert not chain.linear
    run = chain.feedforward(X)
    np.testing.assert_allclose(run.output, jax.vmap(lambda x: through(layers, x))(X), rtol=1e-5)
    z = chain.in_order(run.activities)
    for i, count in enumerate((1, 3, 5, 6)):
        wanted = jax.vmap(lambda x, count=count: through(layers[:count], x))(X)
        np.testing.assert_allclose(z[i], wanted, rtol=1e-5)


def test_shapes_that_change_begin_a_new_stage():
    conv = [eqx.nn.Conv2d(2, 2, 3, stride=2, padding=1, key=key) for key in KEYS[:3]]
    layers = [*conv, jnp.ravel, linear(8, 3, 3)]
    chain = mupc.chain_from_modules(layers, jnp.zeros((2, 16, 16)))
    assert [stage.depth for stage in chain.stages] == [1, 1, 1]
    x = jax.random.normal(KEYS[4], (5, 2, 16, 16))
    wanted = jax.vmap(lambda x: through(layers, x))(x)
    np.testing.assert_allclose(chain.feedforward(x).output, wanted, rtol=1e-5)


def test_a_deep_linear_network_of_modules_is_known_to_be_linear():
    layers = [linear(4, 8, 0), linear(8, 8, 1), linear(8, 3, 2)]
    assert mupc.chain_from_modules(layers, X[0]).linear


def halved(module):
    """A block of a module whose matrix is multiplied by one half."""
    scales = (mupc.Scale("hidden", multiplier=0.5), mupc.Scale("hidden", "bias"))
    return mupc.Scaled(module, scales)


def test_blocks_are_taken_as_they_are():
    block = halved(linear(8, 8, 1))
    chain = mupc.chain_from_modules([linear(4, 8, 0), block, linear(8, 3, 2)], X[0])
    assert chain.stages[0].blocks[0].scales == block.scales
    layers = [linear(4, 8, 0), block, linear(8, 3, 2)]
    wanted = jax.vmap(lambda x: through(layers, x))(X)
    np.testing.assert_allclose(chain.feedforward(X).output, wanted, rtol=1e-5)


def test_no_function_is_put_with_a_block_whose_scale_it_would_hide():
    block = halved(linear(8, 8, 1))
    with pytest.raises(ValueError, match=r"layers\[1:3\] \(tanh, Scaled\) holds a block, which"):
        mupc.chain_from_modules([linear(4, 8, 0), jnp.tanh, block, linear(8, 3, 2)], X[0])


def test_a_chain_of_modules_trains():
    data = toy()
    width, classes = data.inputs, data.outputs
    layers = [linear(width, 16, 0), jnp.tanh, linear(16, 16, 1), jnp.tanh, linear(16, 12, 2)]
    layers += [jnp.tanh, linear(12, classes, 3)]
    chain = mupc.chain_from_modules(layers, data.train.x[0])
    assert [stage.depth for stage in chain.stages] == [2, 1]
    rule, optimiser = mupc.PredictiveCoding(likelihood=mupc.Gaussian()), optax.adam(0.01)
    options = {"steps": 60, "batch_size": 8, "report_every": 30, "key": jax.random.key(0)}
    result = mupc.fit(chain, data, rule, optimiser, **options)
    before, after = (mupc.evaluate(net, data.test).accuracy for net in (chain, result.network))
    assert after > max(before, 0.8)


@pytest.mark.parametrize("biases", [True, False])
def test_the_matrices_of_an_mlp_give_its_output(biases):
    """The reference is a forward pass in NumPy, as PyTorch's Linear defines it."""
    generator = np.random.default_rng(0)
    shapes = [(8, 4), (8, 8), (8, 8), (6, 8), (3, 6)]
    weights = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    vectors = [generator.normal(size=shape[0]).astype(np.float32) for shape in shapes]
    chain = mupc.chain_from_mlp(weights, vectors if biases else None, activation=jnp.tanh)
    assert [stage.depth for stage in chain.stages] == [3, 1]
    z = np.asarray(X, np.float64)
    for i, (matrix, bias) in enumerate(zip(weights, vectors, strict=True)):
        z = (np.tanh(z) if i else z) @ matrix.T + (bias if biases else 0)
    np.testing.assert_allclose(chain.feedforward(X).output, z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("middle", "example", "sentence"),
    [
        ([3], X[0], r"layers\[1\] must be a function, or a module to call, not int"),
        ([eqx.nn.Dropout()], X[0], r"layers\[1:3\] \(Dropout, Linear\) cannot .*requires a key"),
        ([jnp.tanh, jnp.sum], X[0], r"layers\[1:4\] \(tanh, sum, Linear\) cannot take one input"),
        ([jnp.tanh], X, r"layers\[0\] \(Linear\) cannot take one input of shape \(7, 4\): "),
        ([lambda z: {}["key"]], X[0], r"layers\[1:3\] \(<lambda>, Linear\) cannot .*\(8,\): 'key'"),
        ([linear(8, 8, 1), lambda z: 1 / 0], X[0], "cannot take one .*: division by zero"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_modules_that_do_not_fit_are_named_by_their_place(middle, example, sentence):
    with pytest.raises(ValueError, match=sentence):
        mupc.chain_from_modules([linear(4, 8, 0), *middle, linear(8, 3, 2)], example)


@pytest.mark.usefixtures("unchecked")
def test_layers_are_a_list():
    with pytest.raises(ValueError, match=r"layers must be a list of modules .*, not MLP"):
        mupc.chain_from_modules(eqx.nn.MLP(4, 3, 8, 2, key=KEYS[0]), X[0])


@pytest.mark.parametrize("wrong", [np.nan, 1j, "a"])
def test_matrices_hold_finite_real_numbers(wrong):
    with pytest.raises(ValueError, match="biases 2 must hold finite real numbers"):
        mupc.chain_from_mlp([np.ones((3, 4)), np.ones((2, 3))], [None, np.array([wrong, wrong])])


@pytest.mark.usefixtures("unchecked")
def test_an_activation_is_a_function():
    with pytest.raises(ValueError, match="activation must be a function such as"):
        mupc.chain_from_mlp([np.ones((3, 4)), np.ones((2, 3))], activation="relu")


@pytest.mark.parametrize(
    ("weights", "biases", "sentence"),
    [
        ([], None, "needs two weights or more, the readout's last, not 0"),
        ([np.ones((3, 4))], None, "the readout's last, not 1"),
        ([np.ones((3, 4)), np.ones(3)], None, r"weights 2 must be a matrix \(out, in\), not of sh"),
        ([np.ones((3, 4)), np.ones((2, 3))], [None], "there are 2 weights and 1 biases"),
        ([np.ones((3, 4)), np.ones((2, 3))], [None, np.ones(3)], r"biases 2 must be of shape \(2,"),
        (
            [np.ones((3, 4)), np.ones((2, 4))],
            None,
            "weights 2 must have 3 columns, one for each row of",
        ),
    ],
)
def test_matrices_that_do_not_fit_are_refused(weights, biases, sentence):
    with pytest.raises(ValueError, match=sentence):
        mupc.chain_from_mlp(weights, biases)


def test_a_chain_of_modules_may_read_tokens():
    class Table(eqx.Module):
        table: eqx.nn.Embedding

        def __call__(self, tokens):
            return jnp.mean(jax.vmap(self.table)(tokens), axis=0)

    keys = jax.random.split(jax.random.key(0))
    layers = [
        Table(eqx.nn.Embedding(7, 4, key=keys[0])),
        jax.nn.relu,
        eqx.nn.Linear(4, 3, key=keys[1]),
    ]
    network = mupc.chain_from_modules(layers, jnp.zeros(5, int))
    tokens = jnp.array([[0, 1, 2, 3, 6], [5, 5, 4, 0, 0]])
    by_hand = jax.vmap(lambda x: layers[2](jax.nn.relu(layers[0](x))))(tokens)
    np.testing.assert_allclose(network.feedforward(tokens).output, by_hand, rtol=1e-6)


@pytest.mark.parametrize("activation", [jax.nn.relu, jnp.tanh, jax.nn.gelu, mupc.identity])
def test_networks_can_be_pickled(activation):
    network = mupc.residual_mlp(
        4, 3, width=5, depth=3, activation=activation, key=jax.random.key(0)
    )
    assert eqx.tree_equal(pickle.loads(pickle.dumps(network)), network)
    with pytest.raises(pickle.PicklingError, match="can be pickled if JAX has it"):
        pickle.dumps(jax.jit(lambda z: z))
