"""A stage: an entry and repetitions of a pattern of blocks, with depth as an array axis."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, PyTree

from mupc.networks.block import Activities, Block, over_batch

Term = Callable[..., Float[Array, " batch"]]
"""A part of an energy: each sample's value, from arrays of one layer (batch, ...)."""


class LocalGradient(NamedTuple):
    """The sum of a stage's terms, (batch,), and its gradient by the stage's two arguments."""

    samples: Float[Array, " batch"]
    before: Array
    activities: Activities


class Stage(eqx.Module):
    """An entry, and n repetitions of a pattern of blocks after it.

    Each place in the pattern has a bank of activities of its own, (n, batch, ...), of its own
    shape; the entry's bank holds one layer. The last place has the shape of the entry.

    Args:
        entry: reads the activity before the stage.
        blocks: one for each place of the pattern, whose arrays carry a leading axis of length n (as
            `equinox.filter_vmap` of a constructor gives); a single block is a pattern of one; none
            make a stage of the entry alone.
    """

    entry: Block
    blocks: tuple[Block, ...] = eqx.field(
        default=(), converter=lambda given: (given,) if isinstance(given, Block) else tuple(given)
    )

    def __check_init__(self) -> None:
        sizes = [_length(block) for block in self.blocks]
        if len(set(sizes)) > 1 or 0 in sizes:
            raise ValueError(
                f"the blocks of a pattern are repeated equally often, at least once: their arrays "
                f"must have one leading axis of the same length, not {sizes}"
            )

    @property
    def repetitions(self) -> int:
        """n, how often the pattern is repeated."""
        return _length(self.blocks[0]) if self.blocks else 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many layers each of the stage's banks holds."""
        return (1, *(self.repetitions for _ in self.blocks))

    @property
    def depth(self) -> int:
        """How many activities the stage holds."""
        return sum(self.sizes)

    @property
    def linear(self) -> bool:
        """Whether every layer is affine."""
        return all(block.linear for block in (self.entry, *self.blocks))

    def feedforward(
        self, before: Num[Array, "batch ..."], errors: Activities | None
    ) -> tuple[Float[Array, "batch ..."], Activities]:
        """Run the layers in turn, adding to each prediction its error if there are errors.

        Returns the last activity, and all of them. Whoever goes on from the last one of a bank
        instead has a gradient by the whole bank.
        """
        z = over_batch(self.entry)(before)
        if errors is not None:
            z = z + errors[0][0]
        if not self.blocks:
            return z, (z[None],)
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def repetition(z: Array, layer: PyTree[Array]) -> tuple[Array, tuple[Array, ...]]:
            parts, own = layer
            activities: tuple[Array, ...] = ()
            for place, block in enumerate(eqx.combine(parts, rest)):
                u = over_batch(block)(z)
                z = u if own is None else u + own[place]
                activities = (*activities, z)
            return z, activities

        layers = (arrays, None if errors is None else errors[1:])
        last, banks = jax.lax.scan(repetition, z, layers)
        return last, (z[None], *banks)

    def predictions(self, before: Num[Array, "batch ..."], activities: Activities) -> Activities:
        """Predict every activity from the one below it."""
        predict = lambda block, z: over_batch(block)(z)  # noqa: E731
        first = over_batch(self.entry)(before)[None]
        belows = self._belows(activities)
        pairs = zip(self.blocks, belows, strict=True)
        return (first, *(_each(predict, block, z) for block, z in pairs))

    def pushforward(
        self,
        before: Num[Array, "batch ..."],
        activities: Activities,
        change: Array | None,
        changes: Activities,
    ) -> Float[Array, "batch ..."]:
        r"""Return how the last activity changes with those before it and with its errors.

        $$\delta_l = (\partial u_l / \partial z_{l-1})\, \delta_{l-1} + d_l$$

        `change` is $\delta_0$, of the activity before the stage (None for zero), `changes` is d.
        """
        first = changes[0][0]
        if change is not None:
            first = first + jax.jvp(over_batch(self.entry), (before,), (change,))[1]
        if not self.blocks:
            return first
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def repetition(change: Array, layer: tuple[Any, ...]) -> tuple[Array, None]:
            parts, own, i = layer
            for place, block in enumerate(eqx.combine(parts, rest)):
                below = self._below(activities, place, i)
                change = jax.jvp(over_batch(block), (below,), (change,))[1] + own[place]
            return change, None

        layers = (arrays, changes[1:], jnp.arange(self.repetitions))
        return jax.lax.scan(repetition, first, layers)[0]

    def pullback(
        self, activities: Activities, last: Float[Array, "batch ..."], gradients: Activities | None
    ) -> Activities:
        r"""Propagate a gradient down: $a_l = (\partial u_{l+1} / \partial z_l)^\top a_{l+1} + g_l$.

        `last` is what reaches the last activity from beyond the stage, `gradients` is g.
        """
        top = last if gradients is None else last + gradients[-1][-1]
        if not self.blocks:
            return (top[None],)
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)
        below_own = None if gradients is None else self._belows(gradients)

        def repetition(above: Array, layer: tuple[Any, ...]) -> tuple[Array, tuple[Array, ...]]:
            parts, own, i = layer
            adjoints: tuple[Array, ...] = ()
            blocks = eqx.combine(parts, rest)
            for place in reversed(range(len(blocks))):
                adjoints = (above, *adjoints)
                z = self._below(activities, place, i)
                (above,) = jax.vjp(over_batch(blocks[place]), z)[1](above)
                above = above if own is None else above + own[place]
            return above, adjoints

        layers = (arrays, below_own, jnp.arange(self.repetitions))
        first, banks = jax.lax.scan(repetition, top, layers, reverse=True)
        return (first[None], *banks)

    def local_gradient(
        self,
        term: Term,
        before: Num[Array, "batch ..."],
        activities: Activities,
        above: Float[Array, "batch ..."],
        numbers: PyTree[Float[Array, "_layer ..."]],
    ) -> LocalGradient:
        r"""Differentiate $\sum_l \text{term}(u_l(z_{l-1}), z_l)$ by the activities, in one loop.

        A term is local: its gradient by z_l and by z_{l-1} is known as soon as the layer has been
        predicted. So nothing but the gradient leaves the loop, and a layer stays in the cache.

        Args:
            term: of a layer's prediction, its activity, and one of the numbers.
            before: what the stage reads.
            activities: of the stage.
            above: the gradient by its last activity of what lies beyond the stage.
            numbers: for each bank, one for each layer (or None).
        """

        def local(block: Block, below: Array, z: Array, number: Any) -> tuple[Any, ...]:
            one = lambda below, z: term(over_batch(block)(below), z, number)  # noqa: E731
            samples, (down, own) = with_gradient(one, below, z)
            return samples, down, own

        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def repetition(
            carry: tuple[Array, Array], layer: tuple[Any, ...]
        ) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
            (samples, above), (parts, z, number, i) = carry, layer
            blocks, gradients = eqx.combine(parts, rest), ()
            for place in reversed(range(len(blocks))):
                below = self._below(activities, place, i)
                value, down, own = local(blocks[place], below, z[place], number[place])
                samples, gradients = samples + value, (own + above, *gradients)
                above = down
            return (samples, above), gradients

        first = jax.tree.map(lambda values: values[0], numbers[0])
        samples, down, own = local(self.entry, before, activities[0][0], first)
        if not self.blocks:
            return LocalGradient(samples, down, ((own + above)[None],))
        layers = (arrays, activities[1:], numbers[1:], jnp.arange(self.repetitions))
        (samples, above), banks = jax.lax.scan(repetition, (samples, above), layers, reverse=True)
        return LocalGradient(samples, down, ((own + above)[None], *banks))

    def parameter_gradient(
        self, before: Num[Array, "batch ..."], activities: Activities, cotangents: Activities
    ) -> "Stage":
        r"""Return $\sum_l (\partial u_l / \partial W_l)^\top c_l$ at fixed activities.

        Every layer's part is its own: of the activity below it and of its cotangent c.
        """
        entry = by_parameters(self.entry, before, cotangents[0][0])
        belows = self._belows(activities)
        layers = zip(self.blocks, belows, cotangents[1:], strict=True)
        blocks = [_each(by_parameters, *own) for own in layers]
        like = eqx.filter(self, eqx.is_inexact_array)
        return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves((entry, blocks)))

    def loops_on(self, activities: Activities) -> tuple[str, ...]:
        """Return the platforms on which a block of the stage asks for a loop over layers."""
        pairs = zip(self.blocks, activities[1:], strict=True)
        platforms = [block.loops_on(z[0].size, local=True) for block, z in pairs]
        return tuple(sorted({platform for some in platforms for platform in some}))

    def _belows(self, arrays: Activities) -> Activities:
        """Return for each place of the pattern what lies below it, layer by layer."""
        if not self.blocks:
            return ()
        return (jnp.concatenate([arrays[0], arrays[-1][:-1]]), *arrays[1:-1])

    def _below(self, arrays: Activities, place: int, i: Int[Array, ""]) -> Array:
        """Return what lies below a place in repetition i, without a copy of all the others."""
        if place:
            return _at(arrays[place], i)
        return jnp.where(i > 0, _at(arrays[-1], jnp.maximum(i - 1, 0)), arrays[0][0])


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


def on_platforms(
    platforms: tuple[str, ...], loop: Callable[..., Any], together: Callable[..., Any], *arrays: Any
) -> Any:
    """Compute by a loop on some platforms, and all at once on others, chosen when it is lowered."""
    if not platforms:
        return together(*arrays)
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
