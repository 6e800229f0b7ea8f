"""What training and evaluation require of a data set."""

from typing import Any

import numpy as np

from mupc.data.dataset import Dataset
from mupc.data.split import Split, finite_rows, in_32_bits


def check_dataset(data: object) -> None:
    """Check that something is a data set, whose splits can be trained and evaluated on.

    Raises:
        TypeError: if it is none.
        ValueError: if a split is not as it should be.
    """
    if not isinstance(data, Dataset):
        raise TypeError(
            f"data must be a mupc.data.Dataset, got {type(data).__name__}: mupc.data.load gives "
            "one, and mupc.data.Dataset.from_arrays(x, y) makes one of arrays"
        )
    check_split(data.train, "the training split")
    for name, split in {"validation": data.validation, "test": data.test}.items():
        if split is not None:
            check_split(split, f"the {name} split")
            for part, array, training in zip("xy", split, data.train, strict=True):
                if array.shape[1:] != training.shape[1:]:
                    raise ValueError(
                        f"{part} of the {name} split has samples of shape {array.shape[1:]}, and "
                        f"those of the training split have shape {training.shape[1:]}"
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
        _check_array(array, part, name)
    if not in_32_bits(split.x):
        raise ValueError(
            f"x of {name} has whole numbers of more than 32 bits, which JAX would cut short: give "
            "them as floating-point numbers"
        )
    if len(split.x) != len(split.y):
        raise ValueError(
            f"{name} has {len(split.x):,} samples in x and {len(split.y):,} in y: give as many"
        )


def _check_array(array: Any, part: str, name: str) -> None:
    if getattr(getattr(array, "dtype", None), "kind", "?") not in "biuf":
        kind = getattr(array, "dtype", type(array).__name__)
        raise TypeError(f"{part} of {name} must be an array of real numbers, not of {kind}")
    if array.ndim < 2 and part == "y":
        raise ValueError(
            f"y of {name} has shape {array.shape}: give each sample a row, (n, outputs); "
            "mupc.data.Dataset.from_arrays takes labels, and mupc.data.one_hot makes rows of them"
        )
    if not array.size:
        raise ValueError(f"{part} of {name} is empty: it has shape {array.shape}")
    if (bad := np.flatnonzero(~finite_rows(np.asarray(array)))).size:
        raise ValueError(
            f"{part} of {name} is not finite in {bad.size:,} of {len(array):,} samples, the "
            f"first of them number {bad[0]}: remove or replace them"
        )
