"""A run as figures need it: its configuration and its records, by kind."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mupc.records import RunFolder

Records = list[dict[str, Any]]


class RunRecords(NamedTuple):
    """What a run folder tells; `result` is None for a run that has not ended."""

    name: str
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
    result = folder.result() if (folder.path / "result.json").is_file() else None
    return RunRecords(
        name=folder.path.resolve().name,
        config=folder.config(),
        environment=folder.environment(),
        regime=folder.regime(),
        result=result,
        records=list(folder.records()),
    )


def read_runs(paths: Sequence[str | Path]) -> list[RunRecords]:
    """Read several runs, and give each a name of its own.

    Raises:
        RunError: if one is no run, or damaged.
    """
    runs = [read_run(path) for path in paths]
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return runs
    return [run._replace(name=str(path)) for run, path in zip(runs, paths, strict=True)]


def column(records: Iterable[dict[str, Any]], name: str) -> list[float]:
    """Give one figure of every record, nan where there is none."""
    return [float("nan") if (value := record.get(name)) is None else value for record in records]
