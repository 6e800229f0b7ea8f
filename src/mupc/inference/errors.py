"""Any gradient solver, on hidden errors instead of activities."""

from typing import Any

from jaxtyping import Array, Float, Int, PyTree

from mupc.energies import Energy, ErrorView, FreeEnergy
from mupc.inference.solver import Move, Position, Progress, Solver
from mupc.networks import Activities


class InErrors(Solver):
    r"""Run a solver on the hidden errors $e_l = z_l - u_l(z_{l-1})$ (arXiv 2505.20137).

    The energy has the same minima there, and the hidden part of its Hessian is the identity: the
    number of steps to equilibrium does not grow with depth as in activities. A gradient takes two
    sweeps, one after the other through the layers.

    Args:
        solver: what to run, such as `mupc.GradientDescent(0.5, momentum=0.5)`; step sizes are of
            errors.
    """

    solver: Solver

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """Give the inner solver's: a gradient in errors takes two sweeps too."""
        return self.solver.cost(steps)

    def init(self, energy: Energy, position: Any) -> PyTree[Any]:
        """Initialise the inner solver at the errors."""
        return self.solver.init(ErrorView(free(energy)), position)

    def step(
        self, energy: Energy, position: Any, state: PyTree[Any]
    ) -> tuple[Move, PyTree[Any], Progress]:
        """Make one step of the inner solver on the errors."""
        return self.solver.step(ErrorView(free(energy)), position, state)

    def enter(self, energy: Energy, activities: Activities, errors: Activities | None) -> Position:
        """Give the errors."""
        return free(energy).errors(activities) if errors is None else errors

    def leave(self, energy: Energy, position: Any) -> tuple[Activities, Activities | None]:
        """Run the network forwards with the errors."""
        return ErrorView(free(energy)).activities(position), position


def free(energy: Energy) -> FreeEnergy:
    """Give the energy, if it can be written in hidden errors.

    Raises:
        ValueError: if it cannot.
    """
    if not isinstance(energy, FreeEnergy):
        raise ValueError(
            f"error coordinates are those of a mupc.FreeEnergy, not of {type(energy).__name__}: "
            "take a solver in activities"
        )
    return energy
