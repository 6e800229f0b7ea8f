"""A network of several kinds of layers: convolutions, then attention, then a readout.

A chain is a row of stages. Each has an entry, which may change the shape of the activities, and
repetitions of a block, or of a pattern of blocks, which may not. Every layer has an activity of its
own, whatever it computes, and all of them learn.

Here images of digits go through a convolutional stem and three residual convolutions. The entry of
the second stage is a module of one's own: it makes a sequence of 16 positions of the pixels. Two
pairs of attention and perceptron follow, and a readout of the mean over positions.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Float, PRNGKeyArray

import mupc
from mupc.networks import AttentionBranch, Block, Convolution, NormedDense, PerceptronBranch

CHANNELS, WIDTH, SIDE = 8, 32, 2
BLOCKS, PAIRS = 3, 2


class Patches(eqx.Module):
    """Makes a row of positions of an image: a linear map of every patch of 2 × 2 pixels."""

    linear: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        self.linear = eqx.nn.Linear(SIDE * SIDE * CHANNELS, WIDTH, use_bias=False, key=key)

    def __call__(self, z: Float[Array, "height width channels"]) -> Float[Array, "positions width"]:
        """Map one example's activity."""
        height, width, channels = z.shape
        z = z.reshape(height // SIDE, SIDE, width // SIDE, SIDE, channels)
        return jax.vmap(self.linear)(z.transpose(0, 2, 1, 3, 4).reshape(-1, SIDE**2 * channels))


def build(outputs: int, key: PRNGKeyArray) -> mupc.Chain:
    """Build two stages and a readout."""
    stem_key, conv_key, patch_key, attention_key, perceptron_key, readout_key = jax.random.split(
        key, 6
    )
    laws = mupc.mupc()
    # All branches together: the depth multiplier of each depends on how many there are.
    branches = BLOCKS + 2 * PAIRS
    images, rows = mupc.Shape(CHANNELS, branches), mupc.Shape(WIDTH, branches)

    stem = Convolution.initialise((1, CHANNELS), "input", mupc.identity, laws, images, key=stem_key)

    def convolution(key: PRNGKeyArray) -> Convolution:
        channels = (CHANNELS, CHANNELS)
        return Convolution.initialise(
            channels, "hidden", jax.nn.relu, laws, images, skip=True, key=key
        )

    def attention(key: PRNGKeyArray) -> AttentionBranch:
        return AttentionBranch.initialise(2, laws, rows, key, causal=False)

    def perceptron(key: PRNGKeyArray) -> PerceptronBranch:
        return PerceptronBranch.initialise(laws, rows, key)

    # One call builds all blocks of a kind, stacked: depth is an array axis, not a list.
    def stacked(make: Callable[[PRNGKeyArray], Block], key: PRNGKeyArray, count: int) -> Block:
        return eqx.filter_vmap(make)(jax.random.split(key, count))

    patches = mupc.Scaled.initialise(
        Patches(patch_key), "hidden", laws, shape=rows, skip=False, key=patch_key
    )
    pattern = stacked(attention, attention_key, PAIRS), stacked(perceptron, perceptron_key, PAIRS)
    readout = NormedDense.initialise((outputs, WIDTH), laws, rows, readout_key, pooled=True)
    return mupc.Chain(
        (
            mupc.Stage(stem, stacked(convolution, conv_key, BLOCKS)),
            mupc.Stage(patches, pattern),
        ),
        readout,
    )


def main() -> float:
    """Train on the digits; return the test accuracy."""
    data = mupc.data.load("digits")
    network = build(data.outputs, jax.random.key(0))
    optimiser = optax.chain(optax.adam(0.02, eps=1e-12), mupc.scale_uniform(network))
    rule = mupc.PredictiveCoding()
    result = mupc.fit(network, data, rule, optimiser, epochs=5, key=jax.random.key(1))
    assert data.test is not None
    accuracy = mupc.evaluate(result, data.test).accuracy
    assert accuracy is not None
    print(f"{network.structure}: test accuracy {100 * accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    main()
