"""The scale of x: choices, whose statistics are those of the training split, and a warning."""

import difflib
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float32, Float64, Num

from mupc.data.split import DataError, Split, warn
from mupc.data.targets import in_float32

Scaling = Literal["none", "standardise", "unit"]
"""How x is scaled: not at all, to mean 0 and standard deviation 1, or to 0 to 1."""

# A root mean square above the first, or a largest number below the second, is far from 1.
_LARGE, _SMALL = 5.0, 0.01
_ROWS = 1024  # at once in double precision


class Affine(NamedTuple):
    """x becomes (x − offset) / factor; they broadcast against one sample."""

    offset: Float64[np.ndarray, "..."]
    factor: Float64[np.ndarray, "..."]
    sentence: str


def standardise(
    x: np.ndarray, scale: float, mean: np.ndarray | float, std: np.ndarray | float
) -> Float32[np.ndarray, "..."]:
    """Return (x / scale − mean) / std in float32, working on one copy of x."""
    result = x.astype(np.float32, order="C")
    result /= np.float32(scale)
    result -= np.asarray(mean, np.float32)
    result /= np.asarray(std, np.float32)
    return result


def check_scaling(scale: str) -> None:
    """Check that a scaling is one of the choices.

    Raises:
        DataError: if not.
    """
    choices = get_args(Scaling)
    if scale in choices:
        return
    near = difflib.get_close_matches(str(scale).lower(), choices, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise DataError(f"scale is {scale!r}: {hint}The choices are {', '.join(choices)}.")


def fit_scaling(x: Num[np.ndarray, "n ..."], scale: Scaling) -> Affine | None:
    """Return how to scale, by the statistics of the training split x; None for `none`.

    Each feature of rows (n, features) has statistics of its own, and each channel of images
    (n, height, width, channels); 8-bit rows are flat images, and they and all other shapes have
    one for all numbers. Where all numbers are the same, nothing is divided.
    """
    if scale == "none":
        return None
    axes, each = _shared(x)
    if scale == "unit":
        offset, top = (np.asarray(f(x, axis=axes), np.float64) for f in (np.min, np.max))
        factor, to, by = top - offset, "0 to 1", "minimum and maximum"
    else:
        offset = np.asarray(np.mean(x, axis=axes, dtype=np.float64))
        squares = sum(np.sum((rows - offset) ** 2, axis=axes) for rows in _doubles(x))
        factor = np.sqrt(np.asarray(squares) * (offset.size / x.size))
        to, by = "mean 0 and standard deviation 1", "mean and standard deviation"
    # Numbers that are all the same differ from their mean by rounding.
    constant = factor <= 1e-12 * np.abs(offset)
    sentence = f"x was scaled to {to} by the {by}, in the training split, of {each}."
    return Affine(offset, np.where(constant, 1.0, factor), sentence)


def scaled(split: Split, affine: Affine, where: str) -> Split:
    """Return a split whose x is scaled, in float32."""
    x = np.empty(split.x.shape, np.float32)
    for first, rows in zip(range(0, len(x), _ROWS), _doubles(split.x), strict=True):
        x[first : first + _ROWS] = (rows - affine.offset) / affine.factor
    return Split(in_float32(x, where), split.y)


def may_be_tokens(split: Split) -> bool:
    """Return whether x may be indices of tokens: rows of whole numbers.

    Those of 8 bits are taken for the pixels of flat images unless the targets have positions.
    """
    x, y = split
    return x.dtype.kind in "iu" and x.ndim == 2 and (x.dtype.itemsize > 1 or y.ndim > 2)


def warn_of_range(split: Split, where: str) -> None:
    """Warn if x is far from the size, about 1, for which networks are drawn."""
    x = split.x
    some = x[:: max(1, len(x) // _ROWS)].astype(np.float64)
    low, high = (float(f(x)) for f in (np.min, np.max))
    large = float(np.sqrt(np.mean(np.square(some)))) > _LARGE
    if not large and not 0 < max(-low, high) < _SMALL:
        return
    tokens = x.ndim == 2 and x.dtype.kind in "iu"
    hint = "; tokens need whole numbers of more than 8 bits, such as x.astype(int)"
    warn(
        f"x of {where} ranges from {low:.6g} to {high:.6g}, and networks are made for numbers of "
        'about 1: scale it, by scale="standardise" or scale="unit" (--scale in commands)'
        f"{hint if tokens and x.dtype.itemsize == 1 else ''}."
    )


def _shared(x: np.ndarray) -> tuple[tuple[int, ...] | None, str]:
    """Return the axes over which statistics are taken, and what has statistics of its own."""
    if x.ndim == 2 and not (x.dtype.kind in "iu" and x.dtype.itemsize == 1):
        return (0,), "each feature"
    if x.ndim == 4:
        return (0, 1, 2), "each channel"
    return None, "all numbers"


def _doubles(x: np.ndarray) -> Iterator[Float64[np.ndarray, "..."]]:
    """Return x in double precision, some rows at a time."""
    return (x[i : i + _ROWS].astype(np.float64) for i in range(0, len(x), _ROWS))
