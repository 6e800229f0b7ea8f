"""`mupc generate`."""

from collections.abc import Sequence
from typing import Annotated

import jax
import numpy as np

from mupc.commands.options import Positional, parse
from mupc.commands.pictures import SHOWN, place_of, write_picture
from mupc.commands.terminal import prepare_backend
from mupc.runs.generate import generate
from mupc.runs.restore import draw
from mupc.runs.stored import load_trained, stored_config
from mupc.settings.setting import (
    Count,
    MovedData,
    NotNegativeCount,
    OutPlace,
    Positive,
    Setting,
    unheeded,
)
from mupc.settings.training import RunKeeping

_TEXT = ("prompt", "length", "temperature")
_PICTURES = ("pictures", "picture", "data")


class GenerateOptions(Setting):
    """Continue a text by the network of a run, or make pictures by one that generates them.

    One of two directions makes one of each class, others as many as are asked for: of one class
    after the other where they have some.
    """

    folder: Annotated[str, Positional()]
    """Run folder."""
    prompt: str | None = None
    """Of text: what it begins with; unless given, with the end of a line, or else with the first
    character that the network knows."""
    length: Count | None = None
    """Of text: how many characters follow, 300 unless given."""
    temperature: Positive | None = None
    """Of text: what the output is divided by, 1 unless given: below it for likelier characters."""
    pictures: Count | None = None
    """Of pictures: how many, 64 unless given, or six of each class."""
    picture: OutPlace | None = None
    """Of pictures: the PNG file; unless given, generate.png in the run folder."""
    draw_seed: NotNegativeCount | None = None
    """What characters, or pictures, are drawn from, 0 unless given."""
    data: MovedData = None


def run(words: Sequence[str]) -> int:
    """Generate, print, and return the exit status."""
    options = parse("generate", words, GenerateOptions).own
    prepare_backend(RunKeeping())
    makes = stored_config(options.folder).network.pictures
    kind, other = ("pictures", _PICTURES) if makes == "none" else ("text", _TEXT)
    for name in other:
        if getattr(options, name) is not None:
            raise unheeded(name, f"the network of {options.folder} makes no {kind}")
    if makes == "classes":
        for name in ("pictures", "draw_seed"):
            if getattr(options, name) is not None:
                raise unheeded(name, f"the network of {options.folder} makes one of each class")
    return _write(options) if makes == "none" else _draw(options)


def _write(options: GenerateOptions) -> int:
    data, network = load_trained(options.folder)
    known = [str(character) for character in data.classes or ("\n",)]
    text = generate(
        network,
        data,
        options.prompt or ("\n" if "\n" in known else known[0]),
        length=options.length or 300,
        temperature=options.temperature or 1.0,
        key=jax.random.key(options.draw_seed or 0),
    )
    print(text)
    return 0


def _draw(options: GenerateOptions) -> int:
    path = place_of(options.folder, "generate", options.picture)
    key = jax.random.key(options.draw_seed or 0)
    drawn = draw(options.folder, options.pictures, key, options.data)
    across = min(drawn.classes or SHOWN, SHOWN)
    rows = [drawn.images[i : i + across] for i in range(0, len(drawn.images), across)]
    write_picture(path, rows, drawn.limits)
    if drawn.correlations is not None:
        print(
            "correlation of each class's picture with the mean of its training images: "
            f"mean {np.mean(drawn.correlations):.3f}, minimum {np.min(drawn.correlations):.3f}"
        )
    print(f"picture: {path}")
    return 0
