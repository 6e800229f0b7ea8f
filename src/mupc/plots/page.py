"""The page: HTML that needs nothing but itself, of tables, and of figures with their numbers.

Whatever a user named is escaped here, once.
"""

import base64
import csv
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from mupc.plots.style import Chart, Key
from mupc.plots.svg import drawn_panels

_PIXELS = 82  # per inch of a figure: letters of 10 points are then as large as small print


class Picture(NamedTuple):
    """Figures of one kind by the names of their files, a heading, and what to look for in them."""

    name: str
    heading: str
    words: str
    figures: Mapping[str, Figure]


def page(title: str, parts: Iterable[str]) -> str:
    """Return the whole page."""
    style = resources.files("mupc.plots").joinpath("page.css").read_text("utf-8")
    body = "\n".join(part for part in parts if part)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<style>{style}</style>
</head>
<body>
<h1>{text(title)}</h1>
{body}
</body>
</html>
"""


def text(words: object) -> str:
    """Return text that HTML shows as it is."""
    return html.escape(str(words), quote=True)


def heading(words: str) -> str:
    """Return a heading of a part of the page."""
    return f"<h2>{text(words)}</h2>"


def paragraph(words: str, kind: str = "") -> str:
    """Return a paragraph; nothing if there are no words."""
    return f'<p class="{kind}">{text(words)}</p>' if words else ""


def element(picture: Picture) -> str:
    """Return a picture: what to look for, the panels, what their colours mean, their numbers."""
    panels: list[str] = []
    keys: Sequence[Sequence[Key]] = ()
    for number, figure in enumerate(picture.figures.values()):
        keys = figure.keys if isinstance(figure, Chart) else ()
        for i, panel in enumerate(drawn_panels(figure, f"{picture.name}-{number + 1}")):
            legend = _legend(keys[i]) if len(keys) > 1 else ""
            panels.append(
                f'<figure style="--width: {_PIXELS * panel.width:.0f}px">{panel.drawing}{legend}'
                f"<details><summary>numbers</summary>{table(panel.rows)}</details></figure>"
            )
    legend = _legend(keys[0]) if len(keys) == 1 else ""
    return (
        f'<section id="{text(picture.name)}"><h3>{text(picture.heading)}</h3>'
        f'{paragraph(picture.words)}{legend}<div class="panels">{"".join(panels)}</div></section>'
    )


def image(png: bytes, words: str) -> str:
    """Return an image of pixels, within the page, and what it is."""
    data = base64.b64encode(png).decode()
    shown = f'<img src="data:image/png;base64,{data}" alt="{text(words)}">'
    return f"<figure>{shown}<figcaption>{text(words)}</figcaption></figure>"


_LINES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "double"}


def _legend(keys: Sequence[Key]) -> str:
    entries = "".join(
        f'<li><span style="border-color: {key.colour}; border-style: {_LINES[key.dash]}"></span>'
        f"{text(key.name)}</li>"
        for key in keys
    )
    return f'<ul class="key">{entries}</ul>' if entries else ""


def table(rows: Sequence[Sequence[str]], marked: Iterable[str] = ()) -> str:
    """Return a table whose first row and column are headings; `marked` are rows that stand out."""
    marked, lines = set(marked), list[str]()
    for i, (first, *cells) in enumerate(rows):
        kind = "td" if i else "th"
        mark = ' class="differs"' if i and first in marked else ""
        shown = "".join(f"<{kind}>{text(cell)}</{kind}>" for cell in cells)
        lines.append(f'<tr{mark}><th scope="row">{text(first)}</th>{shown}</tr>')
    return f'<div class="scroll" tabindex="0"><table>{"".join(lines)}</table></div>'


def compared(names: Sequence[str], tables: Sequence[Mapping[str, Any]]) -> str:
    """Return settings of several runs side by side, those that differ first and marked."""
    fields = dict.fromkeys(name for values in tables for name in values)
    rows = [[name, *(_value(values.get(name)) for values in tables)] for name in fields]
    rows = [row for row in rows if any(row[1:])]  # the others do not apply
    differing = {name for name, *cells in rows if len(set(cells)) > 1}
    rows.sort(key=lambda row: row[0] not in differing)
    return table([["", *names], *rows], differing)


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV, in which no text is a formula to a spreadsheet."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([[_cell(value) for value in row] for row in rows])
    return buffer.getvalue()


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r\n" and value else value
