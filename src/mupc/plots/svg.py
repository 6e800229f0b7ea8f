"""A figure as SVG that follows the page's colours, with the values that a reader may hover over."""

import io
import json
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

# Drawn in this colour, which nothing else has, and replaced by the page's own.
_INK = "#010203"
_DPI = 72  # an SVG's unit is a point


def svg(figure: Figure) -> str:
    """Give the figure as an SVG element whose text and axes have the colour of the text around."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mupc"}):
        _paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor").strip()


def hover(figure: Figure) -> str:
    """Give what lies in each axes as JSON: where it is, its scales, its lines and its cells."""
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * _DPI
    axes = [_hover(one, width, height) for one in figure.axes if one.lines or one.collections]
    text = json.dumps([one for one in axes if one is not None], allow_nan=False)
    return text.replace("<", "\\u003c")  # a name must not end the script that holds it


def _paint(figure: Figure) -> None:
    for axes in figure.axes:
        axes.tick_params(which="both", color=_INK, labelcolor=_INK)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts):
            text.set_color(_INK)
        axes.set_title(axes.get_title(loc="left"), loc="left", color=_INK, fontsize="medium")
        for spine in axes.spines.values():
            spine.set_edgecolor(_INK)
        if (legend := axes.get_legend()) is not None:
            for text in legend.get_texts():
                text.set_color(_INK)


def _hover(axes: Axes, width: float, height: float) -> dict[str, Any] | None:
    box = axes.get_position()
    known: dict[str, Any] = {
        "box": [box.x0 * width, (1 - box.y1) * height, box.width * width, box.height * height],
        "x": [*axes.get_xlim()],
        "y": [*axes.get_ylim()],
        "log": [axes.get_xscale() == "log", axes.get_yscale() == "log"],
        "labels": [axes.get_xlabel(), axes.get_ylabel()],
    }
    meshes = [one for one in axes.collections if isinstance(one, QuadMesh)]
    if meshes and axes.get_xlabel():
        corners = np.asarray(meshes[0].get_coordinates())
        known["cells"] = {
            "x": corners[0, :, 0].tolist(),
            "y": corners[:, 0, 1].tolist(),
            "steps": [int(step) for step in str(meshes[0].get_gid()).split("-")[1:]],
            "values": _numbers(np.ma.filled(np.ma.asarray(meshes[0].get_array(), float), np.nan)),
        }
        return known
    known["lines"] = [
        {
            "name": _name(str(line.get_label())),
            "x": _numbers(np.asarray(line.get_xdata(), float)),
            "y": _numbers(np.asarray(line.get_ydata(), float)),
        }
        for line in axes.lines
    ]
    return known if known["lines"] else None


def _name(label: str) -> str:
    """Give a line's name as it was before dollar signs were marked; empty if it has none."""
    return "" if label.startswith("_") else label.replace(r"\$", "$")


def _numbers(values: np.ndarray) -> list[Any]:
    """Give numbers to four digits, null for what is none."""
    if values.ndim > 1:
        return [_numbers(row) for row in values]
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]
