"""Points of a sweep on Dask's workers, wherever these are; the folder stays the record.

Dask (https://docs.dask.org) starts workers on a cluster, notices when one dies, and gives its task
to another. That one claims the point as any process would, and so it waits until the claim of the
dead one has stopped to beat (`mupc.sweeps.claims`), and goes on from its checkpoint.
"""

import functools
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mupc.data import Dataset
from mupc.records import RunError, counted
from mupc.sweeps.folder import SweepFolder
from mupc.sweeps.points import Point
from mupc.sweeps.work import Task, claimed, work

_GIVEN_UP = 3
"""So often Dask may give up on a point (each time when several workers in a row have died)."""


class Workers:
    """Hands the points of a sweep to the workers of a Dask client.

    Args:
        client: a `distributed.Client`.
        folder: of the sweep, by a path that all workers see.
        together: how many points that share a program are trained as one.
    """

    def __init__(self, client: Any, folder: SweepFolder, together: int) -> None:
        self.client, self.folder, self.together = client, folder, together
        self._under_way: dict[Any, list[Point]] = {}
        self._given_up = Counter[str]()

    def hand_out(self, points: Sequence[Point]) -> str:
        """Hand out those points that no worker has yet; return in words what goes on.

        Raises:
            RunError: if Dask has lost worker after worker over a point, or there is no scheduler.
            Exception: what a worker has raised, other than a failure of a point.
        """
        if self.client.status != "running":
            raise RunError("Dask's scheduler has gone: the same command goes on where this one was")
        for future in [future for future in self._under_way if future.done()]:
            self._ended(future, self._under_way.pop(future))
        given = {point.key for points in self._under_way.values() for point in points}
        free = [point for point in points if point.key not in given]
        for some in _together(free, self.together):
            path, stale_after = self.folder.path.absolute(), self.folder.claims.stale_after
            future = self.client.submit(train_points, path, stale_after, some, pure=False)
            self._under_way[future] = some
        count = len(self.client.scheduler_info(n_workers=-1)["workers"])
        return f"{counted(count, 'worker')} at {self.client.scheduler.address}"

    def _ended(self, future: Any, points: Sequence[Point]) -> None:
        from distributed import KilledWorker

        if future.status != "error":
            return
        if not isinstance(error := future.exception(), KilledWorker):
            raise error
        self._given_up.update(point.key for point in points)
        for point in points:
            if self._given_up[point.key] == _GIVEN_UP:
                raise RunError(
                    f"{point.name}: worker after worker has died over it; is there too little "
                    "memory? What has been trained is kept, and the same command goes on"
                ) from error


def train_points(path: str, stale_after: float, points: Sequence[Point]) -> None:
    """Train those points that are free, on a worker.

    Raises:
        RunError: if the worker does not see the folder, or finds other data.
    """
    if not Path(path).is_dir():
        raise RunError(
            f"a worker on {platform.node()} does not see {path}: the folder of the sweep must be "
            "on a file system that all workers share, under the same path"
        )
    folder = SweepFolder(path, stale_after)
    if tasks := claimed(folder, points, len(points)):
        network = tasks[0].point.config.network
        work(folder, tasks, network.view(_data(folder, tasks)), lambda now: None)


def _data(folder: SweepFolder, tasks: Sequence[Task]) -> Dataset:
    """Return the data of points, which are those of the sweep.

    Raises:
        RunError: if this worker finds others.
    """
    source: Any = tasks[0].point.config.dataset
    loaded = _loaded(source)
    try:
        folder.check_data(tasks[0].point, loaded.fingerprint)
    except RunError:  # a file may have been replaced since another sweep
        _loaded.cache_clear()
        loaded = _loaded(source)
        folder.check_data(tasks[0].point, loaded.fingerprint)
    return loaded


@functools.lru_cache(1)
def _loaded(dataset: Any) -> Dataset:
    """Load data once for points that follow each other."""
    return dataset.load()


def _together(points: Sequence[Point], count: int) -> Iterator[list[Point]]:
    """Yield points by so many that share a program."""
    by_program: dict[Any, list[Point]] = {}
    for point in points:
        by_program.setdefault(point.config.program(), []).append(point)
    for some in by_program.values():
        for i in range(0, len(some), count):
            yield some[i : i + count]
