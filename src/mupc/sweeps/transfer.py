"""Do learning rates found on a small network serve a large one? The verdict, from accuracies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_RESAMPLES, _RESAMPLE_SEED = 4000, 0
_INTERVAL = (2.5, 97.5)  # per cent


class Cell(NamedTuple):
    """A place in the grid: of the learning rate and of the inference's number."""

    rate: int
    other: int


class Verdict(NamedTuple):
    """What reusing the base's optimum costs at another size.

    Attributes:
        base: the optimum of the base.
        best: the optimum of the target, among what was tried there.
        accuracy: of the target at its own optimum, mean over seeds.
        reused: of the target at the base's optimum.
        loss: their difference; it is never negative, and since the optimum is the best of what
            was seen, rather too large than too small.
        interval: of the loss, 95 % of bootstrap resamples of the seeds; None for one seed.
        moved: steps of the grid from the base's optimum to the target's.
        at_edge: whether one of the two lies at an edge of what was tried, so that there may be a
            better one beyond.
    """

    base: Cell
    best: Cell
    accuracy: float
    reused: float
    loss: float
    interval: tuple[float, float] | None
    moved: Cell
    at_edge: bool


def optimum(
    accuracies: Float[np.ndarray, "seeds rates others"], preferred: Cell | None = None
) -> Cell:
    """Give the place of the highest mean over seeds; of several the preferred one, or the first.

    Places that are nan were not tried.

    Raises:
        ValueError: if nothing was tried.
    """
    means = np.mean(accuracies, axis=0)
    if np.all(np.isnan(means)):
        raise ValueError("no place of the grid was tried with every seed")
    if preferred is not None and means[preferred] == np.nanmax(means):
        return preferred
    return Cell(*map(int, np.unravel_index(np.nanargmax(means), means.shape)))


def verdict(
    base: Float[np.ndarray, "seeds rates others"], target: Float[np.ndarray, "seeds rates others"]
) -> Verdict:
    """Judge the transfer from one size to another.

    Args:
        base: accuracies at the base's size.
        target: accuracies at the target's, on the same grid; nan for what was not tried, as the
            base's optimum must have been.

    Raises:
        ValueError: if the shapes differ, or nothing was tried, or not the base's optimum.
    """
    if base.shape != target.shape:
        raise ValueError(f"grids of shapes {base.shape} and {target.shape} cannot be compared")
    means, at_base = np.mean(target, axis=0), optimum(base)
    best = optimum(target, preferred=at_base)
    if np.isnan(means[at_base]):
        raise ValueError("the base's optimum was not tried at the target")
    interval = None
    if (seeds := len(base)) > 1:
        # In a resample the base's optimum may be one that was not tried at the target.
        tried = np.where(np.isnan(means), np.nan, base)
        draws = np.random.default_rng(_RESAMPLE_SEED).integers(seeds, size=(_RESAMPLES, seeds))
        losses = [_loss(tried[draw], target[draw]) for draw in draws]
        low, high = np.percentile(losses, _INTERVAL)
        interval = (float(low), float(high))
    return Verdict(
        base=at_base,
        best=best,
        accuracy=float(means[best]),
        reused=float(means[at_base]),
        loss=float(means[best] - means[at_base]),
        interval=interval,
        moved=Cell(abs(best.rate - at_base.rate), abs(best.other - at_base.other)),
        at_edge=_at_edge(base, at_base) or _at_edge(target, best),
    )


def _loss(base: Float[np.ndarray, "s r o"], target: Float[np.ndarray, "s r o"]) -> float:
    means = np.mean(target, axis=0)
    return float(np.nanmax(means) - means[optimum(base)])


def _at_edge(accuracies: Float[np.ndarray, "seeds rates others"], cell: Cell) -> bool:
    """Say whether a neighbour, along an axis that has more than one place, was not tried."""
    tried = ~np.isnan(np.mean(accuracies, axis=0))
    for axis, place in enumerate(cell):
        line = np.take(tried, cell[1 - axis], axis=1 - axis)
        if len(line) < 2:
            continue
        neighbours = [place - 1, place + 1]
        if any(not 0 <= n < len(line) or not line[n] for n in neighbours):
            return True
    return False


def around(cell: Cell, shape: Sequence[int], near: Sequence[int] | None) -> list[Cell]:
    """Give the places at most `near` steps from one; all of them if that is None."""
    rates, others = shape
    reach = near or (rates, others)
    return [
        Cell(i, j)
        for i in range(rates)
        for j in range(others)
        if abs(i - cell.rate) <= reach[0] and abs(j - cell.other) <= reach[1]
    ]
