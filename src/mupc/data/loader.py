"""Which samples make up a batch: a pure function of the seed and the step, so runs can resume."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Int64
from numpy.typing import ArrayLike

from mupc.data.split import DataError, Split


class Weights:
    """How often each sample of a training split is drawn, relative to the others.

    Args:
        values: numbers of at least 0, one for each sample.

    Raises:
        DataError: if they are not such numbers, or all are 0.
    """

    def __init__(self, values: ArrayLike) -> None:
        try:
            array = np.array(values, np.float64)
        except (TypeError, ValueError):
            array = np.zeros(())
        if array.ndim != 1 or not np.all(np.isfinite(array) & (array >= 0)) or not array.any():
            raise DataError(
                "weights must be numbers of at least 0, one for each sample, and not all of them "
                "zero."
            )
        self.values = array / np.max(array)  # the sum of huge ones would overflow
        self.values.flags.writeable = False  # orders that were drawn are kept

    def draw(self, generator: np.random.Generator) -> Int64[np.ndarray, " size"]:
        """Draw as many samples as there are, in order.

        Each is drawn as often as its share of them says, rounded up or down at random, which keeps
        the spread smallest (systematic sampling).
        """
        size = len(self.values)
        places = (generator.uniform() + np.arange(size)) / size
        shares = np.cumsum(self.values) / np.sum(self.values)
        found = np.searchsorted(shares, places, side="right")
        return np.minimum(found, np.flatnonzero(self.values)[-1])  # of rounding at the end


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Return the number of whole batches in `size` samples; the last, partial one is dropped."""
    if not 1 <= batch_size <= size:
        raise ValueError(
            f"batch_size is {batch_size}: choose one from 1 to {size}, the number of samples."
        )
    return size // batch_size


def batch_indices(
    seed: int, step: int, size: int, batch_size: int, weights: Weights | None = None
) -> Int64[np.ndarray, " batch_size"]:
    """Return the samples of the batch at `step` (from 0), out of `size`; read-only.

    Each epoch of `steps_per_epoch(size, batch_size)` steps goes through its own permutation of the
    samples; with weights, of as many samples, which are drawn for that epoch by their weights.

    Raises ValueError unless 1 ≤ batch_size ≤ size and neither seed nor step is negative.
    """
    if weights is not None and len(weights.values) != size:
        raise ValueError(f"there are {len(weights.values)} weights for {size} samples.")
    if seed < 0 or step < 0:
        raise ValueError(f"seed is {seed} and step is {step}: neither may be negative.")
    epoch, place = divmod(step, steps_per_epoch(size, batch_size))
    return epoch_order(seed, epoch, size, weights)[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=32)  # an epoch asks for its permutation once a step, of several runs in turn
def epoch_order(
    seed: int, epoch: int, size: int, weights: Weights | None
) -> Int64[np.ndarray, " size"]:
    """Return the order of the samples of an epoch; read-only."""
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(size if weights is None else weights.draw(generator))
    order.flags.writeable = False  # the cache hands the same array out again
    return order


def evaluation_batches(split: Split, batch_size: int) -> Iterator[Split]:
    """Return an iterator over all samples in order; the last batch may be smaller.

    Raises ValueError if batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: choose at least 1.")
    starts = range(0, len(split.x), batch_size)
    return (
        Split(split.x[start : start + batch_size], split.y[start : start + batch_size])
        for start in starts
    )
