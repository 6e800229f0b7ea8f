"""Figures of theory over width, depth and training time, from the records of `mupc theory`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mupc.plots.reading import RunRecords, numbers
from mupc.plots.style import DASHES, Key, colours, label, legend, log_if_wide, panels, plain, ticks
from mupc.records import TheoryRecord

Value = Callable[[TheoryRecord], float | None]


class _Axis(NamedTuple):
    """What is against what: a name, x, and the fields that tell the lines apart."""

    name: str
    x: Callable[[TheoryRecord], float]
    fields: tuple[str, ...]


_BY_RATIO = _Axis("width over depth, N/H", lambda point: point.width / point.depth, ("depth",))
_BY_DEPTH = _Axis("hidden layers H", lambda point: point.depth, ("width",))
_BY_WIDTH = _Axis("width N", lambda point: point.width, ("depth",))
_BY_TRAINING = _Axis("batches of training", lambda point: point.trained, ("depth", "width"))


def condition_numbers(runs: Sequence[RunRecords]) -> Figure:
    """Draw the activity Hessian's condition number against depth, width and batches of training."""
    title, y = "Condition number of the activity Hessian", "largest over smallest eigenvalue"
    axes = (_BY_DEPTH, _BY_WIDTH, _BY_TRAINING)
    return _figure(runs, [(axis, title, y, lambda point: point.condition_number) for axis in axes])


def energy_ratios(runs: Sequence[RunRecords]) -> Figure:
    """Draw the energy at equilibrium over the loss, against N/H, depth, width and training."""
    title, y = "Energy at equilibrium", "F* / loss (at the same precision)"
    return _figure(runs, [(axis, title, y, lambda point: point.energy_ratio) for axis in _FOUR])


def alignments(runs: Sequence[RunRecords]) -> Figure:
    """Draw the cosine between the gradient at equilibrium and backprop's, of all weights."""
    title, y = "Alignment at equilibrium", "cosine with backprop"
    return _figure(runs, [(axis, title, y, lambda point: point.whole_cosine) for axis in _FOUR])


_FOUR = (_BY_RATIO, _BY_DEPTH, _BY_WIDTH, _BY_TRAINING)


def coordinates(runs: Sequence[RunRecords]) -> Figure:
    """Draw the root mean square of the last activity and of its change by updates, against size."""
    kinds: list[tuple[str, Value]] = [
        ("Last activity at initialisation", lambda point: _last_hidden(point.scale)),
        ("Its change by three updates", lambda point: _last_hidden(point.moved)),
    ]
    pictures = [
        (axis, title, "root mean square", value)
        for title, value in kinds
        for axis in (_BY_WIDTH, _BY_DEPTH)
    ]
    return _figure(runs, pictures, fresh=True)


def _last_hidden(layers: Sequence[float]) -> float | None:
    return layers[-2] if len(layers) > 1 else None


def _figure(
    runs: Sequence[RunRecords],
    pictures: Sequence[tuple[_Axis, str, str, Value]],
    *,
    fresh: bool = False,
) -> Figure:
    """Draw a panel for each picture: an axis, a title, what y is, and how it is found."""
    figure, axes = panels(len(pictures), width=4.2)
    keys: list[list[Key]] = []
    for panel, (axis, title, y, value) in zip(axes, pictures, strict=True):
        keys.append(_against(panel, runs, axis, value, fresh=fresh))
        label(panel, title, axis.name, y)
    legend(figure, *keys)
    return figure


def _against(
    axes: Axes, runs: Sequence[RunRecords], axis: _Axis, value: Value, *, fresh: bool
) -> list[Key]:
    """Draw a line through the points that have all but x in common; return the legend."""
    fields = ("parameterisation", *axis.fields, *(() if axis is _BY_TRAINING else ("trained",)))
    runs = [run for run in runs if run.theory]
    keyed: dict[tuple[int, tuple[Any, ...]], list[tuple[float, float | None]]] = {}
    for i, run in enumerate(runs):
        for point in run.theory:
            if not (fresh and point.trained):
                case = tuple(getattr(point, field) for field in fields)
                keyed.setdefault((i, case), []).append((axis.x(point), value(point)))
    keys = _keys(runs, fields, list(keyed))
    for key, points in zip(keys, keyed.values(), strict=True):
        points.sort(key=lambda point: point[0])
        x, y = [x for x, _ in points], numbers(y for _, y in points)
        style: Any = {"marker": "o", "markersize": 3, "label": plain(key.name)}
        axes.plot(x, y, key.dash, color=key.colour, **style)
    log_if_wide(axes, np.concatenate([line.get_ydata() for line in axes.lines] or [[]]))
    ticks(axes, [x for points in keyed.values() for x, _ in points])
    return keys


def _keys(
    runs: Sequence[RunRecords], fields: Sequence[str], cases: Sequence[tuple[int, tuple[Any, ...]]]
) -> list[Key]:
    """Return what lines are called.

    Of several runs a colour is a run's, and dashes tell its cases apart.
    """
    differing = [len({case[i] for _, case in cases}) > 1 for i in range(len(fields))]
    several, keys = len(runs) > 1, list[Key]()
    for colour, (i, case) in zip(colours(len(cases)), cases, strict=True):
        words = [runs[i].name] * several
        words += [_words(*n) for *n, shown in zip(fields, case, differing, strict=True) if shown]
        before = sum(key.colour == runs[i].colour for key in keys)
        look = (runs[i].colour, DASHES[before % len(DASHES)]) if several else (colour, DASHES[0])
        keys.append(Key(", ".join(words), *look))
    return keys


def spectra(runs: Sequence[RunRecords]) -> Figure:
    """Draw the density of the activity Hessian's eigenvalues, from records of `mupc theory`."""
    figure, (axes,) = panels(1)
    cases = [(run, point) for run in runs for point in run.theory]
    several = len({run.name for run, _ in cases}) > 1
    found = [[numbers(point.spectrum.get(n, ())) for n in _SPECTRUM] for _, point in cases]
    positive = np.concatenate([values[values > 0] for values, _ in found] or [[]])
    low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1.0)
    edges, keys = np.geomspace(low / 1.01, high * 1.01, 31), list[Key]()
    for (run, point), (values, weights), colour in zip(
        cases, found, colours(len(cases)), strict=True
    ):
        known = np.isfinite(values) & np.isfinite(weights)
        values, weights = values[known], weights[known]
        density, _ = np.histogram(values, edges, weights=weights)
        below = float(np.sum(weights[values <= 0]))
        name = f"{run.name}, {_case(point)}" + (f"; {below:.1%} not above 0" if below else "")
        dash = DASHES[run.theory.index(point) % len(DASHES)] if several else DASHES[0]
        keys.append(Key(name, run.colour if several else colour, dash))
        style: Any = {"drawstyle": "steps-mid", "label": plain(name), "color": keys[-1].colour}
        axes.plot(np.sqrt(edges[1:] * edges[:-1]), density, dash, **style)
    axes.set_xscale("log")
    label(axes, "Spectrum of the activity Hessian", "eigenvalue", "share of eigenvalues in a bin")
    legend(figure, keys)
    return figure


_SPECTRUM = ("eigenvalues", "weights")


def _case(point: TheoryRecord) -> str:
    lost = ", diverged" if point.diverged else ""
    size = f"{point.depth} x {point.width}"
    return f"{point.parameterisation}, {size}, {point.trained} batches{lost}"


def _words(field: str, value: object) -> str:
    return {"depth": f"H = {value}", "width": f"N = {value}", "trained": f"{value} batches"}.get(
        field, str(value)
    )
