"""`mupc theory`."""

from collections.abc import Callable, Sequence

from mupc.commands.options import Base, parse
from mupc.commands.report import write
from mupc.commands.terminal import prepare_backend
from mupc.records import EQUILIBRIUM, TheoryRecord
from mupc.runs.survey import TheoryOptions, survey


def run(words: Sequence[str]) -> int:
    """Measure, print a table and draw a report; return the exit status."""
    options, config, *_ = parse("theory", words, TheoryOptions, Base())
    prepare_backend(config.run)
    folder, _ = survey(options, config, _table())
    print(f"folder: {folder.path}")
    write([str(folder.path)])
    return 0


_COLUMNS = (
    "parameterisation",
    "H",
    "N",
    "batches",
    "ρ",
    "residual",
    "condition number",
    "step limit",
    "F*/loss",
    "cosine",
)


def _table() -> Callable[[TheoryRecord], None]:
    """Return what prints a row of a Markdown table for every record, after the table's head."""
    begun: list[TheoryRecord] = []
    figure = lambda value, form: "none" if value is None else format(value, form)  # noqa: E731

    def row(record: TheoryRecord) -> None:
        if not begun:
            print(f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}")
            begun.append(record)
        at_rest = record.residual is not None and record.residual <= EQUILIBRIUM
        cells = (
            record.parameterisation,
            record.depth,
            record.width,
            f"{record.trained}{' (diverged)' if record.diverged else ''}",
            figure(record.rho, ".3g"),
            f"{figure(record.residual, '.1g')}{'' if at_rest else ' (no equilibrium)'}",
            figure(record.condition_number, ".4g"),
            figure(record.step_limit, ".3g"),
            figure(record.energy_ratio, ".4f"),
            figure(record.whole_cosine, ".4f"),
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)

    return row
