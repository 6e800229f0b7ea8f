"""Digits: 1,797 grey images of 8 × 8 pixels in ten classes, which scikit-learn carries along."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from mupc.data.dataset import Dataset
from mupc.data.scaling import standardise
from mupc.data.sources import Known
from mupc.data.split import DataError, Split
from mupc.data.targets import one_hot

# Over all pixels of the training part (1,437 × 64 values from 0 to 16).
_MEAN = 4.8861
_STD = 6.0179


def load_digits(data_dir: str | Path | None = None) -> Dataset:
    """Return the digits, a fifth of them (360, stratified, always the same) for testing.

    Raises:
        DataError: if a folder is given, which would have no effect.
    """
    if data_dir is not None:
        raise DataError("digits is not read from a data folder: leave out the data folder.")
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    images, labels = datasets.load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=0.2, random_state=0, stratify=labels
    )

    def split(x: ArrayLike, y: ArrayLike) -> Split:
        pixels = np.reshape(x, (-1, 8, 8, 1))
        return Split(standardise(pixels, 1, _MEAN, _STD), one_hot(np.asarray(y), 10))

    return Dataset(
        "digits",
        train=split(train_x, train_y),
        validation=None,
        test=split(test_x, test_y),
        normalisation=f"Pixels from 0 to 16, then (x − {_MEAN}) / {_STD}.",
        classes=tuple(range(10)),
    )


DIGITS = Known("digits", load_digits)
