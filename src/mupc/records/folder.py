"""Run folders: what a run leaves on disk. It is written from the start, and readable without JAX.

config.json          the complete configuration
environment.json     versions, devices
data.json            what the data are: their shape, labels and fingerprint
regime.json          the precision, and the regime number ρ that it means at the first batch
metrics.jsonl        one record a line, in the order in which they came
result.json          how the run ended, and its last figures
network.safetensors  the trained network (`mupc.runs.network_file`)
reconstruct.png      what commands made of the network, and reconstruct.scores.json (`PICTURES`)
tensorboard/         the records once more, if asked for
checkpoints/         of a run that has not ended by itself (`mupc.training.checkpoint`)
"""

import dataclasses
import importlib.metadata
import itertools
import json
import math
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from io import RawIOBase
from pathlib import Path
from typing import Any

from mupc.records.files import plain, read_json, write_json
from mupc.records.lock import held
from mupc.records.outcomes import DataSummary, Regime, RunResult
from mupc.records.validation import RunError, read_as

PICTURES = {
    "reconstruct": "data, and reconstructed",
    "complete": "data, what was known of them, and completed",
    "denoise": "data, with noise, and without it again",
    "generate": "generated",
}
"""Commands that leave a picture of their name in a run folder, and what its rows are."""

_PACKAGES = ("mupc", "jax", "jaxlib", "equinox", "optax", "numpy", "scikit-learn")


def environment() -> dict[str, str]:
    """Return the versions of Python, of the platform and of the packages that figures depend on."""
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), "platform": platform.platform(), **versions}


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(plain(record), allow_nan=False).encode() + b"\n"


def _write_all(file: RawIOBase, content: bytes) -> None:
    """Write all of it: a disk that is nearly full takes a part, and says so the next time."""
    while content:
        content = content[file.write(content) :]


_TAKEN = "{} is not empty: name a new folder with --out"


def check_new(path: str | Path) -> None:
    """Check that a run may be kept in a folder: that there is none, or an empty one.

    Raises:
        RunError: if there is something.
    """
    path = Path(path)
    try:
        if path.exists() and any(path.iterdir()):
            raise RunError(_TAKEN.format(path))
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
        regime: Regime,
        label: str | None = None,
        data: DataSummary | None = None,
    ) -> "RunFolder":
        """Return a new folder that holds what is known before the first step.

        It is claimed by a file that only one process can create.

        Args:
            path: of the folder; `{label}` in it stands for the label, and a number if there is
                such a folder already.
            config: the complete configuration.
            environment: versions and devices.
            regime: in which training begins.
            label: names the folder.
            data: what they are.

        Raises:
            RunError: if the folder already holds something, or cannot be written.
        """
        numbered = label is not None and "{label}" in str(path)
        first = Path(str(path).replace("{label}", label)) if label is not None else Path(path)
        for number in itertools.count(1):
            run = cls(first if number == 1 else first.with_name(f"{first.name}-{number}"))
            try:
                if numbered and run.path.exists():
                    continue
                check_new(run.path)
                run.path.mkdir(parents=True, exist_ok=True)
                (run.path / "environment.json").open("x").close()
            except FileExistsError:  # another process was faster
                if numbered:
                    continue
                raise RunError(_TAKEN.format(run.path)) from None
            except OSError as error:
                raise run._unwritable(error) from error
            return run._begun(config, environment, regime, data)
        raise AssertionError("the numbers have ended")

    def _begun(
        self,
        config: Mapping[str, Any],
        environment: Mapping[str, Any],
        regime: Regime,
        data: DataSummary | None,
    ) -> "RunFolder":
        try:
            if data is not None:
                self._write("data.json", data._asdict())
            self._write("environment.json", environment)
            self._write("regime.json", regime._asdict())
            self.metrics.touch()
            self._write("config.json", config)  # last: it makes the folder that of a run
        except OSError as error:
            raise self._unwritable(error) from error
        return self

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(f"cannot write the run folder {self.path}: {error.strerror}")

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

    def pictures(self) -> dict[str, tuple[bytes, dict[str, Any]]]:
        """Return the pictures that commands made of the network, by their names, with scores.

        Raises:
            RunError: if one cannot be read.
        """
        found: dict[str, tuple[bytes, dict[str, Any]]] = {}
        for name in PICTURES:
            picture, scores = self.path / f"{name}.png", self.path / f"{name}.scores.json"
            try:
                if picture.is_file():
                    numbers = read_json(scores) if scores.is_file() else {}
                    found[name] = picture.read_bytes(), numbers
            except OSError as error:
                raise RunError(f"cannot read {picture}: {error.strerror}") from error
        return found

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def has_ended(self) -> bool:
        """Whether there is a result."""
        return (self.path / "result.json").is_file()

    def held(self) -> AbstractContextManager[None]:
        """Keep other processes from training this run; the system ends it if this one is killed.

        On a file system that takes no locks nothing does; that is a warning.

        Raises:
            RunError: if another process trains it.
        """
        return held(self.path)

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

    def reopen(self, config: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
        """Let the run go on after these records: what came later goes, and so does its result.

        Args:
            config: the complete configuration, whose data may have been moved.
            records: those that stay.

        Raises:
            RunError: if the folder cannot be written.
        """
        part = self.metrics.with_suffix(".part")
        try:
            part.write_bytes(b"".join(map(_line, records)))
            os.replace(part, self.metrics)
            (self.path / "result.json").unlink(missing_ok=True)
            self._write("config.json", config)
        except OSError as error:
            raise self._unwritable(error) from error

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
            except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
                raise RunError(f"{self.metrics} is damaged in line {number}") from error

    def finish(self, result: RunResult) -> None:
        """Write how the run ended."""
        splits = {"test": result.test, "validation": result.validation}
        found = {name: None if split is None else split._asdict() for name, split in splits.items()}
        ended = {"ended": result.ended.name.lower()}
        self._write("result.json", dataclasses.asdict(result) | ended | found)

    def config(self) -> dict[str, Any]:
        """Read the configuration."""
        return self._read("config.json")

    def environment(self) -> dict[str, Any]:
        """Read the versions and devices."""
        return self._read("environment.json")

    def data(self) -> DataSummary | None:
        """Read what its data are; None if it does not say."""
        if not (path := self.path / "data.json").is_file():
            return None
        return read_as(DataSummary, read_json(path), str(path))

    def check_data(self, fingerprint: str) -> None:
        """Check that data are those of the run, as far as it says which it has.

        Raises:
            RunError: if not.
        """
        if (data := self.data()) is not None and data.fingerprint != fingerprint:
            raise RunError(f"the data are others than those of the run {self.path}")

    @property
    def initial(self) -> Path:
        """The file of the network that training began from, if that was given."""
        return self.path / "initial.safetensors"

    def regime(self) -> Regime:
        """Read the precision, and the regime number ρ where the rule has inference."""
        regime = read_as(Regime, self._read("regime.json"), str(self.path / "regime.json"))
        if not math.isfinite(regime.precision):
            raise RunError(f"{self.path / 'regime.json'} is damaged: precision must be a number")
        return regime

    def result(self) -> RunResult | None:
        """Read how the run ended; None if it has not."""
        if not self.has_ended:
            return None
        return read_as(RunResult, self._read("result.json"), str(self.path / "result.json"))

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        write_json(self.path / name, content)

    def _read(self, name: str) -> dict[str, Any]:
        return read_json(self.path / name)
