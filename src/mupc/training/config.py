"""The configuration of a run, of which `mupc.training.build` makes objects.

Fields whose default is None apply only to some choices (a momentum only to SGD, say).
`mupc.training.resolution.resolve` fills them where they apply, from the preset, and refuses them
where they would have no effect.
"""

import dataclasses
import difflib
from collections.abc import Mapping
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
    """Hold ρ in training: as the network learns, the precision of every sample falls so that none
    rises above it (default true where ρ is given)."""
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


def of_fixed_steps(config: TrainConfig) -> bool:
    """Say whether inference makes one step whatever the residual, which it need not measure."""
    return config.max_steps == 1 and config.rtol == config.atol == 0


def program(config: TrainConfig) -> TrainConfig:
    """Give what decides the compiled training step: all but `NUMBERS`, and but where it is kept."""
    numbers = {name: getattr(config, name) for name in NUMBERS}
    # A word (`stable`) or nothing in a number's place makes another program.
    kinds = {n: v if v is None or isinstance(v, str) else 0 for n, v in numbers.items()}
    if of_fixed_steps(config):
        kinds["rtol"] = None
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


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Make paths hold from any folder: the run may be evaluated from another one."""
    if config.dataset.endswith(".npz"):
        config = dataclasses.replace(config, dataset=str(Path(config.dataset).resolve()))
    if config.data_dir is not None:
        config = dataclasses.replace(config, data_dir=str(Path(config.data_dir).resolve()))
    return config


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
