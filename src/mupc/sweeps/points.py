"""The points of a sweep: grids, lists and random draws over the fields of a configuration."""

import dataclasses
import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mupc.settings import ConfigError, Configuration
from mupc.settings.configuration import check_name
from mupc.settings.files import read_table, value_of
from mupc.settings.setting import Kept


class Point(NamedTuple):
    """One run of a sweep.

    Attributes:
        key: of its settings, the same on every machine.
        settings: what the sweep sets, by name.
        config: all settings.
    """

    key: str
    settings: dict[str, Any]
    config: Configuration

    @property
    def name(self) -> str:
        """Its settings in words."""
        return words(self.settings)


def words(settings: Mapping[str, Any]) -> str:
    """Write settings in one line."""
    return " ".join(f"{name}={_shown(value)}" for name, value in settings.items())


class Range(NamedTuple):
    """What random values are drawn from, evenly, or evenly in the logarithm; both ends belong."""

    low: float
    high: float
    logarithmic: bool = False
    whole: bool = False

    def draw(self, generator: random.Random) -> float:
        """Draw a value: a whole number, or one of four digits, so that it can be typed again."""
        # Each whole number has the part up to the next one.
        ends = self.low, self.high + 1 if self.whole else self.high
        if self.logarithmic:
            value = math.exp(generator.uniform(*map(math.log, ends)))
        else:
            value = generator.uniform(*ends)
        return min(int(value), int(self.high)) if self.whole else float(f"{value:.4g}")


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

    def over(self, base: Configuration) -> list[Point]:
        """Return the points: each setting put on top of `base`, none twice.

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
            missing = "--draws, how many settings to draw, such as --draws 20"
            if self.draws > 0:
                missing = "--random, what to draw, such as --random learning-rate=0.001:0.1:log"
            raise ConfigError(f"random search needs {missing}")
        twice = (listed & set(self.grid)) | ((listed | set(self.grid)) & set(self.ranges))
        if twice:
            raise ConfigError(f"{_listed(twice)}: set in two ways; use one")
        for name, values in self.grid.items():
            if not values:
                raise ConfigError(f"the grid of `{name}` has no values")
        if self.draw_seed and not self.draws:
            raise ConfigError("--draw-seed would have no effect, since nothing is drawn at random")


def point_of(base: Configuration, settings: Mapping[str, Any]) -> Point:
    """Return the point of some settings on top of a configuration.

    Raises:
        ConfigError: if there is no such setting, or the configuration cannot be run.
    """
    settings = {check_name(name): value for name, value in settings.items()}
    # What is held out to choose by is held out of whatever data a point names.
    held_out = {"validation": base.dataset.validation} if base.dataset.validation else {}
    try:
        config = base.changed((held_out if "dataset" in settings else {}) | settings)
    except ConfigError as error:
        raise ConfigError(f"at {words(settings)}: {error.text}") from error
    if kept := [name for name in settings if name in config.carrying(Kept)]:
        raise ConfigError(f"cannot sweep over `{kept[0]}`")
    return Point(_key(config), settings, config)


def tell_apart(points: Sequence[Point]) -> list[Point]:
    """Name points by all settings in which they differ, wherever they came from."""
    configs = [point.config.identity() for point in points]
    names = list(dict.fromkeys(name for config in configs for name in config))
    swept = {name for point in points for name in point.settings}
    order = [n for n in names if n in swept or len({str(c.get(n)) for c in configs}) > 1]
    return [
        point._replace(settings={name: config[name] for name in order if name in config})
        for point, config in zip(points, configs, strict=True)
    ]


def _key(config: Configuration) -> str:
    text = json.dumps(config.identity(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _shown(value: object) -> str:
    """Return a value as it can be typed again."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else str(value)
    return str(value)


# From text


def read_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Read `learning-rate=0.01,0.02`.

    Raises:
        ConfigError: if a text is not of this form.
    """
    return {name: [value_of(text) for text in given.split(",")] for name, given in _named(texts)}


def read_ranges(texts: Sequence[str]) -> dict[str, Range]:
    """Read `learning-rate=0.001:0.1:log`, or `depth=8:64:int`.

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
    names = [check_name(name) for name, _, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{_listed(twice)}: given twice; use one")
    return [(name, given) for name, (_, _, given) in zip(names, pairs, strict=True)]


_LAWS = {"log": "logarithmic", "int": "whole"}


def _range(name: str, parts: Sequence[Any]) -> Range:
    try:
        low, high = (float(part) for part in parts[:2])
        laws = {_LAWS[law]: True for law in parts[2:]}
    except (TypeError, ValueError, KeyError):
        low, high, laws = math.nan, math.nan, dict[str, bool]()
    range_ = Range(low, high, **laws)
    cut = range_.whole and not (low.is_integer() and high.is_integer())
    if not -math.inf < low < high < math.inf or (range_.logarithmic and low <= 0) or cut:
        raise ConfigError(
            f"cannot draw `{name}` from {':'.join(map(str, parts))}: give the lowest value and the "
            "highest, then log if both are above 0 and the logarithm is to be drawn evenly, and "
            "int for whole numbers"
        )
    return range_


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
                f"{path}: unknown table {name}; a sweep file has [base], [grid], [[points]] and "
                "[random]"
            )
    table = lambda name: {  # noqa: E731
        check_name(field): value for field, value in content.get(name, {}).items()
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
            raise ConfigError(f"{path}: the grid of {name} must be a list, not {value}")
    for name, value in drawn.items():
        if not isinstance(value, list):
            raise ConfigError(f'{path}: {name} must be a list such as [0.01, 0.1, "log"]')
    space = Space(
        grid=table("grid"),
        points=[{check_name(name): v for name, v in point.items()} for point in points],
        ranges={check_name(name): _range(name, value) for name, value in drawn.items()},
        draws=draws,
        draw_seed=draw_seed,
    )
    return SweepFile(content.get("base", {}), space)
