"""`mupc complete`."""

import functools
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Gt, Lt

from mupc.commands.options import parse
from mupc.commands.pictures import Restoring, show
from mupc.commands.terminal import prepare_backend
from mupc.data import Part
from mupc.runs.restore import complete
from mupc.settings.setting import NotNegativeCount, unheeded
from mupc.settings.training import RunKeeping


class CompleteOptions(Restoring):
    """Hide a part of each sample, and infer it from the rest."""

    mask: Part = "lower"
    """Which part is hidden; `random`: pixels here and there."""
    share: Annotated[float, Gt(0), Lt(1)] = 0.5
    """How much of it."""
    mask_seed: NotNegativeCount | None = None
    """What random pixels are drawn from, with the number of the sample: 0 unless given."""


def run(words: Sequence[str]) -> int:
    """Complete, print, draw, and return the exit status."""
    options = parse("complete", words, CompleteOptions).own
    prepare_backend(RunKeeping())
    if options.mask != "random" and options.mask_seed is not None:
        raise unheeded("mask_seed", f"`mask` is {options.mask}")
    hide = functools.partial(
        complete, part=options.mask, share=options.share, seed=options.mask_seed or 0
    )
    show("complete", f"{options.share:.0%} hidden ({options.mask}) and completed", options, hide)
    return 0
