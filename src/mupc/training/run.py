"""One run from its configuration: data, network, training, test, and a folder that tells of it."""

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mupc.data import Dataset
from mupc.records import RunError, RunFolder, check_new, environment
from mupc.training.checkpoint import Checkpoints
from mupc.training.config import (
    KEEPING,
    NUMBERS,
    ConfigError,
    TrainConfig,
    option,
    program,
    with_absolute_paths,
)
from mupc.training.export import Origin, save_network
from mupc.training.loop import Options, check_saved, fit_together
from mupc.training.metrics import Evaluation, evaluate
from mupc.training.regime import Regime
from mupc.training.resolution import from_dict, resolve
from mupc.training.results import Ended, FitResult, Record, RegimeRecord, TrainRecord, record_from
from mupc.training.setup import check_data, load_data, set_up
from mupc.training.tensorboard import TensorBoard
from mupc.training.trainer import Member


class Start(NamedTuple):
    """What is known of a run before its first step, or before it goes on after `made` steps."""

    config: TrainConfig
    data: Dataset
    folder: RunFolder
    regime: Regime
    steps: int
    made: int = 0


class Run(NamedTuple):
    """A run that has ended: folder, configuration, data, result, evaluations, last regime report.

    One that was asked to end by SIGTERM has no evaluations, and can be resumed.
    """

    folder: RunFolder
    config: TrainConfig
    data: Dataset
    result: FitResult
    test: Evaluation | None
    validation: Evaluation | None
    regime: RegimeRecord | None

    @property
    def training_seconds(self) -> float:
        """The time of the training steps alone, without compilation, evaluations and reports.

        Of runs in step it is the time of all of them together.
        """
        total, before = 0.0, 0
        for record in self.result.records:
            if isinstance(record, TrainRecord):
                samples = (record.step - before) * self.config.batch_size
                total, before = total + samples / record.samples_per_second, record.step
        return total


Begin = Callable[[Start], Callable[[Record], None]]


def train(config: TrainConfig, *, data: Dataset | None = None, begin: Begin | None = None) -> Run:
    """Train as a configuration says, and leave a run folder.

    Args:
        config: the configuration, resolved or not.
        data: its data set, if that has been loaded already.
        begin: is called before the first step with what is about to happen, and gives a callback
            for records.

    Raises:
        ConfigError, DataError, RunError: before anything is trained.
    """
    (run,) = train_together([config], data=data, begin=begin)
    return run


def train_together(
    configs: Sequence[TrainConfig], *, data: Dataset | None = None, begin: Begin | None = None
) -> list[Run]:
    """Train several runs, each step of all of them at once, and leave a folder of each.

    Args:
        configs: may differ in `mupc.training.config.NUMBERS` alone.
        data: as for `train`.
        begin: as for `train`; it is called for each.

    Raises:
        ConfigError, DataError, RunError: before anything is trained.
    """
    configs = [with_absolute_paths(resolve(config)) for config in configs]
    if len({program(config) for config in configs}) != 1:
        raise ConfigError(
            f"runs trained together may differ in {', '.join(map(option, NUMBERS))} alone: train "
            "the others one after the other"
        )
    for config in configs:
        if config.out is not None:
            check_new(config.out)
    config = configs[0]
    data = load_data(config) if data is None else data
    steps = check_data(config, data)
    starts, members = zip(*(_start(config, data, steps) for config in configs), strict=True)
    with ExitStack() as held:
        for start in starts:
            held.enter_context(start.folder.held())
        return _train(starts, members, begin)


def resume(path: str | Path, *, begin: Begin | None = None) -> Run:
    """Continue a run that was stopped, from its newest checkpoint, or else from its beginning.

    The result is that of a run that was never stopped: the same weights, the same records (but for
    what they say of time).

    Args:
        path: the run folder.
        begin: as for `train`.

    Raises:
        ConfigError, DataError, RunError: before anything is trained or changed; RunError if the run
            has ended, if another process trains it, or if its checkpoint is damaged or of another
            run.
    """
    folder = RunFolder.open(path)
    config = from_dict(folder.config())
    with folder.held():
        result = folder.result() if folder.has_ended else {"ended": "interrupted"}
        if result.get("ended") != Ended.INTERRUPTED.name.lower():
            why = result.get("message", "it has ended")
            raise RunError(f"nothing of the run {path} is left to continue: {why}")
        data = load_data(config)
        steps, regime = check_data(config, data), _regime(folder)
        saved = _checkpoints(folder, config, regime).load()
        start = Start(config, data, folder, regime, steps, 0 if saved is None else saved.step)
        member = set_up(config, data, steps, regime).member._replace(saved=saved)
        check_saved(member, data, **_options(config, steps))
        folder.reopen([] if saved is None else saved.progress["records"])
        (run,) = _train([start], [member], begin)
    return run


def _start(config: TrainConfig, data: Dataset, steps: int) -> tuple[Start, Member]:
    member, regime = set_up(config, data, steps)
    folder = RunFolder.create(
        _folder(config), dataclasses.asdict(config), _environment(), regime._asdict()
    )
    return Start(config, data, folder, regime, steps), member


def _train(starts: Sequence[Start], members: Sequence[Member], begin: Begin | None) -> list[Run]:
    """Make the steps of runs whose folders are there, and end them."""
    config, data, _, _, steps, _ = starts[0]
    kept = [_recorded(start, member, begin) for start, member in zip(starts, members, strict=True)]
    results = fit_together(kept, data, **_options(config, steps))
    return [_finish(start, result) for start, result in zip(starts, results, strict=True)]


def _options(config: TrainConfig, steps: int) -> Options:
    """Give the arguments of `fit_together` that a configuration names."""
    return {
        "steps": steps,
        "batch_size": config.batch_size,
        "evaluate_every": config.evaluate_every,
        "early_stopping": config.early_stopping,
        "log_every": config.log_every,
        "report_every": config.report_every or None,
    }


def _regime(folder: RunFolder) -> Regime:
    """Read the regime in which a run began."""
    values = folder.regime()
    numbers = all(isinstance(value, float | int | None) for value in values.values())
    if values.keys() != set(Regime._fields) or not numbers or values["precision"] is None:
        raise RunError(
            f"{folder.path / 'regime.json'} is damaged: it must hold the numbers precision and rho"
        )
    return Regime(**values)


def _recorded(start: Start, member: Member, begin: Begin | None) -> Member:
    """Let the records and checkpoints of a member go to its folder."""
    folder, callbacks = start.folder, [] if begin is None else [begin(start)]
    if start.config.tensorboard:
        # A run that goes on writes all of them again: some may be of steps that are made again.
        shutil.rmtree(folder.path / "tensorboard", ignore_errors=True)
        callbacks.append(board := TensorBoard(folder.path / "tensorboard"))
        for values in folder.records():
            board(record_from(values))

    def report(record: Record) -> None:
        folder.append(dataclasses.asdict(record))
        for callback in callbacks:
            callback(record)

    return member._replace(
        callback=report, checkpoints=_checkpoints(folder, start.config, start.regime)
    )


def _checkpoints(folder: RunFolder, config: TrainConfig, regime: Regime) -> Checkpoints:
    values = dataclasses.asdict(config) | {"the precision at first": regime.precision}
    return Checkpoints(
        folder.checkpoints,
        every=config.checkpoint_every,
        minutes=config.checkpoint_minutes or math.inf,
        keep=config.keep_checkpoints,
        settings={name: value for name, value in values.items() if name not in KEEPING},
    )


def _finish(start: Start, result: FitResult) -> Run:
    """Save and evaluate the network, and write how the run ended."""
    config, data, folder, *_ = start
    if result.ended is Ended.TERMINATED:  # seconds may be left, and there is the checkpoint
        return Run(folder, config, data, result, None, None, None)
    about = f"{data.name}: {data.normalisation}"
    origin = Origin(config, data.inputs, data.outputs, about)
    parts = {"test": data.test, "validation": data.validation}
    seen = {
        name: None if split is None else evaluate(result, split) for name, split in parts.items()
    }
    try:
        save_network(folder.network, result.network, origin=origin)
        folder.finish(_summary(result, seen))
    except OSError as error:
        raise RunError(
            f"cannot write the run folder {folder.path} ({error.strerror}): when it can be written "
            f"again, continue with mupc train --resume {folder.path}"
        ) from error
    if result.ended is not Ended.INTERRUPTED:
        shutil.rmtree(folder.checkpoints, ignore_errors=True)  # nothing is left to continue
    regimes = [record for record in result.records if isinstance(record, RegimeRecord)]
    return Run(folder, config, data, result, **seen, regime=regimes[-1] if regimes else None)


def _summary(result: FitResult, seen: Mapping[str, Evaluation | None]) -> dict[str, Any]:
    return {
        "ended": result.ended.name.lower(),
        "message": result.message,
        "steps": result.steps,
        "network_from_step": result.step,
        **{name: None if one is None else one._asdict() for name, one in seen.items()},
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
