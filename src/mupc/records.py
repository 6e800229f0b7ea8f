"""Run folders: what a run leaves on disk. It is written from the start, and readable without JAX.

config.json          the complete configuration
environment.json     versions, devices
regime.json          the precision, and the regime number ρ that it means at the first batch
metrics.jsonl        one record a line, in the order in which they came
result.json          how the run ended, and its last figures
network.safetensors  the trained network (`mupc.training.export`)
tensorboard/         the records once more, if asked for
checkpoints/         of a run that has not ended by itself (`mupc.training.checkpoint`)
"""

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

_PACKAGES = ("mupc", "jax", "jaxlib", "equinox", "optax", "numpy", "scikit-learn")


# A layer learns if it changes by at least this fraction of what the one does that changes most.
_LEARNS = 0.1


def layers_that_learned(changes: Sequence[float]) -> int:
    """Count the layers whose relative change is a tenth of the largest, or more."""
    least = _LEARNS * max(changes, default=0)
    return sum(change >= least > 0 for change in changes)


class RunError(ValueError):
    """A run folder that cannot be used, with a sentence that says why."""


def environment() -> dict[str, str]:
    """Give the versions of Python, of the platform and of the packages that figures depend on."""
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), "platform": platform.platform(), **versions}


def _plain(value: Any) -> Any:
    """Write null for what is not a number: JSON has neither nan nor infinity."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in cast(Mapping[str, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in cast(Iterable[Any], value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(_plain(record), allow_nan=False).encode() + b"\n"


def _write_all(file: RawIOBase, content: bytes) -> None:
    """Write all of it: a disk that is nearly full takes a part, and says so the next time."""
    while content:
        content = content[file.write(content) :]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all: a kill half-way leaves what was there before."""
    # Another process, or machine, may be writing the same.
    part = path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}.part")
    part.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")
    os.replace(part, path)


def check_new(path: str | Path) -> None:
    """Check that a run may be kept in a folder: that there is none, or an empty one.

    Raises:
        RunError: if there is something.
    """
    path = Path(path)
    try:
        if path.exists() and any(path.iterdir()):
            raise RunError(f"{path} is not empty: name a new folder with --out")
    except OSError as error:
        raise RunError(f"cannot write the run folder {path}: {error.strerror}") from error


class RunFolder:
    """A run on disk.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        environment: Mapping[str, Any],
        regime: Mapping[str, Any],
    ) -> "RunFolder":
        """Make a new folder and write what is known before the first step.

        Raises:
            RunError: if the folder already holds something, or cannot be written.
        """
        check_new(path)
        run = cls(path)
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run._write("environment.json", environment)
            run._write("regime.json", regime)
            run.metrics.touch()
            run._write("config.json", config)  # last: it makes the folder that of a run
        except OSError as error:
            raise RunError(f"cannot write the run folder {run.path}: {error.strerror}") from error
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Open the folder of a run.

        Raises:
            RunError: if there is no run there.
        """
        run = cls(path)
        if not (run.path / "config.json").is_file():
            there = run.path / "runs"
            raise RunError(
                f"there is no run at {run.path}: no config.json in it; name a folder that "
                + (f"lies in {there}" if there.is_dir() else "`mupc train` wrote")
            )
        return run

    @property
    def metrics(self) -> Path:
        """The file of records."""
        return self.path / "metrics.jsonl"

    @property
    def network(self) -> Path:
        """The file of the trained network."""
        return self.path / "network.safetensors"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def has_ended(self) -> bool:
        """Whether there is a result."""
        return (self.path / "result.json").is_file()

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep other processes from training this run; the system ends it if this one is killed.

        Raises:
            RunError: if another process trains it.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunError(f"another process is training the run {self.path}") from error
        except OSError as error:
            raise RunError(f"cannot write the run folder {self.path}: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record.

        Raises:
            RunError: if it cannot be written; the records before it stay as they are.
        """
        try:
            with self.metrics.open("ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                try:
                    _write_all(file, _line(record))
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise RunError(
                f"cannot write {self.metrics} ({error.strerror}): when it can be written again, "
                f"continue with mupc train --resume {self.path}"
            ) from error

    def reopen(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Let the run go on after these records: what came later goes, and so does its result.

        Raises:
            RunError: if the folder cannot be written.
        """
        part = self.metrics.with_suffix(".part")
        try:
            part.write_bytes(b"".join(map(_line, records)))
            os.replace(part, self.metrics)
            (self.path / "result.json").unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"cannot write the run folder {self.path}: {error.strerror}") from error

    def records(self) -> Iterator[dict[str, Any]]:
        """Read the records, in order; a last line that a kill cut short is left out.

        Raises:
            RunError: if another line is damaged, or there is no file.
        """
        try:
            lines = self.metrics.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise RunError(f"cannot read {self.metrics}: {error.strerror}") from error
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:  # not UTF-8, or not JSON
                raise RunError(f"{self.metrics} is damaged in line {number}") from error

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write how the run ended."""
        self._write("result.json", result)

    def config(self) -> dict[str, Any]:
        """Read the configuration."""
        return self._read("config.json")

    def environment(self) -> dict[str, Any]:
        """Read the versions and devices."""
        return self._read("environment.json")

    def regime(self) -> dict[str, Any]:
        """Give the precision, and the regime number ρ where the rule has inference."""
        return self._read("regime.json")

    def result(self) -> dict[str, Any]:
        """Read how the run ended."""
        return self._read("result.json")

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        write_json(self.path / name, content)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content = json.loads(path.read_text())
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:  # not UTF-8, or not JSON
            raise RunError(f"{path} is damaged ({error})") from error
        if not isinstance(content, dict):
            raise RunError(f"{path} is damaged (it holds no table of names and values)")
        return cast(dict[str, Any], content)
