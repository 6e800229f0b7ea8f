"""Pickles of arrays of bytes, read without running what a pickle may contain.

A pickle is a program that may call anything that can be imported. Here it may call two functions of
this file in the place of NumPy's, and nothing else.
"""

import io
import pickle
from collections.abc import Callable

import numpy as np


def read_array_pickle(contents: bytes) -> object:
    """Return what a pickle holds, of dicts, lists, numbers, text, bytes and arrays of bytes.

    Text of Python 2 is read as bytes.

    Raises:
        pickle.UnpicklingError: if it would call anything else, or is damaged.
    """
    try:
        return _Arrays(io.BytesIO(contents), encoding="bytes").load()
    except pickle.UnpicklingError:
        raise
    # A damaged pickle can fail in any of these ways.
    except (
        AttributeError,
        EOFError,
        IndexError,
        KeyError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:
        raise pickle.UnpicklingError(str(error) or type(error).__name__) from error


def _array(*_: object) -> np.ndarray:
    """Stand for `_reconstruct`: an array whose type, shape and contents come after."""
    return np.empty(0, np.uint8)


def _dtype(name: bytes | str, *_: object) -> np.dtype:
    """Stand for `numpy.dtype`, of bytes."""
    if name not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"it holds an array of {name!r}, not of bytes")
    return np.dtype(np.uint8, copy=True)


_ALLOWED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): _array,  # an argument of the above, that is not looked at
    ("numpy", "dtype"): _dtype,
}


class _Arrays(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Callable[..., object]:
        if (found := _ALLOWED.get((module_name, global_name))) is not None:
            return found
        raise pickle.UnpicklingError(f"it would call {module_name}.{global_name}")
