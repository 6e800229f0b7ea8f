"""Learning rules of two networks over one set of activities."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from mupc.learning import (
    Batch,
    BidirectionalPredictiveCoding,
    HybridPredictiveCoding,
    LearningRule,
)
from mupc.likelihoods import Gaussian
from mupc.networks import Network
from mupc.records import Regime
from mupc.settings.rule import RuleKind
from mupc.settings.setting import ConfigError, Positive, Traced
from mupc.settings.solvers import GaussNewtonSolver, LBFGSSolver, SolverKind

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration

# The default strength, and how many layers it is measured with.
_STRENGTH, _LAYERS = 0.0003, 8


class _BothWays(RuleKind):
    """A rule of a bidirectional network."""

    down_precision: Annotated[Positive, Traced()] = 1.0
    """Precision of the input, which the downward network predicts."""

    def check(self, config: "Configuration") -> None:
        """Refuse networks of one direction."""
        super().check(config)
        if (network := config.network.kind) != "bidirectional-mlp":
            raise ConfigError(
                f"`rule` {self.kind} is for networks of two directions, and `network` {network} "
                "has one: choose `network` bidirectional-mlp"
            )


class BidirectionalRule(_BothWays):
    """Bidirectional predictive coding: activities settle between two networks."""

    kind = "bidirectional"
    brings: ClassVar[Mapping[str, Any]] = {"network": "bidirectional-mlp", "depth": _LAYERS}

    precision: Annotated[Positive, Traced()] = 0.1
    """Output precision π."""
    strength: Annotated[Positive, Traced()] = _STRENGTH
    """Factor α of the downward network's energy: the default suits some 8 layers, and less more."""
    solver: SolverKind = LBFGSSolver(max_steps=10, history=4)

    def build(self, depth: int) -> LearningRule:
        """Return the rule, for a network of so many hidden layers."""
        return BidirectionalPredictiveCoding(
            self.solver.build(),
            self.solver.steps(depth),
            self.likelihood.build(self.precision),
            strength=self.strength,
            down_likelihood=Gaussian(self.down_precision),
            regularisers=self.regularisers(),
            stopping=self.solver.stopping(),
        )

    def measure(self, network: Network, batch: Batch) -> Regime:
        """Return the precision, and no ρ: there are two outputs."""
        return Regime(self.precision, None)

    def warning(self, regime: Regime, config: "Configuration") -> str | None:
        """Return a sentence where the downward errors of many layers are counted as of a few."""
        depth = config.network.hidden
        if self.strength * depth < 2 * _LAYERS * _STRENGTH:
            return None
        fewer = _STRENGTH * _LAYERS / depth
        return (
            f"downward errors of {depth} layers add up, and pull activities together: "
            f"--strength {fewer:.1g} counts them as much as the default those of {_LAYERS}"
        )

    def check(self, config: "Configuration") -> None:
        """Refuse Gauss–Newton and closed forms, which are for the errors of one direction."""
        super().check(config)
        if self.solver.kind in ("gauss-newton", "linear-solve"):
            raise ConfigError(
                f"`solver` {self.solver.kind} is for errors of one direction, and `rule` "
                "bidirectional has those of two: use l-bfgs"
            )


class HybridRule(_BothWays):
    """Hybrid predictive coding: one network learns where another's inference begins."""

    kind = "hybrid"
    brings: ClassVar[Mapping[str, Any]] = {
        "network": "bidirectional-mlp",
        "depth": 3,
        "skips": False,
        "activation": "tanh",
        "parameterisation": "standard",
        "learning_rate": 0.001,
    }

    down_precision: Annotated[Positive, Traced()] = 0.1
    """Precision of the input, which the downward network predicts."""
    solver: SolverKind = GaussNewtonSolver(max_steps=5, cg_steps=5)

    def build(self, depth: int) -> LearningRule:
        """Return the rule, for a network of so many hidden layers."""
        return HybridPredictiveCoding(
            self.solver.build(),
            self.solver.steps(depth),
            self.likelihood.build(),
            down_likelihood=Gaussian(self.down_precision),
            regularisers=self.regularisers(),
            stopping=self.solver.stopping(),
        )

    def warning(self, regime: Regime, config: "Configuration") -> str | None:
        """Return a sentence where the network is known not to learn where inference ends."""
        if not getattr(config.network, "skips", False):
            return None
        return (
            "residual layers hardly learn where inference ends: take a few plain ones, "
            "--no-skips --depth 3 --parameterisation standard --activation tanh"
        )

    def check(self, config: "Configuration") -> None:
        """Refuse the closed form of a network of one direction, and terms on activities."""
        super().check(config)
        if self.activity_decay:
            raise ConfigError(
                "`rule` hybrid takes no `activity_decay`, which is counted from the input, where "
                "its energy begins at the target: use bidirectional with it"
            )
        if self.solver.kind == "linear-solve":
            raise ConfigError(
                "`rule` hybrid takes no `solver` linear-solve, whose closed form is of one "
                "network: use gauss-newton"
            )
