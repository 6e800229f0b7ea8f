"""A run as figures need it: its configuration, its records by kind, and its colour."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mupc.plots.style import colours
from mupc.records import (
    Ended,
    Regime,
    RegimeRecord,
    RunFolder,
    RunResult,
    TheoryRecord,
    TraceRecord,
    TrainRecord,
    ValidationRecord,
    any_record_from,
)

_DRAWN = 1e100  # what is larger overflows in the arithmetic of axes


@dataclasses.dataclass(frozen=True)
class RunRecords:
    """What a run folder holds; `result` is None for a run that has not ended."""

    name: str
    path: str
    config: dict[str, Any]
    environment: dict[str, Any]
    regime: Regime
    result: RunResult | None
    train: list[TrainRecord]
    validation: list[ValidationRecord]
    reports: list[RegimeRecord]
    traces: list[TraceRecord]
    theory: list[TheoryRecord]
    pictures: dict[str, tuple[bytes, dict[str, Any]]]
    colour: str

    @property
    def diverged(self) -> bool:
        """Whether the run ended so, or its last loss is not finite."""
        if self.result is not None and self.result.ended is Ended.DIVERGED:
            return True
        return bool(self.train) and not math.isfinite(self.train[-1].loss)

    @property
    def label(self) -> str:
        """What legends call it."""
        return f"{self.name} (diverged)" if self.diverged else self.name


def read_run(path: str | Path) -> RunRecords:
    """Read a run folder, finished or not.

    Raises:
        RunError: if it is no run, or damaged.
    """
    folder = RunFolder.open(path)
    records = [
        any_record_from(line, f"{folder.metrics}, line {number},")
        for number, line in enumerate(folder.records(), 1)
    ]
    return RunRecords(
        name=folder.path.resolve().name,
        path=str(path),
        config=folder.config(),
        environment=folder.environment(),
        regime=folder.regime(),
        result=folder.result(),
        train=[record for record in records if isinstance(record, TrainRecord)],
        validation=[record for record in records if isinstance(record, ValidationRecord)],
        reports=[record for record in records if isinstance(record, RegimeRecord)],
        traces=[record for record in records if isinstance(record, TraceRecord)],
        theory=[record for record in records if isinstance(record, TheoryRecord)],
        pictures=folder.pictures(),
        colour=colours(1)[0],
    )


def read_runs(paths: Sequence[str | Path]) -> list[RunRecords]:
    """Read several runs, and give each a name and a colour of its own.

    Raises:
        RunError: if one is no run, or damaged.
    """
    runs = [read_run(path) for path in paths]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{i}: {name}" for i, name in enumerate(names, 1)]
    return [
        dataclasses.replace(run, name=name, colour=colour)
        for run, name, colour in zip(runs, names, colours(len(runs)), strict=True)
    ]


def numbers(values: Iterable[float | None]) -> np.ndarray:
    """Return an array to draw, nan for what is missing, not finite, or too large for any axis."""
    found = np.array([np.nan if value is None else value for value in values], float)
    return np.where(np.abs(found) < _DRAWN, found, np.nan)
