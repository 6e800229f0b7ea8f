"""The points of a sweep: grids, lists and random draws over the fields of a configuration."""

import dataclasses
import hashlib
import itertools
import json
import math
import random
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mupc.training.config import (
    KEEPING,
    ConfigError,
    TrainConfig,
    field_named,
    from_settings,
    option,
    with_absolute_paths,
)
from mupc.training.files import read_table
from mupc.training.resolution import resolve

# Nor does how a run is kept make it another point.
# What the other settings are unless given is one thing for all points.
_NOT_SWEPT = (*KEEPING, "preset")


class Point(NamedTuple):
    """One run of a sweep.

    Attributes:
        key: of its settings, the same on every machine.
        settings: what the sweep sets, by field.
        config: all settings, resolved.
    """

    key: str
    settings: dict[str, Any]
    config: TrainConfig

    @property
    def name(self) -> str:
        """Its settings in words."""
        return words(self.settings)


def words(settings: Mapping[str, Any]) -> str:
    """Write settings in one line."""
    return " ".join(f"{name}={_shown(value)}" for name, value in settings.items())


class Range(NamedTuple):
    """What random values are drawn from, evenly, or evenly in the logarithm."""

    low: float
    high: float
    logarithmic: bool

    def draw(self, generator: random.Random) -> float:
        """Draw a value, to four digits, so that it can be typed again."""
        low, high = (math.log(end) if self.logarithmic else end for end in (self.low, self.high))
        value = generator.uniform(low, high)
        return float(f"{math.exp(value) if self.logarithmic else value:.4g}")


@dataclasses.dataclass(frozen=True)
class Space:
    """The settings that a sweep tries: every entry of `points` × of `grid` × of the draws.

    Attributes:
        grid: the values of each field; all combinations are tried.
        points: listed settings.
        ranges: fields that are drawn at random.
        draws: how many random draws.
        draw_seed: what they are drawn from.
    """

    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    points: Sequence[Mapping[str, Any]] = ({},)
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    draws: int = 0
    draw_seed: int = 0

    def over(self, base: TrainConfig) -> list[Point]:
        """Give the points: each setting put on top of `base`, none twice.

        Raises:
            ConfigError: if there is none, if a field is set in two ways, or if a point cannot be
                run.
        """
        self._check()
        generator = random.Random(self.draw_seed)
        drawn = [
            {name: range_.draw(generator) for name, range_ in self.ranges.items()}
            for _ in range(self.draws)
        ] or [{}]
        grid = [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]
        points = [
            point_of(base, {**listed, **chosen, **random_})
            for listed, chosen, random_ in itertools.product(self.points, grid, drawn)
        ]
        return list({point.key: point for point in points}.values())

    @property
    def names(self) -> set[str]:
        """The settings that are swept over."""
        return {*self.grid, *self.ranges, *(name for point in self.points for name in point)}

    def _check(self) -> None:
        listed = {name for point in self.points for name in point}
        if not self.points:
            raise ConfigError("the list of points is empty: leave it out")
        if not self.names:
            raise ConfigError(
                "there is nothing to sweep over: give --grid, such as --grid "
                "learning-rate=0.01,0.02 seed=0,1,2"
            )
        if bool(self.ranges) != bool(self.draws) or self.draws < 0:
            raise ConfigError(
                f"--random names {len(self.ranges)} fields and --draws is {self.draws}: random "
                "search needs both"
            )
        twice = (listed & set(self.grid)) | ((listed | set(self.grid)) & set(self.ranges))
        if twice:
            raise ConfigError(f"{', '.join(map(option, sorted(twice)))}: set in two ways; take one")
        for name, values in self.grid.items():
            if not values:
                raise ConfigError(f"the grid of {option(name)} has no values")
        if self.draw_seed and not self.draws:
            raise ConfigError("--draw-seed would have no effect, since nothing is drawn at random")


def point_of(base: TrainConfig, settings: Mapping[str, Any]) -> Point:
    """Put settings on top of a configuration.

    Raises:
        ConfigError: if there is no such field, or the configuration cannot be run.
    """
    settings = {field_named(name): value for name, value in settings.items()}
    if kept := [name for name in _NOT_SWEPT if name in settings]:
        raise ConfigError(f"{option(kept[0])} is no setting to sweep over")
    try:
        config = with_absolute_paths(resolve(from_settings(settings, base)))
    except ConfigError as error:
        raise ConfigError(f"at {_options(settings)}: {error}") from error
    return Point(_key(config), dict(settings), config)


def tell_apart(points: Sequence[Point]) -> list[Point]:
    """Name points by all settings in which they differ, wherever they came from."""
    configs = [dataclasses.asdict(point.config) for point in points]
    names = {name for point in points for name in point.settings}
    for name in configs[0] if configs else ():
        if name not in KEEPING and len({str(config[name]) for config in configs}) > 1:
            names.add(name)
    order = [field.name for field in dataclasses.fields(TrainConfig) if field.name in names]
    return [
        point._replace(settings={name: config[name] for name in order})
        for point, config in zip(points, configs, strict=True)
    ]


def _key(config: TrainConfig) -> str:
    content = dataclasses.asdict(config)
    for name in KEEPING:
        del content[name]
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _options(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{option(name)} {_shown(value)}" for name, value in settings.items())


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# From text


def read_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Read `learning-rate=0.01,0.02`.

    Raises:
        ConfigError: if a text is not of this form.
    """
    return {name: [_value(text) for text in given.split(",")] for name, given in _named(texts)}


def read_ranges(texts: Sequence[str]) -> dict[str, Range]:
    """Read `learning-rate=0.001:0.1:log`.

    Raises:
        ConfigError: if a text is not of this form.
    """
    return {name: _range(name, given.split(":")) for name, given in _named(texts)}


def _named(texts: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    for name, sign, given in pairs:
        if not (name and sign and given):
            raise ConfigError(
                f"cannot read {name}{sign}{given}: write the name of a setting, = and its values, "
                "such as learning-rate=0.01,0.02"
            )
    names = [field_named(name) for name, _, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{', '.join(map(option, twice))}: given twice; take one")
    return [(name, given) for name, (_, _, given) in zip(names, pairs, strict=True)]


def _range(name: str, parts: Sequence[Any]) -> Range:
    try:
        low, high = (float(part) for part in parts[:2])
        logarithmic = {(): False, ("log",): True}[tuple(parts[2:])]
    except (TypeError, ValueError, KeyError):
        low, high, logarithmic = math.nan, math.nan, False
    if not low < high or (logarithmic and low <= 0):
        raise ConfigError(
            f"cannot draw {option(name)} from {':'.join(map(str, parts))}: give the lowest value "
            "and the highest, then log if both are above 0 and the logarithm is to be drawn evenly"
        )
    return Range(low, high, logarithmic)


def _value(text: str) -> Any:
    """Read a value as TOML would, a word without its quotation marks."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None if text == "none" else _number(text)


def _number(text: str) -> Any:
    try:
        return float(text)  # .1, which TOML does not know
    except ValueError:
        return text


# From a file


class SweepFile(NamedTuple):
    """What a TOML file says of a sweep."""

    base: dict[str, Any]
    space: Space


def read_file(path: str | Path) -> SweepFile:
    """Read a sweep from a TOML file: `[base]`, `[grid]`, `[[points]]`, `[random]`.

    Raises:
        ConfigError: if it cannot be read, or says what a sweep does not know.
    """
    content = read_table(path)
    known = {"base": dict, "grid": dict, "points": list, "random": dict}
    for name, value in content.items():
        if name not in known or not isinstance(value, known[name]):
            raise ConfigError(
                f"{path}: {name} is not what a sweep consists of: [base], [grid], [[points]] and "
                "[random]"
            )
    table = lambda name: {  # noqa: E731
        field_named(field): value for field, value in content.get(name, {}).items()
    }
    drawn = dict(content.get("random", {}))
    draws, draw_seed = drawn.pop("draws", 0), drawn.pop("draw_seed", 0)
    if not all(type(number) is int for number in (draws, draw_seed)):
        raise ConfigError(f"{path}: draws and draw_seed must be whole numbers")
    points = content.get("points", [{}])
    if not all(isinstance(point, dict) for point in points):
        raise ConfigError(f"{path}: each of points must be a table of settings")
    for name, value in table("grid").items():
        if not isinstance(value, list):
            raise ConfigError(f"{path}: the grid of {option(name)} must be a list, not {value}")
    for name, value in drawn.items():
        if not isinstance(value, list):
            raise ConfigError(f'{path}: {name} must be a list such as [0.01, 0.1, "log"]')
    space = Space(
        grid=table("grid"),
        points=[{field_named(name): v for name, v in point.items()} for point in points],
        ranges={field_named(name): _range(name, value) for name, value in drawn.items()},
        draws=draws,
        draw_seed=draw_seed,
    )
    return SweepFile(table("base"), space)
