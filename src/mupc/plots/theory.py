"""Figures of theory over width, depth and training time, from the records of `mupc theory`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mupc.plots.style import DASHES, colour, label, legend, log_if_wide, panels, plain

Points = Sequence[dict[str, Any]]

_TICKS = 8  # so many values are written below the axis themselves


def condition_numbers(points: Points) -> Figure:
    """Draw the activity Hessian's condition number against depth, width and batches of training."""
    figure, axes = panels(3)
    _three(axes, points, lambda point: point["condition_number"])
    for one, x in zip(axes, ("hidden layers H", "width N", "batches of training"), strict=True):
        label(
            one, "Condition number of the activity Hessian", x, "largest over smallest eigenvalue"
        )
    return figure


def energy_ratios(points: Points) -> Figure:
    """Draw the energy at equilibrium over the loss, against N/H, depth, width and training."""
    title, y = "Energy at equilibrium", "F* / loss (at the same precision)"
    ratio = lambda point: point["energy_ratio"]  # noqa: E731
    return _four(points, ratio, title, y)


def alignments(points: Points) -> Figure:
    """Draw the cosine between the gradient at equilibrium and backpropagation's, of all weights."""
    cosine = lambda point: point["whole_cosine"]  # noqa: E731
    return _four(points, cosine, "Alignment at equilibrium", "cosine to backpropagation")


def _four(
    points: Points, value: Callable[[dict[str, Any]], float | None], title: str, y: str
) -> Figure:
    figure, axes = panels(4, width=4.2)
    ratio = lambda point: point["width"] / point["depth"]  # noqa: E731
    _against(axes[0], points, ratio, ("parameterisation", "depth", "trained"), value)
    _three(axes[1:], points, value)
    names = ("width over depth, N/H", "hidden layers H", "width N", "batches of training")
    for one, x in zip(axes, names, strict=True):
        label(one, title, x, y)
    return figure


def _three(
    axes: Sequence[Axes], points: Points, value: Callable[[dict[str, Any]], float | None]
) -> None:
    _against(axes[0], points, "depth", ("parameterisation", "width", "trained"), value)
    _against(axes[1], points, "width", ("parameterisation", "depth", "trained"), value)
    _against(axes[2], points, "trained", ("parameterisation", "depth", "width"), value)


def coordinates(points: Points) -> Figure:
    """Draw the root mean square of the last activity and of its change by updates, against size."""
    figure, axes = panels(4, width=4.2)
    fresh = [point for point in points if not point["trained"]]
    kinds = [("scale", "Last activity at first"), ("moved", "Change of it by three updates")]
    for i, (name, title) in enumerate(kinds):
        value = lambda point, name=name: point[name][-2]  # noqa: E731
        _against(axes[2 * i], fresh, "width", ("parameterisation", "depth"), value)
        _against(axes[2 * i + 1], fresh, "depth", ("parameterisation", "width"), value)
        label(axes[2 * i], title, "width N", "root mean square")
        label(axes[2 * i + 1], title, "hidden layers H", "root mean square")
    return figure


class _Line(NamedTuple):
    name: str
    x: list[float]
    y: list[float]


def _lines(
    points: Points,
    x: Callable[[dict[str, Any]], float],
    names: Sequence[str],
    y: Callable[[dict[str, Any]], float | None],
) -> Iterable[_Line]:
    """Gather points that have all of `names` in common, in the order of x."""
    if len({(x(p), *(p.get(name) for name in names)) for p in points}) < len(points):
        names = ("run", *names)  # points of several runs that are told apart by nothing else
    cases: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for point in points:
        value = y(point)
        at = (x(point), np.nan if value is None else value)
        cases.setdefault(tuple(point.get(name, "") for name in names), []).append(at)
    differing = [len({case[i] for case in cases}) > 1 for i in range(len(names))]
    for case, drawn in cases.items():
        told = [_said(n, v) for n, v, d in zip(names, case, differing, strict=True) if d]
        yield _Line(plain(", ".join(told)), *map(list, zip(*sorted(drawn), strict=True)))


def _against(
    axes: Axes,
    points: Points,
    x: str | Callable[[dict[str, Any]], float],
    names: Sequence[str],
    y: Callable[[dict[str, Any]], float | None],
) -> None:
    by = (lambda point: point[x]) if isinstance(x, str) else x
    drawn = list(_lines(points, by, names, y))
    for i, one in enumerate(drawn):
        dash = DASHES[i // 8 % len(DASHES)]
        axes.plot(
            one.x, one.y, dash, marker="o", markersize=3, label=one.name or None, color=colour(i)
        )
    log_if_wide(axes, [value for one in drawn for value in one.y])
    places = sorted({value for one in drawn for value in one.x})
    log_if_wide(axes, places, which="x")
    if len(places) <= _TICKS:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
    legend(axes)


def _said(name: str, value: object) -> str:
    return {"depth": f"H = {value}", "width": f"N = {value}", "trained": f"{value} batches"}.get(
        name, str(value)
    )
