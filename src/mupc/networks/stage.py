"""A stage: an entry layer and a stack of identical blocks, with depth as an array axis."""

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.networks.layers import Block

# Elements of a layer's activity from which a loop over layers pays on a CPU: at batch 64 an
# inference step takes a tenth to a quarter less time at width 128, but a fifth more at width 64,
# and a training step more memory (benchmarks/inference_step.py, benchmarks/memory.py).
_LARGE_LAYER = 64 * 128


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

        # One batched product for all layers; on a CPU, where the elementwise work between products
        # is bound by memory, layer by layer if a layer is large: then it stays in the cache.
        if jax.default_backend() == "cpu" and activities[0].size >= _LARGE_LAYER:
            others = jax.lax.map(lambda pair: layer(*pair), (arrays, activities[:-1]))
        else:
            others = jax.vmap(layer)(arrays, activities[:-1])
        return jnp.concatenate([first[None], others])
