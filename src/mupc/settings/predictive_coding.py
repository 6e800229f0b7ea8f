"""Predictive coding and its variants."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.energies import FreeEnergy
from mupc.learning import (
    AugmentedLagrangian,
    Batch,
    IncrementalPredictiveCoding,
    LearningRule,
    MonteCarloPredictiveCoding,
    PredictiveCoding,
    ZeroDivergence,
    sensitivity,
)
from mupc.likelihoods import Likelihood
from mupc.networks import Network
from mupc.records import Regime
from mupc.settings.rule import Fixed, Held, Initial, RegimeKind, RuleKind
from mupc.settings.setting import ConfigError, Count, Positive, Traced
from mupc.settings.solvers import (
    GaussNewtonSolver,
    GradientDescentSolver,
    LangevinSolver,
    SolverKind,
)
from mupc.settings.starts import FromFeedforward, StartKind

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration


class PredictiveCodingRule(RuleKind):
    """Predictive coding: inference, then learning from local errors."""

    kind = "predictive-coding"

    regime: RegimeKind = Held()
    solver: SolverKind = GaussNewtonSolver()
    start: StartKind = FromFeedforward()

    def build(self, depth: int) -> LearningRule:
        """Return the rule, for a network of so many hidden layers."""
        return PredictiveCoding(
            solver=self.solver.build(),
            max_steps=self.solver.steps(depth),
            likelihood=self.likelihood.build(self._precision or 1.0),
            rho=self._rho,
            hold=self.holds,
            nudge=self.regime.nudge if isinstance(self.regime, Held) else "positive",
            hidden_precision=self._hidden_precision,
            regularisers=self.regularisers(),
            stopping=self.solver.stopping(),
            start=self.start.build(),
        )

    @property
    def holds(self) -> bool:
        """Whether the precision is lowered in training to keep the regime."""
        return isinstance(self.regime, Held)

    @property
    def _rho(self) -> float | None:
        return self.regime.rho if isinstance(self.regime, Held | Initial) else None

    @property
    def _precision(self) -> float | None:
        return self.regime.precision if isinstance(self.regime, Fixed) else None

    @property
    def _hidden_precision(self) -> float | None:
        return self.regime.hidden_precision if isinstance(self.regime, Fixed) else None

    def check(self, config: "Configuration") -> None:
        """Refuse to nudge outputs away from targets where that does not teach what it should."""
        super().check(config)
        if not isinstance(self.regime, Held) or self.regime.nudge == "positive":
            return
        if self.regime.rho >= 1:
            reason = "`rho` must be below 1, or samples need not have an equilibrium"
        elif not isinstance(self.start, FromFeedforward):
            reason = "inference must have `start` feedforward"
        else:
            return
        raise ConfigError(f"with `nudge` {self.regime.nudge}, {reason}: choose `nudge` positive")

    def measure(self, network: Network, batch: Batch) -> Regime:
        """Return the regime in which training begins: as the rule will measure it, in one sweep.

        Raises:
            ConfigError: if no precision gives the ρ that is asked for.
        """
        hidden = self._hidden_precision
        precision = None if hidden is None else jnp.asarray(hidden, float)
        unit = float(_unit_regime(network, batch, self.likelihood.build(), precision))
        if (precision := self._precision) is not None:
            return Regime(precision, precision * unit)
        if self._rho is None or not unit > 0:
            raise ConfigError(
                "no precision gives this `rho`, since the output does not depend on any hidden "
                "activity for the first batch: if its inputs are all zero, shuffle the data; or "
                "choose `regime` fixed and a `precision`"
            )
        return Regime(self._rho / unit, self._rho)

    def warning(self, regime: Regime, config: "Configuration") -> str | None:
        """Return a sentence if inference is not accurate enough for a regime, else None."""
        return None if regime.rho is None else self.solver.warning(regime.rho, config)


class IncrementalRule(PredictiveCodingRule):
    """Incremental predictive coding: the weights change with every step of inference."""

    kind = "incremental"

    updates: Count = 4
    """Steps of inference on a batch, each with an update of the weights."""

    def build(self, depth: int) -> LearningRule:
        """Return the rule, for a network of so many hidden layers."""
        return IncrementalPredictiveCoding(
            solver=self.solver.build(),
            updates=self.updates,
            likelihood=self.likelihood.build(self._precision or 1.0),
            rho=self._rho,
            hold=self.holds,
            nudge=self.regime.nudge if isinstance(self.regime, Held) else "positive",
            regularisers=self.regularisers(),
            start=self.start.build(),
        )

    def warning(self, regime: Regime, config: "Configuration") -> str | None:
        """Return None: accuracy is not asked of a step."""
        return None

    def check(self, config: "Configuration") -> None:
        """Refuse more than one step of inference for an update."""
        super().check(config)
        if self._hidden_precision not in (None, 1):
            raise ConfigError("`rule` incremental takes no `hidden_precision`: leave it out")
        if self.solver.max_steps != 1:
            raise ConfigError(
                "`rule` incremental makes one step of inference for each of its `updates`: set "
                f"`max_steps` to 1, not {self.solver.max_steps}"
            )
        if self.solver.kind in ("l-bfgs", "adam"):
            raise ConfigError(
                f"`rule` incremental begins its method anew with each step, and `solver` "
                f"{self.solver.kind} learns from steps before: use gauss-newton or gradient-descent"
            )


class _AtPrecision(RuleKind):
    """A rule whose output has a precision."""

    precision: Annotated[Positive, Traced()] = 1.0
    """Output precision π."""

    def measure(self, network: Network, batch: Batch) -> Regime:
        """Return the regime in which training begins with a batch: its precision, and its ρ."""
        unit = float(_unit_regime(network, batch, self.likelihood.build(), self._hidden))
        return Regime(self.precision, self.precision * unit)

    @property
    def _hidden(self) -> Float[Array, ""] | None:
        """The precision of hidden layers, if it has one."""
        return None


class AugmentedLagrangianRule(_AtPrecision):
    """Augmented Lagrangian predictive coding (PC-ALM): multipliers take over from errors."""

    kind = "augmented-lagrangian"

    rounds: Count = 64
    """Rounds of inference, each with a change of the multipliers."""
    multiplier_rate: Annotated[Positive, Traced()] = 1.0
    """Rate α at which a layer's error adds to its multiplier."""
    solver: SolverKind = GradientDescentSolver(max_steps=1)

    def build(self, depth: int) -> LearningRule:
        """Return the rule, for a network of so many hidden layers."""
        return AugmentedLagrangian(
            solver=self.solver.build(),
            max_steps=self.solver.steps(depth),
            rounds=self.rounds,
            multiplier_rate=self.multiplier_rate,
            likelihood=self.likelihood.build(self.precision),
            regularisers=self.regularisers(),
            stopping=self.solver.stopping(),
        )

    def warning(self, regime: Regime, config: "Configuration") -> str | None:
        """Return a sentence if errors do not reach the lower layers, else None."""
        depth = config.network.hidden
        made = self.rounds * self.solver.steps(depth)
        if getattr(self.solver, "coordinates", "errors") != "activities" or made >= 2 * depth:
            return None
        return (
            f"{made} steps on activities do not carry the error through {depth} layers, so the "
            "lower ones hardly learn: take more --rounds, or --solver gauss-newton"
        )

    def check(self, config: "Configuration") -> None:
        """Refuse the closed form, which knows no multipliers."""
        super().check(config)
        if self.solver.kind == "linear-solve":
            raise ConfigError(
                "`rule` augmented-lagrangian takes no `solver` linear-solve, which knows no "
                "multipliers: use gauss-newton"
            )


class MonteCarloRule(_AtPrecision):
    """Monte Carlo predictive coding: activities are sampled, and gradients averaged."""

    kind = "monte-carlo"
    brings: ClassVar[Mapping[str, Any]] = {
        "solver": "langevin",
        "max_steps": 50,
        "coordinates": "errors",
    }

    hidden_precision: Annotated[Positive, Traced()] = 1.0
    """Precision of the errors of hidden layers, latent variables apart, whose prior keeps 1."""
    samples: Count = 10
    """Samples that gradients are averaged over."""
    thinning: Count = 5
    """Steps from one sample to the next."""
    solver: SolverKind = LangevinSolver()
    start: StartKind = FromFeedforward()

    def build(self, depth: int) -> LearningRule:
        """Return the rule, for a network of so many hidden layers."""
        return MonteCarloPredictiveCoding(
            self.solver.build(),
            burn_in=self.solver.steps(depth),
            samples=self.samples,
            thinning=self.thinning,
            likelihood=self.likelihood.build(self.precision),
            hidden_precision=self.hidden_precision,
            regularisers=self.regularisers(),
            start=self.start.build(),
        )

    @property
    def _hidden(self) -> Float[Array, ""] | None:
        return jnp.asarray(self.hidden_precision, float)

    def check(self, config: "Configuration") -> None:
        """Refuse methods that settle."""
        super().check(config)
        if self.solver.kind != "langevin":
            raise ConfigError(
                f"`rule` monte-carlo samples, and `solver` {self.solver.kind} does not: leave it "
                "at langevin"
            )


class ZeroDivergenceRule(_AtPrecision):
    """Zero-divergence inference learning: backpropagation by steps of predictive coding."""

    kind = "zero-divergence"

    def build(self, depth: int) -> LearningRule:
        """Return the rule, for a network of so many hidden layers."""
        return ZeroDivergence(self.likelihood.build(self.precision), self.regularisers())

    def check(self, config: "Configuration") -> None:
        """Refuse activity decay."""
        super().check(config)
        if self.activity_decay:
            raise ConfigError(
                "`rule` zero-divergence takes no `activity_decay`, with which errors would not be "
                "zero where inference starts: use predictive-coding with it"
            )


@eqx.filter_jit
def _unit_regime(
    network: Network,
    batch: Batch,
    likelihood: Likelihood,
    hidden_precision: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    energy = FreeEnergy(network, *batch, likelihood, precisions=hidden_precision)
    return sensitivity(energy, energy.run()).mean()
