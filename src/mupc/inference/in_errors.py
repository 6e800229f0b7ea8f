"""Any gradient solver, on hidden errors instead of activities."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float, Int, PyTree

from mupc.energies import (
    Energy,
    ErrorEnergy,
    ErrorView,
    FreeEnergy,
    LatentUnits,
    Point,
    latent_units,
)
from mupc.inference.solver import Keys, Move, Progress, Solver
from mupc.networks import Activities


class InErrors(Solver):
    r"""Run a solver on the hidden errors $e_l = z_l - u_l(z_{l-1})$ (arXiv 2505.20137).

    Where layers have precisions, on $\pi_l^{1/2} e_l$. The energy has the same minima there, and
    the hidden part of its Hessian is the identity: the number of steps to equilibrium does not grow
    with depth as in activities. A gradient takes two sweeps, one after the other through the
    layers.

    Where the input is free, errors of the first layer are the latent variables. Their part of the
    Hessian is $I + J^\top B B^\top J$, of a condition number that grows with learning: to 10⁵ in
    decoders of images. In the units of `whitened` it is the identity where inference starts.

    Args:
        solver: what to run, such as `mupc.GradientDescent(0.5, momentum=0.5)`; step sizes are of
            these.
        whitened: whether latent variables are moved in units in which they matter alike, $z_0 = P
            w_0$ with $P = (I + J^\top B B^\top J)^{-1/2}$ at $z_0 = 0$. For every batch that takes
            as many products with the Jacobian of one sample as there are latent variables, and the
            eigenvectors of P. Only for networks whose input is free.
    """

    takes: ClassVar[type[Energy]] = ErrorEnergy
    in_activities: ClassVar[bool] = False
    solver: Solver
    whitened: bool = eqx.field(default=False, static=True)

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

    def init(self, energy: ErrorEnergy, position: "_Whitened | Activities") -> PyTree[Any]:
        """Initialise the inner solver at the errors."""
        view, errors = _viewed(energy, position)
        return self.solver.init(view, errors)

    def step(
        self,
        energy: ErrorEnergy,
        position: "_Whitened | Activities",
        state: PyTree[Any],
        keys: Keys,
    ) -> tuple[Move, PyTree[Any], Progress]:
        """Make one step of the inner solver on the errors."""
        view, errors = _viewed(energy, position)
        move, state, seen = self.solver.step(view, errors, state, keys)
        if not isinstance(position, _Whitened):
            return move, state, seen
        return lambda active: position._replace(errors=move(active)), state, seen

    def enter(self, energy: ErrorEnergy, point: Point) -> "_Whitened | Activities":
        """Return the errors, each in its own unit."""
        if not self.whitened:
            return ErrorView(energy).enter(point)
        if not isinstance(energy, FreeEnergy):
            raise ValueError("whitened=True is for a mupc.FreeEnergy of a network that generates")
        units = latent_units(energy)
        return _Whitened(ErrorView(energy, units).enter(point), units)

    def leave(self, energy: ErrorEnergy, position: "_Whitened | Activities") -> Point:
        """Run the network forwards with the errors."""
        view, errors = _viewed(energy, position)
        return view.run(errors)


class _Whitened(NamedTuple):
    """Errors, and the units of the latent variables among them."""

    errors: Activities
    units: LatentUnits


def _viewed(
    energy: ErrorEnergy, position: "_Whitened | Activities"
) -> tuple[ErrorView, Activities]:
    if isinstance(position, _Whitened):
        return ErrorView(energy, position.units), position.errors
    return ErrorView(energy), position
