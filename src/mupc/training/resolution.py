"""Defaults that depend on other choices, and the checks of a configuration as a whole."""

import dataclasses
from collections.abc import Callable
from typing import Any

from mupc.training.checks import ConfigError, check_choices, option, with_types
from mupc.training.config import TrainConfig, from_settings


@dataclasses.dataclass(frozen=True)
class _Conditional:
    """When a field applies, in words for when it does not, and its default by preset."""

    applies: Callable[[TrainConfig], bool]
    reason: str
    default: Callable[[TrainConfig], Any] = lambda config: None


def _pc(config: TrainConfig) -> bool:
    return config.rule == "predictive-coding"


def _paper(paper: Any, default: Any) -> Callable[[TrainConfig], Any]:
    return lambda config: paper if config.preset == "paper" else default


_NO_INFERENCE = "the rule {rule} has no inference"

_ONE_STEP = ("gauss-newton", "gradient-flow", "linear-solve")
_WITH_COORDINATES = ("l-bfgs", "gradient-descent", "adam", "gradient-flow")


def _solver_is(*names: str) -> Callable[[TrainConfig], bool]:
    return lambda config: config.solver in names


def _precision(config: TrainConfig) -> float | None:
    return None if _pc(config) and config.preset != "paper" else 1.0


def _step_size(config: TrainConfig) -> float | str:
    if config.preset == "paper":
        return 0.5 / 64  # the published scripts' 0.5 acts on a batch-mean energy of 64 samples
    descent = config.solver == "gradient-descent"
    return "stable" if descent and config.coordinates == "errors" else 0.25


def _max_steps(config: TrainConfig) -> int:
    if config.solver in _ONE_STEP:
        return 1
    if config.solver == "l-bfgs":
        return 30
    return config.depth if config.preset == "paper" else 8


# In this order: a field's condition may look at fields above it.
_CONDITIONALS: dict[str, _Conditional] = {
    "gamma": _Conditional(
        lambda c: c.parameterisation == "mupc",
        "the parameterisation {parameterisation} has no γ",
        lambda c: 1.0,
    ),
    "precision": _Conditional(lambda c: c.rho is None or not _pc(c), "rho sets it", _precision),
    "rho": _Conditional(
        lambda c: _pc(c) and c.precision is None,
        _NO_INFERENCE,
        lambda c: 0.05,
    ),
    "hold_regime": _Conditional(
        lambda c: c.rho is not None,
        "no regime number ρ is given",
        lambda c: True,
    ),
    "solver": _Conditional(_pc, _NO_INFERENCE, _paper("gradient-descent", "gauss-newton")),
    "coordinates": _Conditional(
        _solver_is(*_WITH_COORDINATES),
        "the solver {solver} has its own",
        lambda c: "errors" if c.solver in ("l-bfgs", "gradient-flow") else "activities",
    ),
    "cg_steps": _Conditional(
        _solver_is("gauss-newton"), "only the solver gauss-newton has any", lambda c: 1
    ),
    "history": _Conditional(_solver_is("l-bfgs"), "only the solver l-bfgs has one", lambda c: 8),
    "step_size": _Conditional(
        _solver_is("gradient-descent", "adam"),
        "only the solvers gradient-descent and adam take one",
        _step_size,
    ),
    "momentum": _Conditional(
        _solver_is("gradient-descent"), "only the solver gradient-descent has momentum"
    ),
    "max_steps": _Conditional(_pc, _NO_INFERENCE, _max_steps),
    "rtol": _Conditional(
        _pc, _NO_INFERENCE, lambda c: 0.0 if c.preset == "paper" or c.max_steps == 1 else 1e-3
    ),
    "atol": _Conditional(_pc, _NO_INFERENCE, lambda c: 0.0),
    "patience": _Conditional(_pc, _NO_INFERENCE, _paper(0, 10)),
    "start": _Conditional(_pc, _NO_INFERENCE, lambda c: "feedforward"),
    "start_std": _Conditional(
        lambda c: c.start == "normal", "only the start normal has one", lambda c: 1.0
    ),
    "weight_decay_roles": _Conditional(
        lambda c: c.weight_decay != 0,
        "weight_decay is 0",
        lambda c: ("input", "hidden", "readout"),
    ),
    "activity_decay_roles": _Conditional(
        lambda c: c.activity_decay != 0, "activity_decay is 0", lambda c: ("input", "hidden")
    ),
    "spectral_penalty_roles": _Conditional(
        lambda c: c.spectral_penalty != 0, "spectral_penalty is 0", lambda c: ("hidden",)
    ),
    "eps": _Conditional(
        lambda c: c.optimiser != "sgd", "the optimiser sgd has no ε", _paper(1e-8, 1e-12)
    ),
    "adamw_decay": _Conditional(
        lambda c: c.optimiser == "adamw", "the optimiser is {optimiser}", lambda c: 1e-4
    ),
    "sgd_momentum": _Conditional(
        lambda c: c.optimiser == "sgd", "the optimiser is {optimiser}", lambda c: 0.9
    ),
    "warmup": _Conditional(
        lambda c: c.schedule == "cosine", "the schedule is {schedule}", lambda c: 0
    ),
    "epochs": _Conditional(
        lambda c: c.steps is None, "steps is given", lambda c: 1.0 if c.preset == "paper" else 10.0
    ),
    "evaluate_every": _Conditional(lambda c: c.validation > 0, "there is no validation part"),
    "early_stopping": _Conditional(lambda c: c.validation > 0, "there is no validation part"),
}


def resolve(config: TrainConfig) -> TrainConfig:
    """Fill in every default that depends on other choices, and check the whole.

    Raises:
        ConfigError: for a value that is impossible, or that would have no effect.
    """
    config = with_types(config)
    check_choices(config)
    for name, condition in _CONDITIONALS.items():
        value = getattr(config, name)
        if value is None and condition.applies(config):
            config = dataclasses.replace(config, **{name: condition.default(config)})
        elif value is not None and not condition.applies(config):
            reason = condition.reason.format(**dataclasses.asdict(config))
            raise ConfigError(f"{option(name)} would have no effect, since {reason}: leave it out")
    _check_ranges(config)
    return config


def unresolved(config: TrainConfig) -> TrainConfig:
    """Leave out what follows from other settings, so that it follows them if they are changed."""
    full = resolve(config)
    follows = [
        name
        for name, condition in _CONDITIONALS.items()
        if condition.applies(full) and getattr(full, name) == condition.default(full)
    ]
    return dataclasses.replace(full, **dict.fromkeys(follows))


def from_dict(values: dict[str, Any]) -> TrainConfig:
    """Rebuild a configuration that was stored.

    Raises:
        ConfigError: if a field is unknown, or a value impossible.
    """
    if "hold_regime" not in values and values.get("rho") is not None:
        values = {**values, "hold_regime": False}  # stored before there was a choice
    try:
        return resolve(from_settings(values, TrainConfig()))
    except ConfigError as error:
        raise ConfigError(f"in the stored configuration: {error}") from error


_COUNTS = (
    "depth width max_steps cg_steps history steps batch_size log_every evaluate_every "
    "early_stopping checkpoint_every keep_checkpoints"
)
_POSITIVE = "gamma rho precision step_size learning_rate eps epochs start_std"
_NOT_NEGATIVE = (
    "weight_decay activity_decay spectral_penalty adamw_decay rtol atol patience warmup "
    "report_every checkpoint_minutes"
)
_FRACTIONS = "momentum sgd_momentum validation"

# For each field: what it must be, in words and as a predicate (false for nan).
_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(_COUNTS.split(), ("at least 1", lambda v: v >= 1)),
    **dict.fromkeys(
        _POSITIVE.split(), ("above 0", lambda v: v == "stable" or 0 < v < float("inf"))
    ),
    **dict.fromkeys(_NOT_NEGATIVE.split(), ("at least 0", lambda v: 0 <= v < float("inf"))),
    # JAX's keys take 32 bits: larger seeds would repeat smaller ones.
    "seed": ("at least 0 and below 2 to the 32nd", lambda v: 0 <= v < 2**32),
    **dict.fromkeys(_FRACTIONS.split(), ("at least 0 and below 1", lambda v: 0 <= v < 1)),
}


def _check_ranges(config: TrainConfig) -> None:
    for name, (wanted, holds) in _RANGES.items():
        value = getattr(config, name)
        if value is not None and not holds(value):
            raise ConfigError(f"{option(name)} must be {wanted}, not {value}")
    if config.solver == "adam" and config.step_size == "stable":
        raise ConfigError(
            "--step-size stable is for the solver gradient-descent; give adam a number"
        )
    if config.solver == "linear-solve" and config.activation != "linear":
        raise ConfigError("--solver linear-solve is for --activation linear: take l-bfgs")
    if config.solver == "gauss-newton" and config.activity_decay:
        raise ConfigError("--solver gauss-newton takes no --activity-decay: take l-bfgs with it")
    if config.solver == "linear-solve" and config.likelihood != "gaussian":
        raise ConfigError("--solver linear-solve is for --likelihood gaussian: take gauss-newton")
    if config.learning_rate_rule == "mup" and config.parameterisation != "mupc":
        raise ConfigError(
            f"--learning-rate-rule mup would have no effect, since all factors of the "
            f"parameterisation {config.parameterisation} are 1: take raw"
        )
    if config.depth == 1 and not config.skips:
        raise ConfigError("--no-skips would have no effect, since --depth 1 has no hidden block")
