"""How far training goes and how often it looks around: as asked for, and over a data set."""

import dataclasses
from numbers import Integral, Real
from typing import Any, NamedTuple

from mupc.data import Dataset, check_dataset, steps_per_epoch


class Schedule(NamedTuple):
    """How many steps training has, of which size, and those between what is done now and then."""

    steps: int
    batch_size: int
    evaluate_every: int
    early_stopping: int | None
    log_every: int
    report_every: int | None

    def due(self, step: int, every: int) -> bool:
        """Return whether what is done every so many steps is done after this one."""
        return step == self.steps or step % every == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Arguments of `fit`, which says what they are."""

    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 64
    evaluate_every: int | None = None
    early_stopping: int | None = None
    log_every: int = 20
    report_every: int | None = None

    def over(self, data: Dataset) -> Schedule:
        """Return what they mean for a data set.

        Raises:
            ValueError: if one is impossible, or would have no effect.
            TypeError: if one is not what it should be.
        """
        check_dataset(data)
        for name, value in vars(self).items():
            if name == "epochs" or value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"{name} must be a whole number, got {value!r}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        epoch = steps_per_epoch(len(data.train.x), self.batch_size)
        total = _total_steps(self.epochs, self.steps, epoch)
        every, patience = self.evaluate_every, self.early_stopping
        if data.validation is None and (every, patience) != (None, None):
            raise ValueError(
                "evaluate_every and early_stopping have no effect without a validation split: "
                "leave them out, or hold a part of the data out"
            )
        check_evaluations(total, epoch, every, patience)
        size, log_every, report_every = self.batch_size, self.log_every, self.report_every
        return Schedule(total, size, every or epoch, patience, log_every, report_every)


def check_evaluations(
    total: int, epoch: int, evaluate_every: int | None, early_stopping: int | None
) -> None:
    """Refuse settings that come too late for a run of `total` steps to heed them.

    Raises:
        ValueError: if none would be made before the end, or too few to stop early.
    """
    interval = evaluate_every or epoch
    if early_stopping is not None and (early_stopping + 1) * interval >= total:
        raise ValueError(
            f"early_stopping={early_stopping} would have no effect: with an evaluation every "
            f"{interval} steps it cannot end training before step "
            f"{(early_stopping + 1) * interval}, and there are {total} steps"
        )
    if evaluate_every is not None and evaluate_every > total:
        raise ValueError(
            f"evaluate_every={evaluate_every} is more than the {total} steps of training: choose "
            "a smaller number"
        )


def _total_steps(epochs: Any, steps: int | None, epoch: int) -> int:
    if (epochs is None) == (steps is None):
        what = "neither was given" if steps is None else "not both"
        raise ValueError(f"give either epochs or steps: {what}")
    if steps is not None:
        return steps
    if isinstance(epochs, bool) or not isinstance(epochs, Real):
        raise TypeError(f"epochs must be a number, got {epochs!r}")
    if not 0 < float(epochs) < float("inf"):
        raise ValueError(f"epochs must be a number above 0, not {epochs!r}")
    if (total := round(float(epochs) * epoch)) < 1:
        raise ValueError(f"training must make at least one step, not {total}")
    return total
