"""Learning rules."""

from typing import TYPE_CHECKING, Annotated, Literal

from mupc.learning import Backpropagation, Batch, EquilibriumPropagation, LearningRule, Phases
from mupc.networks import Network
from mupc.records import Regime
from mupc.settings.bidirectional import BidirectionalRule, HybridRule
from mupc.settings.predictive_coding import (
    AugmentedLagrangianRule,
    IncrementalRule,
    MonteCarloRule,
    PredictiveCodingRule,
    ZeroDivergenceRule,
)
from mupc.settings.rule import RuleKind
from mupc.settings.setting import ConfigError, Count, Positive, Traced, unheeded
from mupc.settings.solvers import LBFGSSolver, SolverKind

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration


class EquilibriumPropagationRule(RuleKind):
    """Equilibrium propagation: two equilibria, apart by a nudge, and their contrast."""

    kind = "equilibrium-propagation"

    beta: Annotated[Positive | Literal["rho"], Traced()] = "rho"
    """Nudge β, the factor of the output's cost in the energy; `rho`: of each sample, from ρ."""
    rho: Annotated[Positive, Traced()] = 0.15
    """Regime number ρ of each sample, which sets its β: the same at any width and depth."""
    phases: Phases = "centred"
    """Which equilibria are compared: ±β, β and 0, 0 and one of ±β, or ±β/2 and ±β."""
    nudged_steps: Count = 8
    """Largest number of steps of a nudged phase."""
    solver: SolverKind = LBFGSSolver(max_steps=20, history=4)

    def build(self, depth: int) -> LearningRule:
        """Return the rule, for a network of so many hidden layers."""
        return EquilibriumPropagation(
            solver=self.solver.build(),
            max_steps=self.solver.steps(depth),
            likelihood=self.likelihood.build(),
            beta=None if self.beta == "rho" else self.beta,
            rho=self.rho if self.beta == "rho" else None,
            phases=self.phases,
            nudged_steps=self.nudged_steps,
            regularisers=self.regularisers(),
            stopping=self.solver.stopping(),
        )

    def measure(self, network: Network, batch: Batch) -> Regime:
        """Return the regime: the precision of a cost of β times it, and no ρ."""
        return Regime(1.0, None)

    def warning(self, regime: Regime, config: "Configuration") -> str | None:
        """Return a sentence where another method is known to train better, else None."""
        if config.network.settles or self.solver.kind == "gauss-newton":
            return None
        return (
            "a network of predictions trains better, and faster, with one Gauss–Newton iteration "
            "a phase: --solver gauss-newton --max-steps 1 --nudged-steps 1 --rho 0.05"
        )

    def check(self, config: "Configuration") -> None:
        """Refuse what its energy does not have."""
        super().check(config)
        if self.beta != "rho" and self.rho != type(self).default("rho"):
            raise unheeded("rho", "`beta` is given")
        settles = config.network.settles
        if self.beta == "rho" and self.rho >= 1 and self.phases != "one-sided":
            raise ConfigError(
                f"with `rho` {self.rho} samples that are nudged away from their targets would have "
                "no equilibrium: take less than 1, or `phases` one-sided"
            )
        if not settles and self.solver.kind == "linear-solve":
            raise ConfigError(
                "`solver` linear-solve solves for one precision of all samples, and `rule` "
                "equilibrium-propagation nudges each by its own: use gauss-newton"
            )
        if settles and self.solver.kind in ("gauss-newton", "linear-solve"):
            raise ConfigError(
                f"`solver` {self.solver.kind} is for errors of predictions, and `network` "
                f"{config.network.kind} makes none: use l-bfgs"
            )
        if not settles and self.activity_decay:
            raise ConfigError(
                "`rule` equilibrium-propagation takes no `activity_decay` with a network of "
                "predictions, whose free phase would not be the feedforward pass"
            )


class BackpropagationRule(RuleKind):
    """Backpropagation, the yardstick."""

    kind = "backpropagation"

    precision: Annotated[Positive, Traced()] = 1.0
    """Output precision π: a factor of the loss."""

    def build(self, depth: int) -> LearningRule:
        """Return the rule."""
        return Backpropagation(self.likelihood.build(self.precision), self.regularisers())

    def measure(self, network: Network, batch: Batch) -> Regime:
        """Return the regime: a precision, and no ρ."""
        return Regime(self.precision, None)


RULES: tuple[type[RuleKind], ...] = (
    PredictiveCodingRule,
    IncrementalRule,
    ZeroDivergenceRule,
    AugmentedLagrangianRule,
    MonteCarloRule,
    BidirectionalRule,
    HybridRule,
    EquilibriumPropagationRule,
    BackpropagationRule,
)
