"""Fixed point iteration, for states on a box."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, Int

from mupc.arrays import choose, sample_norms, scalar_that_is
from mupc.energies import Energy, HopfieldEnergy, Point
from mupc.inference.solver import Keys, Move, Progress, Solver
from mupc.networks import Activities, alternately

_below_two = scalar_that_is("above 0 and below 2", lambda value: 0 < value < 2)


class FixedPoint(Solver):
    r"""Put every other layer where its neighbours drive it to, and then the layers between.

    $$s_l \leftarrow \min(1, \max(0, s_l + \omega (d_l - s_l))), \quad
      d_l - s_l = -\partial F / \partial s_l$$

    for a Hopfield energy F of states on a box (arXiv 2312.15103, its asynchronous scheme, is
    ω = 1); an output, which has no box, moves by $\omega / (1 + f\pi)$ of its own slope. F bends by
    1 in what a half of a step moves, or lies below what does so where the largest pixel is read, so
    that a move Δ, cut at the border, changes it by at most $(1/2 - 1/\omega) \|\Delta\|^2$: energy
    never rises below ω = 2, whatever the weights, with likelihoods that bend by no more than their
    precision. Above 1 is faster where layers hold each other, and slower elsewhere. A start outside
    of the box is moved to its border.

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

    def enter(self, energy: HopfieldEnergy, point: Point) -> Activities:
        """Return the states, those outside of the box at its border."""
        return energy.network.on_box(point.activities)

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
