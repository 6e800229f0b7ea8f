"""`mupc sweep`: from what a user types, or writes into a file, to a sweep."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from mupc.records import RunError
from mupc.sweeps.folder import SweepFolder
from mupc.sweeps.points import Point, Space, read_file, read_grid, read_ranges, tell_apart
from mupc.sweeps.ranking import Board, markdown, ranked
from mupc.sweeps.sweep import Result, sweep
from mupc.training.config import (
    PRESETS,
    ConfigError,
    PresetName,
    TrainConfig,
    from_settings,
    option,
)

VALIDATION = 0.1
"""Fraction of the training data that a sweep sets apart, to find the best point by."""


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Train every point of a grid, of a list or of random draws; go on where it was ended.

    Several processes, on several machines, may work on one folder at once. All options of `mupc
    train` are settings that the points have in common.
    """

    folder: Annotated[str, tyro.conf.Positional]
    """Folder of the sweep. With nothing to sweep over, the points that it holds are trained on."""
    base: tyro.conf.OmitArgPrefixes[TrainConfig]
    """What the points have in common."""
    grid: tuple[str, ...] = ()
    """Values of settings, all combinations of them: learning-rate=0.01,0.02 seed=0,1,2."""
    random: tuple[str, ...] = ()
    """Settings to draw at random, such as learning-rate=0.001:0.1:log."""
    draws: int = 0
    """How many random draws."""
    draw_seed: int = 0
    """What they are drawn from."""
    file: str | None = None
    """TOML file with [base], [grid], [[points]] and [random]; options on the command line go before
    its [base]."""
    retry_failed: bool = False
    """Train points again that could not be trained: there may be more memory now."""
    together: int = 1
    """Points that differ in numbers alone to train as one program: for an accelerator that one
    small network leaves idle."""


def defaults(preset: PresetName, file: str | None) -> Any:
    """Give what the options of `mupc sweep` are unless given: of the preset, then of the file.

    Raises:
        ConfigError: if the file cannot be read.
    """
    base = _usual(preset)
    if file is not None:
        said = read_file(file).base
        if "preset" in said:
            preset = from_settings({"preset": said["preset"]}).preset
            base = _usual(preset)
        base = from_settings(said, base)
    return SweepConfig(folder=tyro.MISSING, base=base, file=file)


def _usual(preset: PresetName) -> TrainConfig:
    return dataclasses.replace(PRESETS[preset], validation=VALIDATION)


def run(config: SweepConfig) -> int:
    """Sweep, and print the table of all settings and the best of them.

    Raises:
        ConfigError, DataError, RunError: with a sentence that says what is wrong.
    """
    if config.base.out is not None:
        raise ConfigError("--out is for a single run: a sweep's runs are kept in its own folder")
    if config.together < 1:
        raise ConfigError(f"--together must be at least 1, not {config.together}")
    folder, points = _points(config)
    if config.retry_failed:
        for point in points:
            if (outcome := folder.outcome(point)) is not None and outcome.ended == "failed":
                folder.forget(point)
    with Board() as board:
        results = sweep(folder, points, together=config.together, watch=board)
    _tell(folder, results)
    return 1 if any(result.outcome.ended == "failed" for result in results) else 0


def check_validation(points: Sequence[Point]) -> None:
    """Check that every point has a validation part to be judged by.

    Raises:
        ConfigError: if one has none.
    """
    if any(not point.config.validation for point in points):
        raise ConfigError(
            "--validation must be above 0: the best point is found by the validation part, so that "
            "the test part stays unseen"
        )


def _points(config: SweepConfig) -> tuple[SweepFolder, list[Point]]:
    """Give the points asked for; with nothing asked for, those that the folder holds."""
    given = Space(
        grid=read_grid(config.grid),
        ranges=read_ranges(config.random),
        draws=config.draws,
        draw_seed=config.draw_seed,
    )
    if config.file is not None:
        if given != Space():
            raise ConfigError("--file says what to sweep over: leave --grid and --random out")
        given = read_file(config.file).space
    if given == Space():
        return _stored(config)
    points = given.over(config.base)
    for name in sorted(given.names):
        if getattr(config.base, name) != getattr(_usual(config.base.preset), name):
            raise ConfigError(
                f"{option(name)}: it is swept over, and given a value for all points as well: take "
                "one"
            )
    check_validation(points)  # before anything is written
    return SweepFolder(config.folder), points


def _stored(config: SweepConfig) -> tuple[SweepFolder, list[Point]]:
    """Give the points that the folder holds, whose data may lie elsewhere by now."""
    folder = SweepFolder.open(config.folder)
    base = dataclasses.replace(config.base, data_dir=None)
    if base != _usual("default"):
        raise ConfigError(
            "settings are given, and nothing to sweep over: the points that the folder holds have "
            "their own settings, so leave them out, or say --grid"
        )
    if not (points := tell_apart(folder.points())):
        raise RunError(f"the sweep at {config.folder} holds no points: say --grid")
    check_validation(points)
    if (place := config.base.data_dir) is not None:
        points = [
            point._replace(config=dataclasses.replace(point.config, data_dir=place))
            for point in points
        ]
    return folder, points


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
