"""One run from its configuration: data, network, training, test, and a folder that tells of it."""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mupc.data import Dataset
from mupc.records import (
    Ended,
    Evaluation,
    Record,
    Regime,
    RegimeRecord,
    RunError,
    RunFolder,
    RunResult,
    TrainRecord,
    check_new,
    environment,
    record_from,
)
from mupc.runs.network_file import Origin, save_network
from mupc.runs.setup import (
    Setup,
    check_data,
    check_layout,
    check_runs,
    lay_out,
    load_data,
    set_up,
    summary,
)
from mupc.runs.shared import by_one, hold, is_writer
from mupc.settings import ConfigError, Configuration
from mupc.settings.files import stored
from mupc.settings.setting import Located, Traced
from mupc.training.checkpoint import Checkpoints
from mupc.training.evaluate import evaluate
from mupc.training.fit import prepare
from mupc.training.fit import train as train_sessions
from mupc.training.layout import Layout, within
from mupc.training.plan import Schedule
from mupc.training.results import FitResult
from mupc.training.session import Member
from mupc.training.signals import Passed, Signals
from mupc.training.tensorboard import TensorBoard


class Start(NamedTuple):
    """What is known of a run before its first step, or before it goes on after `made` steps."""

    config: Configuration
    data: Dataset
    folder: RunFolder
    regime: Regime
    schedule: Schedule
    made: int = 0

    @property
    def steps(self) -> int:
        """How many steps the run makes."""
        return self.schedule.steps


class Run(NamedTuple):
    """A run that has ended: folder, configuration, data, result, evaluations, last regime report.

    One that was asked to end by SIGTERM has no evaluations, and can be resumed.
    """

    folder: RunFolder
    config: Configuration
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
                samples = (record.step - before) * self.config.training.batch_size
                total, before = total + samples / record.samples_per_second, record.step
        return total


Begin = Callable[[Start], Callable[[Record], None]]


def train(
    config: Configuration,
    *,
    data: Dataset | None = None,
    begin: Begin | None = None,
    signals: type[Signals] = Passed,
) -> Run:
    """Train as a configuration says, and leave a run folder.

    Args:
        config: the configuration.
        data: its data set, if that has been loaded already.
        begin: is called before the first step with what is about to happen, and gives a callback
            for records.
        signals: what becomes of Ctrl-C and SIGTERM: `Passed`, they act as in any script once all
            is saved, and the run can be resumed; or `Ending`, the result of the run says so.

    After `jax.distributed.initialize`, of processes that call it alike, over devices of all of them
    (`layout`), the first writes the folder, which all must see, and calls `begin`.

    Raises:
        ConfigError, DataError, RunError: before anything is trained.
    """
    check_runs(config, 1)
    (run,) = train_together([config], data=data, begin=begin, signals=signals)
    return run


def train_together(
    configs: Sequence[Configuration],
    *,
    data: Dataset | None = None,
    begin: Begin | None = None,
    signals: type[Signals] = Passed,
) -> list[Run]:
    """Train several runs, each step of all of them at once, and leave a folder of each.

    Args:
        configs: may differ in numbers alone, `Configuration.carrying(Traced)`.
        data: as for `train`.
        begin: as for `train`; it is called for each.
        signals: as for `train`.

    Raises:
        ConfigError, DataError, RunError: before anything is trained.
    """
    if len({config.program() for config in configs}) != 1:
        numbers = ", ".join(
            f"`{name}`" for name in configs[0].flat() if name in configs[0].carrying(Traced)
        )
        raise ConfigError(
            f"runs trained together may differ in {numbers} alone: train the others one after the "
            "other"
        )
    for config in configs:
        if "{label}" not in config.run.out:
            check_new(config.run.out)
    data = load_data(configs[0]) if data is None else data
    schedule = check_data(configs[0], data)
    setups = [set_up(config, data, schedule.steps) for config in configs]
    layout = lay_out(configs[0], len(setups))
    check_layout(layout, setups[0].member.network)
    pairs = zip(configs, setups, strict=True)
    starts, members = zip(*(_start(*own, data, schedule, layout) for own in pairs), strict=True)
    with ExitStack() as held:
        for start in starts:
            hold(held, start.folder, layout)
        return _train(starts, members, begin, layout, signals=signals)


def resume(
    path: str | Path,
    *,
    data: str | None = None,
    layout: str | None = None,
    begin: Begin | None = None,
    signals: type[Signals] = Passed,
) -> Run:
    """Continue a run that was stopped, from its newest checkpoint, or else from its beginning.

    The result is that of a run that was never stopped: the same weights, the same records (but for
    what they say of time).

    Args:
        path: the run folder.
        data: where its data lie now, if they were moved: an `.npz` file, or a folder of files.
        layout: over which devices it is parted from now on; as before unless given.
        begin: as for `train`.
        signals: as for `train`.

    Raises:
        ConfigError, DataError, RunError: before anything is trained or changed; RunError if the run
            has ended, if another process trains it, or if its checkpoint is damaged or of another
            run.
    """
    folder = RunFolder.open(path)
    config = stored(folder.config()).moved(data)
    if layout is not None:
        config = config.changed({"layout": layout})
        check_runs(config, 1)
    parted = lay_out(config)
    with ExitStack() as held:
        hold(held, folder, parted)
        result = folder.result()
        if result is not None and result.ended is not Ended.INTERRUPTED:
            raise RunError(f"run {path} has already finished ({result.message})")
        loaded = load_data(config)
        folder.check_data(loaded.fingerprint)
        schedule, regime = check_data(config, loaded), folder.regime()
        saved = _checkpoints(folder, config, regime).load()
        start = Start(config, loaded, folder, regime, schedule, saved.step if saved else 0)
        initial = folder.initial if folder.initial.is_file() else None
        setup = set_up(config, loaded, start.steps, regime, initial=initial)
        member = setup.member._replace(saved=saved)
        check_layout(parted, member.network)
        prepare([member], loaded, schedule, parted)  # is it of this run?
        records = [] if saved is None else saved.progress["records"]
        by_one(parted, lambda: folder.reopen(config.tables(), records))
        (run,) = _train([start], [member], begin, parted, signals=signals)
    return run


def _start(
    config: Configuration,
    setup: Setup,
    data: Dataset,
    schedule: Schedule,
    layout: Layout | None,
) -> tuple[Start, Member]:
    member, regime = setup

    def create() -> str:
        folder = RunFolder.create(
            config.run.out, config.tables(), _environment(), regime, config.label, summary(data)
        )
        if config.training.init_from is not None:  # where that lies, there may be another by then
            save_network(folder.initial, member.network)
        return str(folder.path)

    folder = RunFolder(by_one(layout, create))
    return Start(config, data, folder, regime, schedule), member


def _train(
    starts: Sequence[Start],
    members: Sequence[Member],
    begin: Begin | None,
    layout: Layout | None,
    *,
    signals: type[Signals],
) -> list[Run]:
    """Make the steps of runs whose folders are there, and end them."""
    first, pairs = is_writer(layout), zip(starts, members, strict=True)
    kept = [_kept(start, member) for start, member in pairs]
    if first:
        kept = [_recorded(start, member, begin) for start, member in zip(starts, kept, strict=True)]
    with within(layout):
        sessions = prepare(kept, starts[0].data, starts[0].schedule, layout)
        results = train_sessions(sessions, signals)
        pairs = zip(starts, results, strict=True)
        return [_finish(start, result, writes=first) for start, result in pairs]


def _kept(start: Start, member: Member) -> Member:
    """Let the checkpoints of a member go to its folder."""
    return member._replace(checkpoints=_checkpoints(start.folder, start.config, start.regime))


def _recorded(start: Start, member: Member, begin: Begin | None) -> Member:
    """Let the records of a member go to its folder."""
    folder, callbacks = start.folder, [] if begin is None else [begin(start)]
    if start.config.run.tensorboard:
        # A run that goes on writes all of them again: some may be of steps that are made again.
        shutil.rmtree(folder.path / "tensorboard", ignore_errors=True)
        callbacks.append(board := TensorBoard(folder.path / "tensorboard"))
        for values in folder.records():
            board(record_from(values))

    def report(record: Record) -> None:
        folder.append(dataclasses.asdict(record))
        for callback in callbacks:
            callback(record)

    return member._replace(callback=report)


def _checkpoints(folder: RunFolder, config: Configuration, regime: Regime) -> Checkpoints:
    located = config.carrying(Located)  # what lies there is known by its content
    own = {name: value for name, value in config.identity().items() if name not in located}
    settings = {**own, "the initial precision": regime.precision}
    return Checkpoints(folder.checkpoints, **config.run.intervals, settings=settings)


def _finish(start: Start, result: FitResult, *, writes: bool) -> Run:
    """Evaluate the network; save it, and write how the run ended, if that is this process's."""
    config, data, folder, *_ = start
    if result.ended is Ended.TERMINATED:  # seconds may be left, and there is the checkpoint
        return Run(folder, config, data, result, None, None, None)
    parts = {"test": data.test, "validation": data.validation}
    seen = {
        name: None if split is None else evaluate(result, split) for name, split in parts.items()
    }
    regimes = [record for record in result.records if isinstance(record, RegimeRecord)]
    run = Run(folder, config, data, result, **seen, regime=regimes[-1] if regimes else None)
    if writes:
        _write(run)
    return run


def _write(run: Run) -> None:
    """Save the network, and write how the run ended."""
    folder, config, data, result, *seen, _ = run
    about = f"{data.name}: {data.normalisation}"
    origin = Origin(config.network, data.shape, data.outputs, about)
    try:
        save_network(folder.network, result.network, origin=origin)
        folder.finish(RunResult(result.ended, result.message, result.steps, result.step, *seen))
    except OSError as error:
        raise RunError(
            f"cannot write the run folder {folder.path} ({error.strerror}): when it can be written "
            f"again, continue with mupc train --resume {folder.path}"
        ) from error
    if result.ended is not Ended.INTERRUPTED:
        shutil.rmtree(folder.checkpoints, ignore_errors=True)  # nothing is left to continue


def _environment() -> dict[str, Any]:
    return {
        **environment(),
        "devices": [device.device_kind for device in jax.devices()],
        "x64": bool(jax.config.read("jax_enable_x64")),
    }
