"""Fixed point iteration, for states on a box."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, Int

from mupc.arrays import choose, sample_norms, scalar_that_is
from mupc.energies import Energy, HopfieldEnergy
from mupc.inference.solver import Keys, Move, Progress, Solver
from mupc.networks import Activities, alternately

_below_two = scalar_that_is("above 0 and below 2", lambda value: 0 < value < 2)


class FixedPoint(Solver):
    r"""Put every other layer where its neighbours drive it to, and then the layers between.

    $$s_l \leftarrow \min(1, \max(0, s_l + \omega (d_l - s_l))), \quad
      d_l = -\partial C / \partial s_l$$

    with C the couplings of a Hopfield energy of states on a box (arXiv 2312.15103, its asynchronous
    scheme, is ω = 1). With ω = 1 each half of a step minimises the energy over the layers that it
    moves; where a neighbour reads their largest pixel, over a bound that touches it from above. So
    energy never rises below ω = 2, whatever the weights, as long as they are read by states of at
    least 0. Above 1 steps go beyond the minimum, which is faster where layers hold each other.

    Args:
        relaxation: ω, above 0 and below 2.
    """

    relaxation: Float[Array, ""] = eqx.field(default=1.0, converter=_below_two)
    takes: ClassVar[type[Energy]] = HopfieldEnergy

    @property
    def projects(self) -> bool:
        """True."""
        return True

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """Return three sweeps a step: two for where all layers stand, one for the second half."""
        return 3.0 * steps

    def init(self, energy: HopfieldEnergy, position: Activities) -> None:
        """Return None: steps do not depend on those before."""

    def step(
        self, energy: HopfieldEnergy, position: Activities, state: None, keys: Keys
    ) -> tuple[Move, None, Progress]:
        """Move both halves of the layers."""
        samples, gradient = energy.samples_and_gradient(position)
        moved = alternately(position, lambda z: energy.to_minima(z, self.relaxation))
        move = lambda active: choose(active, moved, position)  # noqa: E731
        return move, state, Progress(samples, sample_norms(gradient))
