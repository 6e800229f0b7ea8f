"""The configuration of a run: the one place where strings become objects.

Fields whose default is None apply only to some choices (a momentum only to SGD, say). `resolve`
fills them where they apply, from the preset, and refuses them where they would have no effect.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from mupc.training.checks import ConfigError as ConfigError
from mupc.training.checks import check_choices, with_types
from mupc.training.checks import option as option

PresetName = Literal["default", "paper"]
Activation = Literal["relu", "tanh", "gelu", "silu", "linear"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train a deep predictive coding network and report its test accuracy."""

    preset: PresetName = "default"
    """Where defaults come from; `paper` is the setting of arXiv 2505.13124."""
    dataset: str = "digits"
    """digits, mnist, fashion-mnist, cifar10, or your own arrays: a path to an .npz (x, y)."""
    data_dir: str | None = None
    """Folder of data files already on disk (else MUPC_DATA, else a cache filled by download)."""
    validation: float = 0.0
    """Fraction of the training data set apart; the network that does best there is the result. With
    0 it is the last one."""

    depth: int = 128
    """Number of hidden layers H."""
    width: int = 128
    """Width N of every hidden layer."""
    activation: Activation = "relu"
    """Activation function φ."""
    skips: bool = True
    """Residual (skip) connections."""
    biases: bool = False
    """Biases in every layer."""
    parameterisation: Literal["mupc", "ntk", "standard"] = "mupc"
    """How initial weights, multipliers and rate factors scale with size."""
    gamma: float | None = None
    """γ of mupc: divides the readout's multiplier (default 1)."""
    initialisation: Literal["normal", "orthogonal"] = "normal"
    """Distribution of the initial weights."""

    rule: Literal["predictive-coding", "backpropagation"] = "predictive-coding"
    """Learning rule."""
    likelihood: Literal["gaussian", "categorical"] = "gaussian"
    """Energy of the output: squared error or cross-entropy."""
    rho: float | None = None
    """Regime number ρ: 0.02 is near backpropagation, 1 is far; it sets the precision, from the
    network and the first batch (default 0.05, unless the precision is given; paper: none)."""
    hold_regime: bool | None = None
    """Hold ρ in training: as the network learns, the precision falls (default true where ρ is given
    and the likelihood is gaussian)."""
    precision: float | None = None
    """Output precision π, instead of ρ (default 1 for backpropagation and the paper's preset)."""
    solver: (
        Literal[
            "gauss-newton", "l-bfgs", "gradient-descent", "adam", "gradient-flow", "linear-solve"
        ]
        | None
    ) = None
    """How activities settle (default gauss-newton; paper gradient-descent)."""
    coordinates: Literal["activities", "errors"] | None = None
    """What l-bfgs, gradient-flow (default errors), gradient-descent and adam (default activities)
    move."""
    cg_steps: int | None = None
    """Conjugate gradient steps in an iteration of gauss-newton (default 1)."""
    history: int | None = None
    """Pairs that l-bfgs remembers (default 8)."""
    step_size: float | Literal["stable"] | None = None
    """Step of gradient-descent or adam, per sample, or `stable`: from the Hessian's largest
    eigenvalue (default 0.25; gradient-descent in errors: stable; paper 0.5/64)."""
    momentum: float | None = None
    """Nesterov momentum of gradient-descent (default: none)."""
    max_steps: int | None = None
    """Largest number of inference steps T (default: gauss-newton, gradient-flow, linear-solve 1,
    l-bfgs 30, others 8; paper: the depth)."""
    rtol: float | None = None
    """A sample is done when its residual is this fraction of the initial one (default 1e-3, or 0
    where max_steps is 1; paper 0)."""
    atol: float | None = None
    """... plus this (default 0)."""
    patience: int | None = None
    """A sample is done when its energy has not fallen for this many steps; 0: never
    (default 10; paper 0)."""
    start: Literal["feedforward", "zeros", "normal"] | None = None
    """Where inference starts (default feedforward)."""
    start_std: float | None = None
    """Standard deviation of the start normal (default 1)."""

    weight_decay: float = 0.0
    """λ of the energy term λ/2 ‖W‖²."""
    weight_decay_roles: tuple[Literal["input", "hidden", "readout"], ...] | None = None
    """Layers with weight decay (default all)."""
    activity_decay: float = 0.0
    """λ of the energy term λ/2 ‖z‖²."""
    activity_decay_roles: tuple[Literal["input", "hidden"], ...] | None = None
    """Activities with decay: input is the first hidden one, hidden the others (default both)."""
    spectral_penalty: float = 0.0
    """λ of the energy term λ ‖I − VᵀV‖², V the multiplied weight."""
    spectral_penalty_roles: tuple[Literal["input", "hidden", "readout"], ...] | None = None
    """Layers with the spectral penalty (default hidden)."""

    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimiser of the weights."""
    learning_rate: float = 0.02
    """Learning rate (paper 0.1)."""
    learning_rate_rule: Literal["raw", "mup", "uniform"] = "uniform"
    """Factors on the learning rate by layer: none (raw, the paper's), those of Depth-μP (mup), or
    √(128 · 129 / (width · (depth + 1))), at most 4, and for input and readout at least 1
    (uniform)."""
    eps: float | None = None
    """ε of adam and adamw; below the gradients, or layers freeze (default 1e-12; paper 1e-8)."""
    adamw_decay: float | None = None
    """Decoupled weight decay of adamw (default 1e-4)."""
    sgd_momentum: float | None = None
    """Momentum of sgd (default 0.9)."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning-rate schedule; cosine falls to zero at the end of training (paper: constant)."""
    warmup: int | None = None
    """Steps over which cosine rises linearly at first (default 0)."""

    epochs: float | None = None
    """Passes through the training data (default 10; paper 1; steps replaces it)."""
    steps: int | None = None
    """Number of batches to train on, instead of epochs."""
    batch_size: int = 64
    """Samples a batch."""
    evaluate_every: int | None = None
    """Steps between evaluations of the validation part (default: an epoch)."""
    early_stopping: int | None = None
    """End after this many evaluations without a better one (default: never)."""
    log_every: int = 20
    """Steps between records."""
    report_every: int = 100
    """Steps between reports of the regime, what inference and learning do in each layer; 0: never
    reported."""
    checkpoint_every: int | None = None
    """Steps between checkpoints (default: time alone decides)."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; 0: none, but for that of an interruption."""
    keep_checkpoints: int = 2
    """How many checkpoints are kept."""
    tensorboard: bool = False
    """Write the records for TensorBoard too, into the run folder."""
    seed: int = 0
    """Seed of everything random."""
    out: str | None = None
    """Run folder; must be new (default: a name made of the settings, under runs/)."""


PRESETS: dict[PresetName, TrainConfig] = {
    "default": TrainConfig(),
    # arXiv 2505.13124: one MNIST epoch, N = 512, Adam 0.1.
    "paper": TrainConfig(
        preset="paper",
        dataset="mnist",
        width=512,
        learning_rate=0.1,
        learning_rate_rule="raw",
        schedule="constant",
    ),
}


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
        lambda c: c.likelihood == "gaussian",
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


NUMBERS = (
    "learning_rate",
    "rho",
    "precision",
    "step_size",
    "momentum",
    "rtol",
    "atol",
    "eps",
    "adamw_decay",
    "sgd_momentum",
    "seed",
)
"""Fields whose values are arguments of the compiled training step: a new one compiles nothing."""


KEEPING = (
    "out",
    "data_dir",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep_checkpoints",
    "tensorboard",
)
"""Fields that say where and how a run is kept: whatever they are, it is the same run."""


def program(config: TrainConfig) -> TrainConfig:
    """Give what decides the compiled training step: all but `NUMBERS`, and but where it is kept."""
    numbers = {name: getattr(config, name) for name in NUMBERS}
    # A word (`stable`) or nothing in a number's place makes another program.
    kinds = {n: v if v is None or isinstance(v, str) else 0 for n, v in numbers.items()}
    unkept = {name: getattr(TrainConfig(), name) for name in KEEPING if name != "data_dir"}
    return dataclasses.replace(config, **kinds, **unkept)


def field_named(name: str) -> str:
    """Give the field that a name means: with hyphens, as on the command line, or underlines.

    Raises:
        ConfigError: if there is none; it names the nearest.
    """
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    if (field := name.replace("-", "_")) in known:
        return field
    near = difflib.get_close_matches(field, known, n=1)
    hint = f": {near[0]} is the nearest that there is" if near else ""
    raise ConfigError(f"there is no setting {name}{hint}")


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


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Make paths hold from any folder: the run may be evaluated from another one."""
    if config.dataset.endswith(".npz"):
        config = dataclasses.replace(config, dataset=str(Path(config.dataset).resolve()))
    if config.data_dir is not None:
        config = dataclasses.replace(config, data_dir=str(Path(config.data_dir).resolve()))
    return config


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
    "seed": ("at least 0 and below 2 to the 63rd", lambda v: 0 <= v < 2**63),
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


def from_settings(
    settings: Mapping[str, Any], base: TrainConfig = PRESETS["default"]
) -> TrainConfig:
    """Put settings, as a file holds them, on top of a configuration; it is not resolved.

    Raises:
        ConfigError: if there is no such setting, or its value is of a wrong type or no choice.
    """
    named = {field_named(name): value for name, value in settings.items()}
    config = with_types(dataclasses.replace(base, **named))
    check_choices(config)
    return config


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
