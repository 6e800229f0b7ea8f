"""Sweep folders, readable without JAX: what was set at each point, and how it ended.

points/KEY.json     the settings of a point, its whole configuration, and which settings say no more
                    than where, or how, its run is kept
results/KEY.json    how it ended
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from mupc.records.files import read_json, write_json
from mupc.records.outcomes import Outcome
from mupc.records.validation import RunError, read_as

BADLY = ("diverged", "failed")
"""Ends of a run after which there is no network that its settings are to be judged by."""


class SweepPoint(NamedTuple):
    """A point of a sweep; `settings` are all in which the points differ, by name."""

    key: str
    settings: dict[str, Any]
    outcome: Outcome | None


def is_sweep(path: str | Path) -> bool:
    """Return whether a folder is that of a sweep."""
    return (Path(path) / "points").is_dir() and not (Path(path) / "config.json").exists()


def read_outcome(path: Path) -> Outcome:
    """Read how a point ended.

    Raises:
        RunError: if there is no such file, or it is damaged.
    """
    try:
        return read_as(Outcome, read_json(path), str(path))
    except RunError as error:
        raise RunError(f"{error}; remove it to train its point again") from error


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Write how a point ended, whole or not at all."""
    write_json(path, dataclasses.asdict(outcome))


def read_sweep(path: str | Path) -> list[SweepPoint]:
    """Read all points of a sweep, in the order of their keys.

    Raises:
        RunError: if there is none, or a file is damaged.
    """
    folder, found = Path(path), dict[str, tuple[dict[str, Any], dict[str, Any]]]()
    keeping = set[str]()
    for file in sorted((folder / "points").glob("*.json")):
        content = read_json(file)
        settings, config = content.get("settings"), content.get("config")
        if not isinstance(settings, dict) or not isinstance(config, dict):
            raise RunError(f"{file} is damaged: settings and config must be tables")
        if not isinstance(kept := content.get("keeping", []), list):
            raise RunError(f"{file} is damaged: keeping must be a list")
        keeping.update(map(str, kept))
        found[file.stem] = flattened(settings), flattened(config)
    if not found:
        raise RunError(f"the sweep {folder} has no points yet")
    configs = [config for _, config in found.values()]
    names = list(dict.fromkeys(name for settings, _ in found.values() for name in settings))
    for name in dict.fromkeys(name for config in configs for name in config):
        known = name in names or last(name) in {*names, *keeping}
        if not known and len({str(config.get(name)) for config in configs}) > 1:
            names.append(name)
    points: list[SweepPoint] = []
    for key, (settings, config) in found.items():
        result = folder / "results" / f"{key}.json"
        outcome = read_outcome(result) if result.is_file() else None
        # What was set is in the configuration too, by the same name or by that in its table.
        values = {last(name): value for name, value in config.items()} | config | settings
        points.append(SweepPoint(key, {name: values.get(name) for name in names}, outcome))
    return points


def flattened(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table without tables in it: `network.depth` is what `network` has as `depth`."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            inner = flattened(cast(dict[str, Any], value))
            flat |= {f"{name}.{entry}": held for entry, held in inner.items()}
        else:
            flat[name] = value
    return flat


def last(name: str) -> str:
    """Return a setting's name without the tables that it lies in."""
    return name.rpartition(".")[2]


def without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells settings apart whose runs differ in their seeds alone."""
    return {name: value for name, value in settings.items() if last(name) != "seed"}


def score(outcomes: Sequence[Outcome]) -> tuple[float, float, float]:
    """Return what to rank by: how often it ended well, mean accuracy (not of text), less loss."""
    well = [outcome.ended not in BADLY for outcome in outcomes]
    of_text = any(outcome.perplexity is not None for outcome in outcomes)
    accuracies = [0.0 if of_text else _finite(outcome.accuracy, 0.0) for outcome in outcomes]
    losses = [_finite(outcome.loss, math.inf) for outcome in outcomes]
    return statistics.fmean(well), statistics.fmean(accuracies), -statistics.fmean(losses)


def ranked(points: Iterable[SweepPoint]) -> list[tuple[dict[str, Any], list[Outcome]]]:
    """Return each setting with the outcomes of its seeds, the best setting first."""
    rows: dict[str, tuple[dict[str, Any], list[Outcome]]] = {}
    for point in points:
        if point.outcome is not None:
            settings = without_seed(point.settings)
            rows.setdefault(repr(settings), (settings, []))[1].append(point.outcome)
    return sorted(rows.values(), key=lambda row: score(row[1]), reverse=True)


def mean_and_spread(values: Iterable[float | None], unit: float, form: str) -> str:
    """Return mean ± standard deviation of what there is, in words."""
    known = [unit * value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return ""
    spread = f" ± {statistics.stdev(known):{form}}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):{form}}{spread}"


def _finite(value: float | None, otherwise: float) -> float:
    return value if value is not None and math.isfinite(value) else otherwise
