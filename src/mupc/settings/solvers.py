"""Methods of inference."""

import abc
from typing import TYPE_CHECKING, Annotated, Literal

import optax
from annotated_types import Lt
from pydantic import Field

from mupc.hyperparameters import traced
from mupc.inference import (
    LBFGS,
    Endless,
    FixedPoint,
    FixedSteps,
    GaussNewton,
    GradientDescent,
    GradientFlow,
    InErrors,
    Langevin,
    LinearSolve,
    Optax,
    Solver,
    StableStep,
    Stopping,
    Tolerance,
)
from mupc.settings.setting import (
    ConfigError,
    Count,
    Fraction,
    Kind,
    NotNegative,
    NotNegativeCount,
    Positive,
    Traced,
    unheeded,
)

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration

Coordinates = Annotated[
    Literal["activities", "errors", "whitened"],
    Field(
        description="What the method moves: activities; or prediction errors, which reach all "
        "layers in a step; or errors with latent variables in units in which they matter alike."
    ),
]


class SolverKind(Kind):
    """How activities settle to a minimum of the energy."""

    slot = "solver"

    max_steps: Count | Literal["depth"] = 1
    """Largest number of inference steps T; `depth`: as many as there are hidden layers."""
    rtol: Annotated[NotNegative, Traced()] = 1e-3
    """A sample is done when its residual is this fraction of the initial one. With one step there
    is nothing to stop, and no residual is measured."""
    atol: Annotated[NotNegative, Traced()] = 0.0
    """Absolute tolerance of the residual, added to that of rtol."""
    patience: NotNegativeCount = 10
    """A sample is done when its energy has not fallen for this many steps; 0: never."""

    @abc.abstractmethod
    def build(self) -> Solver:
        """Return the method."""

    def steps(self, depth: int) -> int:
        """Return the largest number of steps for a network of so many hidden layers."""
        return depth if self.max_steps == "depth" else self.max_steps

    def stopping(self) -> Stopping:
        """Return what says when inference is done."""
        if self.max_steps == 1:
            return FixedSteps()
        return Tolerance(self.rtol, self.atol, self.patience)

    def structure(self) -> dict[str, object]:
        """Return what decides the compiled program."""
        kept = super().structure()
        return {**kept, "patience": 0} if self.max_steps == 1 else kept

    def warning(self, rho: float, config: "Configuration") -> str | None:
        """Return a sentence if the method is not accurate enough for a regime, else None."""
        return None

    def check(self, config: "Configuration") -> None:
        """Refuse tolerances where a single step is made."""
        for name in ("rtol", "atol", "patience"):
            if self.max_steps == 1 and getattr(self, name) != type(self).default(name):
                raise unheeded(name, "`max_steps` is 1")


class GaussNewtonSolver(SolverKind):
    """Gauss–Newton in errors, by conjugate gradients."""

    kind = "gauss-newton"

    cg_steps: Count = 1
    """Conjugate gradient steps in an iteration, of two sweeps each."""

    def build(self) -> Solver:
        """Return the method."""
        return GaussNewton(self.cg_steps)

    def warning(self, rho: float, config: "Configuration") -> str | None:
        """Return a sentence if the method is not accurate enough for a regime, else None.

        Up to the first limit one iteration trains as well as accurate inference, and up to the
        second several do (experiments/regimes.py; the tables are in docs/solvers.md). A regime that
        is not held goes further away in training.
        """
        one, several = (0.75, 2.5) if config.rule.holds else (0.25, 1.0)
        steps = self.steps(config.network.hidden)
        few = steps < 3
        if rho <= (one if few else several):
            return None
        more = " or --max-steps 3 --cg-steps 4" if few and rho <= several else ""
        made = "one Gauss–Newton iteration is"
        made = made if steps == 1 else f"{steps} Gauss–Newton iterations are"
        return (
            f"at ρ = {rho:.2g} inference must be accurate, and {made} not enough: use --solver "
            f"l-bfgs{more}"
        )

    def check(self, config: "Configuration") -> None:
        """Refuse activity decay: the hidden part of the Hessian is no longer the identity."""
        super().check(config)
        if config.rule.activity_decay:
            raise ConfigError("`solver` gauss-newton takes no `activity_decay`: use l-bfgs with it")


class MovingSolver(SolverKind):
    """A method that moves activities, or errors."""

    coordinates: Coordinates = "activities"

    def build(self) -> Solver:
        """Return the method."""
        method = self.method()
        if self.coordinates == "activities":
            return method
        return InErrors(method, whitened=self.coordinates == "whitened")

    def check(self, config: "Configuration") -> None:
        """Refuse units of latent variables where there are none that are free."""
        super().check(config)
        if self.coordinates == "whitened" and not config.network.free:
            raise ConfigError(
                "`coordinates` whitened is for networks whose input is all latent variables, which "
                f"`network` {config.network.kind} is not: choose errors"
            )

    @abc.abstractmethod
    def method(self) -> Solver:
        """Return the method, whatever it moves."""


class LBFGSSolver(MovingSolver):
    """L-BFGS, per sample."""

    kind = "l-bfgs"

    max_steps: Count | Literal["depth"] = 30
    """Largest number of inference steps T; `depth`: as many as there are hidden layers."""
    coordinates: Coordinates = "errors"
    history: Count = 8
    """Pairs that are remembered."""

    def method(self) -> Solver:
        """Return the method, whatever it moves."""
        return LBFGS(self.history)


class _StepsOnActivities(MovingSolver):
    max_steps: Count | Literal["depth"] = 8
    """Largest number of inference steps T; `depth`: as many as there are hidden layers."""

    def warning(self, rho: float, config: "Configuration") -> str | None:
        """Return a sentence if the method is not accurate enough for a regime, else None."""
        depth = config.network.hidden
        steps = self.steps(depth)
        if self.coordinates != "activities" or steps >= 4 * depth:
            return None
        own = getattr(config.network, "error_kernels", "tied") == "learned"
        instead = "take more --max-steps" if own else "use --solver gauss-newton"
        return (
            f"{steps} steps on activities do not carry the error through {depth} layers, so the "
            f"lower ones hardly learn: {instead}"
        )


class GradientDescentSolver(_StepsOnActivities):
    """Gradient descent."""

    kind = "gradient-descent"

    step_size: Annotated[Positive | Literal["stable"], Traced()] = 0.25
    """Step, per sample, or `stable`: from the Hessian's largest eigenvalue."""
    momentum: Fraction = 0.0
    """Nesterov momentum."""

    def method(self) -> Solver:
        """Return the method, whatever it moves."""
        step = StableStep() if self.step_size == "stable" else self.step_size
        return GradientDescent(step, self.momentum or None)


class AdamSolver(_StepsOnActivities):
    """Adam on activities."""

    kind = "adam"

    step_size: Annotated[Positive, Traced()] = 0.25
    """Step, per sample."""

    def method(self) -> Solver:
        """Return the method, whatever it moves."""
        return Optax(traced(optax.adam, learning_rate=self.step_size))


class LangevinSolver(MovingSolver):
    """Langevin dynamics, which sample instead of settling."""

    kind = "langevin"

    max_steps: Count | Literal["depth"] = 50
    """Steps T; those of `rule` monte-carlo before its first sample."""
    coordinates: Coordinates = "errors"
    step_size: Annotated[Positive, Traced()] = 0.02
    """Step η, per sample."""
    temperature: Annotated[NotNegative, Traced()] = 1.0
    """Temperature T: what is sampled is exp(−F/T)."""

    def method(self) -> Solver:
        """Return the method, whatever it moves."""
        return Langevin(self.step_size, self.temperature)

    def stopping(self) -> Stopping:
        """Return what says when inference is done: never, before all steps are made."""
        return Endless()

    def check(self, config: "Configuration") -> None:
        """Refuse tolerances, where nothing is stopped, and rules that want an equilibrium."""
        for name in ("rtol", "atol", "patience"):
            if getattr(self, name) != type(self).default(name):
                raise unheeded(name, f"`solver` is {self.kind}")
        super().check(config)
        if config.rule.kind != "monte-carlo":
            raise ConfigError(
                f"`solver` langevin never comes to rest, as `rule` {config.rule.kind} wants it to: "
                "choose `rule` monte-carlo, or another solver"
            )


class GradientFlowSolver(MovingSolver):
    """The gradient flow, followed to its end."""

    kind = "gradient-flow"

    coordinates: Coordinates = "errors"

    def method(self) -> Solver:
        """Return the method, whatever it moves."""
        return GradientFlow()

    def warning(self, rho: float, config: "Configuration") -> str | None:
        """Return a sentence if the method is not accurate enough for a regime, else None."""
        if not config.network.kinks:
            return None
        return (
            "the gradient flow follows every kink of relu: it takes very long, and ends short of "
            "the minimum: use --solver l-bfgs"
        )


class FixedPointSolver(SolverKind):
    """Every other layer where its neighbours drive it to, in turn: for states on a box."""

    kind = "fixed-point"

    max_steps: Count | Literal["depth"] = 8
    """Largest number of inference steps T; `depth`: as many as there are hidden layers."""

    relaxation: Annotated[Positive, Lt(2), Traced()] = 1.0
    """Factor ω of every layer's way to its minimum; above 1 where layers hold each other."""

    def build(self) -> Solver:
        """Return the method."""
        return FixedPoint(self.relaxation)

    def check(self, config: "Configuration") -> None:
        """Refuse what is on no box."""
        super().check(config)
        if not config.network.boxed:
            raise ConfigError(
                "`solver` fixed-point is for states on a box, those of `network` layered-hopfield "
                "with `activation` box: choose `solver` l-bfgs"
            )


class LinearSolveSolver(SolverKind):
    """The equilibrium of a linear network, in closed form."""

    kind = "linear-solve"

    def build(self) -> Solver:
        """Return the method."""
        return LinearSolve()

    def check(self, config: "Configuration") -> None:
        """Refuse what is not linear."""
        super().check(config)
        if not config.network.linear:
            raise ConfigError("`solver` linear-solve is for `activation` linear: use l-bfgs")
        if config.rule.likelihood.kind != "gaussian":
            raise ConfigError(
                "`solver` linear-solve is for `likelihood` gaussian: use gauss-newton"
            )
        if config.rule.holds:  # each sample has its own
            raise ConfigError(
                "`solver` linear-solve is for one precision of all samples: choose `regime` "
                "initial or fixed"
            )


SOLVERS: tuple[type[SolverKind], ...] = (
    GaussNewtonSolver,
    LBFGSSolver,
    GradientDescentSolver,
    AdamSolver,
    LangevinSolver,
    GradientFlowSolver,
    FixedPointSolver,
    LinearSolveSolver,
)
