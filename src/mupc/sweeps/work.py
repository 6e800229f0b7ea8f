"""Points of a sweep: claimed, trained, and how they ended written."""

import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from mupc.data import Dataset
from mupc.records import Ended, Outcome, Record, RunError, TrainRecord
from mupc.runs.run import Begin, Run, Start, resume, train_together
from mupc.sweeps.claims import Claim
from mupc.sweeps.folder import SweepFolder
from mupc.sweeps.points import Point
from mupc.training.signals import Ending

_Train = Callable[[SweepFolder, Sequence["Task"], Dataset, Begin], Sequence[Run]]


class Task(NamedTuple):
    """A point that this process has claimed."""

    point: Point
    claim: Claim


class _LostError(Exception):
    """Another process has taken over a point, because this one had been silent for too long."""


class _WatchError(Exception):
    """Whoever watches has failed, for the reason that is its cause."""


def claimed(folder: SweepFolder, points: Sequence[Point], together: int) -> list[Task]:
    """Claim the first point that is free, and others that share its program."""
    tasks: list[Task] = []
    for point in points:
        if len(tasks) == together:
            break
        if tasks and point.config.program() != tasks[0].point.config.program():
            continue
        if (claim := folder.claim(point)) is not None:
            tasks.append(Task(point, claim))
    return tasks


def work(
    folder: SweepFolder, tasks: Sequence[Task], data: Dataset, say: Callable[[str], None]
) -> None:
    """Train what is claimed and publish how it ended; give the claims back, come what may.

    Args:
        folder: of the sweep.
        tasks: points that share a program.
        data: as their network takes them.
        say: is told what is being done.
    """
    now = ", ".join(task.point.name for task in tasks)
    mine = lambda: all(task.claim.held for task in tasks)  # noqa: E731

    def begin(start: Start) -> Callable[[Record], None]:
        def see(record: Record) -> None:
            if not mine():
                raise _LostError
            if isinstance(record, TrainRecord):
                try:
                    say(f"{now}: step {record.step}/{start.steps}")
                except Exception as error:  # it is not the point's failure
                    raise _WatchError from error

        return see

    try:
        say(now)
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
    folder: SweepFolder, tasks: Sequence[Task], data: Dataset, begin: Begin
) -> Iterator[tuple[Task, Outcome]]:
    """Train, and yield each outcome as soon as it is known; what was cut short comes first."""
    new: list[Task] = []
    for task in tasks:
        if folder.take_over(*task):
            yield from _ended(folder, [task], data, begin, _resumed)
        else:
            new.append(task)
    if new:
        yield from _ended(folder, new, data, begin, _begun)


def _begun(
    folder: SweepFolder, tasks: Sequence[Task], data: Dataset, begin: Begin
) -> Sequence[Run]:
    """Train from the beginning."""
    configs = [folder.config(*task) for task in tasks]
    return train_together(configs, data=data, begin=begin, signals=Ending)


def _resumed(
    folder: SweepFolder, tasks: Sequence[Task], data: Dataset, begin: Begin
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
    folder: SweepFolder, tasks: Sequence[Task], data: Dataset, begin: Begin, train: _Train
) -> Iterator[tuple[Task, Outcome]]:
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


def _outcome(folder: SweepFolder, task: Task, run: Run, seconds: float, share: float) -> Outcome:
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


def _failure(folder: SweepFolder, task: Task, error: Exception) -> Outcome:
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
