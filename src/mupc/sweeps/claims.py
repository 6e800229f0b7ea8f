"""Claims: which process trains which point of a sweep, on a folder that several may share.

Nothing but the file system is asked, so that it works between machines: a claim is a file that only
one process can create, and its time of change is a heartbeat. A claim that has stopped beating is
followed by one of the next number, which again only one process can create.
"""

import contextlib
import os
import platform
import threading
from pathlib import Path
from tempfile import TemporaryFile

STALE_AFTER = 60.0
"""Seconds without a heartbeat after which a claim is free again."""

_BEATS = 6  # in that time


class Claim:
    """The right to work on something, for as long as its heart beats.

    Args:
        path: the file of the claim; it exists.
        next_path: the file whose existence means that another has taken over.
        number: how many claims on the same there have been, this one included.
        stale_after: seconds without a heartbeat after which others may take over.
    """

    def __init__(self, path: Path, next_path: Path, number: int, stale_after: float) -> None:
        self.path, self.next_path, self.number = path, next_path, number
        self._ended = threading.Event()
        self._interval = stale_after / _BEATS
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    @property
    def held(self) -> bool:
        """Whether nobody has taken over, as happens if this process was long suspended."""
        return self.path.exists() and not self.next_path.exists()

    def end(self) -> None:
        """Stop to beat: what was claimed is done with, or others may have it in a while."""
        self._ended.set()
        self._heart.join()

    def release(self) -> None:
        """Let others claim it at once."""
        self.end()
        if self.held:
            os.utime(self.path, (0, 0))

    def _beat(self) -> None:
        while not self._ended.wait(self._interval) and self.held:
            # A file server may be away for a moment; if it is for longer, others take over.
            with contextlib.suppress(OSError):
                os.utime(self.path)


class Claims:
    """The claims in a folder.

    Args:
        folder: where they are kept, a folder that is there by the time something is claimed.
        stale_after: seconds without a heartbeat after which a claim is free again; all processes
            must agree on it.
    """

    def __init__(self, folder: Path, stale_after: float = STALE_AFTER) -> None:
        self.folder, self.stale_after = folder, stale_after

    def take(self, key: str) -> Claim | None:
        """Claim something; None if another holds it."""
        number = self._latest(key)
        if number and self._beats(self._path(key, number)):
            return None
        path = self._path(key, number + 1)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:  # another was faster
            return None
        with os.fdopen(handle, "w") as file:
            file.write(f"process {os.getpid()} of {platform.node()}\n")
        return Claim(path, self._path(key, number + 2), number + 1, self.stale_after)

    def free(self, key: str) -> None:
        """Let it be claimed again at once, whoever holds it."""
        if number := self._latest(key):
            os.utime(self._path(key, number), (0, 0))

    def _path(self, key: str, number: int) -> Path:
        return self.folder / f"{key}-{number}"

    def _latest(self, key: str) -> int:
        number = 0
        while self._path(key, number + 1).exists():
            number += 1
        return number

    def _beats(self, path: Path) -> bool:
        return self._now() - path.stat().st_mtime < self.stale_after

    def _now(self) -> float:
        """Return the time by the clock that stamps the files, which may be another machine's."""
        with TemporaryFile(dir=self.folder) as file:
            file.write(b"now")
            file.flush()
            return os.fstat(file.fileno()).st_mtime
