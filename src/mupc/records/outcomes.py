"""How runs begin and end: regimes, evaluations, results, and the outcomes of a sweep's points."""

import dataclasses
import enum
from typing import Any, NamedTuple

from mupc.records.words import counted, scores


class Ended(enum.Enum):
    """Why training ended; the value is how the sentence that says so begins."""

    FINISHED = "finished:"
    STOPPED_EARLY = "stopped early: no improvement on the validation split,"
    INTERRUPTED = "interrupted after"
    TERMINATED = "ended by SIGTERM after"
    DIVERGED = "diverged after"

    def sentence(self, steps: int, total: int) -> str:
        """Return that sentence, for training that made so many steps of those that were planned."""
        return f"{self.value} {steps:,} of {counted(total, 'step')}"


class Regime(NamedTuple):
    """The precision, and the regime number at the first batch (None without inference)."""

    precision: float
    rho: float | None


class DataSummary(NamedTuple):
    """What a run says of its data.

    Attributes:
        name: what they are called.
        shape: of one input.
        targets: the shape of one target; its last axis is an output's width.
        classes: the label of each of these; the characters, of text; None without classes.
        fingerprint: by which they are known again, wherever they lie.
    """

    name: str
    shape: tuple[int, ...]
    targets: tuple[int, ...]
    classes: tuple[str | int, ...] | None
    fingerprint: str


class Evaluation(NamedTuple):
    """How well a split is predicted: means over its samples, and over an output's positions.

    Attributes:
        accuracy: fraction of positions that are right; None without classes.
        loss: at unit precision, of one position.
        samples: how many there are.
        perplexity: exp(loss), where each of several positions predicts a class, as in text.
        error: mean squared error of a number that is predicted; None of classes.
    """

    accuracy: float | None
    loss: float
    samples: int
    perplexity: float | None = None
    error: float | None = None

    @property
    def words(self) -> str:
        """What was measured, with names."""
        return scores(self.accuracy, self.loss, self.perplexity, self.error)

    @property
    def score(self) -> tuple[float, float]:
        """What the better network has more of: accuracy, then less loss; of text, less loss.

        On a small split many networks have the same accuracy.
        """
        of_classes = self.accuracy is not None and self.perplexity is None
        return (self.accuracy or 0.0) if of_classes else 0.0, -self.loss


@dataclasses.dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        ended: why.
        message: a sentence that says so.
        steps: how many steps were made.
        network_from_step: the step that the network which was kept is from.
        test, validation: how it does on these splits; None for what there is not.
    """

    ended: Ended
    message: str
    steps: int
    network_from_step: int
    test: Evaluation | None = None
    validation: Evaluation | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a point of a sweep ended: a result, whatever it was.

    Attributes:
        key: of the point.
        settings: what the sweep set.
        ended: finished, stopped_early, diverged, or failed (it could not be trained).
        message: a sentence that says why.
        accuracy, loss: on the validation split, by the network that the run ended with; None for
            what there is not.
        perplexity: exp(loss), of text.
        test_accuracy, test_loss: on the test split.
        rho: regime number of the first batch.
        regime: the last line of the regime report.
        seconds: what the run took.
        training_seconds: what its training steps took; of runs in step, an equal share.
        run: its folder, from the sweep's; None if there is none.
    """

    key: str
    settings: dict[str, Any]
    ended: str
    message: str
    accuracy: float | None = None
    loss: float | None = None
    perplexity: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    rho: float | None = None
    regime: str | None = None
    seconds: float = 0.0
    training_seconds: float = 0.0
    run: str | None = None

    @property
    def trained(self) -> float:
        """The seconds of its training steps, as far as they are known apart from all others."""
        return self.training_seconds or self.seconds
