"""Where inference starts."""

import abc

from mupc.inference import FeedforwardStart, NormalStart, Start, ZeroStart
from mupc.settings.setting import Kind, Positive


class StartKind(Kind):
    """Where inference starts."""

    slot = "start"

    @abc.abstractmethod
    def build(self) -> Start:
        """Return the start."""


class FromFeedforward(StartKind):
    """The activities of the feedforward pass."""

    kind = "feedforward"

    def build(self) -> Start:
        """Return the start."""
        return FeedforwardStart()


class FromZeros(StartKind):
    """Zeros."""

    kind = "zeros"

    def build(self) -> Start:
        """Return the start."""
        return ZeroStart()


class FromNormal(StartKind):
    """Normal random numbers."""

    kind = "normal"

    start_std: Positive = 1.0
    """Standard deviation of the start."""

    def build(self) -> Start:
        """Return the start."""
        return NormalStart(self.start_std)


STARTS: tuple[type[StartKind], ...] = (FromFeedforward, FromZeros, FromNormal)
