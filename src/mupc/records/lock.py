"""What keeps two processes from training one run."""

import errno
import functools
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mupc.records.validation import RunError

# What a file system that takes no locks says, such as one that is mounted over a network.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@functools.cache  # once is enough
def _warn_of_no_locks(reason: str) -> None:
    warnings.warn(
        f"the file system of the run folder takes no locks ({reason}): nothing keeps two processes "
        "from training the same run",
        stacklevel=2,
    )


@contextmanager
def held(folder: Path) -> Generator[None]:
    """Hold the lock of a run folder; the system ends it if this process is killed.

    Raises:
        RunError: if another process holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(f"another process is training the run {folder}") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise RunError(f"cannot write the run folder {folder}: {error.strerror}") from error
        _warn_of_no_locks(error.strerror)
    try:
        yield
    finally:
        lock.release()
