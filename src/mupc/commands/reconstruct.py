"""`mupc reconstruct`."""

import functools
from collections.abc import Sequence

from mupc.commands.options import parse
from mupc.commands.pictures import Reading, show
from mupc.commands.terminal import prepare_backend
from mupc.runs.restore import reconstruct
from mupc.settings.training import RunKeeping

_WORDS = {"generated": "latent variables", "predicted": "all activities"}


class ReconstructOptions(Reading):
    """Infer the activities that explain data, and read the data from them."""


def run(words: Sequence[str]) -> int:
    """Reconstruct, print, draw, and return the exit status."""
    options = parse("reconstruct", words, ReconstructOptions).own
    prepare_backend(RunKeeping())
    read = functools.partial(reconstruct, source=options.source)
    show("reconstruct", f"reconstructed from {_WORDS[options.source]}", options, read)
    return 0
