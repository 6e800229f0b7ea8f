"""Convolutions and their derivatives: against loops of NumPy, and against JAX's own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import convolution

import mupc
from mupc.networks.fast_convolution import convolve

WINDOWS = [
    {},
    {"strides": (2, 2)},
    {"padding": "VALID"},
    {"strides": (2, 3), "padding": ((2, 0), (1, 3))},
    {"dilation": (2, 1), "padding": ((2, 2), (1, 1))},
    {"strides": (3, 2), "dilation": (1, 2), "padding": "VALID"},
]
KERNELS = [(3, 3), (1, 1), (2, 4)]
CASES = [*itertools.product(WINDOWS, KERNELS)]


def operands(kernel, dtype=float):
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (2, 9, 8, 3), dtype)
    return x, jax.random.normal(keys[1], (*kernel, 3, 5), dtype)


def default(x, w, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    return jax.lax.conv_general_dilated(
        x,
        w,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


FUNCTIONS = (convolve, default)


@pytest.mark.parametrize(("window", "kernel"), CASES)
def test_it_is_a_sum_over_the_window(window, kernel, float64):
    x, w = operands(kernel)
    expected = convolution(np.asarray(x), np.asarray(w), **window)
    np.testing.assert_allclose(convolve(x, w, **window), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("window", "kernel"), CASES)
def test_derivatives_of_every_order_are_those_of_jax(window, kernel, float64):
    """Reverse, forward, and forward over reverse, by both operands at once."""
    at = operands(kernel)
    tangents = tuple(jax.random.normal(jax.random.key(i), v.shape) for i, v in enumerate(at))

    def seen(function):
        run = lambda x, w: function(x, w, **window)
        loss = lambda x, w: jnp.sum(jnp.sin(run(x, w)))
        gradient = jax.grad(loss, argnums=(0, 1))
        both = lambda at, tangents: (jax.jvp(run, at, tangents), jax.jvp(gradient, at, tangents))
        return jax.jit(both)(at, tangents)  # as arguments: XLA of jax 0.6 folds constants wrongly

    ours, theirs = seen(convolve), seen(default)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def test_in_single_precision_they_agree_to_round_off():
    x, w = operands((3, 3))
    g = default(x, w)
    ours, theirs = (jax.vjp(f, x, w)[1](g) for f in (convolve, default))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 3)])
def test_a_map_over_examples_is_one_example_after_the_other(axes, float64):
    """Of the convolution, and of each of its derivatives."""
    x, w = operands((3, 3))
    many = [
        v if axis is None else jnp.stack([v, 2 * v, v**2], axis)
        for v, axis in zip((x, w), axes, strict=True)
    ]

    def seen(x, w):
        y, pull = jax.vjp(lambda x, w: convolve(x, w, (2, 1)), x, w)
        return y, pull(jnp.cos(y))

    together = jax.vmap(seen, axes)(*many)
    for i in range(3):
        one = [
            v if axis is None else jnp.take(v, i, axis) for v, axis in zip(many, axes, strict=True)
        ]
        for ours, alone in zip(jax.tree.leaves(together), jax.tree.leaves(seen(*one)), strict=True):
            np.testing.assert_allclose(ours[i], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("kernel", "sentence"),
    [
        ((3, 3, 2, 5), "fit images of shape"),
        ((3, 3), "kernels"),
        ((20, 3, 3, 5), "do not fit into"),
    ],
)
def test_kernels_that_do_not_fit_are_refused(kernel, sentence):
    with pytest.raises(ValueError, match=sentence):
        convolve(jnp.ones((1, 9, 8, 3)), jnp.ones(kernel), padding="VALID")


def test_on_a_cpu_every_convolution_is_a_forward_one():
    """No input is dilated: of such a convolution XLA has no fast kernel."""
    x, w = operands((3, 3))

    def step(x, w, function):
        return jax.vjp(lambda x, w: function(x, w, (2, 2)), x, w)[1](jnp.ones((2, 5, 4, 5)))

    ours, theirs = (jax.jit(step, static_argnums=2).lower(x, w, f).as_text() for f in FUNCTIONS)
    assert ours.count("stablehlo.convolution") == 2
    assert "lhs_dilate = [2, 2]" not in ours
    assert "lhs_dilate = [2, 2]" in theirs


# The network


def network(**more):
    given = {"blocks": (2, 1), "channels": 4, "key": jax.random.key(0)} | more
    return mupc.conv_resnet((8, 8, 3), 5, **given)


def test_a_residual_convolutional_network_is_its_formula(float64):
    """Entry, blocks, an entry of stride 2, a block, and the mean over pixels."""
    net = network(activation=jnp.tanh)
    x = np.asarray(jax.random.normal(jax.random.key(1), (3, 8, 8, 3)))
    first, second = net.stages
    length = 3 + 2 + 1

    def conv(z, kernel, fan_in, **window):
        return convolution(z, np.asarray(kernel), **window) / np.sqrt(fan_in)

    z = conv(x, first.entry.kernels[0], 27)
    for kernel in first.blocks[0].kernels[0]:
        z = z + conv(np.tanh(z), kernel, 36) / np.sqrt(length)
    z = conv(np.tanh(z), second.entry.kernels[0], 36, strides=(2, 2))
    z = z + conv(np.tanh(z), second.blocks[0].kernels[0][0], 72) / np.sqrt(length)
    output = np.tanh(z).mean((1, 2)) @ np.asarray(net.readout.weights).T / 8
    seen = net.feedforward(x)
    np.testing.assert_allclose(seen.output, output, rtol=1e-10)
    np.testing.assert_allclose(seen.activities[-1][-1], z, rtol=1e-10)


def test_branches_of_two_convolutions_are_those_of_resnet(float64):
    net = network(blocks=(1,), convolutions=2)
    x = np.asarray(jax.random.normal(jax.random.key(1), (2, 8, 8, 3)))
    (stage,) = net.stages
    relu = lambda z: np.maximum(z, 0)
    conv = lambda z, kernel: convolution(z, np.asarray(kernel))
    z = conv(x, stage.entry.kernels[0]) / np.sqrt(27)
    one, two = (np.asarray(k[0]) for k in stage.blocks[0].kernels)
    z = z + conv(relu(conv(relu(z), one) / 6), two) / 6 / np.sqrt(3)
    np.testing.assert_allclose(net.feedforward(x).activities[-1][-1], z, rtol=1e-10)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"blocks": ()}, "blocks must be at least 1"),
        ({"channels": 0}, "channels must be at least 1, not 0"),
        ({"blocks": (1,) * 5}, "too often for 8 × 8 pixels"),
    ],
)
def test_impossible_sizes_are_refused(more, sentence):
    with pytest.raises(ValueError, match=sentence):
        network(**more)
