"""`mupc generate`."""

from collections.abc import Sequence
from typing import Annotated

import jax

from mupc.commands.options import Positional, parse
from mupc.commands.pictures import SHOWN, place_of
from mupc.commands.terminal import prepare_backend
from mupc.runs.generate import generate
from mupc.runs.restore import draw
from mupc.runs.stored import load_trained, stored_config
from mupc.settings.setting import Count, NotNegativeCount, OutPlace, Positive, Setting
from mupc.settings.training import RunKeeping


class GenerateOptions(Setting):
    """Continue a text by the network of a run, or draw pictures from one that generates them."""

    folder: Annotated[str, Positional()]
    """Run folder."""
    prompt: str = ""
    """Of text: what it begins with; unless given, with the end of a line, or else with the first
    character that the network knows."""
    length: Count = 300
    """Of text: how many characters follow."""
    temperature: Positive = 1.0
    """Of text: what the output is divided by: below 1 for likelier characters."""
    pictures: Count = 64
    """Of pictures: how many."""
    picture: OutPlace | None = None
    """Of pictures: the PNG file; unless given, generate.png in the run folder."""
    draw_seed: NotNegativeCount = 0
    """What characters, or pictures, are drawn from."""


def run(words: Sequence[str]) -> int:
    """Generate, print, and return the exit status."""
    options = parse("generate", words, GenerateOptions).own
    prepare_backend(RunKeeping())
    if stored_config(options.folder).network.generates:
        return _draw(options)
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


def _draw(options: GenerateOptions) -> int:
    path = place_of(options.folder, "generate", options.picture)
    images = draw(options.folder, options.pictures, jax.random.key(options.draw_seed))
    from mupc.plots.pictures import write_grid  # loads matplotlib

    rows = [images[i : i + SHOWN] for i in range(0, len(images), SHOWN)]
    write_grid(path, rows)
    print(f"picture: {path}")
    return 0
