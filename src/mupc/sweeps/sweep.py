"""The sweep: points are handed out until all have results."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mupc.data import Dataset
from mupc.records import Outcome
from mupc.runs.setup import check_parts, check_runs
from mupc.settings import ConfigError
from mupc.settings.datasets import DatasetKind
from mupc.settings.network import NetworkKind
from mupc.settings.setting import Located
from mupc.sweeps.folder import SweepFolder
from mupc.sweeps.points import Point
from mupc.sweeps.work import claimed, work
from mupc.sweeps.workers import Workers

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


def sweep(
    folder: SweepFolder,
    points: Sequence[Point],
    *,
    together: int = 1,
    chosen: bool = True,
    watch: Watch | None = None,
    client: Any = None,
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
        client: of Dask, whose workers train the points, and must see the folder; unless it is
            given, this process does.

    Raises:
        ConfigError: if data lack the validation split of the choice, or are named twice, or there
            are not the devices of a layout; nothing is written then.
        DataError: if the data cannot be loaded.
        RunError: if the folder cannot be written, or is of other data.
    """
    watch = watch or (lambda standing: None)
    for point in points:
        check_runs(point.config, together)
    loaded = _loaded(folder, points, chosen=chosen)
    viewed: dict[tuple[DatasetKind, NetworkKind], Dataset] = {}
    workers = None if client is None else Workers(client, folder, together)
    if client is None:  # else the devices are those of its workers
        for config in (point.config for point in points if point.config.run.parts):
            check_parts(config, config.network.view(loaded[config.dataset]), together)
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
        if workers is not None:
            watch(standing._replace(now=workers.hand_out(left)))
            time.sleep(_WAIT)
        elif tasks := claimed(folder, left, together):
            config = tasks[0].point.config
            kinds = config.dataset, config.network
            if kinds not in viewed:
                viewed[kinds] = config.network.view(loaded[config.dataset])
            work(folder, tasks, viewed[kinds], functools.partial(_say, watch, standing))
        else:
            watch(standing)
            time.sleep(_WAIT)


def _say(watch: Watch, standing: Standing, now: str) -> None:
    watch(standing._replace(now=now))


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
