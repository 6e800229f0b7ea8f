"""The user's own arrays, from an `.npz` file."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from mupc.data.dataset import DataError, Dataset, Split, in_32_bits, one_hot

# Up to this many classes, one-hot targets are small. Larger labels, if there are fewer samples, are
# identifiers of something, and a column for each would fill the memory.
_FEW_CLASSES = 1000

_HOW = 'save one with numpy.savez("mine.npz", x=x, y=y).'


def load_arrays(path: Path) -> Dataset:
    """Return the arrays `x`, `y` and, if the file has them, `x_test`, `y_test`.

    x is (n, ...), of any shape; whole numbers of up to 32 bits stay such, since they may be tokens.
    y is integer labels, (n,), made one-hot over the classes 0 to the largest label of both parts,
    or targets (n, ..., outputs) of floating-point numbers. Other arrays of the file are not read.

    Raises DataError if the file cannot be read or its arrays do not fit this description.
    """
    arrays = _read(path)
    for key in ("x", "y"):
        if key not in arrays:
            raise DataError(f"{path} lacks the array '{key}': {_HOW}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(f"{path} has only one of x_test and y_test: give both or neither.")
    for key, array in arrays.items():
        _require_samples(array, f"{key} of {path}")
    labels = [arrays[key] for key in ("y", "y_test") if key in arrays and _are_labels(arrays[key])]
    classes = 1 + max((int(array.max()) for array in labels), default=0)
    samples = sum(len(array) for array in labels)
    if classes > max(samples, _FEW_CLASSES):
        raise DataError(
            f"The largest label of {path} is {classes - 1}, but it has only {samples} labels: "
            "number the classes 0, 1, 2, … without gaps (numpy.unique with return_inverse does)."
        )
    train = _split(arrays, "x", "y", classes, path)
    test = _split(arrays, "x_test", "y_test", classes, path) if "x_test" in arrays else None
    if test is not None:
        _require_alike(train, test, path)
        if len(labels) == 1:
            raise DataError(f"Of y and y_test of {path} only one is labels: make them alike.")
    return Dataset(path.name, train, None, test, normalisation="x as it is given.")


def _read(path: Path) -> dict[str, np.ndarray]:
    """Return those of our four arrays that the file has, by name."""
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file: {_HOW}")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz file, or a truncated one: {_HOW}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in ("x", "y", "x_test", "y_test") if key in archive}
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"The arrays of {path} cannot be read ({error}): save them anew as arrays of numbers."
        ) from error


def _require_samples(array: np.ndarray, where: str) -> None:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} is of type {array.dtype}: give an array of real numbers.")
    if array.size == 0:
        raise DataError(f"{where} is empty (shape {array.shape}): give at least one sample.")


def _split(
    arrays: dict[str, np.ndarray], x_key: str, y_key: str, classes: int, path: Path
) -> Split:
    x, y = arrays[x_key], arrays[y_key]
    if x.ndim < 2:
        raise DataError(
            f"{x_key} of {path} has shape {x.shape}: give one row for each sample, (n, inputs)."
        )
    targets = _targets(y, classes, f"{y_key} of {path}")
    if len(x) != len(targets):
        raise DataError(
            f"{path} has {len(x)} samples in {x_key} but {len(targets)} in {y_key}: give one "
            "target for each sample."
        )
    tokens = x.dtype.kind in "iu" and in_32_bits(x)
    return Split(x if tokens else _finite(x, f"{x_key} of {path}"), targets)


def _require_alike(train: Split, test: Split, path: Path) -> None:
    for part, ours, theirs in (("x", train.x, test.x), ("y", train.y, test.y)):
        if ours.shape[1:] != theirs.shape[1:]:
            sizes = [s[0] if len(s) == 1 else s for s in (theirs.shape[1:], ours.shape[1:])]
            raise DataError(
                f"{part}_test of {path} has width {sizes[0]} but {part} has width {sizes[1]}: both "
                "parts must be made the same way."
            )


def _are_labels(y: np.ndarray) -> bool:
    return y.ndim == 1 and y.dtype.kind in "iu"


def _targets(y: np.ndarray, classes: int, where: str) -> Float32[np.ndarray, "n ..."]:
    if _are_labels(y):
        if y.min() < 0:
            raise DataError(f"{where} has the negative label {y.min()}: number classes from 0.")
        return one_hot(y, classes)
    # A column of integers could be meant as labels or as a target of width 1.
    if y.ndim < 2 or (y.dtype.kind in "iu" and y.shape[-1] == 1):
        raise DataError(
            f"{where} is {y.dtype} of shape {y.shape}: give integer class labels of shape (n,), or "
            "a matrix of floating-point targets (n, outputs)."
        )
    return _finite(y, where)


def _finite(array: np.ndarray, where: str) -> Float32[np.ndarray, "..."]:
    with np.errstate(over="ignore"):
        result = array.astype(np.float32)
    if not np.isfinite(result).all():
        raise DataError(f"{where} has NaN or infinite values (in float32): remove or replace them.")
    return result
