"""Records for TensorBoard."""

import importlib.util
from pathlib import Path
from typing import Any

from mupc.training.config import ConfigError
from mupc.training.results import Record, scalars


class TensorBoard:
    """A callback that writes the numbers of records for TensorBoard, by the package tensorboardX.

    Args:
        path: folder of the event file.

    Raises:
        ConfigError: if tensorboardX is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        check_tensorboard()
        from tensorboardX import SummaryWriter

        self._writer: Any = SummaryWriter(str(path), flush_secs=10)

    def __call__(self, record: Record) -> None:
        """Write a record; it can be seen within ten seconds."""
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, record.step)

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._writer.close()


def check_tensorboard() -> None:
    """Check that there is what writes for TensorBoard.

    Raises:
        ConfigError: if not.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise ConfigError(
            "--tensorboard needs the package tensorboardX: pip install 'mupc[tensorboard]'"
        )
