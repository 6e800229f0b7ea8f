"""CIFAR-10: 50,000 + 10,000 colour images of 32 × 32 pixels in ten classes."""

import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
from jaxtyping import UInt8

from mupc.data.array_pickle import read_array_pickle
from mupc.data.dataset import Dataset
from mupc.data.scaling import standardise
from mupc.data.sources import Known, Source, files, require_balanced
from mupc.data.split import DataError, Split
from mupc.data.targets import one_hot

_ARCHIVE = "cifar-10-binary.tar.gz"
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"  # names of files, with .bin after them in the binary version
_IMAGES = 10_000  # in each file
_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the pixels as channel, row, column

# Of the training pixels of each channel (red, green, blue), divided by 255.
_MEAN = (0.4914, 0.4822, 0.4465)
_STD = (0.2470, 0.2435, 0.2616)

_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

# The binary and the Python version, packed, decompressed, or as folders.
_OTHERS = (
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py/",
    "cifar-10-batches-bin/",
    "cifar-10-binary.tar",
    "cifar-10-python.tar",
)

_CIFAR10 = Source(
    "cifar10",
    "https://www.cs.toronto.edu/~kriz/",
    {_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"},
    {_ARCHIVE: _OTHERS},
)

Records = UInt8[np.ndarray, "n 3073"]


def load_cifar10(data_dir: str | Path | None) -> Dataset:
    """Return CIFAR-10 (Krizhevsky, 2009), from its binary or its Python version."""
    path = files(_CIFAR10, data_dir)[_ARCHIVE]
    records = {
        name.removesuffix(".bin"): _records(name, contents, path)
        for name, contents in (_folder(path) if path.is_dir() else _archive(path))
    }
    if absent := [name for name in (*_TRAIN, _TEST) if name not in records]:
        raise DataError(
            f"{path} is not whole: it lacks {', '.join(absent)}; download {_CIFAR10.url}{_ARCHIVE}."
        )
    return Dataset(
        _CIFAR10.name,
        train=_split(np.concatenate([records[name] for name in _TRAIN]), path),
        validation=None,
        test=_split(records[_TEST], path),
        normalisation="Pixels were divided by 255, then (x − mean) / std by channel, with means "
        "0.4914, 0.4822, 0.4465 and stds 0.2470, 0.2435, 0.2616.",
        classes=_CLASSES,
    )


CIFAR10 = Known(_CIFAR10.name, load_cifar10, _CIFAR10)


def _split(records: Records, path: Path) -> Split:
    labels, pixels = records[:, 0], records[:, 1:]
    require_balanced(labels, _CIFAR10.name, path)
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(standardise(images, 255, np.array(_MEAN), np.array(_STD)), one_hot(labels, 10))


def _is_batch(name: str) -> bool:
    return name.removesuffix(".bin") in (*_TRAIN, _TEST)


def _folder(path: Path) -> Iterator[tuple[str, bytes]]:
    """Return the name and contents of each batch of a folder."""
    try:
        for file in path.iterdir():
            if _is_batch(file.name):
                yield file.name, file.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error


def _archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """Return the name and contents of each batch of an archive, read in one pass."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if _is_batch(name) and (file := archive.extractfile(member)) is not None:
                    yield name, file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        reason = str(error).partition(":\n")[0]  # tarfile lists every compression it tried
        raise DataError(
            f"{path} cannot be read as a tar archive ({reason}); download it again from "
            f"{_CIFAR10.url}{path.name}."
        ) from error


def _records(name: str, contents: bytes, path: Path) -> Records:
    """Return labels and pixels of a batch of either version."""
    if not name.endswith(".bin"):
        return _python_records(name, contents, path)
    if len(contents) != _IMAGES * _RECORD:
        raise DataError(
            f"{path} is not CIFAR-10: its {name} holds {len(contents)} bytes, not "
            f"{_IMAGES * _RECORD}; download {_CIFAR10.url}{_ARCHIVE}."
        )
    return np.frombuffer(contents, np.uint8).reshape(_IMAGES, _RECORD)


def _python_records(name: str, contents: bytes, path: Path) -> Records:
    try:
        batch = read_array_pickle(contents)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is damaged or not to be trusted: its {name} is no pickle of arrays alone "
            f"({error}); download {_CIFAR10.url}{_ARCHIVE}."
        ) from error
    values = cast(dict[object, object], batch) if isinstance(batch, dict) else {}
    pixels, labels = values.get(b"data"), values.get(b"labels")
    if not (
        isinstance(pixels, np.ndarray)
        and (pixels.shape, pixels.dtype) == ((_IMAGES, _RECORD - 1), np.uint8)
        and isinstance(labels, list)
        and len(cast(list[object], labels)) == _IMAGES
    ):
        raise DataError(
            f"{path} is not CIFAR-10: its {name} does not hold the arrays data, of shape "
            f"{(_IMAGES, _RECORD - 1)}, and labels; download {_CIFAR10.url}{_ARCHIVE}."
        )
    numbers = np.asarray(labels)
    if numbers.dtype.kind != "i" or not 0 <= numbers.min() <= numbers.max() < 10:
        raise DataError(f"{path} is not CIFAR-10: the labels of its {name} are not 0 to 9.")
    return np.concatenate([numbers.astype(np.uint8)[:, None], pixels], axis=1)
