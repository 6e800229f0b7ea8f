"""How figures look: colours that hold on light and dark ground, axes, legends that take no room."""

import colorsys
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

# Of middle lightness, so that they are read on white and on near-black.
_COLOURS = (
    *("#3b82f6", "#f97316", "#10b981", "#ef4444", "#a855f7", "#06b6d4"),
    *("#ca8a04", "#ec4899", "#84cc16", "#64748b", "#92613a", "#4f46e5"),
)
DASHES = ("-", "--", ":", "-.")
_HEIGHT, _WIDTH = 3.4, 4.8
_TICKS = 8
_ROW, _LETTER, _SWATCH = 0.18, 0.075, 0.6  # of a legend, in inches


class Key(NamedTuple):
    """What a line of a legend says: a name, a colour, a dash."""

    name: str
    colour: str
    dash: str = "-"


class Chart(Figure):
    """A figure that knows its legends: one for all of its panels, or one for each."""

    keys: Sequence[Sequence[Key]] = ()


def colours(count: int) -> list[str]:
    """Return so many colours, no two alike."""
    if count <= len(_COLOURS):
        return list(_COLOURS[:count])
    hues = [(i / count, (0.42, 0.6)[i % 2], 0.75) for i in range(count)]
    channels = [colorsys.hls_to_rgb(*hue) for hue in hues]
    return ["#" + "".join(f"{round(255 * c):02x}" for c in channel) for channel in channels]


def panels(
    count: int, *, width: float = _WIDTH, height: float = _HEIGHT
) -> tuple[Chart, list[Axes]]:
    """Make a figure of so many panels beside one another."""
    # Not through pyplot: it would keep the figure, and choose a window system.
    figure = Chart(figsize=(width * count, height), layout="constrained")
    axes = [figure.add_subplot(1, count, i + 1) for i in range(count)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(visible=True, alpha=0.2)
    return figure, axes


def plain(name: str) -> str:
    """Return text that matplotlib neither reads mathematics in nor fails to write."""
    return "".join(c if c.isprintable() else "�" for c in name).replace("$", r"\$")


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Say what is shown."""
    axes.set_title(title, fontsize="medium", loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def legend(figure: Chart, *keys: Sequence[Key]) -> None:
    """Name the lines below the panels, where they hide nothing: once, or panel by panel.

    The figure grows by what the names need; the panels keep their size.
    """
    width, height = figure.get_size_inches()
    width /= len(keys)
    longest = max((len(key.name) for key in itertools.chain(*keys)), default=0)
    columns = max(1, min(4, int(width / (_LETTER * longest + _SWATCH))))
    room = _ROW * max(math.ceil(len(group) / columns) for group in keys) + 0.1
    if not any(len(group) > 1 for group in keys):
        return
    figure.keys = keys
    figure.set_figheight(height + room)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, room / (height + room), 1, height / (height + room)))
    letters = max(8, int((width - _SWATCH) / _LETTER))
    for i, group in enumerate(keys):
        drawn = figure.legend(
            [Line2D([], [], color=key.colour, ls=cast(Any, key.dash)) for key in group],
            [" "] * len(group),  # older versions of Matplotlib leave out names that begin with _
            loc="upper left",
            bbox_to_anchor=(i / len(keys), room / (height + room)),
            borderaxespad=0.0,
            frameon=False,
            fontsize="x-small",
            ncols=columns,
        )
        for text, key in zip(drawn.get_texts(), group, strict=True):
            text.set_text(plain(_shortened(key.name, letters)))
        drawn.set_in_layout(False)


def settle(figure: Figure) -> None:
    """Find once what is where, and not again for every format."""
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def _shortened(name: str, letters: int) -> str:
    """Return a name that is too long for its place without its middle."""
    half = (letters - 1) // 2
    return name if len(name) <= letters else f"{name[:half]}…{name[-half:]}"


def log_if_wide(axes: Axes, values: Iterable[Any], *, which: str = "y") -> None:
    """Take a logarithmic scale where positive values span more than a decade."""
    positive = [value for value in values if np.isfinite(value) and value > 0]
    if positive and max(positive) > 10 * min(positive):
        # Zero has no place there: it interrupts a line.
        (axes.set_yscale if which == "y" else axes.set_xscale)("log", nonpositive="mask")


def ticks(axes: Axes, places: Iterable[float]) -> None:
    """Choose the scale of x, and write the values themselves below it if they are few."""
    places = sorted(set(places))
    log_if_wide(axes, places, which="x")
    if len(places) <= _TICKS:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()


def scaled(axes: Axes, sound: Iterable[float], lost: Iterable[float], *, log: bool) -> None:
    """Choose the scale by what did not diverge: what did leaves the picture at its edge."""
    sound, lost = list(sound), list(lost)
    known = [value for value in sound if np.isfinite(value)]
    if log:
        log_if_wide(axes, known or lost)
    if not known or not lost:
        return
    low, high = min(known), max(known)
    if axes.get_yscale() == "log":
        low = min(value for value in known if value > 0)
        axes.set_ylim(low / 1.5, high * 3)
    else:
        room = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
        axes.set_ylim(low - room, high + room)
