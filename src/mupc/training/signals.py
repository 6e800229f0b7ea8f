"""Ctrl-C and SIGTERM while a network trains: the step is finished and saved before they act."""

import signal
import threading
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, ClassVar, Self, final

from jax.experimental import multihost_utils

from mupc.records import Ended


class Signals(AbstractContextManager[Any]):
    """Notes the signals that come; the second of a kind does what it did before.

    Only the main thread can note any. Of several processes that train one network, JAX notes
    SIGTERM, and lets all of them act after the same step; Ctrl-C is SIGTERM to them.

    Args:
        processes: how many train the network.
        step: how many steps have been made.
    """

    _heard: ClassVar[int] = 0
    """How often JAX has been asked by this process: it takes numbers that grow, one by one."""

    def __init__(self, processes: int = 1, step: int = 0) -> None:
        self.processes, self.noted = processes, list[int]()
        self._before = max(Signals._heard - step, 0)
        if processes > 1 and self._stops_by(step):  # what came while there was no training yet
            self.noted.append(signal.SIGTERM)
        self._looked, self._asked = -1, False
        self._handlers: dict[int, Callable[..., Any] | int] = {}

    def asked(self, step: int) -> bool:
        """Return whether any had come when this was first asked after a step.

        So what comes while one network is saved waits until the next step has saved all.
        """
        if step != self._looked:
            if self.processes > 1 and self._stops_by(step):
                self.noted.append(signal.SIGTERM)
            self._looked, self._asked = step, bool(self.noted)
        return self._asked

    def _stops_by(self, step: int) -> bool:
        """Return whether all processes are to stop by this step, as JAX has let them agree."""
        stops = False
        while Signals._heard < self._before + step:
            Signals._heard += 1
            stops |= multihost_utils.reached_preemption_sync_point(Signals._heard)
        return stops

    @abstractmethod
    def heed(self) -> Ended | None:
        """Return how training ends now that all is saved, or None if it goes on."""

    def __enter__(self) -> Self:
        self._take_over()
        return self

    def __exit__(self, *error: object) -> None:
        self._hand_back()

    def _take_over(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        ours = (signal.SIGINT, signal.SIGTERM) if self.processes == 1 else (signal.SIGINT,)
        for number in ours:
            if (handler := signal.getsignal(number)) is not None:  # else it could not be put back
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _hand_back(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.processes == 1:
            self.noted.append(number)
        else:
            signal.raise_signal(signal.SIGTERM)
        if (handler := self._handlers.pop(number, None)) is not None:
            signal.signal(number, handler)


@final
class Passed(Signals):
    """Signals that are passed on, when all is saved, to whoever handled them before.

    So Ctrl-C raises KeyboardInterrupt in a script, and SIGTERM ends it; where a handler of the
    user's returns, training goes on.
    """

    def heed(self) -> None:
        """Let the signals act."""
        self._hand_back()
        if self.noted and self.processes > 1:  # take it from JAX, of whose handler Python knows not
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
        while self.noted:
            signal.raise_signal(self.noted.pop(0))
        self._take_over()

    def __exit__(self, *error: object) -> None:
        """Let those act that came after the last step, too."""
        self.heed()
        self._hand_back()


@final
class Ending(Signals):
    """Signals that end training, whose result then says so: for a command, which reports it."""

    def heed(self) -> Ended:
        """Return how training ends."""
        return Ended.TERMINATED if self.noted[-1] == signal.SIGTERM else Ended.INTERRUPTED
