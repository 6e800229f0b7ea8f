"""Transformers, of tokens and of images, with an activity for every branch."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from mupc import parameterisations
from mupc.kinds import check_sizes
from mupc.networks.attention import AttentionBranch, NormedDense, PerceptronBranch
from mupc.networks.block import Block, ScaledBlock
from mupc.networks.chain import Chain
from mupc.networks.stage import Stage
from mupc.parameterisations import Parameterisation, Scale, Shape


class TokenEmbedding(ScaledBlock):
    r"""The entry of tokens x at positions t: $u_t = (E_{x_t} + P_t) / \sqrt 2$."""

    tokens: Float[Array, "vocabulary width"]
    positions: Float[Array, "context width"]
    scales: tuple[Scale, ...] = eqx.field(static=True)

    @property
    def linear(self) -> bool:
        """Whether the map is affine: rows are looked up."""
        return False

    @classmethod
    def initialise(
        cls, vocabulary: int, context: int, laws: Parameterisation, shape: Shape, key: PRNGKeyArray
    ) -> "TokenEmbedding":
        """Draw both tables, whose rows are looked up: a fan-in of 1."""
        scale = laws.scale("input", shape, 1)
        keys = jax.random.split(key)
        tokens, positions = (
            laws.initialise(one, (rows, shape.width), scale.std)
            for one, rows in zip(keys, (vocabulary, context), strict=True)
        )
        return cls(tokens=tokens, positions=positions, scales=(scale, scale))

    def __call__(self, z: Int[Array, " positions"]) -> Float[Array, "positions width"]:
        """Predict the first activity of one example.

        Raises:
            ValueError: if there are more tokens than positions.
        """
        if z.ndim != 1 or len(z) > len(self.positions):
            raise ValueError(
                f"this network takes at most {len(self.positions)} tokens a sample, not an input "
                f"of shape {z.shape}"
            )
        tokens, positions = self.multipliers
        found = tokens * self.tokens[z] + positions * self.positions[: len(z)]
        return found * 2**-0.5


class PatchEmbedding(ScaledBlock):
    r"""The entry of an image's patches x at positions t: $u_t = (a W x_t + P_t) / \sqrt 2$."""

    patches: Float[Array, "width in"]
    positions: Float[Array, "positions width"]
    scales: tuple[Scale, ...] = eqx.field(static=True)
    shape: tuple[int, int, int] = eqx.field(static=True)
    side: int = eqx.field(static=True)

    @property
    def linear(self) -> bool:
        """Whether the map is affine: it is."""
        return True

    @classmethod
    def initialise(
        cls,
        image: tuple[int, int, int],
        side: int,
        laws: Parameterisation,
        shape: Shape,
        key: PRNGKeyArray,
    ) -> "PatchEmbedding":
        """Draw the matrix of the patches, and a table of their positions."""
        height, width, channels = image
        inputs, keys = side * side * channels, jax.random.split(key)
        scales = laws.scale("input", shape, inputs), laws.scale("input", shape, 1)
        positions = (height // side) * (width // side), shape.width
        return cls(
            patches=laws.initialise(keys[0], (shape.width, inputs), scales[0].std),
            positions=laws.initialise(keys[1], positions, scales[1].std),
            scales=scales,
            shape=image,
            side=side,
        )

    def __call__(self, z: Num[Array, "rows columns channels"]) -> Float[Array, "positions width"]:
        """Predict the first activity of one example.

        Raises:
            ValueError: if it is an image of another shape.
        """
        if z.shape != self.shape:
            raise ValueError(f"this network takes images of shape {self.shape}, not {z.shape}")
        height, width, channels = self.shape
        side = self.side
        x = jnp.reshape(z, (height // side, side, width // side, side, channels))
        x = x.transpose(0, 2, 1, 3, 4).reshape(len(self.positions), -1)
        patches, positions = self.multipliers
        return (patches * (x @ self.patches.T) + positions * self.positions) * 2**-0.5


class TiedChain(Chain):
    """A network of tokens whose readout multiplies by the table of its entry.

    As in arXiv 1608.05859; the table's gradient is the sum of both layers' local parts.

    Args:
        lent: the scale of the table in the readout.
    """

    lent: Scale = eqx.field(static=True, kw_only=True)

    @property
    def top(self) -> NormedDense:
        """The readout, lent the table of tokens."""
        readout = cast(NormedDense, self.readout)
        table, scales = cast(TokenEmbedding, self.stages[0].entry).tokens, readout.scales
        return dataclasses.replace(readout, weights=table, scales=(self.lent, *scales))

    def _joined(self, stages: Sequence[Any], readout: Any) -> "TiedChain":
        table = lambda parts: parts[0].entry.tokens  # noqa: E731
        stages = eqx.tree_at(table, tuple(stages), table(stages) + readout.weights)
        return cast(TiedChain, super()._joined(stages, readout.norm))


def transformer(
    vocabulary: int,
    *,
    context: int,
    pairs: int,
    width: int,
    heads: int | None = None,
    learned_norms: bool = False,
    tied: bool = False,
    parameterisation: Parameterisation | None = None,
    key: PRNGKeyArray,
) -> Chain:
    r"""Build a decoder-only, causal transformer whose every branch has an activity of its own.

    Embeddings of tokens and positions, `pairs` times an attention and a perceptron branch, and a
    readout of the next token at every position. Norms come first in a branch. There are
    L = 2 · `pairs` branches, of multiplier $L^{-1}$ unless the parameterisation is given
    (arXiv 2505.01618): of two matrices each, they are no longer linear in what is learned.

    Args:
        vocabulary: V, the number of tokens.
        context: T, the largest number of positions.
        pairs: how many pairs of branches there are.
        width: N of an activity at a position.
        heads: of attention; heads of width 32 unless given.
        learned_norms: whether norms have gains and shifts.
        tied: whether the readout multiplies by the table of tokens, and has none of its own.
        parameterisation: `mupc.mupc(exponent=1)` unless given.
        key: draws the weights.

    Raises:
        TypeError: if a size is no whole number.
        ValueError: if a size is not positive, or the width is no multiple of the heads.
    """
    check_sizes(vocabulary=vocabulary, context=context, pairs=pairs, width=width)
    laws, shape = parameterisation or parameterisations.mupc(exponent=1.0), Shape(width, 2 * pairs)
    blocks_key, entry_key, readout_key = jax.random.split(key, 3)
    entry = TokenEmbedding.initialise(vocabulary, context, laws, shape, entry_key)
    blocks = _pairs(pairs, heads, laws, shape, blocks_key, causal=True, learned_norms=learned_norms)
    readout = NormedDense.initialise(
        (vocabulary, width), laws, shape, readout_key, learned_norm=learned_norms
    )
    stages = (Stage(entry, blocks),)
    if not tied:
        return Chain(stages, readout)
    lent, *own = readout.scales
    readout = dataclasses.replace(readout, weights=None, scales=tuple(own))
    return TiedChain(stages, readout, lent=lent)


def vision_transformer(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    patch: int = 4,
    pairs: int,
    width: int,
    heads: int | None = None,
    learned_norms: bool = False,
    parameterisation: Parameterisation | None = None,
    key: PRNGKeyArray,
) -> Chain:
    r"""Build a transformer of an image's patches, whose every branch has an activity of its own.

    As `mupc.transformer`, but that every patch attends to all of them, and that the readout is
    linear in the mean over their positions (arXiv 2010.11929, without a class token).

    Args:
        shape: of an input, (height, width, channels).
        outputs: the width of y.
        patch: how many pixels a side of a patch has.
        pairs: how many pairs of branches there are.
        width: N of an activity at a position.
        heads: of attention; heads of width 32 unless given.
        learned_norms: whether norms have gains and shifts.
        parameterisation: `mupc.mupc(exponent=1)` unless given.
        key: draws the weights.

    Raises:
        TypeError: if a size is no whole number.
        ValueError: if a size is not positive, the width is no multiple of the heads, or images are
            no whole number of patches.
    """
    check_sizes(outputs=outputs, patch=patch, pairs=pairs, width=width)
    if shape[0] % patch or shape[1] % patch:
        raise ValueError(
            f"images of {shape[0]} × {shape[1]} pixels are no whole number of patches of {patch}"
        )
    laws, own = parameterisation or parameterisations.mupc(exponent=1.0), Shape(width, 2 * pairs)
    blocks_key, entry_key, readout_key = jax.random.split(key, 3)
    entry = PatchEmbedding.initialise(shape, patch, laws, own, entry_key)
    blocks = _pairs(pairs, heads, laws, own, blocks_key, causal=False, learned_norms=learned_norms)
    readout = NormedDense.initialise(
        (outputs, width), laws, own, readout_key, pooled=True, learned_norm=learned_norms
    )
    return Chain((Stage(entry, blocks),), readout)


def _pairs(
    pairs: int,
    heads: int | None,
    laws: Parameterisation,
    shape: Shape,
    key: PRNGKeyArray,
    *,
    causal: bool,
    learned_norms: bool,
) -> tuple[Block, Block]:
    """Draw so many branches of attention, and as many of perceptrons."""
    heads = max(shape.width // 32, 1) if heads is None else heads
    check_sizes(heads=heads)
    if shape.width % heads:
        raise ValueError(f"width must be a multiple of the {heads} heads, not {shape.width}")
    attention = functools.partial(
        AttentionBranch.initialise, heads, laws, shape, causal=causal, learned_norm=learned_norms
    )
    perceptron = functools.partial(
        PerceptronBranch.initialise, laws, shape, learned_norm=learned_norms
    )
    first, second = jax.random.split(key)
    return (
        eqx.filter_vmap(lambda key: attention(key=key))(jax.random.split(first, pairs)),
        eqx.filter_vmap(lambda key: perceptron(key=key))(jax.random.split(second, pairs)),
    )
