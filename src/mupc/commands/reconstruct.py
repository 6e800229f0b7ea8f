"""`mupc reconstruct`."""

from collections.abc import Sequence

from mupc.commands.options import parse
from mupc.commands.pictures import Restoring, show
from mupc.commands.terminal import prepare_backend
from mupc.runs.restore import reconstruct
from mupc.settings.training import RunKeeping


class ReconstructOptions(Restoring):
    """Infer the latent variables of data, and generate the data from them alone."""


def run(words: Sequence[str]) -> int:
    """Reconstruct, print, draw, and return the exit status."""
    options = parse("reconstruct", words, ReconstructOptions).own
    prepare_backend(RunKeeping())
    show("reconstruct", "reconstructed from latent variables", options, reconstruct)
    return 0
