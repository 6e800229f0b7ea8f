"""The benchmark's convolutional networks: their formula, and the sizes that are published."""

import jax
import numpy as np
import pytest
from reference import convolution
from test_transformer import gelu

import mupc
from mupc.networks.vgg import Layer, read_layers


def halves(z, take):
    """The largest, or the mean, of 2 × 2 pixels, one window after the other."""
    n, height, width, channels = z.shape
    found = np.zeros((n, height // 2, width // 2, channels))
    for i in range(height // 2):
        for j in range(width // 2):
            found[:, i, j] = take(z[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2], (1, 2))
    return found


@pytest.mark.parametrize(("pool", "take"), [("max", np.max), ("average", np.mean)])
def test_it_is_its_formula(pool, take, float64):
    """An odd row is left out by pooling; v takes no padding."""
    net = mupc.vgg((11, 10, 3), 5, layers="4p 6v 5", pool=pool, key=jax.random.key(0))
    x = np.asarray(jax.random.normal(jax.random.key(1), (2, 11, 10, 3)))
    kernels = [np.asarray(stage.entry.kernel) for stage in net.stages]
    z = halves(gelu(convolution(x, kernels[0]) / np.sqrt(27)), take)
    z = gelu(convolution(z, kernels[1], padding=((0, 0), (0, 0))) / np.sqrt(36))
    z = gelu(convolution(z, kernels[2]) / np.sqrt(54))
    assert z.shape == (2, 3, 3, 5)
    output = z.reshape(2, -1) @ np.asarray(net.readout.weights).T / 45
    seen = net.feedforward(x)
    assert net.depth == 3
    np.testing.assert_allclose(seen.output, output, rtol=1e-10)
    np.testing.assert_allclose(seen.activities[-1][0], z, rtol=1e-10)


@pytest.mark.parametrize(("name", "flat"), [("vgg5", 2048), ("vgg7", 512), ("vgg9", 2048)])
def test_the_readout_takes_as_many_numbers_as_the_benchmarks(name, flat):
    """At 32 × 32 pixels: linear 2048 → K in VGG5, 512 → K in VGG7."""
    kind = jax.eval_shape(lambda: mupc.vgg((32, 32, 3), 10, layers=name, key=jax.random.key(0)))
    assert kind.readout.weights.shape == (10, flat)


def test_layers_are_read():
    assert read_layers("128p 256v 3pv") == [
        Layer(128, True, True),
        Layer(256, False, False),
        Layer(3, True, False),
    ]
    assert [layer.channels for layer in read_layers("vgg9")] == [128, 128, 256, 256] + [512] * 4
    for wrong in ("128x", "0p", ""):
        with pytest.raises(ValueError, match="layer"):
            read_layers(wrong)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="nothing is left after 4"):
        mupc.vgg((8, 8, 3), 10, key=jax.random.key(0))
