"""An energy with its hidden errors as coordinates."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int, PyTree

from mupc.energies.energy import Energy, ErrorEnergy, Point
from mupc.networks import Activities


class ErrorView(Energy):
    r"""An energy as a function of the hidden errors (arXiv 2505.20137), each in its own unit.

    $$E(w) = F(z(w)) = \sum_l \tfrac12 \|w_l\|^2 + \ell(y, g(w)), \quad
      z_l = u_l(z_{l-1}) + \pi_l^{-1/2} w_l$$

    It has the minima of F, but the hidden part of its Hessian is the identity, where F's is a
    chain whose condition number grows with the square of the depth, and with the range of the
    precisions. Gradients cost two sweeps. In place of activities, its points hold w.
    """

    energy: ErrorEnergy

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
        return self.energy.samples(point), self.energy.whiten(self.energy.error_gradient(point))

    def run(self, coordinates: Activities) -> Point:
        """Return the energy's own point at w."""
        return self.energy.run(self.energy.whiten(coordinates))

    def enter(self, point: Point) -> Activities:
        """Return w of the energy's own point."""
        return self.energy.coloured(point.errors)

    def of_sample(self, i: int | Int[Array, ""]) -> "ErrorView":
        """Return the energy of sample i alone, as a batch of one."""
        one: Any = self.energy.of_sample(i)
        return ErrorView(one)
