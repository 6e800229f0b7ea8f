"""What the commands of generating networks have in common: options, scores and pictures."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float

from mupc.commands.options import Positional
from mupc.records import counted, write_json
from mupc.runs.restore import Restored, Source, Which
from mupc.settings.setting import (
    ConfigError,
    Count,
    MovedData,
    OutPlace,
    Positive,
    Setting,
    unheeded,
)

SHOWN = 16
"""How many pictures are drawn beside one another."""


class Restoring(Setting):
    """Options of the commands that restore data."""

    folder: Annotated[str, Positional()]
    """Run folder, of a network that generates."""
    split: Literal["test", "validation", "train"] = "test"
    """Split of the data."""
    samples: Count = 1000
    """How many samples, the first of the split."""
    picture: OutPlace | None = None
    """PNG file of the first 16; unless given, it is named after the command, in the run folder."""
    precision: Positive | None = None
    """Output precision of inference: that of training unless given. The lower it is, the more the
    network relies on what it has learned."""
    data: MovedData = None


class Reading(Restoring):
    """Options of those that read the data from what was inferred."""

    source: Source = "generated"
    """What restored data are: what the inferred latent variables generate by themselves, or what
    all inferred activities predict."""


def place_of(folder: str, name: str, given: str | None) -> Path:
    """Return the file of a picture.

    Raises:
        ConfigError: if it is no PNG file.
    """
    path = Path(folder) / f"{name}.png" if given is None else Path(given)
    if path.suffix.lower() != ".png":
        raise ConfigError(f"`picture` must be a file that ends in .png, not {path}")
    return path


def show(name: str, what: str, options: Restoring, restore: Callable[[Which], Restored]) -> None:
    """Restore samples, print how well, and leave scores and a picture of the first of them.

    Raises:
        ConfigError: if the picture cannot be written, or would be one of what is no image.
    """
    path = place_of(options.folder, name, options.picture)
    chosen = options.split, options.samples, options.data, options.precision
    result = restore(Which(options.folder, *chosen))
    count = counted(result.scores.samples, "sample")
    print(f"{options.folder}: {what} ({count} of {options.split}): {result.scores.words}")
    with _writing(path):
        write_json(path.with_suffix(".scores.json"), result.scores._asdict())
    if result.images:
        noisy = () if result.given is result.original else (result.given,)
        rows = (result.original, *noisy, result.restored)
        write_picture(path, [row[:SHOWN] for row in rows], result.limits)
        print(f"picture: {path} (data{', as given' if noisy else ''}, restored)")
        if result.scores.ssim is None:
            print("PSNR and SSIM need scikit-image: pip install 'mupc[pictures]'")
    elif options.picture is not None:
        raise unheeded("picture", "the data are no images")


def write_picture(
    path: Path, rows: Sequence[Float[np.ndarray, "n ..."]], limits: tuple[float, float] = (0.0, 1.0)
) -> None:
    """Write rows of images to a PNG file, in a folder that is made if need be.

    Raises:
        ConfigError: if it cannot be written.
    """
    from mupc.plots.pictures import write_grid  # loads matplotlib

    with _writing(path):
        write_grid(path, rows, limits)


@contextmanager
def _writing(path: Path) -> Generator[None]:
    """Make the folder of a picture, and say in a sentence that it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(f"`picture`: cannot write {path}: {error.strerror}") from error
