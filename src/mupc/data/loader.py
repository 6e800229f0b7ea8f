"""Which samples make up a batch: a pure function of the seed and the step, so runs can resume."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from mupc.data.split import Split


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Return the number of whole batches in `size` samples; the last, partial one is dropped."""
    if not 1 <= batch_size <= size:
        raise ValueError(
            f"batch_size is {batch_size}: choose one from 1 to {size}, the number of samples."
        )
    return size // batch_size


def batch_indices(
    seed: int, step: int, size: int, batch_size: int
) -> Int64[np.ndarray, " batch_size"]:
    """Return the samples of the batch at `step` (from 0), out of `size`; read-only.

    Each epoch of `steps_per_epoch(size, batch_size)` steps goes through its own permutation.

    Raises ValueError unless 1 ≤ batch_size ≤ size and neither seed nor step is negative.
    """
    if seed < 0 or step < 0:
        raise ValueError(f"seed is {seed} and step is {step}: neither may be negative.")
    epoch, place = divmod(step, steps_per_epoch(size, batch_size))
    return _permutation(seed, epoch, size)[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=32)  # an epoch asks for its permutation once a step, of several runs in turn
def _permutation(seed: int, epoch: int, size: int) -> Int64[np.ndarray, " size"]:
    order = np.random.default_rng((seed, epoch)).permutation(size)
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
