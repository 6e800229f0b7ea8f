"""Predictive coding of two networks over one set of activities: both ways, and hybrid."""

from collections.abc import Sequence
from typing import cast

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from mupc.arrays import as_positive
from mupc.energies import AmortisedEnergy, BidirectionalEnergy, Energy
from mupc.inference import LBFGS, GaussNewton, InErrors, Solver, Stopping
from mupc.learning.predictive_coding import Carry, PredictiveCoding
from mupc.learning.regime import Held
from mupc.learning.rule import Batch
from mupc.likelihoods import Gaussian, Likelihood
from mupc.networks import Bidirectional, Network
from mupc.regularisers import Regulariser

# The target's precision and the factor α of the downward energy: measured, see docs/choosing.md.
_PRECISION, _STRENGTH = 0.1, 0.0003
_STEPS, _PAIRS = 10, 4
# Of hybrid: conjugate gradient steps, Gauss–Newton iterations, and the input's precision.
_CG_STEPS, _ITERATIONS, _DOWN = 5, 5, 0.1


class BidirectionalPredictiveCoding(PredictiveCoding):
    r"""Bidirectional predictive coding (arXiv 2505.23415).

    One set of activities settles to a minimum of the energies of both networks,

    $$F(z) = F_\uparrow(z; x, y) + \alpha\, F_\downarrow(z; y, x)$$

    and each weight changes by its own layer's error, of either direction
    (`mupc.BidirectionalEnergy`). What it predicts of an input is the pass of `network.up`; what it
    makes of a target is `network.down.feedforward(y).output`.

    What differs between inputs of one target cannot be predicted from it, so that downward errors
    do not vanish, and pull activities together: α says how much that counts.

    Args:
        solver: how activities settle; `mupc.InErrors(mupc.LBFGS(4))` unless given. Gauss–Newton,
            which is for the errors of one direction, is refused.
        max_steps: the largest number of solver steps, 10 unless given.
        likelihood: of the target; `mupc.Gaussian(0.1)` unless given.
        strength: α; 0.0003 unless given, which suits some 8 layers: more need less.
        down_likelihood: of the input; `mupc.Gaussian()` unless given.
        regularisers: further terms: on the weights of both, and once on the activities.
        stopping: when inference is done with a sample; `mupc.Tolerance()` unless given.

    Raises:
        ValueError: if an argument is impossible.
        TypeError: if one is not what it should be, or the network no `mupc.Bidirectional`.
    """

    strength: Float[Array, ""]
    down_likelihood: Likelihood

    def __init__(
        self,
        solver: Solver | None = None,
        max_steps: Int[ArrayLike, ""] = _STEPS,
        likelihood: Likelihood | None = None,
        *,
        strength: ArrayLike = _STRENGTH,
        down_likelihood: Likelihood | None = None,
        regularisers: Sequence[Regulariser] = (),
        stopping: Stopping | None = None,
    ) -> None:
        super().__init__(
            InErrors(LBFGS(_PAIRS)) if solver is None else solver,
            max_steps,
            Gaussian(_PRECISION) if likelihood is None else likelihood,
            regularisers=regularisers,
            stopping=stopping,
        )
        if isinstance(solver, GaussNewton):
            raise ValueError(
                "GaussNewton is for the errors of one direction, and a bidirectional energy has "
                "two: use mupc.InErrors(mupc.LBFGS())"
            )
        self.strength = as_positive(strength)
        self.down_likelihood = Gaussian() if down_likelihood is None else down_likelihood

    def minimised(self, network: Network, batch: Batch) -> Energy:
        """Return the energy of both directions."""
        return BidirectionalEnergy(
            cast(Bidirectional, network),  # which the energy checks
            *batch,
            self.likelihood,
            self.regularisers,
            strength=self.strength,
            down_likelihood=self.down_likelihood,
        )


class HybridPredictiveCoding(PredictiveCoding):
    r"""Hybrid predictive coding: one network begins the inference of another (arXiv 2204.02169).

    Activities settle to a minimum z* of the energy of `network.down`, which predicts the input from
    the target, from where the pass of `network.up` puts them; both networks then learn from z*
    (`mupc.AmortisedEnergy`). What it predicts of an input is the pass of `up`.

    It is for a few plain layers: residual ones add to what they are given, and hardly learn to
    predict activities whose scale changes from layer to layer.

    Args:
        solver: how activities settle; `mupc.GaussNewton(5)` unless given.
        max_steps: the largest number of solver steps, 5 unless given.
        likelihood: of the target, which `up` predicts; `mupc.Gaussian()` unless given.
        down_likelihood: of the input; `mupc.Gaussian(0.1)` unless given.
        regularisers: further terms, on the weights of both.
        stopping: when inference is done with a sample; `mupc.Tolerance()` unless given.

    Raises:
        ValueError: if an argument is impossible.
        TypeError: if one is not what it should be, or the network no `mupc.Bidirectional`.
    """

    down_likelihood: Likelihood

    def __init__(
        self,
        solver: Solver | None = None,
        max_steps: Int[ArrayLike, ""] = _ITERATIONS,
        likelihood: Likelihood | None = None,
        *,
        down_likelihood: Likelihood | None = None,
        regularisers: Sequence[Regulariser] = (),
        stopping: Stopping | None = None,
    ) -> None:
        super().__init__(
            GaussNewton(_CG_STEPS) if solver is None else solver,
            max_steps,
            Gaussian() if likelihood is None else likelihood,
            regularisers=regularisers,
            stopping=stopping,
        )
        self.down_likelihood = Gaussian(_DOWN) if down_likelihood is None else down_likelihood

    def minimised(self, network: Network, batch: Batch) -> AmortisedEnergy:
        """Return the energy of `down`, of which `up` learns the start."""
        return AmortisedEnergy(
            cast(Bidirectional, network),  # which the energy checks
            *batch,
            self.likelihood,
            self.regularisers,
            down_likelihood=self.down_likelihood,
        )

    def begin(
        self, network: Network, batch: Batch, state: Held | None, key: PRNGKeyArray
    ) -> tuple[Carry, Held | None]:
        """Start inference at the pass of `up`."""
        del key
        energy = self.minimised(network, batch)
        output = network.feedforward(batch[0]).output
        return Carry(energy, energy.start, output, jnp.ones(len(output), output.dtype)), state
