"""Incremental predictive coding: weights change with every step of inference."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import equinox as eqx
from jaxtyping import ArrayLike

from mupc.energies import Energy, FreeEnergy
from mupc.inference import GaussNewton, Solver, Start
from mupc.kinds import check_kind, check_sizes
from mupc.learning.predictive_coding import Nudge, PredictiveCoding
from mupc.likelihoods import Likelihood
from mupc.regularisers import Regulariser


class IncrementalPredictiveCoding(PredictiveCoding):
    r"""Incremental predictive coding (arXiv 2212.00720, Algorithm 1).

    Both minimise the energy at once: every step on the activities of a batch is followed by one of
    the optimiser on the weights,

    $$z \leftarrow z - \eta \frac{\partial F}{\partial z}, \quad
      W \leftarrow W - \alpha \frac{\partial F}{\partial W}$$

    so that nothing waits for an equilibrium. Activities go on from where they were, under the new
    weights. All updates on a batch are one compiled program.

    Args:
        solver: makes the steps on the activities, each as if it were its first;
            `mupc.GaussNewton()` unless given.
        updates: how many steps a batch is seen for, each with an update of the weights.
        likelihood: as for `mupc.PredictiveCoding`, as are all others.
        rho: see there.
        hold: see there.
        nudge: see there.
        regularisers: see there.
        start: see there.
        energy: see there.

    Raises:
        ValueError: if an argument is impossible.
        TypeError: if one is not what it should be.
    """

    latent: ClassVar[bool] = False

    count: int = eqx.field(static=True)

    def __init__(
        self,
        solver: Solver | None = None,
        updates: int = 4,
        likelihood: Likelihood | None = None,
        *,
        rho: ArrayLike | None = None,
        hold: bool | None = None,
        nudge: Nudge | None = None,
        regularisers: Sequence[Regulariser] = (),
        start: Start | None = None,
        energy: Callable[..., Energy] = FreeEnergy,
    ) -> None:
        check_sizes(updates=updates)
        self.count = updates
        solver = GaussNewton() if solver is None else solver
        check_kind("solver", solver, Solver, "a mupc.Solver, e.g. mupc.GaussNewton()")
        super().__init__(
            solver,
            1,
            likelihood,
            rho=rho,
            hold=hold,
            nudge=nudge,
            regularisers=regularisers,
            start=start,
            energy=energy,
        )

    @property
    def updates(self) -> int:
        """How often the weights change on one batch."""
        return self.count
