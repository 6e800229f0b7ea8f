"""Digits: 1,797 grey images of 8 × 8 pixels in ten classes, which scikit-learn carries along."""

import numpy as np
from numpy.typing import ArrayLike

from mupc.data.dataset import Dataset, Split, one_hot, standardise

# Over all pixels of the training part (1,437 × 64 values from 0 to 16).
_MEAN = 4.8861
_STD = 6.0179


def load_digits() -> Dataset:
    """Return the digits, a fifth of them (360, stratified, always the same) for testing."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    images, labels = datasets.load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=0.2, random_state=0, stratify=labels
    )

    def split(x: ArrayLike, y: ArrayLike) -> Split:
        return Split(standardise(np.asarray(x), 1, _MEAN, _STD), one_hot(np.asarray(y), 10))

    return Dataset(
        "digits",
        train=split(train_x, train_y),
        validation=None,
        test=split(test_x, test_y),
        normalisation=f"Pixels from 0 to 16, then (x − {_MEAN}) / {_STD}.",
    )
