"""Any optax transformation as a solver."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from mupc.arrays import choose, sample_norms
from mupc.energies import Energy
from mupc.hyperparameters import update_with
from mupc.inference.solver import Keys, Move, Progress, Solver
from mupc.networks import Activities


class Optax(Solver):
    """An optax transformation on activities, applied to each sample by itself.

    It is mapped over the batch, so that one which couples entries (clipping by the global norm,
    say) never couples samples, and one that adds noise draws another for each of them.

    Args:
        transformation: from optax. To change its hyperparameters without compiling again, build it
            with `mupc.traced`.
    """

    transformation: optax.GradientTransformation

    @property
    def follows(self) -> bool:
        """True."""
        return True

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """Return two sweeps a step: predictions, and errors back."""
        return 2.0 * steps

    def init(self, energy: Energy, position: Activities) -> PyTree[Any]:
        """Initialise the transformation for every sample, with random keys of its own."""
        axes = self._state_axes(position)

        def one(position: Activities, i: Int[Array, ""]) -> PyTree[Any]:
            state = self.transformation.init(position)
            return jax.tree_util.tree_map_with_path(lambda path, v: _folded(path, v, i), state)

        samples = jnp.arange(position[0].shape[1])
        return jax.vmap(one, in_axes=(1, 0), out_axes=axes)(position, samples)

    def step(
        self, energy: Energy, position: Activities, state: PyTree[Any], keys: Keys
    ) -> tuple[Move, PyTree[Any], Progress]:
        """Apply the transformation to the gradient, and its update to the activities."""
        samples, gradient = energy.samples_and_gradient(position)
        axes = self._state_axes(position)
        one = lambda *own: update_with(self.transformation, *own)  # noqa: E731
        updates, state = jax.vmap(one, in_axes=(1, axes, 1, 0), out_axes=(1, axes))(
            gradient, state, position, samples
        )
        moved = jax.tree.map(jnp.add, position, updates)
        move = lambda active: choose(active, moved, position)  # noqa: E731
        return move, state, Progress(samples, sample_norms(gradient))

    def _state_axes(self, activities: Activities) -> PyTree[int]:
        """Where the batch lies in each array of the state: beside the layers, as in activities."""
        sample = jax.tree.map(lambda z: z[:, 0], activities)
        state = jax.eval_shape(self.transformation.init, sample)
        return jax.tree.map(lambda leaf: min(leaf.ndim, 1), state)


def _folded(path: tuple[Any, ...], leaf: Array, i: Int[Array, ""]) -> Array:
    """Fold a sample's number into a random key, which is of a key's type or named as optax does."""
    named = any(getattr(entry, "name", None) == "rng_key" for entry in path)
    if named or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.fold_in(leaf, i)
    return leaf
