"""The panels of a figure, each as an SVG that follows the page's colours, and their numbers."""

import io
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from mupc.plots.style import settle

# Drawn in this colour, which nothing else has, and replaced by the page's own.
_INK = "#010203"
_NOT_SAID = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_IMAGES = 200  # dots per inch of what is no path
_ROWS, _COLUMNS = 60, 20  # of a table of numbers; more rows or columns are thinned out


class Panel(NamedTuple):
    """A panel: an SVG element, its width in inches, and rows of a table with what is drawn."""

    drawing: str
    width: float
    rows: list[list[str]]


def drawn_panels(figure: Figure, name: str) -> Iterator[Panel]:
    """Return every panel of a figure without the legends, under names that begin with `name`."""
    settle(figure)
    for legend in figure.legends:
        legend.set_visible(False)
    groups: list[list[Axes]] = []
    for axes in figure.axes:
        if axes.get_label() == "<colorbar>" and groups:
            groups[-1].append(axes)
        else:
            groups.append([axes])
    inches = figure.dpi_scale_trans.inverted()
    found = [[axes.get_tightbbox() for axes in group] for group in groups]
    boxes = [Bbox.union([box for box in group if box is not None]) for group in found]
    boxes = [box.transformed(inches).padded(0.06) for box in boxes]
    low, high = min(box.y0 for box in boxes), max(box.y1 for box in boxes)
    for i, (group, box) in enumerate(zip(groups, boxes, strict=True)):
        for axes in figure.axes:
            axes.set_visible(axes in group)
        crop = Bbox.from_extents(box.x0, low, box.x1, high)
        drawing = _own_names(_svg(figure, group, crop), f"{name}-{i + 1}")
        yield Panel(drawing, crop.width, _numbers(group[0]))
    for artist in (*figure.axes, *figure.legends):
        artist.set_visible(True)


def _svg(figure: Figure, group: Sequence[Axes], crop: Bbox) -> str:
    for axes in group:
        _paint(axes)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mupc"}):
        buffer = io.StringIO()
        figure.savefig(
            buffer,
            format="svg",
            dpi=_IMAGES,
            transparent=True,
            metadata=_NOT_SAID,
            bbox_inches=crop,
        )
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor").strip()


def _paint(axes: Axes) -> None:
    """Give what is no data the colour of the text around."""
    axes.tick_params(which="both", color=_INK, labelcolor=_INK)
    axes.set_title(axes.get_title(loc="left"), loc="left", color=_INK, fontsize="medium")
    offsets = (axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text())
    for text in (axes.xaxis.label, axes.yaxis.label, *offsets, *axes.texts):
        text.set_color(_INK)
    for spine in axes.spines.values():
        spine.set_edgecolor(_INK)


def _own_names(drawing: str, name: str) -> str:
    """Give an SVG's names a prefix: several of them in one page must not share any."""
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'href="#', f'href="#{name}-', drawing)
    return drawing.replace("url(#", f"url(#{name}-")


def _numbers(axes: Axes) -> list[list[str]]:
    """Return what is drawn as a table: a line a column, or a layer a row."""
    meshes = [mesh for mesh in axes.collections if isinstance(mesh, QuadMesh)]
    if meshes:
        values = np.ma.filled(np.ma.asarray(meshes[0].get_array(), float), np.nan)
        steps = str(meshes[0].get_label()).split()
        rows, columns = _some(values.shape[0], _ROWS), _some(values.shape[1], _COLUMNS)
        head = [f"layer, {axes.get_xlabel()}", *(steps[j] for j in columns)]
        return [head, *([f"{i + 1}", *(_short(values[i, j]) for j in columns)] for i in rows)]
    lines = [line for line in axes.lines if line.get_label() != "_nolegend_"]
    cells: dict[float, dict[int, str]] = {}
    for number, line in enumerate(lines):
        x, y = (np.asarray(values, float) for values in line.get_data())
        for i in _some(len(x), _ROWS):
            cells.setdefault(float(x[i]), {})[number] = _short(y[i])
    head = [axes.get_xlabel(), *(str(line.get_label()) for line in lines)]
    head, columns = [name.replace(r"\$", "$") for name in head], range(len(lines))
    return [head, *([_short(x), *(cells[x].get(j, "") for j in columns)] for x in sorted(cells))]


def _some(count: int, most: int) -> list[int]:
    """Return so many places at most, evenly spaced, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def _short(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""
