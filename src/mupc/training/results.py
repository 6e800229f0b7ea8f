"""What training reports, and what it returns."""

import dataclasses
import enum
from typing import Any

from jaxtyping import PyTree

from mupc.networks import Network


class Ended(enum.Enum):
    """Why training ended; the value is the sentence."""

    FINISHED = "all steps were made"
    STOPPED_EARLY = "the validation part was no longer predicted better"
    INTERRUPTED = "it was interrupted"
    DIVERGED = "it diverged"


@dataclasses.dataclass(frozen=True)
class TrainRecord:
    """Means over the batches since the previous record (energies at the precision of each batch).

    `energy_before` and `energy_after` are before and after inference; rules without inference
    leave both equal. `residual` (relative to where inference started) and `converged` are of the
    last batch alone: measuring them costs sweeps. They are None without inference, and in a record
    of a run that was interrupted.
    """

    step: int
    epoch: float
    loss: float
    accuracy: float | None
    energy_before: float
    energy_after: float
    inference_steps: float
    residual: float | None
    converged: float | None
    diverged: float
    precision: float
    samples_per_second: float
    seconds: float
    kind: str = "train"


@dataclasses.dataclass(frozen=True)
class ValidationRecord:
    """Loss and accuracy over the whole validation part."""

    step: int
    loss: float
    accuracy: float | None
    best: bool
    seconds: float
    kind: str = "validation"


Record = TrainRecord | ValidationRecord


@dataclasses.dataclass(frozen=True)
class FitResult:
    """The outcome of training.

    Attributes:
        network: the best on the validation part; without one the last, and after divergence the
            one before the step that failed.
        state: what the learning rule had kept by then, for its next batch.
        step: how many steps that network was trained for.
        steps: how many steps were made.
        ended: why training ended.
        message: a sentence that says so.
        records: all records, in order.
    """

    network: Network
    state: PyTree[Any]
    step: int
    steps: int
    ended: Ended
    message: str
    records: tuple[Record, ...]
