"""What a sweep leaves on disk: a folder of run folders, claims and results, by key of the point.

points/KEY.json     the settings of a point, and its whole configuration
claims/KEY-N        see `mupc.sweeps.claims`
runs/SETTINGS-KEY-N the run folder of the claim N
results/KEY.json    how it ended; written once, whole or not at all
"""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from mupc.records import RunError, write_json
from mupc.sweeps.claims import STALE_AFTER, Claim, Claims
from mupc.sweeps.points import Point
from mupc.training.config import TrainConfig
from mupc.training.resolution import from_dict

_NAME_LENGTH = 100


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a point ended: a result, whatever it was.

    Attributes:
        key: of the point.
        settings: what the sweep set.
        ended: finished, stopped_early, diverged, or failed (it could not be trained).
        message: a sentence that says why.
        accuracy, loss: of the validation part, by the network that the run ended with; None for
            what there is not.
        test_accuracy, test_loss: of the test part.
        rho: regime number of the first batch.
        regime: the last line of the regime report.
        seconds: what the run took.
        training_seconds: what its training steps took; of runs in step, an equal share.
        run: its folder, from the sweep's; None if there is none.
    """

    key: str
    settings: dict[str, Any]
    ended: str
    message: str
    accuracy: float | None = None
    loss: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    rho: float | None = None
    regime: str | None = None
    seconds: float = 0.0
    training_seconds: float = 0.0
    run: str | None = None


class SweepFolder:
    """A sweep on disk.

    Args:
        path: the folder; it is made if there is none.
        stale_after: see `Claims`.

    Raises:
        RunError: if it cannot be written, or holds something else.
    """

    def __init__(self, path: str | Path, stale_after: float = STALE_AFTER) -> None:
        self.path = Path(path)
        if (self.path / "config.json").exists():
            raise RunError(f"{path} holds a run: name another folder for the sweep")
        try:
            for name in ("points", "runs", "results"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            self.claims = Claims(self.path / "claims", stale_after)
        except OSError as error:
            raise RunError(f"cannot write the folder {path}: {error.strerror}") from error

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

    def add(self, point: Point) -> None:
        """Note a point, so that the sweep can go on without being told what it consists of."""
        path = self.path / "points" / f"{point.key}.json"
        if not path.exists():
            config = dataclasses.asdict(point.config)
            write_json(path, {"settings": point.settings, "config": config})

    def points(self) -> list[Point]:
        """Give all points that were ever added.

        Raises:
            RunError: if one cannot be read.
        """
        points: list[Point] = []
        for path in sorted((self.path / "points").glob("*.json")):
            content = _read(path)
            config = from_dict(content["config"])
            points.append(Point(path.stem, content["settings"], config))
        return points

    def outcome(self, point: Point) -> Outcome | None:
        """Give a point's result; None if there is none yet."""
        path = self._result(point)
        return Outcome(**_read(path)) if path.exists() else None

    def claim(self, point: Point) -> Claim | None:
        """Claim a point that has no result yet; None if there is nothing left to do about it."""
        if self._result(point).exists() or (claim := self.claims.take(point.key)) is None:
            return None
        if self._result(point).exists():  # it came between the two
            claim.release()
            return None
        return claim

    def run_path(self, point: Point, claim: Claim) -> Path:
        """Give the run folder of a claim: one of its own, since its predecessor may yet write."""
        words = re.sub(r"[^\w.=+-]+", "_", point.name)[:_NAME_LENGTH]
        return self.path / "runs" / f"{words}-{point.key}-{claim.number}"

    def config(self, point: Point, claim: Claim) -> TrainConfig:
        """Give the configuration that keeps its run in this folder."""
        return dataclasses.replace(point.config, out=str(self.run_path(point, claim)))

    def finish(self, point: Point, claim: Claim, outcome: Outcome) -> bool:
        """Publish a result, unless another has; say whether it counts."""
        part = self._result(point).with_suffix(f".{claim.number}.part")
        write_json(part, dataclasses.asdict(outcome))
        try:
            os.link(part, self._result(point))  # fails where there is one, unlike a renaming
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

    def _result(self, point: Point) -> Path:
        return self.path / "results" / f"{point.key}.json"

    def _run_paths(self, point: Point) -> list[Path]:
        return list((self.path / "runs").glob(f"*-{point.key}-*"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise RunError(
            f"{path} is damaged ({error}): remove it to train its point again"
        ) from error
