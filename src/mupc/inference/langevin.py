"""Langevin dynamics: inference that samples."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mupc.arrays import as_not_negative, as_positive, choose, sample_norms
from mupc.energies import Energy
from mupc.inference.solver import Keys, Move, Progress, Solver
from mupc.networks import Activities


class Langevin(Solver):
    r"""Gradient descent with noise, whose activities tend to samples of $\exp(-F / T)$.

    $$z \leftarrow z - \eta\, \nabla F(z) + \sqrt{2 \eta T}\; \xi, \quad \xi \sim N(0, 1)$$

    the unadjusted Langevin algorithm: in a direction of curvature λ the variance is
    $T / (\lambda (1 - \eta \lambda / 2))$, larger than it should be by a part of order η. Use it
    with `mupc.Endless()`.

    Args:
        step_size: η per sample; stable below 2 / λ of the largest curvature.
        temperature: T; at 0 it is gradient descent.
    """

    step_size: Float[Array, ""] = eqx.field(converter=as_positive)
    temperature: Float[Array, ""] = eqx.field(default=1.0, converter=as_not_negative)

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """Return two sweeps a step: predictions, and errors back."""
        return 2.0 * steps

    def init(self, energy: Energy, position: Activities) -> None:
        """Return None: steps do not depend on those before."""

    def step(
        self, energy: Energy, position: Activities, state: None, keys: Keys
    ) -> tuple[Move, None, Progress]:
        """Make one step along the gradient, and one at random."""
        samples, gradient = energy.samples_and_gradient(position)
        size = jnp.sqrt(2 * self.step_size * self.temperature)

        def moved(bank: Any, z: Array, slope: Array) -> Array:
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, bank)
            noise = jax.vmap(lambda key, z: jax.random.normal(key, z.shape, z.dtype), (0, 1), 1)
            return z - self.step_size * slope + size * noise(own, z)

        new = tuple(map(moved, range(len(position)), position, gradient))
        # What is known of an input has no gradient, and takes no noise.
        change = energy.unknown(jax.tree.map(jnp.subtract, new, position))
        new = jax.tree.map(jnp.add, position, change)
        move = lambda active: choose(active, new, position)  # noqa: E731
        return move, state, Progress(samples, sample_norms(gradient))
