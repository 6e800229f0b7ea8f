"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour images of 32 × 32 pixels."""

import pickle
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
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

_PIXELS = 3 * 32 * 32  # bytes of an image, as channel, row, column


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets.

    Attributes:
        source: its archive.
        train, test: names of its files, with .bin after them in the binary version, and how many
            images each holds.
        labels: bytes before an image in the binary version; the last is its label.
        key: of the labels in the Python version.
        mean, std: of the training pixels of each channel (red, green, blue), divided by 255.
        classes: the names of the labels.
    """

    source: Source
    train: dict[str, int]
    test: dict[str, int]
    labels: int
    key: bytes
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...]

    @property
    def archive(self) -> str:
        """The name of the published file."""
        return next(iter(self.source.md5))

    @property
    def address(self) -> str:
        """Where that file is published."""
        return self.source.url + self.archive


_URL = "https://www.cs.toronto.edu/~kriz/"


def _source(name: str, stem: str, md5: str, folders: tuple[str, ...]) -> Source:
    """Return the binary version's source; either version, packed or not, stands for it."""
    archive = f"{stem}-binary.tar.gz"
    others = (f"{stem}-python.tar.gz", *folders, f"{stem}-binary.tar", f"{stem}-python.tar")
    return Source(name, _URL, {archive: md5}, {archive: others})


_TEN = "airplane automobile bird cat deer dog frog horse ship truck"
_HUNDRED = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


_CIFAR10 = Cifar(
    source=_source(
        "cifar10",
        "cifar-10",
        "c32a1d4ab5d03f1284b67883e8d87530",
        ("cifar-10-batches-py/", "cifar-10-batches-bin/"),
    ),
    train={f"data_batch_{number}": 10_000 for number in range(1, 6)},
    test={"test_batch": 10_000},
    labels=1,
    key=b"labels",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    classes=tuple(_TEN.split()),
)

_CIFAR100 = Cifar(
    source=_source(
        "cifar100",
        "cifar-100",
        "03b5dce01913d631647c71ecec9e9cb8",
        ("cifar-100-python/", "cifar-100-binary/"),
    ),
    train={"train": 50_000},
    test={"test": 10_000},
    labels=2,
    key=b"fine_labels",
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    classes=tuple(_HUNDRED.split()),
)

Records = UInt8[np.ndarray, "n 3073"]
"""A label and the pixels of every image."""


def load_cifar(which: Cifar, data_dir: str | Path | None) -> Dataset:
    """Return CIFAR-10 or CIFAR-100 (Krizhevsky, 2009), from its binary or its Python version."""
    path = files(which.source, data_dir)[which.archive]
    names = {**which.train, **which.test}
    records = {
        name.removesuffix(".bin"): _records(which, name, contents, path)
        for name, contents in (_folder(path, names) if path.is_dir() else _archive(path, names))
    }
    if absent := [name for name in names if name not in records]:
        raise DataError(
            f"{path} is not whole: it lacks {', '.join(absent)}; download {which.address}."
        )
    means, stds = (", ".join(f"{n:.4f}" for n in numbers) for numbers in (which.mean, which.std))
    return Dataset(
        which.source.name,
        train=_split(which, [records[name] for name in which.train], path),
        validation=None,
        test=_split(which, [records[name] for name in which.test], path),
        normalisation="Pixels were divided by 255, then (x − mean) / std by channel, with means "
        f"{means} and stds {stds}.",
        classes=which.classes,
    )


CIFAR10 = Known("cifar10", lambda data_dir: load_cifar(_CIFAR10, data_dir), _CIFAR10.source)
CIFAR100 = Known("cifar100", lambda data_dir: load_cifar(_CIFAR100, data_dir), _CIFAR100.source)


def _split(which: Cifar, records: list[Records], path: Path) -> Split:
    joined, classes = np.concatenate(records), len(which.classes)
    labels = joined[:, 0]
    require_balanced(labels, classes, which.source.name, path)
    images = joined[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    pixels = standardise(images, 255, np.array(which.mean), np.array(which.std))
    return Split(pixels, one_hot(labels, classes))


def _folder(path: Path, names: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Return the name and contents of each batch of a folder."""
    try:
        for file in path.iterdir():
            if file.name.removesuffix(".bin") in names:
                yield file.name, file.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error


def _archive(path: Path, names: dict[str, int]) -> Iterator[tuple[str, bytes]]:
    """Return the name and contents of each batch of an archive, read in one pass."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                own = name.removesuffix(".bin") in names and member.isfile()
                if own and (file := archive.extractfile(member)) is not None:
                    yield name, file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        reason = str(error).partition(":\n")[0]  # tarfile lists every compression it tried
        raise DataError(
            f"{path} cannot be read as a tar archive ({reason}); download it again from "
            f"{_URL}{path.name}."
        ) from error


def _records(which: Cifar, name: str, contents: bytes, path: Path) -> Records:
    """Return labels and pixels of a batch of either version."""
    images = {**which.train, **which.test}[name.removesuffix(".bin")]
    if not name.endswith(".bin"):
        return _python_records(which, name, contents, path, images)
    if len(contents) != (size := images * (which.labels + _PIXELS)):
        raise DataError(
            f"{path} is not {which.source.name}: its {name} holds {len(contents)} bytes, not "
            f"{size}; download {which.address}."
        )
    rows = np.frombuffer(contents, np.uint8).reshape(images, which.labels + _PIXELS)
    return rows[:, which.labels - 1 :]


def _python_records(which: Cifar, name: str, contents: bytes, path: Path, images: int) -> Records:
    try:
        batch = read_array_pickle(contents)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is damaged or not to be trusted: its {name} is no pickle of arrays alone "
            f"({error}); download {which.address}."
        ) from error
    values = cast(dict[object, object], batch) if isinstance(batch, dict) else {}
    pixels, labels = values.get(b"data"), values.get(which.key)
    if not (
        isinstance(pixels, np.ndarray)
        and (pixels.shape, pixels.dtype) == ((images, _PIXELS), np.uint8)
        and isinstance(labels, list)
        and len(cast(list[object], labels)) == images
    ):
        raise DataError(
            f"{path} is not {which.source.name}: its {name} does not hold the arrays data, of "
            f"shape {(images, _PIXELS)}, and {which.key.decode()}; download {which.address}."
        )
    numbers, classes = np.asarray(labels), len(which.classes)
    if numbers.dtype.kind != "i" or not 0 <= numbers.min() <= numbers.max() < classes:
        raise DataError(
            f"{path} is not {which.source.name}: the labels of its {name} are not 0 to "
            f"{classes - 1}."
        )
    return np.concatenate([numbers.astype(np.uint8)[:, None], pixels], axis=1)
