"""The report of a sweep: which settings did best, and accuracy against every number swept over."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mupc.plots.page import Picture, csv_text, heading, paragraph, table
from mupc.plots.style import (
    DASHES,
    Chart,
    Key,
    colours,
    label,
    legend,
    log_if_wide,
    panels,
    plain,
    ticks,
)
from mupc.records import (
    BADLY,
    Outcome,
    SweepPoint,
    counted,
    figure,
    mean_and_spread,
    ranked,
    read_sweep,
    score,
    without_seed,
)

_LINES = 10  # of combinations that are told apart; the others are drawn in grey
_BEST = 10
_GREY = "#8b949e"


class SweepReport(NamedTuple):
    """A title, figures, what stands before and after them, and other files by name."""

    title: str
    pictures: list[Picture]
    parts: tuple[list[str], list[str]]
    files: dict[str, str]


def sweep_report(path: str | Path) -> SweepReport:
    """Return what the report of a sweep consists of.

    Raises:
        RunError: if there is no point, or a file is damaged.
    """
    points = read_sweep(path)
    title = Path(path).resolve().name
    files = {"sweep.csv": csv_text(_csv(points))}
    return SweepReport(title, _pictures(points), _parts(points, path), files)


def words(settings: Mapping[str, Any]) -> str:
    """Return settings in one line."""
    shown = {n: f"{v:g}" if isinstance(v, float) else str(v) for n, v in settings.items()}
    return " ".join(f"{name}={value}" for name, value in shown.items()) or "(all)"


def _done(points: Sequence[SweepPoint]) -> list[tuple[SweepPoint, Outcome]]:
    return [(point, point.outcome) for point in points if point.outcome is not None]


def _parts(points: Sequence[SweepPoint], path: str | Path) -> tuple[list[str], list[str]]:
    done = _done(points)
    badly = [(point, outcome) for point, outcome in done if outcome.ended in BADLY]
    left = len(points) - len(done)
    ended = _odd([outcome for _, outcome in badly])
    unfinished = f"; {left} not finished" if left else ""
    more = f" (the first {_BEST} of {len(done)})" if len(done) > _BEST else ""
    before = [
        paragraph(f"{counted(len(points), 'point')} in {path}{ended}{unfinished}.", "soft"),
        paragraph(
            "Of the points that diverged or failed there is no accuracy in the figures: a cross at "
            "the lower edge marks their settings."
            if badly
            else "",
            "warning",
        ),
        heading("Settings, the best first"),
        paragraph("Mean ± standard deviation over seeds. The numbers are in sweep.csv, too."),
        _ranking(points),
        heading(f"Best points{more}"),
        _best(done),
    ]
    rows = [["point", "ended", "why", "run"]]
    rows += [[words(p.settings), o.ended, o.message, o.run or ""] for p, o in badly]
    return before, [heading("Points that diverged or failed"), table(rows)] if badly else []


def _ranking(points: Sequence[SweepPoint]) -> str:
    scores = ("validation accuracy %", "loss", "test accuracy %")
    rows = [["settings", *scores, "runs", "training s per run"]]
    for settings, outcomes in ranked(points):
        rows.append(
            [
                words(settings),
                mean_and_spread([outcome.accuracy for outcome in outcomes], 100, ".2f"),
                mean_and_spread([outcome.loss for outcome in outcomes], 1, ".4g"),
                mean_and_spread([outcome.test_accuracy for outcome in outcomes], 100, ".2f"),
                f"{len(outcomes)}{_odd(outcomes)}",
                f"{statistics.fmean(outcome.trained for outcome in outcomes):.1f}",
            ]
        )
    return table(rows)


def _odd(outcomes: Sequence[Outcome]) -> str:
    """Return how many ended badly, in brackets."""
    ends = [outcome.ended for outcome in outcomes]
    odd = ", ".join(f"{ends.count(end)} {end}" for end in BADLY if end in ends)
    return f" ({odd})" if odd else ""


def _best(done: Sequence[tuple[SweepPoint, Outcome]]) -> str:
    rows = [["point", "validation accuracy %", "loss", "run"]]
    for point, outcome in sorted(done, key=lambda both: score([both[1]]), reverse=True)[:_BEST]:
        accuracy, loss = figure(outcome.accuracy, ".2f", 100), figure(outcome.loss)
        rows.append([words(point.settings), accuracy, loss, outcome.run or ""])
    return table(rows)


_CSV = (
    *("accuracy", "loss", "perplexity", "test_accuracy", "test_loss", "rho"),
    *("seconds", "training_seconds", "ended", "message", "run"),
)


def _csv(points: Sequence[SweepPoint]) -> list[list[object]]:
    names = list(points[0].settings)
    rows: list[list[object]] = [["key", *names, *_CSV]]
    for point in points:
        row = [point.key, *(_flat(point.settings[name]) for name in names)]
        outcome = point.outcome
        ended = [None if outcome is None else getattr(outcome, name) for name in _CSV]
        if outcome is None:
            ended[_CSV.index("ended")] = "not finished"
        rows.append([*row, *ended])
    return rows


def _flat(value: object) -> object:
    return value if isinstance(value, str | int | float | None) else str(value)


def _pictures(points: Sequence[SweepPoint]) -> list[Picture]:
    done = _done(points)
    of_text = any(outcome.perplexity is not None for _, outcome in done)
    classes = not of_text and any(outcome.accuracy is not None for _, outcome in done)
    y = "validation accuracy (%)" if classes else f"validation loss{' (nats)' if of_text else ''}"
    pictures: list[Picture] = []
    for name in without_seed(points[0].settings) if done else ():
        values = {point.settings[name] for point, _ in done if _is_number(point.settings[name])}
        if len(values) > 1:
            file = "sweep-" + re.sub(r"[^\w.-]+", "-", name)
            drawn = _against(done, name, y, classes=classes)
            text = "Line: mean over seeds; band: ± one standard deviation."
            if drawn.keys:
                text += " A colour is a combination of the other settings, the best first."
            pictures.append(Picture(file, f"Against {name}", text, {file: drawn}))
    if any(_value(outcome, classes=classes) is not None for _, outcome in done):
        text = "Each point is a run."
        drawn = {"sweep-seconds": _in_time(done, y, classes=classes)}
        pictures.append(Picture("sweep-seconds", "Against seconds", text, drawn))
    return pictures


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(outcome: Outcome, *, classes: bool) -> float | None:
    """Return what is drawn of a run; None if it ended badly, or there is none."""
    value = outcome.accuracy if classes else outcome.loss
    if outcome.ended in BADLY or value is None or not math.isfinite(value):
        return None
    return 100 * value if classes else value


def _against(
    done: Sequence[tuple[SweepPoint, Outcome]], name: str, y: str, *, classes: bool
) -> Chart:
    """Draw mean and spread over seeds against a number: a line for each of the other settings."""
    lines: dict[str, dict[float, list[Outcome]]] = {}
    for settings, outcomes in ranked(SweepPoint(p.key, p.settings, o) for p, o in done):
        if _is_number(settings[name]):  # the best combination comes first
            others = words({n: v for n, v in settings.items() if n != name})
            lines.setdefault(others, {}).setdefault(float(settings[name]), []).extend(outcomes)
    figure, (axes,) = panels(1)
    alone = all(len(line) == 1 for line in lines.values())  # of settings drawn at random
    shown = dict.fromkeys(lines, Key("", colours(1)[0], "-")) if alone else _keys(list(lines))
    for others in reversed(lines):  # the best on top
        _line(axes, lines[others], shown[others], classes=classes)
    places = [x for line in lines.values() for x in line]
    ticks(axes, places)
    if not classes:
        log_if_wide(axes, np.concatenate([line.get_ydata() for line in axes.lines]))
    label(axes, "", plain(name), y)
    legend(figure, list(dict.fromkeys(shown.values())))
    return figure


def _keys(lines: Sequence[str]) -> dict[str, Key]:
    """Return a colour for each of the best combinations, grey for the others."""
    palette = colours(min(len(lines), _LINES))
    keys = {
        name: Key(name, colour, DASHES[0]) for name, colour in zip(lines, palette, strict=False)
    }
    rest = Key(counted(len(lines) - len(palette), "other combination"), _GREY)
    return {name: keys.get(name, rest) for name in lines}


def _line(axes: Axes, line: Mapping[float, list[Outcome]], key: Key, *, classes: bool) -> None:
    found = {x: [_value(outcome, classes=classes) for outcome in line[x]] for x in sorted(line)}
    known = {x: [v for v in values if v is not None] for x, values in found.items()}
    x = [place for place, values in known.items() if values]
    mean = np.array([statistics.fmean(known[place]) for place in x])
    spread = np.array(
        [statistics.pstdev(v) if len(v := known[p]) < 2 else statistics.stdev(v) for p in x]
    )
    style: Any = {"color": key.colour, "marker": "o", "markersize": 4, "label": key.name}
    axes.plot(x, mean, **style)
    axes.fill_between(x, mean - spread, mean + spread, color=key.colour, alpha=0.15, linewidth=0)
    lost = [place for place, values in found.items() if None in values]
    if not lost:
        return
    place = axes.get_xaxis_transform()
    axes.plot(
        *(lost, [0.02] * len(lost), "x"),
        color=key.colour,
        transform=place,
        clip_on=False,
        label="_nolegend_",
    )


def _in_time(done: Sequence[tuple[SweepPoint, Outcome]], y: str, *, classes: bool) -> Figure:
    figure, (axes,) = panels(1)
    found = [(o.trained, _value(o, classes=classes)) for _, o in done]
    known = sorted((seconds, value) for seconds, value in found if value is not None)
    style: Any = {
        "color": colours(1)[0],
        "markersize": 4,
        "label": y,
    }
    axes.plot([x for x, _ in known], [value for _, value in known], "o", **style)
    log_if_wide(axes, [x for x, _ in known], which="x")
    label(axes, "", "seconds of training", y)
    return figure
