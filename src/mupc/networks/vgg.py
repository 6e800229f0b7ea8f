"""Convolutional networks without skips, as in the field's benchmark (arXiv 2407.01163)."""

import math
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray

from mupc import parameterisations
from mupc.networks.activations import Activation, identity
from mupc.networks.block import ScaledBlock
from mupc.networks.chain import Chain
from mupc.networks.convolutional import Features, Image
from mupc.networks.fast_convolution import convolve
from mupc.networks.stage import Stage
from mupc.parameterisations import Parameterisation, Role, Scale, Shape

Pool = Literal["max", "average"]

VGG = {
    "vgg5": "128p 256p 512p 512p",
    "vgg7": "128p 128 256p 256v 512p 512v",
    "vgg9": "128p 128 256p 256 512p 512 512p 512",
}
"""Layers of the benchmark's networks: channels, with p for pooling, and v for no padding."""


class Layer(NamedTuple):
    """A layer's channels, whether its output is pooled, and whether its input is padded."""

    channels: int
    pooled: bool
    padded: bool


def read_layers(text: str) -> list[Layer]:
    """Read layers such as `128p 256v`, or one of the names in `VGG`.

    Raises:
        ValueError: if a word is no layer.
    """
    layers: list[Layer] = []
    for word in VGG.get(text, text).split():
        found = re.fullmatch(r"([1-9][0-9]*)(p?)(v?)", word)
        if found is None:
            raise ValueError(
                f"a layer is its channels, with p if it is pooled and v if it is not padded, such "
                f"as 128p; not {word}. Named networks: {', '.join(VGG)}"
            )
        layers.append(Layer(int(found[1]), bool(found[2]), not found[3]))
    if not layers:
        raise ValueError("there must be at least one layer, such as 128p")
    return layers


def pooled(z: Image, how: Pool) -> Features:
    """Return the largest, or the mean, of every 2 × 2 pixels; an odd row or column is left out."""
    height, width, channels = z.shape
    cut = z[: height // 2 * 2, : width // 2 * 2]
    parts = cut.reshape(height // 2, 2, width // 2, 2, channels)
    if how == "average":
        return jnp.mean(parts, (1, 3))
    # Two by two: the derivative of a maximum over axes divides by how many numbers equal it, which
    # are none if a compiler computes them again and rounds otherwise.
    rows = jnp.maximum(parts[:, 0], parts[:, 1])
    return jnp.maximum(rows[:, :, 0], rows[:, :, 1])


class PooledConvolution(ScaledBlock):
    r"""Convolution, activation and pooling, $u = \text{pool}(\phi(a W * \psi(z) + c))$.

    ψ, of what is read, is the identity but for Hopfield networks.
    """

    kernel: Float[Array, "rows columns in out"]
    biases: Float[Array, " out"]
    scales: tuple[Scale, ...] = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)
    pool: Pool | None = eqx.field(static=True)
    padded: bool = eqx.field(static=True)
    reads: Activation = eqx.field(static=True, default=identity)

    @property
    def linear(self) -> bool:
        """Whether it is: its activations are the identity, and no largest pixel is taken."""
        return self.activation is identity is self.reads and self.pool != "max"

    @classmethod
    def initialise(
        cls,
        layer: Layer,
        inputs: int,
        role: Role,
        activation: Activation,
        pool: Pool,
        parameterisation: Parameterisation,
        shape: Shape,
        *,
        reads: Activation = identity,
        key: PRNGKeyArray,
    ) -> "PooledConvolution":
        """Draw a `layer` that reads so many channels, for a network of a `shape`."""
        scale = parameterisation.scale(role, shape, 9 * inputs)
        matrix = parameterisation.initialise(key, (layer.channels, 9 * inputs), scale.std)
        return cls(
            kernel=matrix.T.reshape(3, 3, inputs, layer.channels),
            biases=jnp.zeros(layer.channels),
            scales=(scale, parameterisation.bias_scale(role, shape)),
            activation=activation,
            pool=pool if layer.pooled else None,
            padded=layer.padded,
            reads=reads,
        )

    def __call__(self, z: Num[Array, "height width channels"]) -> Features:
        """Predict the next activity of one example."""
        x = self.reads(jnp.asarray(z, self.kernel.dtype))[None]
        u = convolve(x, self.kernel, padding="SAME" if self.padded else "VALID")[0]
        u = self.activation(self.scales[0].multiplier * u + self.biases)
        return u if self.pool is None else pooled(u, self.pool)


class FlatDense(ScaledBlock):
    r"""A fully connected layer of all pixels and channels, $u = a W \psi(z) + c$: the readout.

    ψ, of what is read, is the identity but for Hopfield networks.
    """

    weights: Float[Array, "out in"]
    biases: Float[Array, " out"]
    scales: tuple[Scale, ...] = eqx.field(static=True)
    reads: Activation = eqx.field(static=True, default=identity)

    @property
    def linear(self) -> bool:
        """Whether ψ is the identity."""
        return self.reads is identity

    @classmethod
    def initialise(
        cls,
        size: tuple[int, int],
        role: Role,
        parameterisation: Parameterisation,
        shape: Shape,
        *,
        reads: Activation = identity,
        key: PRNGKeyArray,
    ) -> "FlatDense":
        """Draw a layer of `size` (out, in) for a network of a `shape`; biases start at zero."""
        scale = parameterisation.scale(role, shape, size[1])
        return cls(
            weights=parameterisation.initialise(key, size, scale.std),
            biases=jnp.zeros(size[0]),
            scales=(scale, parameterisation.bias_scale(role, shape)),
            reads=reads,
        )

    def __call__(self, z: Num[Array, "..."]) -> Float[Array, " out"]:
        """Predict the output of one example."""
        read = self.reads(jnp.asarray(z, self.weights.dtype).ravel())
        return self.scales[0].multiplier * (self.weights @ read) + self.biases


def vgg(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    layers: str | Sequence[Layer] = "vgg5",
    activation: Activation = jax.nn.gelu,
    pool: Pool = "max",
    parameterisation: Parameterisation | None = None,
    key: PRNGKeyArray,
) -> Chain:
    """Build a network of 3 × 3 convolutions, each with activation and pooling one layer.

    Args:
        shape: of an input, (height, width, channels).
        outputs: the width of y.
        layers: `vgg5`, `vgg7` or `vgg9`, or words such as `128p 256 512p`.
        activation: φ, after the convolution.
        pool: what is taken of every 2 × 2 pixels of a pooled layer.
        parameterisation: `mupc.mupc()` unless given.
        key: draws the weights; biases start at zero.

    Raises:
        ValueError: if a layer cannot be read, or images are too small for all of them.
    """
    specified = read_layers(layers) if isinstance(layers, str) else list(layers)
    laws = parameterisation or parameterisations.mupc()
    length = len(specified) + 1
    height, width, before = shape
    *keys, readout_key = jax.random.split(key, length)
    stages: list[Stage] = []
    for i, (layer, one) in enumerate(zip(specified, keys, strict=True)):
        there, role = Shape(layer.channels, length), "hidden" if i else "input"
        draw = PooledConvolution.initialise
        stages.append(Stage(draw(layer, before, role, activation, pool, laws, there, key=one)))
        height, width = (
            (n if layer.padded else n - 2) // (2 if layer.pooled else 1) for n in (height, width)
        )
        if min(height, width) < 1:
            raise ValueError(
                f"images of {shape[0]} × {shape[1]} pixels are too small for {length - 1} layers: "
                f"nothing is left after {i + 1}"
            )
        before = layer.channels
    size = math.prod((height, width, before))
    there = Shape(before, length)
    readout = FlatDense.initialise((outputs, size), "readout", laws, there, key=readout_key)
    return Chain(tuple(stages), readout)
