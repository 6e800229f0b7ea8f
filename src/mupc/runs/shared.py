"""A run that several processes train: what one of them does for all."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import jax

from mupc.records import RunFolder
from mupc.training.layout import Layout, processes_of
from mupc.training.processes import done_by_first

_Given = TypeVar("_Given", str, None)


def by_one(layout: Layout | None, do: Callable[[], _Given]) -> _Given:
    """Do something once, though several processes train the run; return on all what it gave."""
    return do() if processes_of(layout) == 1 else done_by_first(do)


def hold(stack: ExitStack, folder: RunFolder, layout: Layout | None) -> None:
    """Keep others from training a run as long as a stack is open."""

    def enter() -> None:
        stack.enter_context(folder.held())

    by_one(layout, enter)


def is_writer(layout: Layout | None) -> bool:
    """Return whether this process writes the folders: of several that train a run the first."""
    return processes_of(layout) == 1 or jax.process_index() == 0
