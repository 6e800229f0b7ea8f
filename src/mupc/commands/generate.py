"""`mupc generate`."""

from collections.abc import Sequence
from typing import Annotated

import jax

from mupc.commands.options import Positional, parse
from mupc.commands.terminal import prepare_backend
from mupc.runs.generate import generate
from mupc.runs.stored import load_trained
from mupc.settings.setting import Count, NotNegativeCount, Positive, Setting
from mupc.settings.training import RunKeeping


class GenerateOptions(Setting):
    """Let a network that was trained on a text go on with another, character by character."""

    folder: Annotated[str, Positional()]
    """Run folder."""
    prompt: str = ""
    """What the text begins with; unless given, with the end of a line, or else with the first
    character that the network knows."""
    length: Count = 300
    """How many characters follow."""
    temperature: Positive = 1.0
    """What the output is divided by: below 1 for likelier characters."""
    draw_seed: NotNegativeCount = 0
    """What characters are drawn from."""


def run(words: Sequence[str]) -> int:
    """Generate, print, and return the exit status."""
    options = parse("generate", words, GenerateOptions).own
    prepare_backend(RunKeeping())
    data, network = load_trained(options.folder)
    known = [str(character) for character in data.classes or ("\n",)]
    text = generate(
        network,
        data,
        options.prompt or ("\n" if "\n" in known else known[0]),
        length=options.length,
        temperature=options.temperature,
        key=jax.random.key(options.draw_seed),
    )
    print(text)
    return 0
