"""Which point of a sweep did best, on the validation part, and what a person sees of a sweep."""

import json
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from mupc.sweeps.folder import Outcome
from mupc.sweeps.sweep import Standing

_SHOWN = 12
_BADLY = ("diverged", "failed")


class Row(NamedTuple):
    """Settings of a sweep, and how they did with each seed."""

    settings: dict[str, Any]
    outcomes: list[Outcome]

    @property
    def name(self) -> str:
        """The settings in words."""
        return " ".join(f"{name}={value}" for name, value in self.settings.items()) or "(all)"

    @property
    def score(self) -> tuple[float, float, float]:
        """What to rank by: how often it ended well, then mean accuracy, then minus mean loss."""
        well = [outcome.ended not in _BADLY for outcome in self.outcomes]
        accuracies = [outcome.accuracy or 0.0 for outcome in self.outcomes]
        losses = [float("inf") if o.loss is None else o.loss for o in self.outcomes]
        return statistics.fmean(well), statistics.fmean(accuracies), -statistics.fmean(losses)

    def cells(self) -> tuple[str, ...]:
        """Give a line of a table."""
        ends = [outcome.ended for outcome in self.outcomes]
        odd = [f"{ends.count(end)} {end}" for end in _BADLY if end in ends]
        return (
            self.name,
            _mean([outcome.accuracy for outcome in self.outcomes], 100, ".2f"),
            _mean([outcome.loss for outcome in self.outcomes], 1, ".4f"),
            _mean([outcome.test_accuracy for outcome in self.outcomes], 100, ".2f"),
            f"{len(ends)}{' (' + ', '.join(odd) + ')' if odd else ''}",
            f"{statistics.fmean(outcome.seconds for outcome in self.outcomes):.1f}",
        )


COLUMNS = ("settings", "validation accuracy %", "loss", "test accuracy %", "runs", "s a run")


def ranked(outcomes: Sequence[Outcome]) -> list[Row]:
    """Gather the seeds of each setting, the best setting first."""
    rows: dict[str, Row] = {}
    for outcome in outcomes:
        settings = {n: value for n, value in outcome.settings.items() if n != "seed"}
        key = json.dumps(settings, sort_keys=True)
        rows.setdefault(key, Row(settings, [])).outcomes.append(outcome)
    return sorted(rows.values(), key=lambda row: row.score, reverse=True)


def _mean(values: Sequence[float | None], unit: float, form: str) -> str:
    there = [unit * value for value in values if value is not None]
    if not there:
        return ""
    spread = f" ± {statistics.stdev(there):{form}}" if len(there) > 1 else ""
    return f"{statistics.fmean(there):{form}}{spread}"


def markdown(rows: Sequence[Row]) -> str:
    """Give the whole table in Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


class Board:
    """Shows a sweep while it goes on: a live table on a terminal, else a line for each result."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console = Console(highlight=False, soft_wrap=True)
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
        total = len(standing.outcomes) + standing.left
        if self.seen is None and standing.outcomes:
            self.console.print(f"{len(standing.outcomes)} of {total} points have results already")
            begun = len(standing.outcomes)
        self.seen = len(standing.outcomes)
        for number, outcome in enumerate(standing.outcomes[begun:], begun + 1):
            (row,) = ranked([outcome])
            _, accuracy, loss, _, _, seconds = row.cells()
            name = " ".join(f"{n}={v}" for n, v in outcome.settings.items())
            score = f"accuracy {accuracy} %, loss {loss}" if accuracy else f"loss {loss}"
            said = score if outcome.ended != "failed" else outcome.message
            odd = "" if outcome.ended in ("finished", "failed") else f" ({outcome.ended})"
            self.console.print(
                f"{number}/{total} {name}: {said}{odd}, {seconds} s; {_left(standing)}"
            )

    def _table(self, standing: Standing) -> Any:
        from rich.table import Table

        total = len(standing.outcomes) + standing.left
        table = Table(
            title=f"{len(standing.outcomes)} of {total} points; {_left(standing)}",
            caption=standing.now,
            title_justify="left",
            caption_justify="left",
        )
        for column in COLUMNS:
            table.add_column(column)
        for row in ranked(standing.outcomes)[:_SHOWN]:
            table.add_row(*row.cells())
        return table


def _left(standing: Standing) -> str:
    """Estimate the time left, if this process does all of it."""
    took = [outcome.seconds for outcome in standing.outcomes if outcome.seconds]
    if not standing.left:
        return "done"
    if not took:
        return f"{standing.left} left"
    minutes, seconds = divmod(round(statistics.fmean(took) * standing.left), 60)
    return f"about {f'{minutes} min' if minutes else f'{seconds} s'} left"
