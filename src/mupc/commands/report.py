"""`mupc report`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from mupc.commands.options import Positional, parse
from mupc.settings.setting import OutPlace, Setting, SomeOf


class ReportOptions(Setting):
    """Make one HTML page of runs side by side, or of a sweep, with its figures as PNG and SVG."""

    folders: Annotated[tuple[str, ...], SomeOf, Positional()]
    """Run folders, of `mupc train` or `mupc theory`, or the folder of a sweep."""
    out: OutPlace | None = None
    """Folder to write to; unless given, `report` in the run's folder, or here for several runs."""


def run(words: Sequence[str]) -> int:
    """Write the report, and return the exit status."""
    options = parse("report", words, ReportOptions).own
    write(options.folders, options.out)
    return 0


def write(folders: Sequence[str], out: str | None = None) -> None:
    """Write the report, and print where it is."""
    from mupc.plots import write_report  # loads matplotlib

    place = Path(folders[0]) / "report" if len(folders) == 1 else Path("report")
    print(f"report: {write_report(folders, out or place)}")
