"""A run as figures need it: its configuration and its records, by kind."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mupc.records import RunError, RunFolder

Records = list[dict[str, Any]]


class RunRecords(NamedTuple):
    """What a run folder tells; `result` is None for a run that has not ended."""

    name: str
    path: str
    config: dict[str, Any]
    environment: dict[str, Any]
    regime: dict[str, Any]
    result: dict[str, Any] | None
    records: Records

    def of(self, kind: str) -> Records:
        """Give the records of one kind."""
        return [record for record in self.records if record.get("kind") == kind]


def read_run(path: str | Path) -> RunRecords:
    """Read a run folder, finished or not.

    Raises:
        RunError: if it is no run, or damaged.
    """
    folder = RunFolder.open(path)
    result = folder.result() if folder.has_ended else None
    for part in ("test", "validation"):
        if not isinstance((result or {}).get(part), dict | None):
            raise RunError(f"{folder.path / 'result.json'} is damaged: {part} is no evaluation")
    return RunRecords(
        name=folder.path.resolve().name,
        path=str(path),
        config=folder.config(),
        environment=folder.environment(),
        regime=folder.regime(),
        result=result,
        records=[_checked(record, folder.metrics) for record in folder.records()],
    )


def _checked(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """Check that what should be numbers are.

    Raises:
        RunError: if something else is there.
    """
    for name, value in record.items():
        each = value if isinstance(value, list) else [value]
        words = name in _WORDS or isinstance(value, dict)
        if not words and not all(v is None or isinstance(v, int | float) for v in each):
            raise RunError(f"{path} is damaged: {name} is {value!r} in a record, and no number")
    if not isinstance(record.get("kind"), str):
        raise RunError(f"{path} is damaged: a record does not say of what kind it is")
    return record


_WORDS = ("kind", "parameterisation")


def read_runs(paths: Sequence[str | Path]) -> list[RunRecords]:
    """Read several runs, and give each a name of its own.

    Raises:
        RunError: if one is no run, or damaged.
    """
    runs = [read_run(path) for path in paths]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{i}: {name}" for i, name in enumerate(names, 1)]
    # A label that begins with an underline is one that matplotlib does not show.
    names = [f"./{name}" if name.startswith("_") else name for name in names]
    return [run._replace(name=name) for run, name in zip(runs, names, strict=True)]


def numbers(values: Iterable[float | None] | None) -> np.ndarray:
    """Give an array of figures, nan for those that are missing."""
    return np.array([np.nan if value is None else value for value in values or ()], float)


def column(records: Iterable[dict[str, Any]], name: str) -> list[float]:
    """Give one figure of every record, nan where there is none."""
    return numbers([record.get(name) for record in records]).tolist()
