"""IDX, the format of the MNISTs: a magic number, big-endian dimensions, then the bytes."""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mupc.data.split import DataError

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(
    path: Path, shape: tuple[int, ...], md5: str | None = None
) -> UInt8[np.ndarray, "..."]:
    """Return the unsigned bytes of an IDX file, gzip'd or not, as an array of `shape`.

    Raises DataError if the file cannot be read, is damaged or truncated, has another type or shape,
    or if its uncompressed contents have another `md5` than the one given.
    """
    contents = _contents(path)
    start = 4 + 4 * len(shape)
    magic = bytes((0, 0, _UNSIGNED_BYTE, len(shape)))
    if contents[:4] != magic:
        raise DataError(
            f"{path} is not an IDX file of unsigned bytes in {len(shape)} dimensions: it begins "
            f"with 0x{contents[:4].hex()}, not 0x{magic.hex()}; download it again."
        )
    expected = start + math.prod(shape)
    if len(contents) < start:
        raise DataError(f"{path} is truncated within its header; download it again.")
    dimensions = struct.unpack(f">{len(shape)}I", contents[4:start])
    if dimensions != shape:
        raise DataError(
            f"{path} is another data set: its dimensions are {dimensions}, not {shape}; put the "
            "right file in its place."
        )
    if len(contents) != expected:
        fault = "truncated" if len(contents) < expected else "too long"
        raise DataError(
            f"{path} is {fault}: it holds {len(contents)} bytes uncompressed, not {expected}; "
            "download it again."
        )
    if md5 is not None and hashlib.md5(contents, usedforsecurity=False).hexdigest() != md5:
        raise DataError(
            f"{path} is well formed but holds other data (its uncompressed contents do not have "
            f"md5 {md5}; Fashion-MNIST's files carry the same names): put the right file in its "
            "place."
        )
    return np.frombuffer(contents, np.uint8, offset=start).reshape(shape)


def _contents(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        # Judged by content: browsers decompress files without renaming them.
        return gzip.decompress(raw) if raw.startswith(_GZIP_MAGIC) else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); download it again.") from error
