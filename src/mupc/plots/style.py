"""How figures look: colours that hold on light and dark ground, axes, sizes."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Of middle lightness, so that they are read on white and on near-black.
COLOURS = ("#3b82f6", "#f97316", "#10b981", "#ef4444", "#a855f7", "#06b6d4", "#eab308", "#ec4899")
DASHES = ("-", "--", ":", "-.")
_HEIGHT, _WIDTH = 3.4, 4.8


def panels(
    count: int, *, width: float = _WIDTH, height: float = _HEIGHT
) -> tuple[Figure, list[Axes]]:
    """Make a figure of so many panels beside one another."""
    # Not through pyplot: it would keep the figure, and choose a window system.
    figure = Figure(figsize=(width * count, height), layout="constrained")
    axes = [figure.add_subplot(1, count, i + 1) for i in range(count)]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(visible=True, alpha=0.2)
    return figure, axes


def colour(i: int) -> str:
    """Give the colour of the i-th thing."""
    return COLOURS[i % len(COLOURS)]


def plain(name: str) -> str:
    """Keep matplotlib from reading mathematics into a name between dollar signs."""
    return name.replace("$", r"\$")


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Say what is shown."""
    axes.set_title(title, fontsize="medium", loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def legend(axes: Axes) -> None:
    """Name the lines below the axes, where they hide nothing, if there is more than one."""
    if (count := len(axes.get_legend_handles_labels()[0])) > 1:
        columns = 1 + (count > 4)
        figure = axes.get_figure()
        if isinstance(figure, Figure):  # room for its rows, in inches
            needed = _HEIGHT + 0.17 * math.ceil(count / columns)
            figure.set_figheight(max(figure.get_figheight(), needed))
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(-0.02, -0.2),
            borderaxespad=0.0,
            frameon=False,
            fontsize="x-small",
            ncols=columns,
        )


def log_if_wide(axes: Axes, values: Sequence[Any], *, which: str = "y") -> None:
    """Take a logarithmic scale where positive values span more than a decade."""
    there = [v for v in values if v > 0]
    if there and max(there) > 10 * min(there):
        (axes.set_yscale if which == "y" else axes.set_xscale)("log")
