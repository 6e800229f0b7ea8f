"""MNIST and Fashion-MNIST: 60,000 + 10,000 grey images of 28 × 28 pixels in ten classes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mupc.data.dataset import Dataset
from mupc.data.idx import read_idx
from mupc.data.scaling import standardise
from mupc.data.sources import Known, Source, files, require_balanced
from mupc.data.split import Split
from mupc.data.targets import Label, one_hot

_TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
_TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
_TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
_TEST_LABELS = "t10k-labels-idx1-ubyte.gz"

# Labels first: they are small, and tell at once whose files these are.
_SHAPES = {
    _TRAIN_LABELS: (60_000,),
    _TEST_LABELS: (10_000,),
    _TRAIN_IMAGES: (60_000, 28, 28),
    _TEST_IMAGES: (10_000, 28, 28),
}


def _spellings(name: str) -> tuple[str, ...]:
    """Return what a file is called decompressed, by gzip and by 7-zip, also in a folder."""
    plain = name.removesuffix(".gz")
    dotted = plain.replace("-idx", ".idx")
    return plain, dotted, f"{plain}/{plain}", f"{plain}/{dotted}"


_SPELLINGS = {name: _spellings(name) for name in _SHAPES}

_MNIST = Source(
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    {
        _TRAIN_IMAGES: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        _TRAIN_LABELS: "d53e105ee54ea40749a09fcbcd1e9432",
        _TEST_IMAGES: "9fb629c4189551a2d022fa330f9573f3",
        _TEST_LABELS: "ec29112dd5afa0611ce80d1b7f02629c",
    },
    _SPELLINGS,
    folders=("MNIST/raw", "raw"),  # torchvision's
)

_FASHION_MNIST = Source(
    "fashion-mnist",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    {
        _TRAIN_IMAGES: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        _TRAIN_LABELS: "25c81989df183df01b3e8a0aad5dffbe",
        _TEST_IMAGES: "bef4ecab320f06d8554ea6380940ec79",
        _TEST_LABELS: "bb300cfdad3c16e7a12a480ee83cd310",
    },
    _SPELLINGS,
    folders=("FashionMNIST/raw", "raw"),
)

_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# Of the uncompressed contents: an archive compressed anew is as good as the published one.
_MNIST_CONTENTS_MD5 = {
    _TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
    _TRAIN_LABELS: "a25bea736e30d166cdddb491f175f624",
    _TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
    _TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
}


def load_mnist(data_dir: str | Path | None) -> Dataset:
    """Return MNIST (LeCun, Cortes, Burges): handwritten digits."""
    return _dataset(_MNIST.name, _mnist_arrays(data_dir), 0.1307, 0.3081, tuple(range(10)))


def mnist_images(data_dir: str | Path | None) -> list[Split]:
    """Return MNIST's training and test images as grey values from 0 to 1, with their labels."""
    arrays = _mnist_arrays(data_dir)
    names = ((_TRAIN_IMAGES, _TRAIN_LABELS), (_TEST_IMAGES, _TEST_LABELS))
    grey = lambda images: standardise(arrays[images][..., None], 255, 0.0, 1.0)  # noqa: E731
    return [Split(grey(images), one_hot(arrays[labels], 10)) for images, labels in names]


def _mnist_arrays(data_dir: str | Path | None) -> dict[str, UInt8[np.ndarray, "..."]]:
    paths = files(_MNIST, data_dir)
    return {
        name: read_idx(paths[name], shape, _MNIST_CONTENTS_MD5[name])
        for name, shape in _SHAPES.items()
    }


def load_fashion_mnist(data_dir: str | Path | None) -> Dataset:
    """Return Fashion-MNIST (arXiv 1708.07747): articles of clothing."""
    paths = files(_FASHION_MNIST, data_dir)
    arrays = {name: read_idx(paths[name], shape) for name, shape in _SHAPES.items()}
    # MNIST's files have the same names and shapes, but its classes differ in size.
    for name in (_TRAIN_LABELS, _TEST_LABELS):
        require_balanced(arrays[name], 10, _FASHION_MNIST.name, paths[name])
    return _dataset(_FASHION_MNIST.name, arrays, 0.2860, 0.3530, _CLOTHES)


def _dataset(
    name: str,
    arrays: Mapping[str, UInt8[np.ndarray, "..."]],
    mean: float,
    std: float,
    classes: tuple[Label, ...],
) -> Dataset:
    def split(images: str, labels: str) -> Split:
        x = standardise(arrays[images][..., None], 255, mean, std)
        return Split(x, one_hot(arrays[labels], 10))

    return Dataset(
        name,
        train=split(_TRAIN_IMAGES, _TRAIN_LABELS),
        validation=None,
        test=split(_TEST_IMAGES, _TEST_LABELS),
        normalisation=f"Pixels were divided by 255, then (x − {mean:.4f}) / {std:.4f}.",
        classes=classes,
    )


MNIST = Known(_MNIST.name, load_mnist, _MNIST)
FASHION_MNIST = Known(_FASHION_MNIST.name, load_fashion_mnist, _FASHION_MNIST)
