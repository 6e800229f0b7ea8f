"""Any gradient solver, on hidden errors instead of activities."""

from typing import Any, ClassVar

from jaxtyping import Array, Float, Int, PyTree

from mupc.energies import Energy, ErrorEnergy, ErrorView, Point
from mupc.inference.solver import Keys, Move, Position, Progress, Solver


class InErrors(Solver):
    r"""Run a solver on the hidden errors $e_l = z_l - u_l(z_{l-1})$ (arXiv 2505.20137).

    Where layers have precisions, on $\pi_l^{1/2} e_l$. The energy has the same minima there, and
    the hidden part of its Hessian is the identity: the number of steps to equilibrium does not grow
    with depth as in activities. A gradient takes two sweeps, one after the other through the
    layers.

    Args:
        solver: what to run, such as `mupc.GradientDescent(0.5, momentum=0.5)`; step sizes are of
            these.
    """

    takes: ClassVar[type[Energy]] = ErrorEnergy
    in_activities: ClassVar[bool] = False
    solver: Solver

    def __check_init__(self) -> None:
        if self.solver.projects:
            raise ValueError(
                f"mupc.{type(self.solver).__name__} moves activities on a box, which errors are "
                "not on: use it by itself"
            )
        if not self.solver.in_activities:
            raise ValueError(
                f"mupc.{type(self.solver).__name__} has coordinates of its own: use it by itself"
            )

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"] | None:
        """Return the inner solver's: a gradient in errors takes two sweeps too."""
        return self.solver.cost(steps)

    def init(self, energy: ErrorEnergy, position: Any) -> PyTree[Any]:
        """Initialise the inner solver at the errors."""
        return self.solver.init(ErrorView(energy), position)

    def step(
        self, energy: ErrorEnergy, position: Any, state: PyTree[Any], keys: Keys
    ) -> tuple[Move, PyTree[Any], Progress]:
        """Make one step of the inner solver on the errors."""
        return self.solver.step(ErrorView(energy), position, state, keys)

    def enter(self, energy: ErrorEnergy, point: Point) -> Position:
        """Return the errors, each in its own unit."""
        return ErrorView(energy).enter(point)

    def leave(self, energy: ErrorEnergy, position: Any) -> Point:
        """Run the network forwards with the errors."""
        return ErrorView(energy).run(position)
