"""What every learning rule is, for settings, with the likelihood and the regime of its energy."""

import abc
from typing import TYPE_CHECKING, Annotated, Literal

from mupc.learning import Batch, LearningRule, Nudge
from mupc.likelihoods import Bernoulli, Categorical, Gaussian, Laplace, Likelihood
from mupc.networks import Network
from mupc.records import Regime
from mupc.regularisers import ActivityDecay, Regulariser, SpectralPenalty, WeightDecay
from mupc.settings.setting import Kind, NotNegative, Positive, SomeOf, Traced, unheeded

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


class LaplaceLikelihood(LikelihoodKind):
    """Absolute error, which outliers dominate less."""

    kind = "laplace"

    def build(self, precision: float = 1.0) -> Likelihood:
        """Return the likelihood at a precision."""
        return Laplace(precision)


class BernoulliLikelihood(LikelihoodKind):
    """Cross-entropy of each target, from 0 to 1, with the logistic function of its output."""

    kind = "bernoulli"

    def build(self, precision: float = 1.0) -> Likelihood:
        """Return the likelihood at a precision."""
        return Bernoulli(precision)


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
    hidden_precision: Annotated[Positive, Traced()] = 1.0
    """Precision of the errors of hidden layers, latent variables apart, whose prior keeps 1."""


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


LIKELIHOODS: tuple[type[LikelihoodKind], ...] = (
    *(GaussianLikelihood, LaplaceLikelihood),
    *(BernoulliLikelihood, CategoricalLikelihood),
)
REGIMES: tuple[type[RegimeKind], ...] = (Held, Initial, Fixed)
