"""The sweep: points are claimed, trained and recorded until none is left."""

import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from mupc.data import Dataset
from mupc.records import Ended, Outcome, Record, RunError, TrainRecord
from mupc.runs.run import Begin, Run, Start, resume, train_together
from mupc.runs.setup import check_runs
from mupc.settings import ConfigError
from mupc.settings.datasets import DatasetKind
from mupc.settings.network import NetworkKind
from mupc.settings.setting import Located
from mupc.sweeps.claims import Claim
from mupc.sweeps.folder import SweepFolder
from mupc.sweeps.points import Point
from mupc.training.signals import Ending

_WAIT = 1.0  # seconds between looks at what other processes have done


class Result(NamedTuple):
    """A point, and how it ended."""

    point: Point
    outcome: Outcome


class Standing(NamedTuple):
    """How far a sweep has come.

    Attributes:
        results: what there is, in the order in which it came.
        left: how many points have none.
        now: what this process is doing.
    """

    results: Sequence[Result]
    left: int
    now: str


Watch = Callable[[Standing], None]
_Train = Callable[[SweepFolder, Sequence["_Task"], Dataset, Begin], Sequence[Run]]


class _Task(NamedTuple):
    point: Point
    claim: Claim


class _LostError(Exception):
    """Another process has taken over a point, because this one had been silent for too long."""


class _WatchError(Exception):
    """Whoever watches has failed, for the reason that is its cause."""


def sweep(
    folder: SweepFolder,
    points: Sequence[Point],
    *,
    together: int = 1,
    chosen: bool = True,
    watch: Watch | None = None,
) -> list[Result]:
    """Train every point that has no result, and return the results of all.

    Other processes may work on the same folder: each point is trained by one of them, and this
    returns when all have results. A run that was cut short goes on from its newest checkpoint, to
    the result that it would have had without a stop.

    Args:
        folder: where everything is kept.
        points: what to train; what has a result already is not trained again.
        together: how many points that differ in numbers alone to train as one program.
        chosen: whether the best point is to be chosen, for which data have a validation split.
        watch: is called with the standing whenever there is something new.

    Raises:
        ConfigError: if data lack the validation split of the choice, or are named twice; nothing is
            written then.
        DataError: if the data cannot be loaded.
        RunError: if the folder cannot be written, or is of other data.
    """
    watch = watch or (lambda standing: None)
    for point in points:
        check_runs(point.config, together)
    loaded = _loaded(folder, points, chosen=chosen)
    viewed: dict[tuple[DatasetKind, NetworkKind], Dataset] = {}
    for point in points:
        folder.add(point, loaded[point.config.dataset].fingerprint)
    done: dict[str, Result] = {}
    while True:
        left = [point for point in points if point.key not in done]
        new = {p.key: Result(p, outcome) for p in left if (outcome := folder.outcome(p))}
        done |= new
        left = [point for point in left if point.key not in new]
        if not left:
            watch(Standing(list(done.values()), 0, ""))
            return [done[point.key] for point in points]
        standing = Standing(list(done.values()), len(left), "waiting for other processes")
        if tasks := _claim(folder, left, together):
            config = tasks[0].point.config
            kinds = config.dataset, config.network
            if kinds not in viewed:
                viewed[kinds] = config.network.view(loaded[config.dataset])
            _work(folder, tasks, viewed[kinds], standing, watch)
        else:
            watch(standing)
            time.sleep(_WAIT)


def _loaded(
    folder: SweepFolder, points: Sequence[Point], *, chosen: bool
) -> dict[DatasetKind, Dataset]:
    """Load the data of all points; see `sweep` for what is refused."""
    loaded: dict[DatasetKind, Dataset] = {}
    seen: dict[str, Point] = {}
    for point in points:
        if (source := point.config.dataset) not in loaded:
            loaded[source] = source.load()
            if chosen and loaded[source].validation is None:
                raise ConfigError(
                    "`validation` must be above 0: the best point is found by the validation "
                    "split, so that the test split stays unseen"
                )
        located, own = point.config.carrying(Located), point.config.identity()
        own = {name: value for name, value in own.items() if name not in located}
        other = seen.setdefault(f"{own} {loaded[source].fingerprint}", point)
        if other is not point and not folder.holds(point):
            raise ConfigError(
                f"{other.name} and {point.name} name the same data: leave one of them out"
            )
    return loaded


def _claim(folder: SweepFolder, points: Sequence[Point], together: int) -> list[_Task]:
    """Claim the first point that is free, and others that share its program."""
    tasks: list[_Task] = []
    for point in points:
        if len(tasks) == together:
            break
        if tasks and point.config.program() != tasks[0].point.config.program():
            continue
        if (claim := folder.claim(point)) is not None:
            tasks.append(_Task(point, claim))
    return tasks


def _work(
    folder: SweepFolder, tasks: Sequence[_Task], data: Dataset, standing: Standing, watch: Watch
) -> None:
    """Train what is claimed and publish how it ended; give the claims back, come what may."""
    now = ", ".join(task.point.name for task in tasks)
    mine = lambda: all(task.claim.held for task in tasks)  # noqa: E731

    def begin(start: Start) -> Callable[[Record], None]:
        def see(record: Record) -> None:
            if not mine():
                raise _LostError
            if isinstance(record, TrainRecord):
                told = standing._replace(now=f"{now}: step {record.step}/{start.steps}")
                try:
                    watch(told)
                except Exception as error:  # it is not the point's failure
                    raise _WatchError from error

        return see

    try:
        watch(standing._replace(now=now))
        for task, outcome in _outcomes(folder, tasks, data, begin):
            folder.finish(*task, outcome)
            # Not released: a machine to which the result is not yet visible would begin again.
            task.claim.end()
    except _LostError:
        pass  # the other process will publish the result
    except (RunError, OSError):
        # Unless another process has taken over, or published, and cleared this one's folder away.
        if mine() and all(folder.outcome(task.point) is None for task in tasks):
            raise
    except _WatchError as error:
        raise error.__cause__ or error from None
    finally:
        for task in tasks:
            if not task.claim.held:  # what was written since is nobody's
                shutil.rmtree(folder.run_path(*task), ignore_errors=True)
            elif folder.outcome(task.point) is None:
                task.claim.release()


def _outcomes(
    folder: SweepFolder, tasks: Sequence[_Task], data: Dataset, begin: Begin
) -> Iterator[tuple[_Task, Outcome]]:
    """Train, and yield each outcome as soon as it is known; what was cut short comes first."""
    new: list[_Task] = []
    for task in tasks:
        if folder.take_over(*task):
            yield from _ended(folder, [task], data, begin, _resumed)
        else:
            new.append(task)
    if new:
        yield from _ended(folder, new, data, begin, _begun)


def _begun(
    folder: SweepFolder, tasks: Sequence[_Task], data: Dataset, begin: Begin
) -> Sequence[Run]:
    """Train from the beginning."""
    configs = [folder.config(*task) for task in tasks]
    return train_together(configs, data=data, begin=begin, signals=Ending)


def _resumed(
    folder: SweepFolder, tasks: Sequence[_Task], data: Dataset, begin: Begin
) -> Sequence[Run]:
    """Continue a run that was taken over; from its beginning, if its checkpoint cannot be read."""
    path, starts = folder.run_path(*tasks[0]), list[Start]()

    def noted(start: Start) -> Callable[[Record], None]:
        starts.append(start)
        return begin(start)

    try:
        return [resume(path, begin=noted, signals=Ending)]
    except RunError as error:
        if starts:
            raise
        warnings.warn(f"{error}: its point is trained from the beginning", stacklevel=2)
    shutil.rmtree(path, ignore_errors=True)
    return _begun(folder, tasks, data, begin)


def _ended(
    folder: SweepFolder, tasks: Sequence[_Task], data: Dataset, begin: Begin, train: _Train
) -> Iterator[tuple[_Task, Outcome]]:
    """Train, and yield how each ended."""
    began = time.perf_counter()
    try:
        runs = train(folder, tasks, data, begin)
    except (_LostError, _WatchError, RunError, OSError):
        raise
    except Exception as error:
        # Of a point that cannot be trained this is the result: out of memory, say.
        if len(tasks) == 1:
            yield tasks[0], _failure(folder, tasks[0], error)
            return
        for task in tasks:
            shutil.rmtree(folder.run_path(*task), ignore_errors=True)
        for task in tasks:
            yield from _ended(folder, [task], data, begin, train)
        return
    seconds = (time.perf_counter() - began) / len(runs)
    for task, run in zip(tasks, runs, strict=True):
        if run.result.ended not in (Ended.INTERRUPTED, Ended.TERMINATED):
            yield task, _outcome(folder, task, run, seconds, share=1 / len(runs))
    ended = {run.result.ended for run in runs}
    if Ended.TERMINATED in ended:
        raise SystemExit(143)  # the points are free again, and go on from where they stopped
    if Ended.INTERRUPTED in ended:
        raise KeyboardInterrupt


def _outcome(folder: SweepFolder, task: _Task, run: Run, seconds: float, share: float) -> Outcome:
    validation, test, regime = run.validation, run.test, run.regime
    return Outcome(
        key=task.point.key,
        settings=task.point.settings,
        ended=run.result.ended.name.lower(),
        message=run.result.message,
        accuracy=None if validation is None else validation.accuracy,
        loss=None if validation is None else validation.loss,
        perplexity=None if validation is None else validation.perplexity,
        test_accuracy=None if test is None else test.accuracy,
        test_loss=None if test is None else test.loss,
        rho=run.folder.regime().rho,
        regime=None if regime is None else regime.sentence(),
        seconds=seconds,
        training_seconds=share * run.training_seconds,
        run=str(run.folder.path.relative_to(folder.path)),
    )


def _failure(folder: SweepFolder, task: _Task, error: Exception) -> Outcome:
    path = folder.run_path(*task)
    path.mkdir(parents=True, exist_ok=True)
    (path / "error.txt").write_text("".join(traceback.format_exception(error)), "utf-8")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Outcome(
        key=task.point.key,
        settings=task.point.settings,
        ended="failed",
        message=f"it could not be trained: {reason}",
        run=str(path.relative_to(folder.path)),
    )
