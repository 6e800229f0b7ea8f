"""Gradient descent on activities, and how its step size is given."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from mupc.arrays import as_positive, choose, over_samples, sample_norms, scalar_that_is
from mupc.energies import Energy
from mupc.inference.solver import Keys, Move, Progress, Solver
from mupc.networks import Activities


class StepSize(eqx.Module):
    """How large a step each sample takes."""

    @abstractmethod
    def __call__(
        self, energy: Energy, activities: Activities
    ) -> Float[Array, " batch"] | Float[Array, ""]:
        """Choose the step sizes of one inference, from where it starts."""

    @property
    def sweeps(self) -> float:
        """What that costs."""
        return 0.0


class FixedStep(StepSize):
    """The same step for every sample."""

    size: Float[Array, ""] = eqx.field(converter=as_positive)

    def __call__(self, energy: Energy, activities: Activities) -> Float[Array, ""]:
        """Return the size."""
        return self.size


def _as_step_size(value: StepSize | ArrayLike) -> StepSize:
    return value if isinstance(value, StepSize) else FixedStep(value)


_fraction = scalar_that_is("of at least 0 and below 1", lambda value: 0 <= value < 1)


def _as_momentum(value: ArrayLike | None) -> Float[Array, ""] | None:
    return None if value is None else _fraction(value)


class _State(eqx.Module):
    step_size: Float[Array, " batch"] | Float[Array, ""]
    velocity: Activities | None


class GradientDescent(Solver):
    r"""Gradient descent on all activities at once, with Nesterov momentum if given.

    $$z \leftarrow z - \eta\, \nabla F(z) \qquad\text{or}\qquad
      v \leftarrow \mu v + \nabla F(z),\quad z \leftarrow z - \eta\, (\nabla F(z) + \mu v)$$

    It is stable for η below 2 / λ, with λ the largest eigenvalue of the sample's Hessian (without
    momentum); the number of steps to equilibrium grows with the square of the depth.

    Args:
        step_size: η per sample (the gradient is never divided by the batch size); a number, or a
            `StepSize` such as `mupc.StableStep()`.
        momentum: μ, at least 0 and below 1, or None for plain descent.
    """

    step_size: StepSize = eqx.field(converter=_as_step_size)
    momentum: Float[Array, ""] | None = eqx.field(default=None, converter=_as_momentum)

    @property
    def follows(self) -> bool:
        """Whether its step is a number, and not found from the curvature of an energy."""
        return isinstance(self.step_size, FixedStep)

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """Return two sweeps a step: predictions, and errors back."""
        return self.step_size.sweeps + 2.0 * steps

    def init(self, energy: Energy, position: Activities) -> _State:
        """Choose the step sizes; start at rest."""
        velocity = None if self.momentum is None else jax.tree.map(jnp.zeros_like, position)
        return _State(self.step_size(energy, position), velocity)

    def step(
        self, energy: Energy, position: Activities, state: _State, keys: Keys
    ) -> tuple[Move, _State, Progress]:
        """Make one step along the gradient."""
        samples, gradient = energy.samples_and_gradient(position)
        direction, velocity = gradient, state.velocity
        if self.momentum is not None:
            mu = self.momentum
            velocity = jax.tree.map(lambda v, g: mu * v + g, velocity, gradient)
            direction = jax.tree.map(lambda v, g: mu * v + g, velocity, gradient)
        moved = jax.tree.map(
            lambda z, d: z - over_samples(state.step_size, z) * d, position, direction
        )
        seen = Progress(samples, sample_norms(gradient))
        move = lambda active: choose(active, moved, position)  # noqa: E731
        return move, _State(state.step_size, velocity), seen
