"""Figures of what a regime record has for each layer."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from mupc.plots.reading import RunRecords, numbers
from mupc.plots.runs import Line, draw, name_runs
from mupc.plots.style import label, panels, plain
from mupc.records import RegimeRecord, kind_of


class Field(NamedTuple):
    """A figure of each layer: what it is called, its unit, and its scale."""

    title: str
    unit: str
    logarithmic: bool


FIELDS = {
    "change": Field("Relative weight change since the first step", "‖ΔW‖ / ‖W‖", True),
    "energy_after": Field("Energy after inference", "energy per sample", True),
    "cosine": Field("Gradient against the exact one", "cosine", False),
    "ratio": Field("Gradient's norm over the exact one's", "ratio of norms", True),
    "scale": Field("Activity without a target", "root mean square", True),
}

# What is zero, or missing, is grey.
_COLOURS = colormaps["viridis"].with_extremes(bad=(0.5, 0.5, 0.5, 0.4))
_LAYER = "weight layer (1: from the input)"


def reports_with(run: RunRecords, field: str) -> list[RegimeRecord]:
    """Return the regime records that hold a figure."""
    return [record for record in run.reports if getattr(record, field) is not None]


def common_scale(runs: Sequence[RunRecords], field: str) -> tuple[float, float] | None:
    """Return the smallest and the largest value, of all runs that are sound, or of all."""
    sound = [run for run in runs if not run.diverged] or runs
    found = [
        _drawable(getattr(record, field), field)
        for run in sound
        for record in reports_with(run, field)
    ]
    values = np.concatenate(found) if found else np.array([])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else None


def heat_map(run: RunRecords, field: str, scale: tuple[float, float] | None = None) -> Figure:
    """Draw a figure of every layer (from input, below, to output) against the training step.

    Args:
        run: its regime records are drawn.
        field: one of `mupc.plots.layers.FIELDS`.
        scale: the values of the first and the last colour; this run's own unless given.
    """
    # The last record is of the network that was kept, which may be an earlier one.
    found = {record.step: getattr(record, field) for record in reports_with(run, field)}
    if not found:
        raise ValueError(f"the run {run.name} has no regime records with {field}")
    steps = sorted(found)
    about = FIELDS[field]
    figure, (axes,) = panels(1)
    values = np.array([_drawable(found[step], field) for step in steps]).T
    low, high = scale or common_scale([run], field) or (0.1, 1.0)
    norm = (
        LogNorm(low, max(high, 1.001 * low))
        if about.logarithmic
        else Normalize(low, max(high, low + 1e-9))
    )
    image = axes.pcolormesh(
        _edges(np.array(steps, float)),
        np.arange(values.shape[0] + 1) + 0.5,
        np.ma.masked_invalid(values),
        norm=norm,
        cmap=_COLOURS,
        rasterized=True,  # as paths, cells would leave gaps between them
        label=" ".join(map(str, steps)),  # read again for the table of numbers
    )
    axes.grid(visible=False)
    _draw_borders(axes, [run], across=True)
    label(axes, plain(run.label), "training step", _LAYER)
    beyond = [np.any(values < low), np.any(values > high)]
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
    figure.colorbar(
        image, label=about.unit, extend=extend.get((bool(beyond[0]), bool(beyond[1])), "neither")
    )
    return figure


def layer_profiles(runs: Sequence[RunRecords], field: str) -> Figure:
    """Draw a figure of every layer in the last regime record of each run; pale, in the first."""
    about = FIELDS[field]
    runs = [run for run in runs if reports_with(run, field)]
    figure, (axes,) = panels(1)
    _draw_borders(axes, runs)

    def lines(run: RunRecords) -> list[Line]:
        first, *_, last = [*reports_with(run, field)[:1], *reports_with(run, field)]
        # Before the first step nothing has changed.
        both = first is not last and field != "change"
        return [
            line._replace(pale=record is not last)
            for record in ([first, last] if both else [last])
            for line in _of_layers(getattr(record, field), record)
        ]

    draw(axes, runs, lines, log=about.logarithmic)
    label(axes, about.title, _LAYER, about.unit)
    name_runs(figure, runs, lambda run: f", step {reports_with(run, field)[-1].step}")
    return figure


def borders(runs: Sequence[RunRecords]) -> list[float]:
    """Return where a stage begins, but the first; nothing unless all runs are built alike."""
    if len({run.reports[-1].layers for run in runs}) != 1:
        return []
    names = runs[0].reports[-1].names
    return [i + 0.5 for i, name in enumerate(names[1:], 1) if kind_of(name) == "entry"]


def _draw_borders(axes: Axes, runs: Sequence[RunRecords], *, across: bool = False) -> None:
    """Draw a thin line where a stage begins."""
    border = axes.axhline if across else axes.axvline
    for place in borders(runs):
        border(place, color="0.5", alpha=0.5, linewidth=0.8, label="_nolegend_")


def _of_layers(values: Sequence[float], record: RegimeRecord) -> list[Line]:
    """Return a line of all layers, or one for each place of a pattern: attention, perceptrons.

    Entries and the readout, which belong to no place, are points then.
    """
    names, when, found = record.names, f"step {record.step}", numbers(values)
    kinds = list(dict.fromkeys(kind_of(name) for name in names[1:-1] if kind_of(name) != "entry"))
    if len(kinds) < 2 or len(names) != len(values):
        return [_profile(values, when)]
    dashes = dict(zip(kinds, ("-", ":", "-.", "--"), strict=False))
    groups = {kind: [i for i, n in enumerate(names) if kind_of(n) == kind] for kind in kinds}
    outer = [i for i in range(len(names)) if not any(i in places for places in groups.values())]
    drawn = [
        Line([i + 1 for i in places], found[places], dashes.get(kind, "-"), f"{kind}, {when}")
        for kind, places in groups.items()
    ]
    return [Line([i + 1 for i in outer], found[outer], "", f"entry and readout, {when}"), *drawn]


def diagnostics(runs: Sequence[RunRecords]) -> Figure | None:
    """Draw what a rule's own `diagnostics` hold; None if no rule has any.

    Numbers are against the training step; of what there is for each layer, the last is drawn.
    """
    names = dict.fromkeys(
        name
        for run in runs
        for record in run.reports
        for name, value in record.diagnostics.items()
        if value is not None
    )
    if not names:
        return None
    runs = [run for run in runs if any(record.diagnostics for record in run.reports)]
    figure, axes = panels(len(names))
    for panel, name in zip(axes, names, strict=True):
        found = {run.name: _diagnostic(run, name) for run in runs}
        layers = any(line.what for lines in found.values() for line in lines)
        draw(panel, runs, lambda run, found=found: found[run.name])
        label(panel, plain(name), _LAYER if layers else "training step", plain(name))
    name_runs(figure, runs, lambda run: "")
    return figure


def _diagnostic(run: RunRecords, name: str) -> list[Line]:
    known = [(r.step, v) for r in run.reports if (v := r.diagnostics.get(name)) is not None]
    if known and isinstance(known[-1][1], tuple):
        return [_profile(known[-1][1], f"step {known[-1][0]}")]
    values = [cast(float, value) for _, value in known]
    return [Line([step for step, _ in known], numbers(values))] if known else []


def _profile(values: Sequence[float], what: str) -> Line:
    return Line(range(1, len(values) + 1), numbers(values), what=what)


def _drawable(values: Any, field: str) -> np.ndarray:
    """Return figures of layers; what is not positive has no place on a logarithmic scale."""
    found = numbers(values)
    return np.where(found > 0, found, np.nan) if FIELDS[field].logarithmic else found


def _edges(steps: np.ndarray) -> np.ndarray:
    """Return the borders of cells around steps: half-way between neighbours, and the two ends."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    return np.array([steps[0], *(steps[1:] + steps[:-1]) / 2, steps[-1]])
