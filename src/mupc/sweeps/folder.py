"""What a sweep leaves on disk: a folder of run folders, claims and results, by key of the point.

points/KEY.json     the settings of a point, and its whole configuration
claims/KEY-N        see `mupc.sweeps.claims`
runs/SETTINGS-KEY-N the run folder of the claim N, which may have come from an earlier claim
results/KEY.json    how it ended; written once, whole or not at all
"""

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

from mupc.records import (
    Outcome,
    RunError,
    RunFolder,
    read_json,
    read_outcome,
    write_json,
    write_outcome,
)
from mupc.settings import Configuration
from mupc.settings.files import stored
from mupc.settings.setting import Kept
from mupc.sweeps.claims import STALE_AFTER, Claim, Claims
from mupc.sweeps.points import Point

_NAME_LENGTH = 100
# What a file system says that has no hard links, or does not let us make any.
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


class SweepFolder:
    """A sweep on disk.

    Args:
        path: the folder; it is made for the first point, if there is none.
        stale_after: see `Claims`.

    Raises:
        RunError: if it holds something else.
    """

    def __init__(self, path: str | Path, stale_after: float = STALE_AFTER) -> None:
        self.path = Path(path)
        if (self.path / "config.json").exists():
            raise RunError(f"{path} holds a run: name another folder for the sweep")
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{path} is a file: name a folder for the sweep")
        self.claims = Claims(self.path / "claims", stale_after)

    @classmethod
    def open(cls, path: str | Path) -> "SweepFolder":
        """Open a sweep that is there.

        Raises:
            RunError: if there is none.
        """
        if not (Path(path) / "points").is_dir():
            raise RunError(
                f"there is no sweep at {path}: begin one by saying what to sweep over, such as "
                "--grid learning-rate=0.01,0.02 seed=0,1,2"
            )
        return cls(path)

    def add(self, point: Point, fingerprint: str) -> None:
        """Note a point, so that the sweep can go on without being told what it consists of.

        Raises:
            RunError: if it is there already, of data with another fingerprint, or if the folder
                cannot be written.
        """
        try:
            for name in ("points", "runs", "results", "claims"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write the folder {self.path}: {error.strerror}") from error
        path = self._point(point)
        if path.exists():
            self.check_data(point, fingerprint)
        else:
            config = point.config
            keeping = sorted(config.carrying(Kept))
            write_json(
                path,
                {
                    "settings": point.settings,
                    "config": config.tables(),
                    "keeping": keeping,
                    "data": fingerprint,
                },
            )

    def check_data(self, point: Point, fingerprint: str) -> None:
        """Check that data are those of a point that was added.

        Raises:
            RunError: if not.
        """
        if read_json(self._point(point)).get("data", fingerprint) != fingerprint:
            raise RunError(
                f"the data are others than those of the sweep {self.path}: begin another one"
            )

    def holds(self, point: Point) -> bool:
        """Return whether a point was ever added."""
        return self._point(point).exists()

    def _point(self, point: Point) -> Path:
        return self.path / "points" / f"{point.key}.json"

    def points(self) -> list[Point]:
        """Return all points that were ever added.

        Raises:
            RunError: if one cannot be read.
        """
        points: list[Point] = []
        for path in sorted((self.path / "points").glob("*.json")):
            content = _read(path)
            config = stored(content["config"])
            points.append(Point(path.stem, content["settings"], config))
        return points

    def outcome(self, point: Point) -> Outcome | None:
        """Return a point's result; None if there is none yet."""
        return read_outcome(self._result(point)) if self._has_result(point) else None

    def claim(self, point: Point) -> Claim | None:
        """Claim a point that has no result yet; None if there is nothing left to do about it."""
        if self._has_result(point) or (claim := self.claims.take(point.key)) is None:
            return None
        if self._has_result(point):  # it came between the two
            claim.release()
            return None
        self._result(point).unlink(missing_ok=True)  # of one that was killed as it began to publish
        return claim

    def run_path(self, point: Point, claim: Claim) -> Path:
        """Return the run folder of a claim: one of its own, since its predecessor may yet write."""
        words = re.sub(r"[^\w.=+-]+", "_", point.name)[:_NAME_LENGTH]
        return self.path / "runs" / f"{words}-{point.key}-{claim.number}"

    def config(self, point: Point, claim: Claim) -> Configuration:
        """Return the configuration that keeps its run in this folder."""
        return point.config.changed({"out": str(self.run_path(point, claim))})

    def take_over(self, point: Point, claim: Claim) -> bool:
        """Make a run that an earlier claim has left this one's own; return whether there was one.

        It is the newest that has a checkpoint, unless a process that is only asleep still holds it.
        """
        path = self.run_path(point, claim)
        for former in sorted(filter(_resumable, self._run_paths(point)), key=_number, reverse=True):
            try:
                with RunFolder(former).held():
                    former.rename(path)  # should its process awake, it finds nothing to write to
            except (RunError, OSError):
                continue
            write_json(path / "config.json", self.config(point, claim).tables())
            return True
        return False

    def finish(self, point: Point, claim: Claim, outcome: Outcome) -> bool:
        """Publish a result, unless another has; return whether it counts."""
        part = self._result(point).with_suffix(f".{claim.number}.part")
        write_outcome(part, outcome)
        try:
            _publish(part, self._result(point))
        except FileExistsError:
            return False
        finally:
            part.unlink()
        for path in self._run_paths(point):  # of runs that were killed
            if path != self.run_path(point, claim):
                shutil.rmtree(path, ignore_errors=True)
        return True

    def forget(self, point: Point) -> None:
        """Remove a point's result and runs, so that it is trained again."""
        self._result(point).unlink()
        self.claims.free(point.key)
        for path in self._run_paths(point):
            shutil.rmtree(path, ignore_errors=True)

    def _has_result(self, point: Point) -> bool:
        try:
            return self._result(point).stat().st_size > 0  # else it is about to be written
        except FileNotFoundError:
            return False

    def _result(self, point: Point) -> Path:
        return self.path / "results" / f"{point.key}.json"

    def _run_paths(self, point: Point) -> list[Path]:
        return list((self.path / "runs").glob(f"*-{point.key}-*"))


def _number(run: Path) -> int:
    """Return the number of the claim that a run folder is of."""
    return int(run.name.rpartition("-")[2])


def _resumable(run: Path) -> bool:
    """Return whether a folder holds a run with a checkpoint."""
    steps = [path.name for path in RunFolder(run).checkpoints.glob("*")]
    return (run / "config.json").is_file() and any(map(str.isdecimal, steps))


def _publish(part: Path, path: Path) -> None:
    """Let a file appear under a second name, whole, unless there is one.

    Raises:
        FileExistsError: if there is one.
    """
    try:
        os.link(part, path)  # fails where there is one, unlike a renaming
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        file = path.open("xb")  # it is empty for a moment, and what is empty counts for nothing
        try:
            with file:
                file.write(part.read_bytes())
        except OSError:  # a disk that is full
            path.unlink(missing_ok=True)
            raise


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
        return {"settings": content["settings"], "config": content["config"]}
    except KeyError as error:
        raise RunError(f"{path} is damaged: there is no {error}") from error
