"""Fixed point iteration, for states on a box."""

from typing import ClassVar

from jaxtyping import Array, Float, Int

from mupc.arrays import choose, sample_norms
from mupc.energies import Energy, HopfieldEnergy
from mupc.inference.solver import Keys, Move, Progress, Solver
from mupc.networks import Activities, alternately


class FixedPoint(Solver):
    r"""Put every other layer where its neighbours drive it to, and then the layers between.

    $$s_l \leftarrow \min(1, \max(0, -\partial C / \partial s_l))$$

    with C the couplings of a Hopfield energy of states on a box (arXiv 2312.15103, Section 3, its
    asynchronous scheme). Each half of a step minimises the energy over the layers that it moves;
    where a neighbour reads their largest pixel, over a bound that touches it from above, as long as
    no output reads it. So energy never rises, whatever the weights.
    """

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
        moved = alternately(position, energy.to_minima)
        move = lambda active: choose(active, moved, position)  # noqa: E731
        return move, state, Progress(samples, sample_norms(gradient))
