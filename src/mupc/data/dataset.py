"""What every data set is: arrays for training, validation and testing, and how they were made."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Integer

# One seed for every data set and run, so that runs with different seeds share the validation part.
_VALIDATION_SEED = 20240229


class DataError(ValueError):
    """Data that cannot be had or used; the message says what is wrong and what to do."""


class Split(NamedTuple):
    """Samples `x` and their targets `y` (one-hot for classification), one row a sample."""

    x: Float32[np.ndarray, "n inputs"]
    y: Float32[np.ndarray, "n outputs"]


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
        """The width of x."""
        return self.train.x.shape[1]

    @property
    def outputs(self) -> int:
        """The width of y: for classification the number of classes."""
        return self.train.y.shape[1]


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
