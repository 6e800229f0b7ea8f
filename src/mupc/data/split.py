"""Samples and their targets, and what is said of those that cannot be used."""

import inspect
import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Num


class DataError(ValueError):
    """Data that cannot be had or used; the message says what is wrong and what to do."""


class DataWarning(UserWarning):
    """Data that can be used and may not be what was meant; the message says what to do."""


class Split(NamedTuple):
    """Samples `x` and their targets `y`, one row a sample.

    x is of any shape, (n, ...), of real numbers, or of whole ones where they are tokens; images are
    (n, height, width, channels). The last axis of y is that of the outputs (one-hot for classes);
    there may be axes of positions before it, (n, positions, outputs).
    """

    x: Num[np.ndarray, "n ..."]
    y: Num[np.ndarray, "n ..."]

    def __repr__(self) -> str:
        return f"Split(x={_brief(self.x)}, y={_brief(self.y)})"

    def flattened(self) -> "Split":
        """Return the same samples with x as rows, (n, features)."""
        return Split(self.x.reshape(len(self.x), -1), self.y)


def in_32_bits(array: np.ndarray) -> bool:
    """Return whether an array's numbers, if they are whole, need no more than 32 bits."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize <= 4:
        return True
    limits = np.iinfo(np.int32 if array.dtype.kind == "i" else np.uint32)
    return bool(limits.min <= np.min(array) and np.max(array) <= limits.max)


def finite_rows(array: Num[np.ndarray, "n ..."]) -> Bool[np.ndarray, " n"]:
    """Return for each sample whether all of its numbers are finite."""
    rows = array.reshape(len(array), -1)
    # A sum is finite unless a number is not, or it overflows: then one looks at every number.
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.sum(rows, dtype=np.float64)
    if np.isfinite(total):
        return np.ones(len(rows), bool)
    return np.asarray(np.isfinite(rows).all(axis=1))


def warn(message: str) -> None:
    """Warn as if from the line that called into `mupc.data`, which is the one to change."""
    room = __name__.rpartition(".")[0]
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(room):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DataWarning, stacklevel=level)


def _brief(array: Any) -> str:
    shape, dtype = getattr(array, "shape", None), getattr(array, "dtype", "")
    return type(array).__name__ if shape is None else f"{shape} {dtype}".strip()
