"""Predictive coding: infer, then learn from local errors."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from mupc.arrays import as_count, as_not_negative
from mupc.energies import FreeEnergy
from mupc.inference import (
    Beginning,
    FeedforwardStart,
    Schedule,
    Solution,
    Solver,
    Start,
    infer,
    step_limit,
)
from mupc.learning.regime import Held
from mupc.learning.rule import (
    Batch,
    Info,
    LearningRule,
    explain_feedforward,
    explain_gradients,
)
from mupc.likelihoods import Gaussian, Likelihood
from mupc.networks import Network
from mupc.regularisers import Regulariser

# Inference that multiplies the energy by this much, instead of lowering it, has gone wrong.
_RISE = 10.0


class PredictiveCoding(LearningRule):
    r"""Predictive coding (arXiv 2505.13124, Eqs. 3 and 4).

    Activities settle to a minimum z* of the free energy F, or as near as `max_steps` bring them;
    then the weight gradient is $\partial F / \partial W$ at fixed z*, which is local to each layer.

    Args:
        solver: how activities settle; or a schedule of solvers.
        max_steps: the largest number of solver steps; a schedule has its own, so that it may be
            left out there.
        likelihood: the output's energy; `mupc.Gaussian()` unless given.
        regularisers: further terms of the energy.
        rtol: relative tolerance of inference, see `mupc.infer`.
        atol: absolute tolerance of inference.
        patience: steps without a new lowest energy after which a sample has stalled; 0: never.
        start: where inference starts; `mupc.FeedforwardStart()` unless given.
        hold_regime: whether the precision falls as the network learns, so that the regime number
            of what is learned does not rise above that of the first batch (else it grows tenfold
            and more): $\pi_t = \pi \min(1, \rho_0 / \rho_t)$, with ρ from
            `mupc.theory.learned_regime_number`. Learning differentiates F at the precision $\pi_t$
            times $\pi / \pi_t$: as if the output kept its precision and the hidden errors weighed
            more, so that no learning rate is changed. Terms on the weights stay as they are; a
            decay of activities counts as a hidden term. What a run has measured is in the state:
            a new one begins anew.
    """

    solver: Solver | Schedule
    max_steps: Int[Array, ""] | None = eqx.field(
        default=None, converter=lambda value: None if value is None else as_count(value, least=1)
    )
    likelihood: Likelihood = eqx.field(default_factory=Gaussian)
    regularisers: tuple[Regulariser, ...] = eqx.field(default=(), converter=tuple)
    rtol: Float[Array, ""] = eqx.field(default=1e-3, converter=as_not_negative)
    atol: Float[Array, ""] = eqx.field(default=0.0, converter=as_not_negative)
    patience: Int[Array, ""] = eqx.field(default=10, converter=as_count)
    start: Start = eqx.field(default_factory=FeedforwardStart)
    hold_regime: bool = eqx.field(default=False, static=True)

    def __check_init__(self) -> None:
        step_limit(self.solver, self.max_steps)

    @property
    def limit(self) -> Int[Array, ""]:
        """The largest number of steps."""
        return step_limit(self.solver, self.max_steps)

    def init(self, network: Network, key: PRNGKeyArray) -> Held | None:
        """Give the state that holds the regime; else None: batches are independent."""
        return Held.begin() if self.hold_regime else None

    def gradients(
        self,
        network: Network,
        batch: Batch,
        state: PyTree[Any],
        key: PRNGKeyArray,
        *,
        measure: bool | Bool[Array, ""] = True,
    ) -> tuple[Network, PyTree[Any], Info]:
        """Infer, then differentiate with respect to the weights."""
        energy, begin, output, state = self._begin(network, batch, state, key)
        solution = self._infer(energy, begin, self.max_steps, measure)
        activities, errors = solution.activities, solution.errors
        if errors is None:
            errors = energy.errors(activities)
        unit = 1.0 if state is None else state.factor
        gradients = energy.weight_gradient(activities, errors, unit=unit)
        layers = jnp.mean(energy.layers(activities, errors), axis=1)
        before = jnp.mean(energy.layers(begin.activities, begin.errors), axis=1)
        solution = solution._replace(activities=(), errors=None)
        sweeps = self.solver.cost(solution.steps)
        precision = energy.likelihood.precision
        return gradients, state, Info(output, before, layers, precision, solution, sweeps)

    def trace(
        self, network: Network, batch: Batch, state: PyTree[Any], key: PRNGKeyArray
    ) -> Solution:
        """Infer as for learning, with a record of every step."""
        energy, begin, _, _ = self._begin(network, batch, state, key)
        return self._infer(energy, begin, self.max_steps, measure=True, trace=True)

    def explain(self, network: Network, batch: Batch, state: PyTree[Any], key: PRNGKeyArray) -> str:
        """Look for the step and the layer where inference goes wrong, if the start does not."""
        if (sentence := explain_feedforward(network, batch[0])) is not None:
            return sentence
        energy, begin, _, _ = self._begin(network, batch, state, key)
        before = float(jnp.mean(energy.samples(begin.activities)))

        def layers(steps: int) -> np.ndarray:
            solution = self._infer(energy, begin, steps, measure=False)
            samples = np.asarray(energy.layers(solution.activities), np.float64)
            return np.mean(np.nan_to_num(samples, nan=np.inf, posinf=np.inf), axis=1)

        # Bisect for the first step after which the energy is out of bounds.
        good, bad = 0, int(self.limit)
        if np.sum(layers(bad)) <= _RISE * before:
            return explain_gradients(self.gradients(network, batch, state, key)[0])
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (good, middle) if np.sum(layers(middle)) > _RISE * before else (middle, bad)
        after = layers(bad)
        return (
            f"in inference, whose energy rises from {before:.3g} to {np.sum(after):.3g} "
            f"within {bad} steps, most at layer {int(np.argmax(after)) + 1} of {len(after)}"
        )

    def _begin(
        self, network: Network, batch: Batch, state: Held | None, key: PRNGKeyArray
    ) -> tuple[FreeEnergy, Beginning, Float[Array, "batch ..."], Held | None]:
        x, y = batch
        start = network.feedforward(x)
        energy = FreeEnergy(network, x, y, self.likelihood, self.regularisers)
        if self.hold_regime:
            if state is None:
                raise ValueError("this rule holds the regime: give the state that its init gives")
            state = state.see(energy, start)
            precision = state.factor * self.likelihood.precision
            energy = eqx.tree_at(lambda e: e.likelihood.precision, energy, precision)
        return energy, self.start(start.activities, key), start.output, state

    def _infer(
        self,
        energy: FreeEnergy,
        begin: Beginning,
        max_steps: int | Int[Array, ""] | None,
        measure: bool | Bool[Array, ""],
        *,
        trace: bool = False,
    ) -> Solution:
        return infer(
            energy,
            self.solver,
            begin.activities,
            errors=begin.errors,
            max_steps=max_steps,
            rtol=self.rtol,
            atol=self.atol,
            patience=self.patience,
            measure=measure,
            trace=trace,
        )
