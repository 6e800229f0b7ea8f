"""Blocks of transformers: branches of attention and of perceptrons, and a readout."""

from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mupc.networks.block import ScaledBlock
from mupc.parameterisations import Parameterisation, Role, Scale, Shape

Sequence = Float[Array, "positions width"]

_computed_again = partial(jax.checkpoint, prevent_cse=False)
"""What a branch has in between is computed again for its derivatives, not kept for every branch.

A branch of attention has some eight arrays of an activity's size in between and one of perceptrons
nine, beside which weights and activities would be the smaller part. Inside of a loop over branches
XLA does not merge the two computations, so nothing need prevent it.
"""


class Norm(eqx.Module):
    r"""Layer normalisation, $g \odot (z - \bar z) / \sqrt{\text{var}(z) + 10^{-6}} + c$.

    At every position apart. Without parameters g is 1 and c is 0 (arXiv 1607.06450).
    """

    gains: Float[Array, "*layer width"] | None = None
    shifts: Float[Array, "*layer width"] | None = None

    @classmethod
    def initialise(cls, width: int, *, learned: bool) -> "Norm":
        """Return one that leaves what it normalises as it is."""
        return cls(jnp.ones(width), jnp.zeros(width)) if learned else cls()

    def scales(self, role: Role, laws: Parameterisation, shape: Shape) -> tuple[Scale, ...]:
        """Return those of its parameters, if it has any, in a layer of a role."""
        scale = laws.bias_scale(role, shape, skip=role == "hidden")
        return () if self.gains is None else (scale, scale)

    def __call__(self, z: Sequence) -> Sequence:
        """Normalise one example."""
        z = z - jnp.mean(z, axis=-1, keepdims=True)
        z = z * jax.lax.rsqrt(jnp.mean(z**2, axis=-1, keepdims=True) + 1e-6)
        if self.gains is None or self.shifts is None:
            return z
        return self.gains * z + self.shifts


class AttentionBranch(ScaledBlock):
    r"""A residual branch of attention, $u = z + b\, O\, \text{attend}(QKV\, \text{LN} z)$.

    Logits are divided by the width of a head, as under μP (arXiv 2203.03466), not by its root.
    """

    qkv: Float[Array, "*layer three_widths width"]
    out: Float[Array, "*layer width width"]
    norm: Norm
    scales: tuple[Scale, ...] = eqx.field(static=True)
    title: ClassVar[str] = "attention"
    heads: int = eqx.field(static=True)
    branch: float = eqx.field(static=True)
    causal: bool = eqx.field(static=True, default=True)

    @property
    def linear(self) -> bool:
        """Whether the map is affine: it is not."""
        return False

    @classmethod
    def initialise(
        cls,
        heads: int,
        laws: Parameterisation,
        shape: Shape,
        key: PRNGKeyArray,
        *,
        causal: bool = True,
        learned_norm: bool = False,
    ) -> "AttentionBranch":
        """Draw both matrices."""
        width, keys = shape.width, jax.random.split(key)
        scale = laws.scale("hidden", shape, width, skip=True)
        norm = Norm.initialise(width, learned=learned_norm)
        return cls(
            qkv=laws.initialise(keys[0], (3 * width, width), scale.std),
            out=laws.initialise(keys[1], (width, width), scale.std),
            norm=norm,
            scales=(scale, scale, *norm.scales("hidden", laws, shape)),
            heads=heads,
            branch=laws.branch_multiplier(shape.length),
            causal=causal,
        )

    @_computed_again
    def __call__(self, z: Sequence) -> Sequence:
        """Predict the next activity of one example."""
        first, last, *_ = self.multipliers
        length, width = z.shape
        query, key, value = jnp.split(first * (self.norm(z) @ self.qkv.T), 3, axis=-1)
        query, key, value = (
            one.reshape(length, self.heads, width // self.heads) for one in (query, key, value)
        )
        logits = jnp.einsum("thd,shd->hts", query, key) * (self.heads / width)
        if self.causal:
            seen = jnp.tril(jnp.ones((length, length), bool))
            logits = jnp.where(seen, logits, -jnp.inf)
        weights = jax.nn.softmax(logits, axis=-1)
        found = jnp.einsum("hts,shd->thd", weights, value).reshape(length, width)
        return z + self.branch * last * (found @ self.out.T)

    def loops_on(self, size: int, *, local: bool) -> tuple[str, ...]:
        """Loop on a CPU: one layer is work enough."""
        del size, local
        return ("cpu",)


class PerceptronBranch(ScaledBlock):
    r"""A residual branch at every position, $u = z + b\, V \text{gelu}(U\, \text{LN} z)$."""

    up: Float[Array, "*layer hidden width"]
    down: Float[Array, "*layer width hidden"]
    norm: Norm
    scales: tuple[Scale, ...] = eqx.field(static=True)
    title: ClassVar[str] = "perceptron"
    branch: float = eqx.field(static=True)

    @property
    def linear(self) -> bool:
        """Whether the map is affine: it is not."""
        return False

    @classmethod
    def initialise(
        cls,
        laws: Parameterisation,
        shape: Shape,
        key: PRNGKeyArray,
        *,
        expansion: int = 4,
        learned_norm: bool = False,
    ) -> "PerceptronBranch":
        """Draw both matrices."""
        width, keys = shape.width, jax.random.split(key)
        sizes = (expansion * width, width), (width, expansion * width)
        scales = [laws.scale("hidden", shape, inputs, skip=True) for _, inputs in sizes]
        norm = Norm.initialise(width, learned=learned_norm)
        up, down = (
            laws.initialise(one, size, scale.std)
            for one, size, scale in zip(keys, sizes, scales, strict=True)
        )
        return cls(
            up=up,
            down=down,
            norm=norm,
            scales=(*scales, *norm.scales("hidden", laws, shape)),
            branch=laws.branch_multiplier(shape.length),
        )

    @_computed_again
    def __call__(self, z: Sequence) -> Sequence:
        """Predict the next activity of one example."""
        first, last, *_ = self.multipliers
        inner = jax.nn.gelu(first * (self.norm(z) @ self.up.T))
        return z + self.branch * last * (inner @ self.down.T)

    def loops_on(self, size: int, *, local: bool) -> tuple[str, ...]:
        """Loop on a CPU: one layer is work enough."""
        del size, local
        return ("cpu",)


class NormedDense(ScaledBlock):
    r"""A readout, $u = a W \text{LN} z$ at every position, or of the mean over them if `pooled`.

    Without weights of its own it is lent them, with their scale.
    """

    weights: Float[Array, "out in"] | None
    norm: Norm
    scales: tuple[Scale, ...] = eqx.field(static=True)
    pooled: bool = eqx.field(static=True, default=False)

    @property
    def linear(self) -> bool:
        """Whether the map is affine: it is not."""
        return False

    @classmethod
    def initialise(
        cls,
        size: tuple[int, int],
        laws: Parameterisation,
        shape: Shape,
        key: PRNGKeyArray,
        *,
        pooled: bool = False,
        learned_norm: bool = False,
    ) -> "NormedDense":
        """Draw a layer of `size` (out, in)."""
        scale = laws.scale("readout", shape, size[1])
        norm = Norm.initialise(size[1], learned=learned_norm)
        weights = laws.initialise(key, size, scale.std)
        scales = (scale, *norm.scales("readout", laws, shape))
        return cls(weights=weights, norm=norm, scales=scales, pooled=pooled)

    def __call__(self, z: Sequence) -> Float[Array, "... out"]:
        """Predict the output of one example."""
        if self.weights is None:
            raise ValueError("this readout has no weights of its own: its network lends them")
        z = self.norm(z)
        z = jnp.mean(z, axis=0) if self.pooled else z
        return self.scales[0].multiplier * (z @ self.weights.T)
