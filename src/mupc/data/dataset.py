"""What every data set is: splits for training, validation and testing, and how they were made."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from mupc.data.arrays import SPLITS, arrange
from mupc.data.augmentation import Augmentation, check_augmentation
from mupc.data.loader import Weights
from mupc.data.scaling import (
    Scaling,
    check_scaling,
    fit_scaling,
    may_be_tokens,
    scaled,
    warn_of_range,
)
from mupc.data.split import DataError, Split, in_32_bits
from mupc.data.targets import Label, in_float32

# The seed of every data set and run, so that runs with different seeds share the validation split.
_VALIDATION_SEED = 20240229


def _check_weights(weights: object, samples: int, name: str) -> None:
    if not isinstance(weights, Weights | None):
        raise DataError("weights must be mupc.data.Weights(…), or given to from_arrays.")
    if weights is not None and len(weights.values) != samples:
        raise DataError(
            f"{name} has {samples} training samples but {len(weights.values)} weights: give one "
            "for each sample."
        )


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A named data set.

    Attributes:
        name: what it is called.
        train: what networks are trained on.
        validation: the held-out split by which the best network is chosen, if there is one.
        test: what the result is evaluated on, if there is such a split.
        normalisation: a sentence stating what was done to x.
        classes: the label of each of y's columns, if y is one-hot.
        weights: how often each sample of the training split is drawn, if not all alike.
        augment: what is done to images each time that training sees them; see `mupc.data.load`.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    normalisation: str
    classes: tuple[Label, ...] | None = None
    weights: Weights | None = None
    augment: Augmentation = "none"

    def __post_init__(self) -> None:
        check_augmentation(self.augment, self.shape)
        _check_weights(self.weights, len(self.train.x), self.name)

    @classmethod
    def from_arrays(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        x_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
        *,
        validation: float | tuple[ArrayLike, ArrayLike] = 0.0,
        scale: Scaling = "none",
        weights: ArrayLike | None = None,
        name: str = "arrays",
        seed: int = 0,
    ) -> "Dataset":
        """Return a data set of arrays, or of what NumPy makes arrays of.

        Args:
            x: inputs (n, ...) of any shape: rows (n, features), images (n, height, width, channels)
                or tokens, which are whole numbers (n, length).
            y: labels (n,), whole numbers or text, whose classes are those that occur here; or
                numbers to predict, (n,) or (n, ..., outputs), with a decimal point.
            x_test: inputs of the test split.
            y_test: its labels or numbers.
            validation: the fraction of the samples to hold out, in [0, 1), or the validation split
                itself, (x, y).
            scale: `none`, `standardise` or `unit`; see `mupc.data.load`.
            weights: how often each sample of x is drawn in training, relative to the others, (n,);
                evaluations count all alike.
            name: what the data set is called.
            seed: draws which samples are held out.

        Raises:
            DataError: if the arrays are not as they should be.
        """
        given = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
        if isinstance(validation, tuple):
            given["x_validation"], given["y_validation"] = validation
            validation = 0.0
        arrays = {key: np.asarray(value) for key, value in given.items() if value is not None}
        train, held, test, classes = arrange(arrays, name)
        drawn = None if weights is None else Weights(weights)
        data = cls(name, train, held, test, "", classes, drawn)
        return prepare(data, validation, scale, seed)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of x for one sample."""
        return self.train.x.shape[1:]

    @property
    def inputs(self) -> int:
        """The number of features of one sample, the product of its `shape`."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """The length of y's last axis: for classification the number of classes."""
        return self.train.y.shape[-1]

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 sum of x and y of all splits, and of weights, in 16 hexadecimal digits.

        It changes with their numbers, types and shapes, and not with the data set's name or the
        place of its files. It is computed once: arrays that are written to later keep it.
        """
        digest = hashlib.sha256()
        for name in SPLITS:
            split: Split | None = getattr(self, name)
            digest.update(f"{name} {split}\n".encode())  # types and shapes
            for array in () if split is None else split:
                digest.update(np.ascontiguousarray(array).data)
        if self.weights is not None:
            digest.update(self.weights.values.data)
        return digest.hexdigest()[:16]

    def augmented(self, how: Augmentation) -> "Dataset":
        """Return the data set with its images changed each time that training sees them.

        `crop` shifts them by up to four pixels, `flip-crop` mirrors them too, as often as not; the
        draws depend on the seed and the step of training alone.

        Raises:
            DataError: if there are no images.
        """
        return replace(self, augment=how)

    def flattened(self) -> "Dataset":
        """Return the data set with x as rows, (n, features): what a residual MLP is trained on.

        Images are read row by row, the channels of a pixel one after the other. Whole numbers that
        might have been tokens are numbers from here on, and a range far from 1 is warned about.
        """
        if may_be_tokens(self.train):
            warn_of_range(self.train, self.name)
        return _map(self, Split.flattened)

    def reconstructed(self) -> "Dataset":
        """Return the data set whose targets are its inputs: what networks that generate learn."""
        return replace(_map(self, lambda split: Split(split.x, split.x)), classes=None)

    def reversed(self) -> "Dataset":
        """Return the data set whose inputs are classes, one-hot, and whose targets are its inputs.

        Raises:
            DataError: if there are no classes.
        """
        if self.classes is None:
            raise DataError(f"{self.name} has no classes, of which data could be generated.")
        return replace(_map(self, lambda split: Split(split.y, split.x)), classes=None)

    def __repr__(self) -> str:
        splits = "".join(f", {name}={getattr(self, name)!r}" for name in SPLITS)
        classes = None if self.classes is None else len(self.classes)
        return f"Dataset({self.name!r}{splits}, classes={classes})"


def prepare(data: Dataset, validation: float, scale: Scaling, seed: int) -> Dataset:
    """Return a data set as it is trained on: held out from, scaled, and in single precision.

    Raises:
        DataError: if one of these cannot be done.
    """
    check_scaling(scale)
    data = hold_out(data, validation, seed)
    where = f"x of {data.name}"
    if (affine := fit_scaling(data.train.x, scale)) is not None:
        data = replace(data, normalisation=f"{data.normalisation} {affine.sentence}".strip())
        return _map(data, lambda split: scaled(split, affine, where))
    data = replace(data, normalisation=data.normalisation or "x is not scaled.")
    data = _map(data, lambda split: _single(split, where))
    if not may_be_tokens(data.train):
        warn_of_range(data.train, data.name)
    return data


def hold_out(data: Dataset, fraction: float, seed: int) -> Dataset:
    """Hold `fraction` of the training split, but at least one sample, out for validation.

    Which samples depends on their number, the fraction and the seed only. Both splits keep the
    order of the data set. A fraction of 0 leaves everything in the training split.

    Raises:
        DataError: if the fraction or the seed is impossible, or there is a validation split.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"validation is {fraction}: expected a fraction of at least 0, below 1.")
    if seed < 0:
        raise DataError(f"seed is {seed}: it must not be negative.")
    if fraction == 0:
        return data
    if data.validation is not None:
        raise DataError(
            f"{data.name} has a validation split of its own: set validation to 0, not {fraction}."
        )
    size = len(data.train.x)
    count = max(1, round(fraction * size))
    if count >= size:
        raise DataError(
            f"validation={fraction} of the {size} training samples of {data.name} leaves none "
            "to train on: choose a smaller fraction, or 0 for no validation."
        )
    held = np.zeros(size, bool)
    held[np.random.default_rng(_VALIDATION_SEED + seed).permutation(size)[:count]] = True
    x, y = data.train
    weights = None if data.weights is None else Weights(data.weights.values[~held])
    train, validation = Split(x[~held], y[~held]), Split(x[held], y[held])
    return replace(data, train=train, validation=validation, weights=weights)


def _map(data: Dataset, function: Callable[[Split], Split]) -> Dataset:
    """Return a data set each split of which went through a function."""
    validation, test = (
        None if split is None else function(split) for split in (data.validation, data.test)
    )
    return replace(data, train=function(data.train), validation=validation, test=test)


def _single(split: Split, where: str) -> Split:
    """Return a split whose numbers are in single precision; whole ones of x stay such."""
    whole = split.x.dtype.kind in "iu" and in_32_bits(split.x)
    return split if whole else Split(in_float32(split.x, where), split.y)
