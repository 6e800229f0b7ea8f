"""Optimisers of the weights, and the schedules of their learning rates."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike

from mupc.hyperparameters import traced
from mupc.networks import Network, bound_weights, rate_factors, scale_by
from mupc.parameterisations import Scale
from mupc.settings.setting import (
    ConfigError,
    Fraction,
    Kind,
    NotNegative,
    NotNegativeCount,
    Positive,
    Traced,
)

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration

Factor = Callable[..., Array]
"""A function of the step, and of numbers by name, that multiplies the learning rate."""


class ScheduleKind(Kind):
    """Learning-rate schedule."""

    slot = "schedule"
    factor: ClassVar[Factor | None] = None
    """What multiplies the learning rate; None: nothing does."""

    def numbers(self, steps: int) -> dict[str, float]:
        """Return the numbers of the factor, for a run of so many steps."""
        return {}

    def check_length(self, steps: int) -> None:
        """Check that the schedule fits into a run of so many steps.

        Raises:
            ConfigError: if not.
        """


class Constant(ScheduleKind):
    """The same rate throughout."""

    kind = "constant"


def warmup_cosine(
    count: ArrayLike, warmup: ArrayLike, steps: ArrayLike, floor: ArrayLike = 0.0
) -> Array:
    """Rise linearly over `warmup` steps, and fall to `floor` until there have been `steps`.

    It is `optax.warmup_cosine_decay_schedule`, which takes no traced lengths.
    """
    fall = optax.cosine_decay_schedule(1.0, 1)
    count, warmup, steps = (jnp.asarray(number) for number in (count, warmup, steps))
    rise = count / jnp.maximum(warmup, 1)
    left = floor + (1 - jnp.asarray(floor)) * fall((count - warmup) / (steps - warmup))
    return jnp.where(count < warmup, rise, left)


class Cosine(ScheduleKind):
    """Falls until the end of training."""

    kind = "cosine"
    factor = staticmethod(warmup_cosine)

    warmup: NotNegativeCount = 0
    """Steps over which the rate rises linearly at first."""
    floor: Annotated[Fraction, Traced()] = 0.0
    """What is left of the rate at the end, a fraction of it."""

    def numbers(self, steps: int) -> dict[str, float]:
        """Return the numbers of the factor, for a run of so many steps."""
        return {"warmup": self.warmup, "steps": steps, "floor": self.floor}

    def check_length(self, steps: int) -> None:
        """Check that the rate does not rise until the end."""
        if self.warmup and self.warmup >= steps:
            raise ConfigError(f"`warmup` must be smaller than the {steps} steps of the whole run")


class OptimiserKind(Kind):
    """Optimiser of the weights."""

    slot = "optimiser"
    transform: ClassVar[Callable[..., optax.GradientTransformation]]
    """What makes it, of optax."""

    learning_rate: Annotated[Positive, Traced()] = 0.02
    """Learning rate."""
    learning_rate_rule: Literal["raw", "mup", "uniform"] = "uniform"
    """Factors on the learning rate by layer: none (raw, the paper's), those of Depth-μP (mup), or
    uniform: √(128 / inputs) · min(√129 · layers^(exponent − 1), √8), at most 4, of hidden layers,
    √(128 / width) · √129 · layers^(exponent − 1), from 1 to 8, of input and readout; networks of
    `hopfield` and `generative` laws have powers of depth of their own (see these functions)."""
    weight_bound: Positive | None = None
    """Root mean square to which each layer's weights are scaled down after an update; `ntk` and
    `mupc` begin at 1."""
    schedule: ScheduleKind = Cosine()

    def numbers(self) -> dict[str, float]:
        """Return its numbers, by optax's names."""
        return {"learning_rate": self.learning_rate}

    def chosen(self, scale: Scale) -> float:
        """Return a layer's factor on the learning rate."""
        return scale.uniform if self.learning_rate_rule == "uniform" else scale.adam

    def build(self, network: Network, steps: int, updates: int = 1) -> optax.GradientTransformation:
        """Return the optimiser of a network, for a run of so many steps of some updates each."""
        numbers: dict[str, Any] = self.numbers()
        if self.learning_rate_rule != "raw":
            numbers["factors"] = rate_factors(network, self.chosen)
        if self.schedule.factor is not None:
            numbers["schedule"] = self.schedule.numbers(steps)
        made = traced(_factory(type(self).transform, self.schedule.factor, updates), **numbers)
        if self.weight_bound is None:
            return made
        return optax.chain(made, bound_weights(network, self.weight_bound))

    def check(self, config: "Configuration") -> None:
        """Refuse factors that are all 1."""
        parameterisation = config.network.parameterisation.kind
        if self.learning_rate_rule == "mup" and parameterisation not in ("mupc", "hopfield"):
            raise ConfigError(
                "`learning_rate_rule` mup would have no effect, since all factors of the "
                f"`parameterisation` {parameterisation} are 1: use raw"
            )


class AdamOptimiser(OptimiserKind):
    """Adam."""

    kind = "adam"
    transform = staticmethod(optax.adam)

    eps: Annotated[Positive, Traced()] = 1e-12
    """ε of Adam; below the gradients, or layers freeze."""

    def numbers(self) -> dict[str, float]:
        """Return its numbers, by optax's names."""
        return {**super().numbers(), "eps": self.eps}


class AdamWOptimiser(AdamOptimiser):
    """Adam with decoupled weight decay."""

    kind = "adamw"
    transform = staticmethod(optax.adamw)

    adamw_decay: Annotated[NotNegative, Traced()] = 1e-4
    """Decoupled weight decay."""

    def numbers(self) -> dict[str, float]:
        """Return its numbers, by optax's names."""
        return {**super().numbers(), "weight_decay": self.adamw_decay}


class SGDOptimiser(OptimiserKind):
    """Stochastic gradient descent."""

    kind = "sgd"
    transform = staticmethod(optax.sgd)

    sgd_momentum: Annotated[Fraction, Traced()] = 0.9
    """Momentum."""

    def numbers(self) -> dict[str, float]:
        """Return its numbers, by optax's names."""
        return {**super().numbers(), "momentum": self.sgd_momentum}

    def chosen(self, scale: Scale) -> float:
        """Return a layer's factor on the learning rate."""
        return scale.uniform if self.learning_rate_rule == "uniform" else scale.sgd


@functools.cache
def _factory(
    transform: Callable[..., optax.GradientTransformation], factor: Factor | None, updates: int
) -> Callable[..., optax.GradientTransformation]:
    """Return the same function for the same structure, so that its numbers share a compilation."""

    def make(
        learning_rate: Any,
        factors: Any = None,
        schedule: Mapping[str, Any] | None = None,
        **numbers: Any,
    ) -> optax.GradientTransformation:
        rate = learning_rate
        if factor is not None:
            changing, own = factor, schedule or {}
            rate = lambda count: learning_rate * changing(count // updates, **own)  # noqa: E731
        base = transform(rate, **numbers)
        return base if factors is None else optax.chain(base, scale_by(factors))

    return make


OPTIMISERS: tuple[type[OptimiserKind], ...] = (AdamOptimiser, AdamWOptimiser, SGDOptimiser)
SCHEDULES: tuple[type[ScheduleKind], ...] = (Constant, Cosine)
