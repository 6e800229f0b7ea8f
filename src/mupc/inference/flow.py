"""Gradient flow: the continuous-time dynamics of the activities, by diffrax."""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.arrays import as_not_negative, as_positive, choose, sample_norms
from mupc.energies import Energy
from mupc.inference.solver import Keys, Move, Progress, Solver
from mupc.networks import Activities

if TYPE_CHECKING:  # it loads when used: it costs as much as half of JAX
    import diffrax


def _tsit5() -> "diffrax.AbstractSolver[Any]":
    import diffrax

    return diffrax.Tsit5()


def _pid() -> "diffrax.AbstractStepSizeController[Any, Any]":
    import diffrax

    return diffrax.PIDController(rtol=1e-6, atol=1e-8)


class GradientFlow(Solver):
    r"""Follow $\dot z = -\partial F / \partial z$ until the vector field is small.

    One step of `infer` integrates from $t = 0$ to `horizon`, or to the time at which
    $\|\partial F / \partial z\| \le \text{rtol} \cdot \|\partial F / \partial z\|^{(0)}$. Each
    sample has its own time, step size and end. In activities the flow is stiff, with a ratio of
    time scales that grows with the square of the depth; that of the errors, which is
    `mupc.InErrors(mupc.GradientFlow())`, has the same end and is not.

    Args:
        solver: any of diffrax's; `diffrax.Tsit5()` unless given.
        controller: of the step size; `diffrax.PIDController(rtol=1e-6, atol=1e-8)` unless given.
            Its tolerances bound how small the vector field can become.
        rtol: ends the flow, see above.
        horizon: the longest time to integrate for.
        dt0: the first step; a controller that adapts chooses it unless given.
        max_steps: the largest number of diffrax's steps; a sample that needs more stays there.
    """

    solver: "diffrax.AbstractSolver[Any]" = eqx.field(default_factory=_tsit5)
    controller: "diffrax.AbstractStepSizeController[Any, Any]" = eqx.field(default_factory=_pid)
    rtol: Float[Array, ""] = eqx.field(default=1e-4, converter=as_not_negative)
    horizon: Float[Array, ""] = eqx.field(default=1e4, converter=as_positive)
    dt0: float | None = None
    max_steps: int = eqx.field(default=4096, static=True)

    def init(self, energy: Energy, position: Activities) -> None:
        """Return None: every step integrates anew."""

    def step(
        self, energy: Energy, position: Activities, state: None, keys: Keys
    ) -> tuple[Move, None, Progress]:
        """Integrate."""
        samples, gradient = energy.samples_and_gradient(position)
        residual = sample_norms(gradient)
        batch = jnp.arange(residual.shape[0])
        flow = jax.vmap(lambda i, z, norm: self._flow(energy.of_sample(i), z, norm), (0, 1, 0), 1)
        moved = flow(batch, position, residual)
        move = lambda active: choose(active, moved, position)  # noqa: E731
        return move, state, Progress(samples, residual)

    def _flow(self, energy: Energy, start: Activities, residual: Float[Array, ""]) -> Activities:
        """Integrate one sample, whose activities are (layer, ...)."""
        import diffrax

        def field(t: Any, z: Activities, args: Any) -> Activities:
            one = jax.tree.map(lambda leaf: leaf[:, None], z)
            gradient = energy.samples_and_gradient(one)[1]
            return jax.tree.map(lambda leaf: -leaf[:, 0], gradient)

        def steady(t: Any, z: Activities, args: Any, **kwargs: Any) -> Array:
            speed = sample_norms(jax.tree.map(lambda leaf: leaf[:, None], field(t, z, args)))[0]
            return speed <= self.rtol * residual

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            self.solver,
            t0=0.0,
            t1=self.horizon,
            dt0=self.dt0,
            y0=start,
            stepsize_controller=self.controller,
            event=diffrax.Event(steady),
            max_steps=self.max_steps,
            throw=False,
        )
        return jax.tree.map(lambda leaf: leaf[-1], solution.ys)
