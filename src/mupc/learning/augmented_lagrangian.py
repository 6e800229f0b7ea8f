"""Predictive coding by augmented Lagrangians: multipliers take over what errors would hold."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from mupc.arrays import as_positive
from mupc.energies import Energy, FreeEnergy, Point
from mupc.inference import FixedSteps, GradientDescent, Progress, Solution, Solver, Stopping, infer
from mupc.kinds import check_kind, check_sizes
from mupc.learning.predictive_coding import Carry, PredictiveCoding, as_free
from mupc.learning.rule import Batch
from mupc.likelihoods import Gaussian, Likelihood
from mupc.networks import Activities, Network
from mupc.regularisers import Regulariser


class AugmentedLagrangian(PredictiveCoding):
    r"""Augmented Lagrangian predictive coding, PC-ALM (arXiv 2605.31022, Algorithm 1).

    Hidden errors are constraints, $e_l = z_l - u_l(z_{l-1}) = 0$, with multipliers $\lambda_l$:

    $$L(z, \lambda) = \ell(y, \hat y) + \sum_l \tfrac{1}{2} \|e_l\|^2 + \lambda_l^\top e_l$$

    A round makes some steps down L in the activities, and then $\lambda_l \leftarrow \lambda_l +
    \alpha\, e_l$. Where that comes to rest, errors are zero and multipliers are
    $-\partial \ell / \partial z_l$ along the feedforward pass: the weight gradient
    $\partial L / \partial W$, local as ever, is backpropagation's. Multipliers begin at zero with
    each batch; the last round's gradient has those from before its own update, as the source's.

    Steps on activities carry an error down one layer each, so that there must be more of them, in
    all rounds together, than layers; steps in errors reach all layers at once.

    Args:
        solver: makes the steps of a round; `mupc.GradientDescent(0.25)` unless given. With
            `mupc.GaussNewton()` few rounds are enough at any depth.
        max_steps: steps of a round; 1 unless given.
        rounds: how many.
        multiplier_rate: α.
        likelihood: ℓ; `mupc.Gaussian()` unless given.
        regularisers: further terms of the energy.
        stopping: when a round is done with a sample; `mupc.FixedSteps()` unless given.

    Raises:
        ValueError: if an argument is impossible.
        TypeError: if one is not what it should be.
    """

    latent: ClassVar[bool] = False

    rounds: int = eqx.field(static=True)
    multiplier_rate: Float[Array, ""]

    def __init__(
        self,
        solver: Solver | None = None,
        max_steps: Int[ArrayLike, ""] = 1,
        rounds: int = 64,
        multiplier_rate: ArrayLike = 1.0,
        likelihood: Likelihood | None = None,
        *,
        regularisers: Sequence[Regulariser] = (),
        stopping: Stopping | None = None,
    ) -> None:
        check_sizes(rounds=rounds)
        solver = GradientDescent(0.25) if solver is None else solver
        check_kind("solver", solver, Solver, "a mupc.Solver, e.g. mupc.GaussNewton()")
        self.rounds = rounds
        self.multiplier_rate = as_positive(multiplier_rate)
        super().__init__(
            solver,
            max_steps,
            Gaussian() if likelihood is None else likelihood,
            regularisers=regularisers,
            stopping=stopping or FixedSteps(),
        )

    def learn(
        self, carry: Carry, key: PRNGKeyArray, *, measure: bool | Bool[Array, ""] = True
    ) -> tuple[Solution, Network]:
        """Return where the last round ended, and what the weights would lower there."""
        end, energy, each = self._settle(carry, key, measure)
        steps = jnp.sum(each.steps, axis=0)
        return self._whole(end, each)._replace(steps=steps), energy.weight_gradient(
            end, unit=carry.factors
        )

    def trace(self, network: Network, batch: Batch, state: None, key: PRNGKeyArray) -> Solution:
        """Settle with a record of every round."""
        begin_key, update_key = jax.random.split(key)
        carry, _ = self.begin(network, batch, state, begin_key)
        end, _, each = self._settle(carry, update_key, True)
        steps = jnp.full_like(each.steps[0], self.rounds)
        return self._whole(end, each)._replace(steps=steps, trace=Progress(*each.initial))

    def _whole(self, end: Point, each: Solution) -> Solution:
        """Return the outcome of all rounds: the last one's, from where the first began."""
        first, last = (jax.tree.map(lambda v, i=i: v[i], each) for i in (0, -1))
        return last._replace(point=end, initial=first.initial)

    def _settle(
        self, carry: Carry, key: PRNGKeyArray, measure: bool | Bool[Array, ""]
    ) -> tuple[Point, FreeEnergy, Solution]:
        """Return where the last round ended, its energy, and the outcome of every round."""

        def run(
            at: tuple[Point, Activities, Activities], key: PRNGKeyArray
        ) -> tuple[tuple[Point, Activities, Activities], Solution]:
            point, _, multipliers = at
            solution = infer(
                _with(carry.energy, multipliers),
                self.solver,
                point,
                max_steps=self.max_steps,
                stopping=self.stopping,
                key=key,
                measure=measure,
            )
            new = jax.tree.map(
                lambda m, e: m + self.multiplier_rate * e, multipliers, solution.point.errors
            )
            return (solution.point, multipliers, new), solution._replace(point=Point((), ()))

        zeros = jax.tree.map(jnp.zeros_like, carry.start.activities)
        begin = carry.start, zeros, zeros
        (end, multipliers, _), each = jax.lax.scan(run, begin, jax.random.split(key, self.rounds))
        return end, _with(carry.energy, multipliers), each


def _with(energy: Energy, multipliers: Activities) -> FreeEnergy:
    """Return an energy with multipliers."""
    none = lambda leaf: leaf is None  # noqa: E731
    return eqx.tree_at(lambda e: e.multipliers, as_free(energy), multipliers, is_leaf=none)
