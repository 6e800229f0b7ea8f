"""An energy with its hidden errors as coordinates."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int, PyTree

from mupc.energies.energy import Energy, ErrorEnergy, Point
from mupc.networks import Activities


class ErrorView(Energy):
    r"""An energy as a function of the hidden errors (arXiv 2505.20137).

    $$E(e) = F(z(e)) = \sum_l \tfrac12 \|e_l\|^2 + \ell(y, g(e)), \quad z_l = u_l(z_{l-1}) + e_l$$

    It has the minima of F, but the hidden part of its Hessian is the identity, where F's is a
    chain whose condition number grows with the square of the depth. Gradients cost two sweeps. In
    place of activities, its points hold the errors.
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
        """Return each layer's energy at hidden errors, the coordinates of this energy."""
        return self.energy.layers(self.energy.run(point.activities))

    def samples_and_gradient(
        self, activities: Activities
    ) -> tuple[Float[Array, " batch"], Activities]:
        """Return each sample's energy, and the gradient of their sum, at hidden errors."""
        point = self.energy.run(activities)
        return self.energy.samples(point), self.energy.error_gradient(point)

    def of_sample(self, i: int | Int[Array, ""]) -> "ErrorView":
        """Return the energy of sample i alone, as a batch of one."""
        one: Any = self.energy.of_sample(i)
        return ErrorView(one)
