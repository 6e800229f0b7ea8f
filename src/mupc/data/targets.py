"""Targets as networks predict them: one-hot rows of labels, or rows of numbers."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Integer, Shaped

from mupc.data.split import DataError, warn

Label = str | int
"""The name of a class: a whole number or text."""

# Up to this many classes, one-hot targets are small. More of them, if most samples have one of
# their own, are quantities or identifiers, and a column for each would fill the memory.
_FEW_CLASSES = 1000
# Whole numbers written with a decimal point are taken for labels of so few kinds.
_FEW_VALUES = 100


class Encoded(NamedTuple):
    """Targets of several splits, by name, and the classes if they are labels."""

    targets: dict[str, Float32[np.ndarray, "n ..."]]
    classes: tuple[Label, ...] | None


def one_hot(labels: Integer[np.ndarray, " n"], classes: int) -> Float32[np.ndarray, "n classes"]:
    """Return a row for each label, 1 in the label's column and 0 elsewhere."""
    y = np.zeros((len(labels), classes), np.float32)
    y[np.arange(len(labels)), labels] = 1
    return y


def encode(given: dict[str, Shaped[np.ndarray, "..."]], where: str) -> Encoded:
    """Return targets of what users give: labels, or targets that are numbers.

    Labels are whole numbers, truth values or text of shape (n,). The classes are those that occur
    in training, in sorted order. Numbers with a decimal point are targets: (n,) is one output for
    each sample, and (n, ..., outputs) is taken as it is.

    Args:
        given: y of each split by the name of its array, that of the training split first.
        where: the file, for what is said about it.

    Raises:
        DataError: if an array is neither, or if splits differ in what they are.
    """
    kinds = {name: _kind(y, f"{name} of {where}") for name, y in given.items()}
    (first, kind), *others = kinds.items()
    for name, other in others:
        if other != kind:
            raise DataError(
                f"{first} of {where} is {kind} and {name} is {other}: both must be made the same "
                "way."
            )
    if kind == _TARGETS:
        return Encoded({name: _numbers(y, f"{name} of {where}") for name, y in given.items()}, None)
    labels = {name: _plain(y) for name, y in given.items()}
    classes = _classes(labels[first], f"{first} of {where}")
    rows = {name: _rows(y, classes, f"{name} of {where}") for name, y in labels.items()}
    return Encoded(rows, tuple(classes.tolist()))


_LABELS, _TEXT, _TARGETS = "labels of whole numbers", "labels of text", "numbers to predict"


def _kind(y: np.ndarray, where: str) -> str:
    """Return what targets are."""
    if y.ndim == 1 and y.dtype.kind in "biu":
        return _LABELS
    if y.ndim == 1 and _is_text(y):
        return _TEXT
    if y.dtype.kind not in "biuf":
        raise DataError(
            f"{where} is {y.dtype} of shape {y.shape}: expected labels, whole numbers or text of "
            "shape (n,), or real numbers to predict, (n, outputs)."
        )
    # A column of whole numbers could be meant as labels or as a target of width 1.
    if y.dtype.kind in "iu" and y.shape[1:] == (1,):
        raise DataError(
            f"{where} is {y.dtype} of shape {y.shape}: expected labels of shape (n,), which "
            "y[:, 0] is, or floating-point numbers to predict."
        )
    return _TARGETS


def _is_text(y: np.ndarray) -> bool:
    return y.dtype.kind in "UST" or (y.dtype.kind == "O" and all(isinstance(v, str) for v in y))


def _plain(labels: np.ndarray) -> np.ndarray:
    """Return labels as whole numbers or text: bytes are UTF-8, and true is 1."""
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8")
    if labels.dtype.kind in "OT":
        return labels.astype(str)
    return labels.astype(int) if labels.dtype.kind == "b" else labels


def _classes(labels: np.ndarray, where: str) -> np.ndarray:
    """Return the labels that occur, sorted."""
    classes = np.unique(labels)
    count = len(classes)
    if count > max(_FEW_CLASSES, len(labels) // 2):
        raise DataError(
            f"{where} has {count} different labels in {len(labels)} samples: if they are "
            "quantities to predict, give floating-point numbers."
        )
    if labels.dtype.kind in "iu" and (classes[0] != 0 or int(classes[-1]) != count - 1):
        warn(
            f"the labels of {where}, {_listed(classes)}, are not 0 to {count - 1} without gaps: "
            f"{_counted(count)} made of them, in this order, and a label that does not occur is "
            "no class."
        )
    return classes


def _counted(count: int) -> str:
    return "one class is" if count == 1 else f"{count} classes are"


def _rows(labels: np.ndarray, classes: np.ndarray, where: str) -> Float32[np.ndarray, "n classes"]:
    places = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    if (unknown := labels[classes[places] != labels]).size:
        raise DataError(
            f"{where} has labels that no training sample has, {_listed(np.unique(unknown))}: "
            "remove these samples, or add samples of these classes to the training split."
        )
    return one_hot(places, len(classes))


def _numbers(y: np.ndarray, where: str) -> Float32[np.ndarray, "n ..."]:
    if y.ndim == 1:
        values = np.unique(y)
        if len(values) <= min(_FEW_VALUES, len(y) // 2) and np.all(values == np.round(values)):
            warn(
                f"{where} is {y.dtype} of whole numbers, {_listed(values)}, and is taken as one "
                "number to predict for each sample: if they are labels, give whole numbers, "
                "y.astype(int); if not, shape (n, 1) says so."
            )
        y = y[:, None]
    return in_float32(y, where)


def in_float32(array: np.ndarray, where: str) -> Float32[np.ndarray, "..."]:
    """Return numbers in single precision.

    Raises:
        DataError: if some are not finite there.
    """
    with np.errstate(over="ignore"):
        result = array.astype(np.float32, order="C", copy=False)
    if not np.isfinite(result).all():
        raise DataError(f"{where} has NaN or infinite values (in float32): remove or replace them.")
    return result


def _listed(values: np.ndarray) -> str:
    """Return values in a row, the middle of a long one left out."""
    words = [str(value) for value in values.tolist()]
    return ", ".join(words if len(words) <= 10 else [*words[:5], "...", *words[-2:]])
