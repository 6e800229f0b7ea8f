"""Records for TensorBoard."""

import contextlib
import importlib.util
import time
import warnings
import weakref
from pathlib import Path
from typing import Any, cast

from mupc.records import Record, scalars


class TensorBoard:
    """A callback that writes the numbers of records for TensorBoard, by the package tensorboardX.

    A file that cannot be written (a full disk) is a warning, once: training goes on without it.

    Args:
        path: folder of the event file.

    Raises:
        ImportError: if tensorboardX is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        check_tensorboard()
        self._path, self._writer, self._failed = Path(path), None, False

    def __call__(self, record: Record) -> None:
        """Write a record; it can be seen at once."""
        if self._failed:
            return
        try:
            self._write(record)
        except OSError as error:
            self._failed = True
            warnings.warn(
                f"cannot write for TensorBoard to {self._path} ({error.strerror}): training goes "
                "on without it",
                stacklevel=2,
            )

    def _write(self, record: Record) -> None:
        # Its SummaryWriter has a thread of its own, which may fail, or block, unseen.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import scalar

        if self._writer is None:
            self._path.mkdir(parents=True, exist_ok=True)
            # Names tell the second: another one of the same second would be overwritten.
            others = len(list(self._path.iterdir()))
            self._writer = EventsWriter(str(self._path / "events"), f".{others}")
            weakref.finalize(self, _close, self._writer)
        writer, event = self._writer, cast(Any, event_pb2).Event
        for name, value in scalars(record).items():
            summary = scalar(name, value)
            writer.write_event(event(wall_time=time.time(), step=record.step, summary=summary))
        writer.flush()


def _close(writer: Any) -> None:
    with contextlib.suppress(OSError):  # it has been told of
        writer.close()


def check_tensorboard() -> None:
    """Check that there is what writes for TensorBoard.

    Raises:
        ImportError: if not.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise ImportError(
            "TensorBoard needs the package tensorboardX: pip install 'mupc[tensorboard]'"
        )
