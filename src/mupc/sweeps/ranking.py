"""Which point of a sweep did best, on the validation split, and what a person sees of a sweep."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from mupc.records import BADLY, mean_and_spread, score, without_seed
from mupc.sweeps.points import words
from mupc.sweeps.sweep import Result, Standing

_SHOWN = 12


class Row(NamedTuple):
    """The runs that differ in their seeds alone, and what tells them from the others."""

    settings: dict[str, Any]
    results: list[Result]

    @property
    def name(self) -> str:
        """The settings in words."""
        return words(self.settings) or "(all)"

    @property
    def score(self) -> tuple[float, float, float]:
        """What to rank by; see `mupc.records.score`."""
        return score([result.outcome for result in self.results])

    @property
    def best(self) -> Result:
        """The run that did best."""
        return max(self.results, key=lambda result: score([result.outcome]))

    def cells(self) -> tuple[str, ...]:
        """Return a line of a table."""
        outcomes = [result.outcome for result in self.results]
        ends = [outcome.ended for outcome in outcomes]
        odd = [f"{ends.count(end)} {end}" for end in BADLY if end in ends]
        return (
            self.name,
            mean_and_spread([outcome.accuracy for outcome in outcomes], 100, ".2f"),
            mean_and_spread([outcome.loss for outcome in outcomes], 1, ".4g"),
            mean_and_spread([outcome.test_accuracy for outcome in outcomes], 100, ".2f"),
            f"{len(ends)}{' (' + ', '.join(odd) + ')' if odd else ''}",
            f"{statistics.fmean(outcome.trained for outcome in outcomes):.1f}",
        )


COLUMNS = (
    *("settings", "validation accuracy %", "loss", "test accuracy %", "runs"),
    "training s per run",
)


def ranked(results: Sequence[Result]) -> list[Row]:
    """Gather the seeds of each setting, the best setting first."""
    rows: dict[str, Row] = {}
    for result in results:
        same = str(without_seed(result.point.config.identity()))
        row = rows.setdefault(same, Row(without_seed(result.point.settings), []))
        row.results.append(result)
    return sorted(rows.values(), key=lambda row: row.score, reverse=True)


def markdown(rows: Sequence[Row]) -> str:
    """Return the whole table in Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in rows)]
    shown = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in shown)


class Board:
    """Shows a sweep while it goes on: a live table on a terminal, else a line for each result."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        # What settings say is text, whatever brackets and colons there are in it.
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.seen: int | None = None

    def __enter__(self) -> "Board":
        """Begin to show."""
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        self.live.stop()

    def __call__(self, standing: Standing) -> None:
        """Show how far the sweep has come."""
        if self.console.is_terminal:
            self.live.update(self._table(standing), refresh=True)
            return
        begun = 0 if self.seen is None else self.seen
        total = len(standing.results) + standing.left
        if self.seen is None and standing.results:
            self.console.print(f"{len(standing.results)} of {total} points have results already")
            begun = len(standing.results)
        self.seen = len(standing.results)
        for number, result in enumerate(standing.results[begun:], begun + 1):
            (row,), outcome = ranked([result]), result.outcome
            _, accuracy, loss, test, _, _ = row.cells()
            name = result.point.name
            figures = {"validation accuracy": accuracy, "test accuracy": "" if accuracy else test}
            shown = [f"{what} {figure} %" for what, figure in figures.items() if figure]
            said = ", ".join([*shown, *([f"loss {loss}"] if loss else [])])
            said = outcome.message if outcome.ended == "failed" else said
            odd = "" if outcome.ended in ("finished", "failed") else f" ({outcome.ended})"
            self.console.print(
                f"{number}/{total} {name}: {said}{odd}, {outcome.seconds:.1f} s; {_left(standing)}"
            )

    def _table(self, standing: Standing) -> Any:
        from rich.table import Table

        total = len(standing.results) + standing.left
        table = Table(
            title=f"{len(standing.results)} of {total} points; {_left(standing)}",
            caption=standing.now,
            title_justify="left",
            caption_justify="left",
        )
        for column in COLUMNS:
            table.add_column(column)
        for row in ranked(standing.results)[:_SHOWN]:
            table.add_row(*row.cells())
        return table


def _left(standing: Standing) -> str:
    """Estimate the time left, if this process does all of it."""
    took = [result.outcome.seconds for result in standing.results if result.outcome.seconds]
    if not standing.left:
        return "done"
    if not took:
        return f"{standing.left} left"
    minutes, seconds = divmod(round(statistics.fmean(took) * standing.left), 60)
    return f"about {f'{minutes} min' if minutes else f'{seconds} s'} left"
