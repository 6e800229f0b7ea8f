"""What the commands of generating networks have in common: options, scores and pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from mupc.commands.options import Positional
from mupc.records import counted, write_json
from mupc.runs.restore import Restored, Which
from mupc.settings.setting import ConfigError, Count, MovedData, OutPlace, Positive, Setting

SHOWN = 16
"""How many pictures are drawn beside one another."""


class Restoring(Setting):
    """Which samples a command restores, and where it draws them."""

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


def place_of(folder: str, name: str, given: str | None) -> Path:
    """Return the file of a picture, in a folder that is there.

    Raises:
        ConfigError: if it is no PNG file, or cannot be written.
    """
    path = Path(folder) / f"{name}.png" if given is None else Path(given)
    if path.suffix.lower() != ".png":
        raise ConfigError(f"`picture` must be a file that ends in .png, not {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(f"`picture`: cannot write {path}: {error.strerror}") from error
    return path


def show(name: str, what: str, options: Restoring, restore: Callable[[Which], Restored]) -> None:
    """Restore samples, print how well, and leave scores and a picture of the first of them."""
    path = place_of(options.folder, name, options.picture)
    chosen = options.split, options.samples, options.data, options.precision
    seen = restore(Which(options.folder, *chosen))
    count = counted(seen.scores.samples, "sample")
    print(f"{options.folder}: {what} of {count} of {options.split}: {seen.scores.words}")
    write_json(path.with_suffix(".json"), seen.scores._asdict())
    if seen.images:
        _draw(path, seen)
        if seen.scores.ssim is None:
            print("PSNR and SSIM need scikit-image: pip install 'mupc[pictures]'")


def _draw(path: Path, seen: Restored) -> None:
    """Draw originals, and below them what was given and what was made of it."""
    from mupc.plots.pictures import write_grid  # loads matplotlib

    given = [] if seen.given is seen.original else [seen.given]
    rows = [seen.original, *given, seen.restored]
    write_grid(path, [row[:SHOWN] for row in rows], seen.limits)
    print(f"picture: {path} (data{', as given' if given else ''}, restored)")
