"""`mupc denoise`."""

import functools
from collections.abc import Sequence

from mupc.commands.options import parse
from mupc.commands.pictures import Reading, show
from mupc.commands.terminal import prepare_backend
from mupc.runs.restore import denoise
from mupc.settings.setting import NotNegative, NotNegativeCount
from mupc.settings.training import RunKeeping


class DenoiseOptions(Reading):
    """Add noise to data, infer the activities that explain the result, and read data from them."""

    noise: NotNegative = 0.25
    """Standard deviation of the Gaussian noise."""
    noise_seed: NotNegativeCount = 0
    """What it is drawn from, with the number of the sample."""


def run(words: Sequence[str]) -> int:
    """Denoise, print, draw, and return the exit status."""
    options = parse("denoise", words, DenoiseOptions).own
    prepare_backend(RunKeeping())
    add = functools.partial(
        denoise, noise=options.noise, seed=options.noise_seed, source=options.source
    )
    show("denoise", f"noise of {options.noise:g} removed", options, add)
    return 0
