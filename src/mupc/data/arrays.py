"""The user's own arrays: what they must be, and the splits made of them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Num, Shaped

from mupc.data.split import DataError, Split, finite_rows, in_32_bits
from mupc.data.targets import Label, encode

SPLITS = {
    "train": ("x", "y"),
    "validation": ("x_validation", "y_validation"),
    "test": ("x_test", "y_test"),
}
"""The names of the arrays of each split."""


class Arranged(NamedTuple):
    """The splits that arrays make up, and the classes if y is labels."""

    train: Split
    validation: Split | None
    test: Split | None
    classes: tuple[Label, ...] | None


def arrange(arrays: dict[str, Shaped[np.ndarray, "..."]], where: str) -> Arranged:
    """Return the splits that arrays make up, by the names of `SPLITS`.

    x is (n, ...), of any shape; whole numbers of up to 32 bits stay such, since they may be tokens,
    and of all other numbers the precision is kept, for scaling. How y becomes targets is said at
    `mupc.data.targets.encode`.

    Args:
        arrays: by name, with x and y at least.
        where: the file, for what is said about it.

    Raises:
        DataError: if the arrays do not fit this description.
    """
    present = {split: names for split, names in SPLITS.items() if _is_there(split, arrays, where)}
    for name in (name for names in present.values() for name in names):
        if arrays[name].size == 0:
            shape = arrays[name].shape
            raise DataError(
                f"{name} of {where} is empty (shape {shape}): give at least one sample."
            )
    targets, classes = encode({y: arrays[y] for _, y in present.values()}, where)
    splits = {
        split: _split(arrays[x], targets[y], (x, y), where) for split, (x, y) in present.items()
    }
    for split, (x, y) in present.items():
        for name, ours, others in zip((x, y), splits["train"], splits[split], strict=True):
            _check_alike(name, ours, others, where)
    train, validation, test = (splits.get(split) for split in SPLITS)
    assert train is not None  # _is_there has refused
    return Arranged(train, validation, test, classes)


def _is_there(split: str, arrays: dict[str, np.ndarray], where: str) -> bool:
    """Return whether a split has its two arrays; the training split must have them."""
    names = SPLITS[split]
    absent = [name for name in names if name not in arrays]
    if absent and (split == "train" or len(absent) == 1):
        raise DataError(
            f"{where} lacks the array '{absent[0]}': the {split} split has two, {names[0]} and "
            f"{names[1]}."
        )
    return not absent


def _split(
    x: np.ndarray, targets: Num[np.ndarray, "n ..."], names: tuple[str, str], where: str
) -> Split:
    at = f"{names[0]} of {where}"
    if x.dtype.kind not in "biuf":
        raise DataError(f"{at} is of type {x.dtype}: expected an array of real numbers.")
    if x.ndim < 2:
        raise DataError(
            f"{at} has shape {x.shape}: expected one row for each sample, (n, features), or more "
            "axes, such as (n, height, width, channels)."
        )
    if len(x) != len(targets):
        raise DataError(
            f"{where} has {len(x)} samples in {names[0]} but {len(targets)} in {names[1]}: give "
            "one target for each sample."
        )
    if (bad := np.flatnonzero(~finite_rows(x))).size:
        raise DataError(
            f"{at} has NaN or infinite values in {bad.size} of {len(x)} samples, the first of them "
            f"number {bad[0]}: remove or replace them."
        )
    whole = x.dtype.kind in "iu" and in_32_bits(x)
    kept = x.dtype if whole else np.promote_types(x.dtype, np.float32)
    native = kept.newbyteorder("=")  # JAX takes no other
    return Split(np.ascontiguousarray(x.astype(native, copy=False)), targets)


def _check_alike(name: str, training: np.ndarray, array: np.ndarray, where: str) -> None:
    if array.shape[1:] != training.shape[1:]:
        raise DataError(
            f"{name} of {where} has samples of shape {array.shape[1:]}, and those of the training "
            f"split have shape {training.shape[1:]}: all splits must be made the same way."
        )
