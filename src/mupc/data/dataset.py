"""What every data set is: arrays for training, validation and testing, and how they were made."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Integer, Num

# One seed for every data set and run, so that runs with different seeds share the validation part.
_VALIDATION_SEED = 20240229


class DataError(ValueError):
    """Data that cannot be had or used; the message says what is wrong and what to do."""


class Split(NamedTuple):
    """Samples `x` and their targets `y`, one row a sample.

    x is of any shape, (n, ...), of real numbers, or of whole ones where they are tokens. The last
    axis of y is that of the outputs (one-hot for classes); there may be axes of positions before
    it, (n, positions, outputs).
    """

    x: Num[np.ndarray, "n ..."]
    y: Num[np.ndarray, "n ..."]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set; `normalisation` is a sentence stating what was done to x."""

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    normalisation: str

    @property
    def inputs(self) -> int:
        """How many numbers x holds for a sample; `train.x` has its shape."""
        return math.prod(self.train.x.shape[1:])

    @property
    def outputs(self) -> int:
        """The length of y's last axis: for classification the number of classes."""
        return self.train.y.shape[-1]


def check_dataset(data: object) -> None:
    """Check that something is a data set, whose splits can be trained and evaluated on.

    Raises:
        TypeError: if it is none.
        ValueError: if a split is not as it should be.
    """
    if not isinstance(data, Dataset):
        raise TypeError(
            f"data must be a mupc.data.Dataset, got {type(data).__name__}: mupc.data.load gives "
            "one, and mupc.data.Dataset(name, train, validation, test, normalisation) makes one of "
            "splits, mupc.data.Split(x, y) each"
        )
    check_split(data.train, "the training split")
    for name, split in {"validation": data.validation, "test": data.test}.items():
        if split is not None:
            check_split(split, f"the {name} split")
            for part, own, other in zip("xy", split, data.train, strict=True):
                if own.shape[1:] != other.shape[1:]:
                    raise ValueError(
                        f"{part} of the {name} split has samples of shape {own.shape[1:]}, and "
                        f"those of the training split have shape {other.shape[1:]}"
                    )


def check_split(split: object, name: str) -> None:
    """Check that something is a split of as many finite samples in x as in y.

    Raises:
        TypeError: if it is none, or holds no arrays of numbers.
        ValueError: if its arrays are not as they should be.
    """
    if not isinstance(split, Split):
        raise TypeError(f"{name}: expected a Split such as data.test, got {type(split).__name__}")
    for part, array in split._asdict().items():
        given: Any = array
        if getattr(getattr(given, "dtype", None), "kind", "?") not in "biuf":
            kind = getattr(given, "dtype", type(given).__name__)
            raise TypeError(f"{part} of {name} must be an array of real numbers, not of {kind}")
        if given.ndim < 2 and part == "y":
            raise ValueError(
                f"y of {name} has shape {given.shape}: give each sample a row, (n, outputs); of "
                "labels mupc.data.one_hot makes rows"
            )
        if not given.size:
            raise ValueError(f"{part} of {name} is empty: it has shape {given.shape}")
        if (bad := np.flatnonzero(~_finite_rows(np.asarray(given)))).size:
            raise ValueError(
                f"{part} of {name} is not finite in {bad.size:,} of {len(given):,} samples, the "
                f"first of them number {bad[0]}: remove or replace them"
            )
    if not in_32_bits(split.x):
        raise ValueError(
            f"x of {name} has whole numbers of more than 32 bits, which JAX would cut short: give "
            "them as floating-point numbers"
        )
    if len(split.x) != len(split.y):
        raise ValueError(
            f"{name} has {len(split.x):,} samples in x and {len(split.y):,} in y: give as many"
        )


def in_32_bits(array: np.ndarray) -> bool:
    """Return whether an array's numbers, if they are whole, need no more than 32 bits."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize <= 4:
        return True
    limits = np.iinfo(np.int32 if array.dtype.kind == "i" else np.uint32)
    return bool(limits.min <= np.min(array) and np.max(array) <= limits.max)


def _finite_rows(array: np.ndarray) -> np.ndarray:
    rows = array.reshape(len(array), -1)
    # A sum is finite unless a number is not, or it overflows: then one looks at every number.
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.sum(rows, dtype=np.float64)
    if np.isfinite(total):
        return np.ones(len(rows), bool)
    return np.asarray(np.isfinite(rows).all(axis=1))


def one_hot(labels: Integer[np.ndarray, " n"], classes: int) -> Float32[np.ndarray, "n classes"]:
    """Return a row for each label, 1 in the label's column and 0 elsewhere."""
    y = np.zeros((len(labels), classes), np.float32)
    y[np.arange(len(labels)), labels] = 1
    return y


def standardise(
    x: np.ndarray, scale: float, mean: np.ndarray | float, std: np.ndarray | float
) -> Float32[np.ndarray, "..."]:
    """Return (x / scale − mean) / std in float32, working on one copy of x."""
    result = x.astype(np.float32)
    result /= np.float32(scale)
    result -= np.asarray(mean, np.float32)
    result /= np.asarray(std, np.float32)
    return result


def hold_out(dataset: Dataset, fraction: float) -> Dataset:
    """Set `fraction` of the training part, but at least one sample, apart for validation.

    Which samples depends on their number and the fraction only. Both parts keep the order of the
    data set. A fraction of 0 leaves everything in the training part.
    """
    if fraction == 0:
        return dataset
    size = len(dataset.train.x)
    count = max(1, round(fraction * size))
    if count >= size:
        raise DataError(
            f"validation={fraction} of the {size} training samples of {dataset.name} leaves none "
            "to train on: choose a smaller fraction, or 0 for no validation."
        )
    held = np.zeros(size, bool)
    held[np.random.default_rng(_VALIDATION_SEED).permutation(size)[:count]] = True
    x, y = dataset.train
    return replace(dataset, train=Split(x[~held], y[~held]), validation=Split(x[held], y[held]))
