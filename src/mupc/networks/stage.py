"""A stage: an entry layer and a stack of identical blocks, with depth as an array axis."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.networks.layers import Block

Term = Callable[..., Float[Array, " batch"]]
"""A part of an energy: each sample's value, from arrays of one layer (batch, ...)."""

# Elements of a layer's activity from which a loop over layers pays on a CPU: at batch 64 an
# inference step takes a tenth less time at width 128, but a fifth more at width 64.
_LARGE_LAYER = 64 * 128


class LocalGradient(NamedTuple):
    """The sum of a stage's terms, (batch,), and its gradient by the stage's two arguments."""

    samples: Float[Array, " batch"]
    before: Float[Array, "batch ..."]
    activities: Float[Array, "layer batch ..."]


class Stage(eqx.Module):
    """Layers whose activities have one shape, and are one array.

    `blocks` is a single block whose arrays carry a leading layer axis (as `equinox.filter_vmap` of
    a constructor gives). Activities are (1 + number of blocks, batch, ...): the entry's come first.
    """

    entry: Block
    blocks: Block

    @property
    def size(self) -> int:
        """How many activities the stage holds: one for the entry, one for each block."""
        return 1 + jax.tree.leaves(eqx.filter(self.blocks, eqx.is_array))[0].shape[0]

    def feedforward(
        self, before: Float[Array, "batch ..."], errors: Float[Array, "layer batch ..."] | None
    ) -> Float[Array, "layer batch ..."]:
        """Run the layers in turn, adding to each prediction its error if there are errors."""
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)
        first = jax.vmap(self.entry)(before)
        if errors is not None:
            first = first + errors[0]

        def layer(
            z: Float[Array, "batch ..."], block_and_error: tuple[Any, Array | None]
        ) -> tuple[Array, Array]:
            block, error = block_and_error
            u = jax.vmap(cast(Block, eqx.combine(block, rest)))(z)
            z = u if error is None else u + error
            return z, z

        _, others = jax.lax.scan(layer, first, (arrays, None if errors is None else errors[1:]))
        return jnp.concatenate([first[None], others])

    def predictions(
        self, before: Float[Array, "batch ..."], activities: Float[Array, "layer batch ..."]
    ) -> Float[Array, "layer batch ..."]:
        """Predict every activity from the one below it, all layers at once."""
        first = jax.vmap(self.entry)(before)
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def layer(block: Any, z: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
            return jax.vmap(cast(Block, eqx.combine(block, rest)))(z)

        return jnp.concatenate([first[None], jax.vmap(layer)(arrays, activities[:-1])])

    def pushforward(
        self,
        before: Float[Array, "batch ..."],
        activities: Float[Array, "layer batch ..."],
        change: Float[Array, "batch ..."] | None,
        changes: Float[Array, "layer batch ..."],
    ) -> Float[Array, "batch ..."]:
        r"""Give how the last activity changes with those before it and with its errors.

        $$\delta_l = (\partial u_l / \partial z_{l-1})\, \delta_{l-1} + d_l$$

        `change` is $\delta_0$, of the activity before the stage (None for zero), `changes` is d.
        """
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)
        first = changes[0]
        if change is not None:
            first = first + jax.jvp(jax.vmap(self.entry), (before,), (change,))[1]

        def layer(change: Array, block_and_index: tuple[Any, Array]) -> tuple[Array, None]:
            block, i = block_and_index
            block = cast(Block, eqx.combine(block, rest))
            z, own = _at(activities, i), _at(changes, i + 1)
            return jax.jvp(jax.vmap(block), (z,), (change,))[1] + own, None

        return jax.lax.scan(layer, first, (arrays, jnp.arange(self.size - 1)))[0]

    def pullback(
        self,
        activities: Float[Array, "layer batch ..."],
        last: Float[Array, "batch ..."],
        gradients: Float[Array, "layer batch ..."] | None,
    ) -> Float[Array, "layer batch ..."]:
        r"""Propagate a gradient down: $a_l = (\partial u_{l+1} / \partial z_l)^\top a_{l+1} + g_l$.

        `last` is what reaches the last activity from beyond the stage, `gradients` is g.
        """
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)
        top = last if gradients is None else last + gradients[-1]

        def layer(
            carry: tuple[Array, Array], block_and_index: tuple[Any, Array]
        ) -> tuple[tuple[Array, Array], None]:
            (above, adjoints), (block, i) = carry, block_and_index
            _, down = jax.vjp(jax.vmap(cast(Block, eqx.combine(block, rest))), _at(activities, i))
            (adjoint,) = down(above)
            if gradients is not None:
                adjoint = adjoint + _at(gradients, i)
            return (adjoint, adjoints.at[i].set(adjoint)), None

        begin = (top, jnp.zeros_like(activities).at[-1].set(top))
        indices = jnp.arange(self.size - 1)
        return jax.lax.scan(layer, begin, (arrays, indices), reverse=True)[0][1]

    def local_gradient(
        self, term: Term, before: Float[Array, "batch ..."], activities: Float[Array, "layer ..."]
    ) -> LocalGradient:
        r"""Differentiate $\sum_l \text{term}(u_l(z_{l-1}), z_l)$ by the activities, in one loop.

        A term is local: its gradient by z_l and by z_{l-1} is known as soon as the layer has been
        predicted. So nothing but the gradient leaves the loop, and a layer stays in the cache.
        """
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        def local(block: Block, below: Array, z: Array) -> tuple[Array, tuple[Array, ...]]:
            return with_gradient(lambda below, z: term(jax.vmap(block)(below), z), below, z)

        def layer(
            carry: tuple[Array, Array, Array, Array], block_and_index: tuple[Any, Array]
        ) -> tuple[tuple[Array, Array, Array, Array], None]:
            samples, below, upward, gradient = carry
            block, i = block_and_index
            z = _at(activities, i + 1)
            value, (down, own) = local(cast(Block, eqx.combine(block, rest)), below, z)
            gradient = gradient.at[i].set(upward + down)
            return (samples + value, z, own, gradient), None

        samples, (by_before, own) = local(self.entry, before, activities[0])
        begin = (samples, activities[0], own, jnp.zeros_like(activities))
        (samples, _, own, gradient), _ = jax.lax.scan(
            layer, begin, (arrays, jnp.arange(self.size - 1))
        )
        return LocalGradient(samples, by_before, gradient.at[-1].set(own))


def _at(arrays: Float[Array, "layer batch ..."], i: Array) -> Float[Array, "batch ..."]:
    """Give one layer's array: scanned over by its index, a stack is never copied."""
    return jax.lax.dynamic_index_in_dim(arrays, i, keepdims=False)


def loop_pays(activities: Float[Array, "layer batch ..."]) -> bool:
    """Say whether a loop over a stage's layers is faster than all of them at once.

    Where the elementwise work between matrix products is bound by memory, it is: on a CPU, if a
    layer is large.
    """
    return jax.default_backend() == "cpu" and activities[0].size >= _LARGE_LAYER


def with_gradient(term: Term, *arrays: Array) -> tuple[Float[Array, " batch"], tuple[Array, ...]]:
    """Give each sample's value of a term, and the gradient of their sum by every array.

    An array of integers (the input may be one) has no gradient, and gets none.
    """

    def total(*arrays: Array) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
        samples = term(*arrays)
        return jnp.sum(samples), samples

    by_all = jax.grad(total, argnums=tuple(range(len(arrays))), has_aux=True, allow_int=True)
    gradient, samples = by_all(*arrays)
    return samples, gradient
