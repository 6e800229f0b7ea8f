"""What training returns."""

import dataclasses
from typing import Any

from jaxtyping import PyTree

from mupc.learning import LearningRule
from mupc.networks import Network
from mupc.records import Ended, Record, counted


@dataclasses.dataclass(frozen=True, repr=False)
class FitResult:
    """The outcome of training.

    Attributes:
        network: the best on the validation split; without one the last, and after divergence the
            one before the step that failed.
        rule: what it was trained by.
        state: what the learning rule had kept by then, for its next batch.
        step: how many steps that network was trained for.
        steps: how many steps were made.
        ended: why training ended.
        message: a sentence that says so.
        records: all records, in order.
    """

    network: Network
    rule: LearningRule
    state: PyTree[Any]
    step: int
    steps: int
    ended: Ended
    message: str
    records: tuple[Record, ...]

    def __repr__(self) -> str:
        records = counted(len(self.records), "record")
        return f"<FitResult: {self.message}; network of step {self.step:,}, {records}>"
