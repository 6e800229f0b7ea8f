"""One run from its configuration: data, network, training, test, and a folder that tells of it."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import optax
from jaxtyping import PRNGKeyArray

from mupc.data import Dataset, Split, load, steps_per_epoch
from mupc.learning import LearningRule
from mupc.networks import Chain
from mupc.records import RunError, RunFolder, environment
from mupc.training.build import build_likelihood, build_network, build_optimiser, build_rule
from mupc.training.config import ConfigError, TrainConfig, from_dict, resolve
from mupc.training.loop import check_evaluations, fit
from mupc.training.metrics import Evaluation, evaluate, is_distribution
from mupc.training.regime import Regime, measure_regime
from mupc.training.results import FitResult, Record, RegimeRecord


class Start(NamedTuple):
    """What is known of a run before its first step."""

    config: TrainConfig
    data: Dataset
    folder: RunFolder
    regime: Regime
    steps: int


class Run(NamedTuple):
    """A finished run: folder, resolved configuration, result, test, and the regime if reported."""

    folder: RunFolder
    config: TrainConfig
    result: FitResult
    test: Evaluation | None
    regime: RegimeRecord | None


class Setup(NamedTuple):
    """What a run is made of, and the key of its training."""

    network: Chain
    regime: Regime
    rule: LearningRule
    optimiser: optax.GradientTransformation
    key: PRNGKeyArray


def set_up(config: TrainConfig, data: Dataset, steps: int) -> Setup:
    """Build what a resolved configuration names, for a run of so many steps."""
    network_key, fit_key = jax.random.split(jax.random.key(config.seed))
    # Compiled as one program: its operations one by one take a second longer.
    network = eqx.filter_jit(build_network)(config, data.inputs, data.outputs, network_key)
    regime = measure_regime(config, network, data)
    rule = build_rule(config, regime.precision)
    return Setup(network, regime, rule, build_optimiser(config, network, steps), fit_key)


def load_data(config: TrainConfig) -> Dataset:
    """Load the data set of a configuration."""
    return load(config.dataset, data_dir=config.data_dir, validation=config.validation)


def train(
    config: TrainConfig,
    *,
    begin: Callable[[Start], Callable[[Record], None]] | None = None,
) -> Run:
    """Train as a configuration says, and leave a run folder.

    Args:
        config: the configuration, resolved or not.
        begin: is called before the first step with what is about to happen, and gives a callback
            for records.

    Raises:
        ConfigError, DataError, RunError: before anything is trained.
    """
    config = _with_absolute_paths(resolve(config))
    data = load_data(config)
    steps = _check_data(config, data)
    setup = set_up(config, data, steps)
    folder = RunFolder.create(
        _folder(config), dataclasses.asdict(config), _environment(), setup.regime._asdict()
    )
    start = Start(config, data, folder, setup.regime, steps)
    callback = None if begin is None else begin(start)

    def report(record: Record) -> None:
        folder.append(dataclasses.asdict(record))
        if callback is not None:
            callback(record)

    result = fit(
        setup.network,
        data,
        setup.rule,
        setup.optimiser,
        steps=steps,
        batch_size=config.batch_size,
        evaluate_every=config.evaluate_every,
        early_stopping=config.early_stopping,
        log_every=config.log_every,
        report_every=config.report_every or None,
        callback=report,
        key=setup.key,
    )
    _save(folder, result.network)
    test = None
    if data.test is not None:
        test = evaluate(result.network, data.test, likelihood=build_likelihood(config))
    folder.finish(_summary(result, test))
    seen = [record for record in result.records if isinstance(record, RegimeRecord)]
    return Run(folder, config, result, test, seen[-1] if seen else None)


def _check_data(config: TrainConfig, data: Dataset) -> int:
    """Check what can only be checked with the data at hand; give the number of steps."""
    if config.likelihood == "categorical" and not is_distribution(data.train.y):
        raise ConfigError(
            f"--likelihood categorical needs targets that are distributions over classes, and "
            f"those of {data.name} are not: take gaussian"
        )
    try:
        epoch = steps_per_epoch(len(data.train.x), config.batch_size)
    except ValueError as error:
        raise ConfigError(f"--batch-size: {error}") from error
    steps = config.steps or round((config.epochs or 0) * epoch)
    if not steps:
        raise ConfigError(f"--epochs {config.epochs} is no step: an epoch has {epoch}")
    if config.validation:
        try:
            check_evaluations(steps, epoch, config.evaluate_every, config.early_stopping)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if config.warmup and config.warmup >= steps:
        raise ConfigError(f"--warmup must be smaller than the {steps} steps of the whole run")
    return steps


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Make paths hold from any folder: the run may be evaluated from another one."""
    if config.dataset.endswith(".npz"):
        config = dataclasses.replace(config, dataset=str(Path(config.dataset).resolve()))
    if config.data_dir is not None:
        config = dataclasses.replace(config, data_dir=str(Path(config.data_dir).resolve()))
    return config


def _summary(result: FitResult, test: Evaluation | None) -> dict[str, Any]:
    return {
        "ended": result.ended.name.lower(),
        "message": result.message,
        "steps": result.steps,
        "network_from_step": result.step,
        "test": None if test is None else test._asdict(),
    }


def _environment() -> dict[str, Any]:
    return {
        **environment(),
        "devices": [device.device_kind for device in jax.devices()],
        "x64": bool(jax.config.read("jax_enable_x64")),
    }


def _folder(config: TrainConfig) -> Path:
    """Choose a new folder, by the settings that a reader looks for first, unless one is named."""
    if config.out is not None:
        return Path(config.out)
    dataset = Path(config.dataset).stem
    name = f"{dataset}-{config.parameterisation}-{config.rule}-{config.depth}x{config.width}"
    path, count = Path("runs") / f"{name}-seed{config.seed}", 1
    while path.exists():
        count += 1
        path = path.with_name(f"{name}-seed{config.seed}-{count}")
    return path


def _save(folder: RunFolder, network: Any) -> None:
    part = folder.network.with_suffix(".part")
    eqx.tree_serialise_leaves(part, network)
    os.replace(part, folder.network)


def load_run(path: str | Path) -> tuple[TrainConfig, Dataset, Chain]:
    """Read a run's configuration, its data and its trained network.

    Raises:
        RunError: if there is no run, or no whole network in it.
    """
    folder = RunFolder.open(path)
    config = from_dict(folder.config())
    data = load_data(config)
    if not folder.network.is_file():
        raise RunError(f"the run {path} holds no trained network: it did not end by itself")
    like = eqx.filter_eval_shape(
        build_network, config, data.inputs, data.outputs, jax.random.key(0)
    )
    try:
        return config, data, eqx.tree_deserialise_leaves(folder.network, like)
    except (ValueError, EOFError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{folder.network} is not the network of this run, or is damaged ({reason}); "
            "train again"
        ) from error


def part(data: Dataset, name: str) -> Split:
    """Give the part of a data set that has this name.

    Raises:
        RunError: if the data set has no such part.
    """
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    if (split := parts[name]) is None:
        there = " or ".join(part for part, held in parts.items() if held is not None)
        raise RunError(f"{data.name} has no {name} part in this run: take --part {there}")
    return split
