"""Layered Hopfield networks: fully connected and convolutional layers, the output among them."""

import dataclasses
import re
from collections.abc import Sequence
from typing import get_args

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from mupc import parameterisations
from mupc.kinds import check_sizes
from mupc.networks.activations import Activation, identity
from mupc.networks.block import Block
from mupc.networks.chain import Chain
from mupc.networks.hopfield import Hopfield
from mupc.networks.stage import Stage
from mupc.networks.vgg import FlatDense, Layer, Pool, PooledConvolution, read_layers
from mupc.parameterisations import Initialiser, Parameterisation, Role, Shape

# Of the standard deviation of a feedforward network's weights, on a box. Measured: two convolutions
# have 96.3 % after 300 batches of MNIST with .35, and 94.8 % with .5; with 1, 73 % after 150.
_GAIN = 0.35


class LastState(Block):
    """A readout without weights, which gives the last activity as it is."""

    @property
    def linear(self) -> bool:
        """True."""
        return True

    def __call__(self, z: Float[Array, " out"]) -> Float[Array, " out"]:
        """Return it."""
        return z


def read_couplings(text: str) -> list[Layer | int]:
    """Read layers such as `32p 64p d128`: convolutions as for `mupc.vgg`, and widths.

    Raises:
        ValueError: if a word is no layer, or a convolution stands after a width.
    """
    found: list[Layer | int] = []
    for word in text.split():
        if (dense := re.fullmatch(r"d([1-9][0-9]*)", word)) is not None:
            found.append(int(dense[1]))
            continue
        if found and isinstance(found[-1], int):
            raise ValueError(
                f"layers of a width, such as d128, come after all convolutions: {word} reads pixels"
            )
        try:
            found += read_layers(word)
        except ValueError as error:
            raise ValueError(f"{error}. Of no pixels it is d and its width, such as d128") from None
    if not found:
        raise ValueError("there must be at least one layer, such as d128 or 32p")
    return found


def layered_hopfield(
    shape: tuple[int, ...],
    outputs: int,
    *,
    layers: str | Sequence[Layer | int] = "d512",
    activation: Activation | None = None,
    pool: Pool = "max",
    parameterisation: Parameterisation | None = None,
    key: PRNGKeyArray,
) -> Hopfield:
    r"""Build a Hopfield network of layers, the output among them (arXiv 1602.05179, 2312.15103).

    $$E(s) = \sum_l \tfrac12 \|s_l\|^2 - \langle \phi(s_l), d_l(\phi(s_{l-1})) \rangle, \quad
      d_l(v) = \text{pool}(a_l W_l * v + c_l)$$

    with states on a box, from 0 to 1, and φ the identity; or with an activation φ, which is the
    identity for x and for the last layer. This has a state for each output, outside of the box,
    which is the prediction: it settles with the others, and its coupling works back on them also
    without a target. As each layer is driven from both sides, weights on a box begin at 0.35 of
    those of a feedforward network. Layers are coupled without skips, so that it is for a few of
    them; `mupc.residual_hopfield` is for many.

    States on a box settle by `mupc.FixedPoint`, others by `mupc.InErrors(mupc.LBFGS())`.

    Args:
        shape: of an input; (height, width, channels) for convolutions.
        outputs: the width of y.
        layers: words such as `32p 64p d128`: convolutions of 3 × 3 pixels as for `mupc.vgg`, and d
            with the width of a fully connected layer.
        activation: φ, a bounded one, or E has no minimum; None for states on a box.
        pool: what is taken of every 2 × 2 pixels of a pooled layer.
        parameterisation: unless given `mupc.standard()`, and `mupc.hopfield()` with an activation.
        key: draws the weights; biases start at zero.

    Raises:
        ValueError: if a layer cannot be read, or images are too small for all of them.
    """
    specified = read_couplings(layers) if isinstance(layers, str) else list(layers)
    check_sizes(
        outputs=outputs,
        **{f"layers[{i}]": one for i, one in enumerate(specified) if isinstance(one, int)},
    )
    if not specified:
        raise ValueError("there must be at least one layer, such as d128 or 32p")
    if pool not in get_args(Pool):
        raise ValueError(f"pool must be one of {', '.join(get_args(Pool))}, not {pool!r}")
    box = activation is None
    usual = parameterisations.standard() if box else parameterisations.hopfield()
    laws = parameterisation or usual
    if box:
        laws = dataclasses.replace(laws, initialise=_smaller(laws.initialise))
    length = len(specified) + 2
    stages: list[Stage] = []
    given = jax.ShapeDtypeStruct(shape, float)
    keys = jax.random.split(key, length - 1)
    for i, (layer, one) in enumerate(zip([*specified, outputs], keys, strict=True)):
        role: Role = "input" if i == 0 else "hidden" if i < len(specified) else "readout"
        reads = activation if activation and i else identity
        if isinstance(layer, int):
            there = Shape(layer if i < len(specified) else given.size, length)
            size = layer, given.size
            block: Block = FlatDense.initialise(size, role, laws, there, reads=reads, key=one)
        else:
            if len(given.shape) != 3:
                raise ValueError(
                    f"convolutions take images (height, width, channels), not {given.shape}"
                )
            there, before = Shape(layer.channels, length), given.shape[-1]
            draw = PooledConvolution.initialise
            block = draw(layer, before, role, identity, pool, laws, there, reads=reads, key=one)
        given = jax.eval_shape(block, given)
        if 0 in given.shape:
            raise ValueError(
                f"images of {shape[0]} × {shape[1]} pixels are too small for {len(specified)} "
                f"layers: nothing is left after {i + 1}"
            )
        stages.append(Stage(block))
    return Hopfield(
        Chain(tuple(stages), LastState()),
        activation or identity,
        skips=False,
        inside=True,
        box=box,
    )


def _smaller(initialise: Initialiser) -> Initialiser:
    return lambda key, shape, std: initialise(key, shape, _GAIN * std)
