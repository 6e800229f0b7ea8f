"""Convolutional networks, of images (height, width, channels)."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray

from mupc import parameterisations
from mupc.kinds import check_sizes
from mupc.networks.activations import Activation, identity
from mupc.networks.block import EVERYWHERE, ScaledBlock
from mupc.networks.chain import Chain
from mupc.networks.fast_convolution import Pair, convolve
from mupc.networks.stage import Stage
from mupc.parameterisations import Parameterisation, Role, Scale, Shape

Image = Float[Array, "height width channels"]
Features = Float[Array, "rows columns features"]
"""An image of other pixels and channels: what a layer makes of one."""


class Convolution(ScaledBlock):
    r"""Convolutions one after the other, $u = s z + b\, c_n(\phi(\ldots c_1(\phi(z))))$.

    $c_i$ is a convolution with its kernel times its multiplier a, $s = 1$ if `skip` else 0, and b
    the branch multiplier of a residual layer, 1 in others. The first one takes the strides. There
    is no batch normalisation: it would make the samples of a batch depend on each other, whose
    inference is one problem each. Its place is taken by the parameterisation.

    With `error_kernels`, one for each kernel and of its shape, errors reach the layer before by
    these in place of the kernels, and without $\phi'$, so that no layer needs another's weights
    (convolutional neural generative coding, arXiv 2211.12047):

    $$\frac{\partial u}{\partial z}^\top h \text{ is replaced by } s h + b\, a E *^\top h$$

    (of one convolution), in all derivatives alike: what they give is no gradient of an energy any
    more. An error kernel has the gradient of its kernel.
    """

    kernels: tuple[Float[Array, "*layer rows columns in out"], ...]
    scales: tuple[Scale, ...] = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)
    strides: Pair = eqx.field(static=True, default=(1, 1))
    skip: bool = eqx.field(static=True, default=False)
    branch: float = eqx.field(static=True, default=1.0)
    error_kernels: tuple[Float[Array, "*layer rows columns in out"], ...] = ()

    def __check_init__(self) -> None:
        shapes = [kernel.shape for kernel in self.kernels]
        if self.error_kernels and [kernel.shape for kernel in self.error_kernels] != shapes:
            raise ValueError(f"error kernels must be of the shapes of the kernels, {shapes}")

    @property
    def linear(self) -> bool:
        """Whether the activation is the identity, and the Jacobian exact, as closed forms ask."""
        return self.activation is identity and self.exact

    @property
    def exact(self) -> bool:
        """Whether there are no error kernels."""
        return not self.error_kernels

    def with_exact_errors(self) -> "Convolution":
        """Return the layer without its error kernels."""
        scales = self.scales[: len(self.kernels)]
        return dataclasses.replace(self, error_kernels=(), scales=scales)

    def with_gradient(self, gradient: Any) -> Any:
        """Return a gradient of the layer without error kernels, which have their kernels' own."""
        learned = gradient.kernels if self.error_kernels else ()
        return dataclasses.replace(gradient, error_kernels=learned, scales=self.scales)

    @classmethod
    def initialise(
        cls,
        channels: Sequence[int],
        role: Role,
        activation: Activation,
        parameterisation: Parameterisation,
        shape: Shape,
        *,
        kernel: Pair = (3, 3),
        strides: Pair = (1, 1),
        skip: bool = False,
        error_kernels: bool = False,
        key: PRNGKeyArray,
    ) -> "Convolution":
        """Draw a layer between these numbers of channels, for a network of a `shape`."""
        drawn, scales = list[Array](), list[Scale]()
        sizes = list(itertools.pairwise(channels)) * (2 if error_kernels else 1)
        for (inputs, out), one in zip(sizes, jax.random.split(key, len(sizes)), strict=True):
            fan_in = inputs * math.prod(kernel)
            scale = parameterisation.scale(role, shape, fan_in, skip=skip)
            matrix = parameterisation.initialise(one, (out, fan_in), scale.std)
            drawn.append(matrix.T.reshape(*kernel, inputs, out))
            scales.append(scale)
        count = len(channels) - 1
        return cls(
            kernels=tuple(drawn[:count]),
            scales=tuple(scales),
            activation=activation,
            strides=strides,
            skip=skip,
            branch=parameterisation.branch_multiplier(shape.length) if skip else 1.0,
            error_kernels=tuple(drawn[count:]),
        )

    def __call__(self, z: Num[Array, "height width channels"]) -> Features:
        """Predict the next activity of one example."""
        u, count = jnp.asarray(z, self.kernels[0].dtype)[None], len(self.kernels)
        pairs = zip(self.kernels, self.multipliers[:count], strict=True)
        for i, (kernel, multiplier) in enumerate(pairs):
            strides, last = self.strides if i == 0 else (1, 1), i == count - 1
            factor = multiplier * self.branch if last else multiplier
            # Kernels are smaller than images, so it is they that are multiplied.
            back = factor * self.error_kernels[i] if self.error_kernels else None
            u = self._convolved(u, factor * kernel, back, strides)
        return z + u[0] if self.skip else u[0]

    def _convolved(self, u: Array, kernel: Array, back: Array | None, strides: Pair) -> Array:
        """Convolve φ(u), which a loop over layers does not keep for derivatives."""

        def run(u: Array, kernel: Array, back: Array | None) -> Array:
            if back is None:
                return convolve(self.activation(u), kernel, strides)
            return _with_errors_by(self.activation, strides, u, kernel, back)

        return jax.checkpoint(run, prevent_cse=False)(u, kernel, back)

    def loops_on(self, size: int, *, local: bool) -> tuple[str, ...]:
        """Loop on a CPU: one layer's convolution is work enough, and has fast kernels alone.

        Errors by kernels of their own are a rule of differentiation that JAX before 0.10 cannot
        transpose where it is mapped over layers: they loop on all platforms.
        """
        del size, local
        return tuple(EVERYWHERE) if self.error_kernels else ("cpu",)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _with_errors_by(
    activation: Activation, strides: Pair, u: Array, kernel: Array, back: Array
) -> Array:
    """Convolve φ(u) by a kernel; errors reach u by another, whose gradient is the same."""
    del back
    return convolve(activation(u), kernel, strides)


@_with_errors_by.defjvp
def _(
    activation: Activation, strides: Pair, at: tuple[Array, ...], by: tuple[Array, ...]
) -> tuple[Array, Array]:
    u, kernel, back = at
    du, dkernel, dback = by
    phi = activation(u)
    change = convolve(du, back, strides) + convolve(phi, dkernel + dback, strides)
    return convolve(phi, kernel, strides), change


class PooledDense(ScaledBlock):
    r"""A fully connected layer of the mean over pixels, $u = a W \langle \phi(z) \rangle$."""

    weights: Float[Array, "out in"]
    scales: tuple[Scale, ...] = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    @property
    def linear(self) -> bool:
        """Whether the activation is the identity."""
        return self.activation is identity

    @classmethod
    def initialise(
        cls,
        size: Pair,
        role: Role,
        activation: Activation,
        parameterisation: Parameterisation,
        shape: Shape,
        *,
        key: PRNGKeyArray,
    ) -> "PooledDense":
        """Draw a layer of `size` (out, in) for a network of a `shape`."""
        scale = parameterisation.scale(role, shape, size[1])
        weights = parameterisation.initialise(key, size, scale.std)
        return cls(weights=weights, scales=(scale,), activation=activation)

    def __call__(self, z: Image) -> Float[Array, " out"]:
        """Predict the next activity of one example."""
        mean = jnp.mean(self.activation(z), axis=tuple(range(z.ndim - 1)))
        return self.scales[0].multiplier * (self.weights @ mean)


def residual_blocks(
    channels: int,
    count: int,
    activation: Activation,
    key: PRNGKeyArray,
    parameterisation: Parameterisation,
    shape: Shape,
    convolutions: int = 1,
    *,
    error_kernels: bool = False,
) -> Convolution:
    """Draw residual blocks of a stage, with a leading axis of their number."""
    branch = (channels,) * (convolutions + 1)
    make = functools.partial(Convolution.initialise, branch, "hidden", activation, skip=True)
    block = lambda key: make(  # noqa: E731
        parameterisation, shape, error_kernels=error_kernels, key=key
    )
    return eqx.filter_vmap(block)(jax.random.split(key, count))


def conv_resnet(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    blocks: Sequence[int] = (3, 3, 3),
    channels: int = 16,
    convolutions: int = 1,
    activation: Activation = jax.nn.relu,
    parameterisation: Parameterisation | None = None,
    key: PRNGKeyArray,
) -> Chain:
    r"""Build a residual convolutional network: stages of residual blocks, and a readout.

    $$u = z + b\, a W * \phi(z)$$

    in a stage. Its entry is a convolution too, in all but the first of stride 2 and to twice as
    many channels; the readout is linear in the mean over pixels. With L = (blocks and entries) + 1,
    multipliers are those of `mupc.residual_mlp` at the fan-ins k²C (arXiv 2505.13124, Table 1).
    `convolutions=2` makes the branches of ResNet-18 (`blocks=(2, 2, 2, 2), channels=64`) and
    ResNet-110 (`(18, 18, 18)`, arXiv 1512.03385), whose projections the entries stand for.

    Args:
        shape: of an input, (height, width, channels).
        outputs: the width of y.
        blocks: how many residual blocks each stage has.
        channels: C of the first stage.
        convolutions: how many a branch has.
        activation: φ; pass `mupc.identity` for a linear network.
        parameterisation: `mupc.mupc()` unless given.
        key: draws the weights.

    Raises:
        TypeError: if a size is no whole number.
        ValueError: if a size is not positive, or images are too small for so many stages.
    """
    for count in blocks or (0,):
        check_sizes(blocks=count)
    check_sizes(channels=channels, outputs=outputs, convolutions=convolutions)
    if min(shape[:2]) < 2 ** (len(blocks) - 1):
        raise ValueError(
            f"{len(blocks)} stages halve images {len(blocks) - 1} times, which is too often for "
            f"{shape[0]} × {shape[1]} pixels: give fewer"
        )
    length = sum(blocks) + len(blocks) + 1
    laws = parameterisation or parameterisations.mupc()
    stages, before = list[Stage](), shape[2]
    *keys, readout_key = jax.random.split(key, len(blocks) + 1)
    for i, (count, stage_key) in enumerate(zip(blocks, keys, strict=True)):
        own = channels * 2**i
        make = functools.partial(
            Convolution.initialise, parameterisation=laws, shape=Shape(own, length)
        )
        entry_key, blocks_key = jax.random.split(stage_key)
        role, reads, strides = ("hidden", activation, (2, 2)) if i else ("input", identity, (1, 1))
        entry = make((before, own), role, reads, strides=strides, key=entry_key)
        stack = residual_blocks(
            own, count, activation, blocks_key, laws, Shape(own, length), convolutions
        )
        stages.append(Stage(entry, stack))
        before = own
    readout = PooledDense.initialise(
        (outputs, before), "readout", activation, laws, Shape(before, length), key=readout_key
    )
    return Chain(tuple(stages), readout)
