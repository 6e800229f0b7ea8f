"""CIFAR-10: 50,000 + 10,000 colour images of 32 × 32 pixels in ten classes."""

import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8

from mupc.data.dataset import DataError, Dataset, Split, one_hot, standardise
from mupc.data.sources import Source, files, require_balanced

_ARCHIVE = "cifar-10-binary.tar.gz"
_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = "test_batch.bin"
_IMAGES = 10_000  # in each file
_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the pixels as channel, row, column

# Of the training pixels of each channel (red, green, blue), divided by 255.
_MEAN = (0.4914, 0.4822, 0.4465)
_STD = (0.2470, 0.2435, 0.2616)

CIFAR10 = Source(
    "cifar10", "https://www.cs.toronto.edu/~kriz/", {_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"}
)


def load_cifar10(data_dir: str | Path | None) -> Dataset:
    """Return CIFAR-10 (Krizhevsky, 2009), each image flat in channel, row, column order."""
    path = files(CIFAR10, data_dir)[_ARCHIVE]
    records = _read_archive(path)
    return Dataset(
        CIFAR10.name,
        train=_split(np.concatenate([records[name] for name in _TRAIN]), path),
        validation=None,
        test=_split(records[_TEST], path),
        normalisation="Pixels were divided by 255, then (x − mean) / std by channel, with means "
        "0.4914, 0.4822, 0.4465 and stds 0.2470, 0.2435, 0.2616.",
    )


def _split(records: UInt8[np.ndarray, "n 3073"], path: Path) -> Split:
    labels, pixels = records[:, 0], records[:, 1:]
    require_balanced(labels, CIFAR10.name, path)
    channels = pixels.reshape(-1, 3, 32 * 32)
    x = standardise(channels, 255, np.reshape(_MEAN, (3, 1)), np.reshape(_STD, (3, 1)))
    return Split(x.reshape(-1, 3 * 32 * 32), one_hot(labels, 10))


def _read_archive(path: Path) -> dict[str, UInt8[np.ndarray, "10000 3073"]]:
    """Return the records of the six files of the archive, read in one pass, by file name."""
    records: dict[str, UInt8[np.ndarray, "10000 3073"]] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name in (*_TRAIN, _TEST):
                    records[name] = _read_member(archive, member, path)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        reason = str(error).partition(":\n")[0]  # tarfile lists every compression it tried
        raise DataError(
            f"{path} cannot be read as a tar archive ({reason}); download it again from "
            f"{CIFAR10.url}{_ARCHIVE}."
        ) from error
    absent = [name for name in (*_TRAIN, _TEST) if name not in records]
    if absent:
        raise DataError(
            f"{path} is not CIFAR-10's binary version: it lacks {', '.join(absent)}; download "
            f"{CIFAR10.url}{_ARCHIVE}."
        )
    return records


def _read_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path
) -> UInt8[np.ndarray, "10000 3073"]:
    file = archive.extractfile(member)
    if file is None or member.size != _IMAGES * _RECORD:
        raise DataError(
            f"{path} is not CIFAR-10's binary version: its {member.name} holds {member.size} "
            f"bytes, not {_IMAGES * _RECORD}; download {CIFAR10.url}{_ARCHIVE}."
        )
    return np.frombuffer(file.read(), np.uint8).reshape(_IMAGES, _RECORD)
