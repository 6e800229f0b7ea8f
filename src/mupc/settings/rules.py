"""Learning rules, with the likelihood and the regime that they train in."""

import abc
from typing import TYPE_CHECKING, Annotated, Literal

import equinox as eqx
from jaxtyping import Array, Float

from mupc.energies import FreeEnergy
from mupc.learning import (
    Backpropagation,
    Batch,
    EquilibriumPropagation,
    LearningRule,
    Nudge,
    Phases,
    PredictiveCoding,
    sensitivity,
)
from mupc.likelihoods import Categorical, Gaussian, Likelihood
from mupc.networks import Network
from mupc.records import Regime
from mupc.regularisers import ActivityDecay, Regulariser, SpectralPenalty, WeightDecay
from mupc.settings.setting import (
    ConfigError,
    Count,
    Kind,
    NotNegative,
    Positive,
    SomeOf,
    Traced,
    unheeded,
)
from mupc.settings.solvers import GaussNewtonSolver, LBFGSSolver, SolverKind
from mupc.settings.starts import FromFeedforward, StartKind

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration


class LikelihoodKind(Kind):
    """Energy of the output."""

    slot = "likelihood"

    @abc.abstractmethod
    def build(self, precision: float = 1.0) -> Likelihood:
        """Return the likelihood at a precision."""


class GaussianLikelihood(LikelihoodKind):
    """Squared error."""

    kind = "gaussian"

    def build(self, precision: float = 1.0) -> Likelihood:
        """Return the likelihood at a precision."""
        return Gaussian(precision)


class CategoricalLikelihood(LikelihoodKind):
    """Cross-entropy with the softmax of the output."""

    kind = "categorical"

    def build(self, precision: float = 1.0) -> Likelihood:
        """Return the likelihood at a precision."""
        return Categorical(precision)


class RegimeKind(Kind):
    """How far from backpropagation: what sets the output's precision π, and its sign."""

    slot = "regime"


class Held(RegimeKind):
    """From the regime number ρ, and lowered in training so that ρ does not rise above it."""

    kind = "held"

    rho: Annotated[Positive, Traced()] = 0.05
    """Regime number ρ: 0.02 is near backpropagation, 1 is far."""
    nudge: Nudge = "alternating"
    """Which way outputs are nudged: `positive` to their targets, `negative` away from them, or
    every second sample away, so that the biases of both cancel."""


class Initial(RegimeKind):
    """From the regime number ρ of the first batch; ρ grows in training."""

    kind = "initial"

    rho: Annotated[Positive, Traced()] = 0.05
    """Regime number ρ of the first batch."""


class Fixed(RegimeKind):
    """A fixed output precision π."""

    kind = "fixed"

    precision: Annotated[Positive, Traced()] = 1.0
    """Output precision π."""


Role = Literal["input", "hidden", "readout"]


class RuleKind(Kind):
    """Learning rule."""

    slot = "rule"

    likelihood: LikelihoodKind = GaussianLikelihood()
    weight_decay: NotNegative = 0.0
    """λ of the energy term λ/2 ‖W‖²."""
    weight_decay_roles: Annotated[tuple[Role, ...], SomeOf] = ("input", "hidden", "readout")
    """Layers with weight decay."""
    activity_decay: NotNegative = 0.0
    """λ of the energy term λ/2 ‖z‖²."""
    activity_decay_roles: Annotated[tuple[Literal["input", "hidden"], ...], SomeOf] = (
        "input",
        "hidden",
    )
    """Activities with decay: input is the first hidden one, hidden the others."""
    spectral_penalty: NotNegative = 0.0
    """λ of the energy term λ ‖I − VᵀV‖², V the multiplied weight."""
    spectral_penalty_roles: Annotated[tuple[Role, ...], SomeOf] = ("hidden",)
    """Layers with the spectral penalty."""

    @abc.abstractmethod
    def build(self, depth: int) -> LearningRule:
        """Return the rule, for a network of so many hidden layers."""

    @property
    def holds(self) -> bool:
        """Whether the precision is lowered in training to keep the regime."""
        return False

    def regularisers(self) -> tuple[Regulariser, ...]:
        """Return the regularisers whose strength is not zero."""
        chosen = [
            (WeightDecay, self.weight_decay, self.weight_decay_roles),
            (ActivityDecay, self.activity_decay, self.activity_decay_roles),
            (SpectralPenalty, self.spectral_penalty, self.spectral_penalty_roles),
        ]
        return tuple(make(strength, roles) for make, strength, roles in chosen if strength)

    def measure(self, network: Network, batch: Batch) -> Regime:
        """Return the regime in which training begins with a batch: its precision, and its ρ."""
        return Regime(1.0, None)

    def warning(self, regime: Regime, config: "Configuration") -> str | None:
        """Return a sentence if this rule is not accurate enough for a regime, else None."""
        return None

    def check(self, config: "Configuration") -> None:
        """Refuse roles of terms that are zero."""
        for name in ("weight_decay", "activity_decay", "spectral_penalty"):
            roles = f"{name}_roles"
            if not getattr(self, name) and getattr(self, roles) != type(self).default(roles):
                raise unheeded(roles, f"`{name}` is 0")


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
        unit = float(_unit_regime(network, batch, self.likelihood.build()))
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


class EquilibriumPropagationRule(RuleKind):
    """Equilibrium propagation: two equilibria, apart by a nudge, and their contrast."""

    kind = "equilibrium-propagation"

    beta: Annotated[Positive | Literal["rho"], Traced()] = "rho"
    """Nudge β, the factor of the output's cost in the energy; `rho`: of each sample, from ρ."""
    rho: Annotated[Positive, Traced()] = 0.3
    """Regime number ρ of each sample, which sets its β: the same at any width and depth."""
    phases: Phases = "centred"
    """Which equilibria are compared: those of β and −β, of β and 0, or of 0 and one of ±β."""
    nudged_steps: Count = 10
    """Largest number of steps of a nudged phase."""
    solver: SolverKind = LBFGSSolver()

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

    def check(self, config: "Configuration") -> None:
        """Refuse what its energy does not have."""
        super().check(config)
        if self.beta != "rho" and self.rho != type(self).default("rho"):
            raise unheeded("rho", "`beta` is given")
        settles = config.network.kind == "residual-hopfield"
        if settles and self.solver.kind in ("gauss-newton", "linear-solve"):
            raise ConfigError(
                f"`solver` {self.solver.kind} is for errors of predictions, and `network` "
                "residual-hopfield makes none: use l-bfgs"
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


@eqx.filter_jit
def _unit_regime(network: Network, batch: Batch, likelihood: Likelihood) -> Float[Array, ""]:
    energy = FreeEnergy(network, *batch, likelihood)
    return sensitivity(energy, energy.run()).mean()


RULES: tuple[type[RuleKind], ...] = (
    PredictiveCodingRule,
    EquilibriumPropagationRule,
    BackpropagationRule,
)
LIKELIHOODS: tuple[type[LikelihoodKind], ...] = (GaussianLikelihood, CategoricalLikelihood)
REGIMES: tuple[type[RegimeKind], ...] = (Held, Initial, Fixed)
