"""`mupc sweep`."""

import functools
import importlib.util
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from mupc.commands.options import Base, Positional, parse
from mupc.commands.terminal import prepare_backend
from mupc.records import RunError
from mupc.settings import ConfigError, Configuration
from mupc.settings.setting import Count, Kept, MovedData, NotNegativeCount, Setting, unheeded
from mupc.settings.training import RunKeeping
from mupc.sweeps.folder import SweepFolder
from mupc.sweeps.points import Point, Space, read_file, read_grid, read_ranges, tell_apart
from mupc.sweeps.ranking import Board, markdown, ranked
from mupc.sweeps.sweep import Result, sweep


class SweepOptions(Setting):
    """Train every point of a grid, of a list or of random draws; resume where it stopped.

    Several processes, on several machines, may work on one folder at once. All options of `mupc
    train` are settings that the points have in common.
    """

    folder: Annotated[str, Positional()]
    """Folder of the sweep. With nothing to sweep over, the points that it holds are trained on."""
    grid: tuple[str, ...] = ()
    """Values of settings, all combinations of them: learning-rate=0.01,0.02 seed=0,1,2."""
    random: tuple[str, ...] = ()
    """Settings to draw at random, such as learning-rate=0.001:0.1:log, or depth=8:64:int."""
    draws: NotNegativeCount = 0
    """How many random draws."""
    draw_seed: NotNegativeCount = 0
    """What they are drawn from."""
    data: MovedData = None
    retry_failed: bool = False
    """Train points again that could not be trained: there may be more memory now."""
    together: Count = 1
    """Points that differ in numbers alone to train as one program: for an accelerator that one
    small network leaves idle."""
    engine: Literal["here", "dask"] = "here"
    """Which processes train: this one, or Dask's workers (pip install mupc[dask])."""
    scheduler: str | None = None
    """Address of Dask's scheduler, such as tcp://host:8786, or file in which it has written it;
    unless given, workers are started on this host."""
    workers: Count | None = None
    """How many of these: 2 unless given."""


_BASE = Base(
    lambda path: read_file(path).base,
    "TOML file with [base], [grid], [[points]] and [random]; options go before its [base].",
)


def run(words: Sequence[str]) -> int:
    """Sweep, and print the table of all settings and the best of them."""
    options, config, given, file = parse("sweep", words, SweepOptions, _BASE)
    if "out" in given:
        raise ConfigError("`out` is for a single run: a sweep's runs are kept in its own folder")
    folder, points = _points(options, config, given, file)
    _check_engine(options)
    prepare_backend(config.run)
    if options.retry_failed:
        for point in points:
            if (outcome := folder.outcome(point)) is not None and outcome.ended == "failed":
                folder.forget(point)
    with _client(options, config.run) as client, Board() as board:
        results = sweep(folder, points, together=options.together, watch=board, client=client)
    _tell(folder, results)
    return 1 if any(result.outcome.ended == "failed" for result in results) else 0


def _check_engine(options: SweepOptions) -> None:
    """Refuse what the engine does not take.

    Raises:
        ConfigError: if there is something.
    """
    for name in ("scheduler", "workers"):
        if options.engine == "here" and getattr(options, name) is not None:
            raise unheeded(name, "`engine` is here")
    if options.scheduler is not None and options.workers is not None:
        raise unheeded("workers", "the `scheduler` has its own")
    if options.engine == "dask" and importlib.util.find_spec("distributed") is None:
        raise ConfigError("`engine` dask needs Dask: pip install 'mupc[dask]'")


@contextmanager
def _client(options: SweepOptions, keeping: RunKeeping) -> Generator[Any]:
    """Yield a client of Dask, whose workers are set up as this process is; None for no Dask.

    Raises:
        ConfigError: if there is no scheduler where it should be.
    """
    if options.engine == "here":
        yield None
        return
    from distributed import Client, LocalCluster

    found = options.scheduler
    with ExitStack() as stack:
        try:
            if found is None:
                # One thread each: points that are trained at once in one process share its devices.
                count = options.workers or 2
                cluster = cast(Any, LocalCluster)(
                    n_workers=count, threads_per_worker=1, dashboard_address=":0"
                )
                client = Client(stack.enter_context(cluster))
            elif Path(found).is_file():
                client = Client(scheduler_file=found)
            else:
                client = Client(found)
        except (OSError, ValueError) as error:
            what = "no worker could be started" if found is None else f"there is none at {found}"
            raise ConfigError(f"`scheduler`: {what} ({error})") from error
        stack.enter_context(client)
        client.register_worker_callbacks(functools.partial(prepare_backend, keeping))
        yield client


def _points(
    options: SweepOptions, config: Configuration, given: dict[str, Any], file: str | None
) -> tuple[SweepFolder, list[Point]]:
    """Return the points asked for; with nothing asked for, those that the folder holds."""
    space = Space(
        grid=read_grid(options.grid),
        ranges=read_ranges(options.random),
        draws=options.draws,
        draw_seed=options.draw_seed,
    )
    if file is not None:
        if space != Space():
            raise ConfigError("--file says what to sweep over: leave --grid and --random out")
        space = read_file(file).space
    elif space == Space():
        return _stored(options, config, given)
    if options.data is not None:
        raise ConfigError("`data` is for the points that a folder holds: leave the grid out")
    for name in sorted(space.names):
        if name in given:
            raise ConfigError(
                f"`{name}`: it is swept over, and given a value for all points as well: use one"
            )
    points = space.over(config)  # before there is a folder
    return SweepFolder(options.folder), points


def _stored(
    options: SweepOptions, config: Configuration, given: dict[str, Any]
) -> tuple[SweepFolder, list[Point]]:
    """Return the points that the folder holds, whose data may lie elsewhere by now."""
    folder = SweepFolder.open(options.folder)
    if not given.keys() <= config.carrying(Kept):
        raise ConfigError(
            "settings are given, and nothing to sweep over: the points that the folder holds have "
            "their own settings, so leave them out, or say --grid"
        )
    if not (points := tell_apart(folder.points())):
        raise RunError(f"the sweep at {options.folder} holds no points: say --grid")
    points = [point._replace(config=point.config.changed(given)) for point in points]
    return folder, _moved(points, options.data)


def _moved(points: Sequence[Point], place: str | None) -> list[Point]:
    """Return points whose data lie elsewhere, as far as such data may lie there.

    Raises:
        ConfigError: if none may.
    """
    may = [place is not None and bool(point.config.dataset.moved(place)) for point in points]
    if place is not None and not any(may):
        points[0].config.moved(place)  # says why not
    return [
        point._replace(config=point.config.moved(place)) if yes else point
        for point, yes in zip(points, may, strict=True)
    ]


def _tell(folder: SweepFolder, results: Sequence[Result]) -> None:
    rows = ranked(results)
    print(markdown(rows))
    best = rows[0].best
    if best.outcome.run is not None and best.outcome.ended != "failed":
        print(f"best: {rows[0].name}; its best run: {folder.path / best.outcome.run}")
    for point, outcome in results:
        if outcome.ended == "failed" and outcome.run is not None:
            where = folder.path / outcome.run / "error.txt"
            print(f"failed: {point.name}: {outcome.message} (see {where})")
