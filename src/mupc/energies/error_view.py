"""An energy with its hidden errors as coordinates."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int, PyTree

from mupc.energies.energy import Energy, ErrorEnergy, Point
from mupc.energies.latent_units import LatentUnits
from mupc.networks import Activities


class ErrorView(Energy):
    r"""An energy as a function of the hidden errors (arXiv 2505.20137), each in its own unit.

    $$E(w) = F(z(w)) = \sum_l \tfrac12 \|w_l\|^2 + \ell(y, g(w)), \quad
      z_l = u_l(z_{l-1}) + \pi_l^{-1/2} w_l$$

    It has the minima of F, but the hidden part of its Hessian is the identity, where F's is a
    chain whose condition number grows with the square of the depth, and with the range of the
    precisions. Gradients cost two sweeps. In place of activities, its points hold w.

    Args:
        energy: what is viewed.
        units: of latent variables, $z_0 = P w_0$, in place of 1 (`latent_units`).
    """

    energy: ErrorEnergy
    units: LatentUnits | None = None

    @property
    def parameters(self) -> PyTree[Any]:
        """The energy's parameters; errors, and not activities, are fixed when they change."""
        return self.energy.parameters

    def with_parameters(self, parameters: PyTree[Any]) -> "ErrorView":
        """Return the view of the energy with other parameters."""
        return eqx.tree_at(lambda view: view.energy, self, self.energy.with_parameters(parameters))

    def layers(self, point: Point) -> Float[Array, "layers batch"]:
        """Return each layer's energy at w, the coordinates of this energy."""
        return self.energy.layers(self.run(point.activities))

    def samples_and_gradient(
        self, activities: Activities
    ) -> tuple[Float[Array, " batch"], Activities]:
        """Return each sample's energy, and the gradient of their sum, at w."""
        point = self.run(activities)
        gradient = self.energy.whiten(self.energy.error_gradient(point))
        return self.energy.samples(point), self._in_units(gradient)

    def run(self, coordinates: Activities) -> Point:
        """Return the energy's own point at w."""
        return self.energy.run(self.energy.whiten(self._in_units(coordinates)))

    def enter(self, point: Point) -> Activities:
        """Return w of the energy's own point."""
        first, *others = self.energy.coloured(point.errors)
        return (first if self.units is None else self.units.undo(first), *others)

    def of_sample(self, i: int | Int[Array, ""]) -> "ErrorView":
        """Return the energy of sample i alone, as a batch of one."""
        one: Any = self.energy.of_sample(i)
        return ErrorView(one, self.units)

    def _in_units(self, banks: Activities) -> Activities:
        """Return banks, the first of them in its units."""
        return banks if self.units is None else (self.units.apply(banks[0]), *banks[1:])
