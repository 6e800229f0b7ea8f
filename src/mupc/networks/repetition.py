"""Repetitions of a pattern of blocks, with depth as an array axis: the loops over layers."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from mupc.networks.bank import shifted
from mupc.networks.block import EVERYWHERE, Activities, Block, over_batch

Term = Callable[..., Float[Array, " batch"]]
"""A part of an energy: each sample's value, from arrays of one layer (batch, ...)."""


class LocalGradient(NamedTuple):
    """The sum of local terms, (batch,), and its gradient by what is read and by the activities."""

    samples: Float[Array, " batch"]
    before: Array
    activities: Activities


class Repetition(eqx.Module):
    """n repetitions of a pattern of blocks, the first of which reads `below`, (batch, ...).

    Each place in the pattern has a bank of its own, (n, batch, ...), of its own shape; the last
    place has the shape of `below`.

    Args:
        blocks: one for each place of the pattern, whose arrays carry a leading axis of length n.
    """

    blocks: tuple[Block, ...]

    def __check_init__(self) -> None:
        sizes = [_length(block) for block in self.blocks]
        if len(set(sizes)) > 1 or 0 in sizes:
            raise ValueError(
                f"the blocks of a pattern are repeated equally often, at least once: their arrays "
                f"must have one leading axis of the same length, not {sizes}"
            )

    @property
    def count(self) -> int:
        """n, how often the pattern is repeated."""
        return _length(self.blocks[0]) if self.blocks else 0

    def feedforward(
        self, below: Float[Array, "batch ..."], errors: Activities | None
    ) -> tuple[Float[Array, "batch ..."], Activities]:
        """Run the layers in turn, adding to each prediction its error if there are errors.

        Returns the last activity, and all of them.
        """
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def repetition(z: Array, layer: PyTree[Array]) -> tuple[Array, tuple[Array, ...]]:
            parts, own = layer
            activities: tuple[Array, ...] = ()
            for place, block in enumerate(eqx.combine(parts, rest)):
                u = over_batch(block)(z)
                z = u if own is None else u + own[place]
                activities = (*activities, z)
            return z, activities

        return jax.lax.scan(repetition, below, (arrays, errors))

    def predictions(self, below: Float[Array, "batch ..."], activities: Activities) -> Activities:
        """Predict every activity from the one below it."""
        predict = lambda block, z: over_batch(block)(z)  # noqa: E731
        pairs = zip(self.blocks, _belows(below, activities), strict=True)
        return tuple(_each(predict, block, z) for block, z in pairs)

    def pushforward(
        self,
        below: Float[Array, "batch ..."],
        activities: Activities,
        change: Float[Array, "batch ..."],
        changes: Activities,
    ) -> Float[Array, "batch ..."]:
        """Return how the last activity changes with `below` and with the errors."""
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def repetition(change: Array, layer: tuple[Any, ...]) -> tuple[Array, None]:
            parts, own, i = layer
            for place, block in enumerate(eqx.combine(parts, rest)):
                z = _below(below, activities, place, i)
                change = jax.jvp(over_batch(block), (z,), (change,))[1] + own[place]
            return change, None

        return jax.lax.scan(repetition, change, (arrays, changes, jnp.arange(self.count)))[0]

    def pullback(
        self,
        below: Float[Array, "batch ..."],
        activities: Activities,
        above: Float[Array, "batch ..."],
        gradients: Activities | None,
    ) -> tuple[Float[Array, "batch ..."], Activities]:
        """Propagate a gradient from above down to `below`, adding each activity's own.

        Returns the gradient by `below`, and by the errors of all activities.
        """
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def repetition(above: Array, layer: tuple[Any, ...]) -> tuple[Array, tuple[Array, ...]]:
            parts, own, i = layer
            adjoints: tuple[Array, ...] = ()
            blocks = eqx.combine(parts, rest)
            for place in reversed(range(len(blocks))):
                above = above if own is None else above + own[place]
                adjoints = (above, *adjoints)
                z = _below(below, activities, place, i)
                (above,) = jax.vjp(over_batch(blocks[place]), z)[1](above)
            return above, adjoints

        layers = (arrays, gradients, jnp.arange(self.count))
        return jax.lax.scan(repetition, above, layers, reverse=True)

    def local_gradient(
        self,
        term: Term,
        below: Float[Array, "batch ..."],
        activities: Activities,
        above: Float[Array, "batch ..."],
        numbers: PyTree[Float[Array, "_layer ..."]],
    ) -> LocalGradient:
        """Differentiate the sum of every layer's term by `below` and the activities, in one loop.

        `above` is the gradient by the last activity of what lies beyond.
        """
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def repetition(
            carry: tuple[Array, Array], layer: tuple[Any, ...]
        ) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
            (samples, above), (parts, z, number, i) = carry, layer
            blocks, gradients = eqx.combine(parts, rest), ()
            for place in reversed(range(len(blocks))):
                under = _below(below, activities, place, i)
                one = local_gradient(term, blocks[place], under, z[place], number[place])
                samples = samples + one.samples
                gradients, above = (one.activities[0] + above, *gradients), one.before
            return (samples, above), gradients

        zeros = jnp.zeros(len(below), below.dtype)
        layers = (arrays, activities, numbers, jnp.arange(self.count))
        (samples, down), banks = jax.lax.scan(repetition, (zeros, above), layers, reverse=True)
        return LocalGradient(samples, down, banks)

    def parameter_gradient(
        self, below: Float[Array, "batch ..."], activities: Activities, cotangents: Activities
    ) -> tuple[Block, ...]:
        """Return every layer's own gradient, of the activity below it and of its cotangent."""
        layers = zip(self.blocks, _belows(below, activities), cotangents, strict=True)
        return tuple(_each(by_parameters, *own) for own in layers)

    def loops_on(self, activities: Activities) -> tuple[str, ...]:
        """Return the platforms on which a block asks for a loop over layers."""
        pairs = zip(self.blocks, activities, strict=True)
        platforms = [block.loops_on(z[0].size, local=True) for block, z in pairs]
        return tuple(sorted({platform for some in platforms for platform in some}))


def local_gradient(term: Term, block: Block, below: Array, z: Array, number: Any) -> LocalGradient:
    """Differentiate one layer's term by what it reads, and by its activity."""
    one = lambda below, z: term(over_batch(block)(below), z, number)  # noqa: E731
    samples, (down, own) = with_gradient(one, below, z)
    return LocalGradient(samples, down, (own,))


def on_platforms(
    platforms: tuple[str, ...], loop: Callable[..., Any], together: Callable[..., Any], *arrays: Any
) -> Any:
    """Compute by a loop on some platforms, and all at once on others, chosen when it is lowered."""
    if not platforms:
        return together(*arrays)
    if EVERYWHERE.issubset(platforms):
        return loop(*arrays)
    ways = dict.fromkeys(platforms, loop)
    return jax.lax.platform_dependent(*arrays, default=together, **ways)


def by_parameters(block: Block, below: Array, cotangent: Array) -> Block:
    """Return the gradient of ⟨cotangent, u⟩ by a block's trainable arrays."""
    params, rest = eqx.partition(block, eqx.is_inexact_array)
    predict = lambda params: over_batch(cast(Block, eqx.combine(params, rest)))(below)  # noqa: E731
    return jax.vjp(predict, params)[1](cotangent)[0]


def with_gradient(term: Term, *arrays: Array) -> tuple[Float[Array, " batch"], tuple[Any, ...]]:
    """Return each sample's value of a term, and the gradient of their sum by every array.

    An array of integers (the input may be one) has no gradient, and gets none.
    """

    def total(*arrays: Array) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
        samples = term(*arrays)
        return jnp.sum(samples), samples

    by_all = jax.grad(total, argnums=tuple(range(len(arrays))), has_aux=True, allow_int=True)
    gradient, samples = by_all(*arrays)
    return samples, gradient


def _belows(below: Array, activities: Activities) -> Activities:
    """Return for each place of the pattern what lies below it, layer by layer."""
    return (shifted(below, activities[-1]), *activities[:-1])


def _below(below: Array, activities: Activities, place: int, i: Int[Array, ""]) -> Array:
    """Return what lies below a place in repetition i, without a copy of all the others."""
    if place:
        return _at(activities[place - 1], i)
    return jnp.where(i > 0, _at(activities[-1], jnp.maximum(i - 1, 0)), below)


def _at(arrays: Float[Array, "layer batch ..."], i: Int[Array, ""]) -> Float[Array, "batch ..."]:
    return jax.lax.dynamic_index_in_dim(arrays, i, keepdims=False)


def _length(block: Block) -> int:
    """Return the length of the leading axis of a stacked block's arrays."""
    leaves = jax.tree.leaves(eqx.filter(block, eqx.is_array))
    lengths = {leaf.shape[0] if leaf.ndim else None for leaf in leaves}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            f"the arrays of a stacked block must share a leading axis, one entry for each layer; "
            f"build {type(block).__name__} under equinox.filter_vmap"
        )
    return cast(int, lengths.pop())


def _each(function: Callable[..., Any], block: Block, *arrays: Array) -> Any:
    """Map a function of a layer and its arrays over a stack, in the way that the block asks for."""
    parts, rest = eqx.partition(block, eqx.is_array)
    one = lambda layer: function(eqx.combine(layer[0], rest), *layer[1:])  # noqa: E731
    loop = lambda *layers: jax.lax.map(one, layers)  # noqa: E731
    together = lambda *layers: jax.vmap(one)(layers)  # noqa: E731
    platforms = block.loops_on(arrays[0][0].size, local=False)
    return on_platforms(platforms, loop, together, parts, *arrays)
