"""Transformers: of tokens, with an activity for every branch."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mupc import parameterisations
from mupc.networks.block import ScaledBlock
from mupc.networks.chain import Chain
from mupc.networks.stage import Stage
from mupc.parameterisations import Parameterisation, Role, Scale, Shape

Sequence = Float[Array, "positions width"]


def layer_norm(z: Sequence) -> Sequence:
    """Return activities of mean 0 and variance 1 at every position; it has no parameters."""
    z = z - jnp.mean(z, axis=-1, keepdims=True)
    return z * jax.lax.rsqrt(jnp.mean(z**2, axis=-1, keepdims=True) + 1e-6)


class _NonLinear(ScaledBlock):
    @property
    def linear(self) -> bool:
        """Whether the map is affine: it is not."""
        return False


class TokenEmbedding(_NonLinear):
    r"""The entry: $u_t = (E_{x_t} + P_t) / \sqrt 2$, of tokens x at positions t."""

    tokens: Float[Array, "vocabulary width"]
    positions: Float[Array, "context width"]
    scales: tuple[Scale, ...] = eqx.field(static=True)

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

    def __call__(self, z: Int[Array, " positions"]) -> Sequence:
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


class AttentionBranch(_NonLinear):
    r"""A residual branch of causal attention, $u = z + b\, O\, \text{attend}(QKV\, \text{LN} z)$.

    Logits are divided by the width of a head, as under μP (arXiv 2203.03466), not by its root.
    """

    qkv: Float[Array, "*layer three_widths width"]
    out: Float[Array, "*layer width width"]
    scales: tuple[Scale, ...] = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    branch: float = eqx.field(static=True)

    @classmethod
    def initialise(
        cls, heads: int, laws: Parameterisation, shape: Shape, key: PRNGKeyArray
    ) -> "AttentionBranch":
        """Draw both matrices."""
        width, keys = shape.width, jax.random.split(key)
        scale = laws.scale("hidden", shape, width, skip=True)
        return cls(
            qkv=laws.initialise(keys[0], (3 * width, width), scale.std),
            out=laws.initialise(keys[1], (width, width), scale.std),
            scales=(scale, scale),
            heads=heads,
            branch=laws.branch_multiplier(shape.length),
        )

    def __call__(self, z: Sequence) -> Sequence:
        """Predict the next activity of one example."""
        first, last = self.multipliers
        length, width = z.shape
        query, key, value = jnp.split(first * (layer_norm(z) @ self.qkv.T), 3, axis=-1)
        query, key, value = (
            one.reshape(length, self.heads, width // self.heads) for one in (query, key, value)
        )
        logits = jnp.einsum("thd,shd->hts", query, key) * (self.heads / width)
        seen = jnp.tril(jnp.ones((length, length), bool))
        weights = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), axis=-1)
        found = jnp.einsum("hts,shd->thd", weights, value).reshape(length, width)
        return z + self.branch * last * (found @ self.out.T)

    def loops_on(self, size: int, *, local: bool) -> tuple[str, ...]:
        """Loop on a CPU: one layer is work enough."""
        del size, local
        return ("cpu",)


class PerceptronBranch(_NonLinear):
    r"""A residual branch at every position, $u = z + b\, V \text{gelu}(U\, \text{LN} z)$."""

    up: Float[Array, "*layer hidden width"]
    down: Float[Array, "*layer width hidden"]
    scales: tuple[Scale, ...] = eqx.field(static=True)
    branch: float = eqx.field(static=True)

    @classmethod
    def initialise(
        cls, laws: Parameterisation, shape: Shape, key: PRNGKeyArray, expansion: int = 4
    ) -> "PerceptronBranch":
        """Draw both matrices."""
        width, keys = shape.width, jax.random.split(key)
        sizes = (expansion * width, width), (width, expansion * width)
        scales = [laws.scale("hidden", shape, inputs, skip=True) for _, inputs in sizes]
        up, down = (
            laws.initialise(one, size, scale.std)
            for one, size, scale in zip(keys, sizes, scales, strict=True)
        )
        branch = laws.branch_multiplier(shape.length)
        return cls(up=up, down=down, scales=tuple(scales), branch=branch)

    def __call__(self, z: Sequence) -> Sequence:
        """Predict the next activity of one example."""
        first, last = self.multipliers
        inner = jax.nn.gelu(first * (layer_norm(z) @ self.up.T))
        return z + self.branch * last * (inner @ self.down.T)

    def loops_on(self, size: int, *, local: bool) -> tuple[str, ...]:
        """Loop on a CPU: one layer is work enough."""
        del size, local
        return ("cpu",)


class NormedDense(_NonLinear):
    r"""A fully connected layer at every position, $u = a W \text{LN} z$: the readout."""

    weights: Float[Array, "out in"]
    scales: tuple[Scale, ...] = eqx.field(static=True)

    @classmethod
    def initialise(
        cls, size: tuple[int, int], role: Role, laws: Parameterisation, shape: Shape, key: Array
    ) -> "NormedDense":
        """Draw a layer of `size` (out, in)."""
        scale = laws.scale(role, shape, size[1])
        return cls(weights=laws.initialise(key, size, scale.std), scales=(scale,))

    def __call__(self, z: Sequence) -> Float[Array, "positions out"]:
        """Predict the next activity of one example."""
        return self.scales[0].multiplier * (layer_norm(z) @ self.weights.T)


def transformer(
    vocabulary: int,
    *,
    context: int,
    pairs: int,
    width: int,
    heads: int | None = None,
    parameterisation: Parameterisation | None = None,
    key: PRNGKeyArray,
) -> Chain:
    r"""Build a decoder-only, causal transformer whose every branch has an activity of its own.

    Embeddings of tokens and positions, `pairs` times an attention and a perceptron branch, and a
    readout of the next token at every position. Norms come first in a branch, and have no
    parameters. There are L = 2 · `pairs` branches, of multiplier $L^{-1}$ unless the
    parameterisation is given (arXiv 2505.01618): of two matrices each, they are no longer linear in
    what is learned.

    Args:
        vocabulary: V, the number of tokens.
        context: T, the largest number of positions.
        pairs: how many pairs of branches there are.
        width: N of an activity at a position.
        heads: of attention; heads of width 32 unless given.
        parameterisation: `mupc.mupc(exponent=1)` unless given.
        key: draws the weights.

    Raises:
        ValueError: if a size is not positive, or the width is no multiple of the heads.
    """
    heads = max(width // 32, 1) if heads is None else heads
    sizes = {"vocabulary": vocabulary, "context": context, "pairs": pairs, "width": width}
    for name, size in {**sizes, "heads": heads}.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")
    if width % heads:
        raise ValueError(f"width must be a multiple of the {heads} heads, not {width}")
    laws = parameterisation or parameterisations.mupc(exponent=1.0)
    shape = Shape(width, 2 * pairs)
    keys = jax.random.split(key, 4)
    attention = functools.partial(AttentionBranch.initialise, heads, laws, shape)
    perceptron = functools.partial(PerceptronBranch.initialise, laws, shape)
    blocks = tuple(
        eqx.filter_vmap(make)(jax.random.split(one, pairs))
        for make, one in zip((attention, perceptron), keys[:2], strict=True)
    )
    entry = TokenEmbedding.initialise(vocabulary, context, laws, shape, keys[2])
    readout = NormedDense.initialise((vocabulary, width), "readout", laws, shape, keys[3])
    return Chain((Stage(entry, blocks),), readout)
