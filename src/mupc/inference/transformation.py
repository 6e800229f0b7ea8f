"""Any optax transformation as a solver."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from mupc.arrays import choose, sample_norms
from mupc.energies import Energy
from mupc.inference.solver import Move, Progress, Solver
from mupc.networks import Activities


class Optax(Solver):
    """An optax transformation on activities, applied to each sample by itself.

    It is mapped over the batch, so that one which couples entries (clipping by the global norm,
    say) never couples samples.

    Args:
        transformation: from optax. To change its hyperparameters without compiling again, build it
            with `mupc.traced`.
    """

    transformation: optax.GradientTransformation

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """Give two sweeps a step: predictions, and errors back."""
        return 2.0 * steps

    def init(self, energy: Energy, position: Activities) -> PyTree[Any]:
        """Initialise the transformation for every sample."""
        axes = self._state_axes(position)
        return jax.vmap(self.transformation.init, in_axes=1, out_axes=axes)(position)

    def step(
        self, energy: Energy, position: Activities, state: PyTree[Any]
    ) -> tuple[Move, PyTree[Any], Progress]:
        """Apply the transformation to the gradient, and its update to the activities."""
        samples, gradient = energy.samples_and_gradient(position)
        axes = self._state_axes(position)
        updates, state = jax.vmap(
            self.transformation.update, in_axes=(1, axes, 1), out_axes=(1, axes)
        )(gradient, state, position)
        moved = jax.tree.map(jnp.add, position, updates)
        move = lambda active: choose(active, moved, position)  # noqa: E731
        return move, state, Progress(samples, sample_norms(gradient))

    def _state_axes(self, activities: Activities) -> PyTree[int]:
        """Where the batch lies in each array of the state: beside the layers, as in activities."""
        sample = jax.tree.map(lambda z: z[:, 0], activities)
        state = jax.eval_shape(self.transformation.init, sample)
        return jax.tree.map(lambda leaf: min(leaf.ndim, 1), state)
