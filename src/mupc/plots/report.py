"""The report: one HTML page that needs nothing but itself, and its figures as PNG and SVG."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from mupc.plots import theory
from mupc.plots.reading import RunRecords, read_runs
from mupc.plots.runs import (
    curves,
    heat_map,
    inference_traces,
    layer_profiles,
    spectra,
)
from mupc.plots.svg import hover, svg
from mupc.records import RunError, layers_that_learned


class Picture(NamedTuple):
    """A figure, the name of its files, and what to look for in it."""

    name: str
    figure: Figure
    words: str


_WORDS = {
    "change": "A layer whose row stays dark, or grey, has hardly moved: it did not learn.",
    "energy_after": "Where inference reached equilibrium every layer carries a part of the energy; "
    "where it was cut short the lower layers carry none.",
    "cosine": "At 1 the gradient is backpropagation's in disguise; lower, it is predictive "
    "coding's own, or inference was not accurate. The residual tells which.",
    "scale": "Under a parameterisation that suits the depth it is of order one in every layer.",
}


def write_report(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Write report.html, and every figure as PNG and SVG, into a folder; give the page's path.

    Args:
        runs: run folders; several are compared side by side.
        out: the folder; figures and a report that are there already are replaced.

    Raises:
        RunError: if a run cannot be read, or the folder not written.
    """
    read = read_runs(runs)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = folder / "report.html"
        pictures = list(_pictures(read))
        for name, figure, _ in pictures:
            # What is where is found once, not again for every format.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            figure.savefig(folder / f"{name}.png", dpi=150)
            figure.savefig(folder / f"{name}.svg")
        page.write_text(_page(read, pictures), encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write the report to {folder}: {error.strerror}") from error
    return page


def _pictures(runs: Sequence[RunRecords]) -> Iterable[Picture]:
    if any(run.of("train") for run in runs):
        yield Picture(
            "curves", curves(runs), "Each point is a mean over the batches since the last."
        )
    reported = [run for run in runs if run.of("regime")]
    for field in ("change", "cosine", "energy_after", "scale"):
        there = [run for run in reported if any(r.get(field) is not None for r in run.of("regime"))]
        if field == "energy_after":  # without inference all of it is the output's
            there = [run for run in there if run.of("regime")[-1]["inference_steps"]]
        if not there:
            continue
        yield Picture(f"layers-{field}", layer_profiles(there, field), _WORDS[field])
        if field in ("change", "cosine", "energy_after"):
            for run in there:
                name = f"map-{field}-{_file_name(run.name, runs)}"
                yield Picture(name, heat_map(run, field), "")
    if any(run.of("trace") or any(r["residual"] for r in run.of("regime")) for run in runs):
        words = "At equilibrium the residual is near zero and the energy no longer falls."
        yield Picture("inference", inference_traces(runs), words)
    points = [{**point, "run": run.name} for run in runs for point in run.of("theory")]
    if points:
        yield Picture("spectrum", spectra(runs), "A wide spectrum is what makes inference slow.")
        yield Picture("condition", theory.condition_numbers(points), "")
        yield Picture("energy-ratio", theory.energy_ratios(points), "")
        yield Picture("alignment", theory.alignments(points), "")
        if any(point["trained"] == 0 for point in points):
            yield Picture("coordinates", theory.coordinates(points), "")


def _page(runs: Sequence[RunRecords], pictures: Sequence[Picture]) -> str:
    title = " · ".join(run.name for run in runs)
    asset = lambda name: resources.files("mupc.plots").joinpath(name).read_text("utf-8")  # noqa: E731
    parts = [
        f"<h1>{_text(title)}</h1>",
        "<h2>Outcome</h2>",
        _outcome(runs),
        "<h2>Figures</h2>" if pictures else "<p>These runs hold no records.</p>",
        *(_element(picture) for picture in pictures),
        "<h2>Configuration</h2>",
        "<p>Settings that differ come first, and are marked.</p>" if len(runs) > 1 else "",
        _compared(runs, [run.config for run in runs]),
        "<h2>Versions</h2>",
        _compared(runs, [run.environment for run in runs]),
    ]
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{_text(title)}</title>
<style>{asset("page.css")}</style>
</head>
<body>
{body}
<script>{asset("page.js")}</script>
</body>
</html>
"""


def _element(picture: Picture) -> str:
    words = f"<p>{_text(picture.words)}</p>" if picture.words else ""
    data = hover(picture.figure)
    width = picture.figure.get_size_inches()[0] * 1.2 * 72
    return (
        f'{words}<figure id="{_text(picture.name)}" style="--width: {width:.0f}px">'
        f"{_own_names(svg(picture.figure), picture.name)}"
        f'<div class="tip" role="status"></div>'
        f'<script type="application/json">{data}</script></figure>'
    )


def _own_names(drawing: str, name: str) -> str:
    """Give an SVG's names a prefix: several of them in one page must not share any."""
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'href="#', f'href="#{name}-', drawing)
    return drawing.replace("url(#", f"url(#{name}-")


def _outcome(runs: Sequence[RunRecords]) -> str:
    rows = [("", [run.name for run in runs])]
    for heading, said in _SAID.items():
        cells = [said(run) for run in runs]
        if any(cells):
            rows.append((heading, cells))
    return _table(rows)


def _ended(run: RunRecords) -> str:
    if "rule" not in run.config:  # of `mupc theory`, which trains nothing that is kept
        return f"{len(run.of('theory'))} networks measured"
    return run.result["message"] if run.result else "has not ended"


def _test(run: RunRecords) -> str:
    test = (run.result or {}).get("test")
    if not test:
        return ""
    accuracy = "" if test["accuracy"] is None else f"accuracy {100 * test['accuracy']:.2f} %, "
    return f"{accuracy}loss {test['loss']:.4f}, {test['samples']:,} samples"


def _speed(run: RunRecords) -> str:
    seen = run.of("train")
    return f"{seen[-1]['seconds']:.0f} s of training" if seen else ""


def _last_seen(field: str) -> Any:
    def say(run: RunRecords) -> str:
        seen = run.of("regime")
        value = seen[-1].get(field) if seen else None
        return "" if value is None else f"{value:.3g}"

    return say


def _learning(run: RunRecords) -> str:
    seen = run.of("regime")
    hidden = seen[-1]["change"][1:-1] if seen and seen[-1]["step"] else []
    there = [change for change in hidden if change is not None]
    if not there:
        return ""
    range_ = f"changed by {min(there):.2g} to {max(there):.2g}"
    lost = "" if len(there) == len(hidden) else f"; {len(hidden) - len(there)} not finite"
    return f"{layers_that_learned(there)} of {len(hidden)}, {range_}{lost}"


def _cosine(run: RunRecords) -> str:
    seen = run.of("regime")
    cosines = (seen[-1]["cosine"] or ()) if seen else ()
    if not (there := sorted(c for c in cosines if c is not None)):
        return ""
    none = len(cosines) - len(there)
    rest = f", in {len(there)} layers ({none} without a gradient)" if none else ""
    return f"median layer {there[len(there) // 2]:.3f}, least {there[0]:.3f}{rest}"


_SAID = {
    "folder": lambda run: run.path,
    "ended": _ended,
    "test": _test,
    "time": _speed,
    "regime last looked at, at step": lambda run: (
        f"{run.of('regime')[-1]['step']:,}" if run.of("regime") else ""
    ),
    "regime number ρ at first": lambda run: (
        "" if run.regime.get("rho") is None else f"{run.regime['rho']:.3g}"
    ),
    "gradient-weighted ρ": _last_seen("rho"),
    "residual of inference": _last_seen("residual"),
    "share of samples at equilibrium (residual at most 0.01)": _last_seen("at_equilibrium"),
    "inference steps": _last_seen("inference_steps"),
    "sweeps of inference": _last_seen("sweeps"),
    "cosine to backpropagation's gradient": _cosine,
    "hidden matrices that learned": _learning,
}


def _compared(runs: Sequence[RunRecords], tables: Sequence[Mapping[str, Any]]) -> str:
    fields = list(dict.fromkeys(name for table in tables for name in table))
    rows = [(name, [_value(table.get(name)) for table in tables]) for name in fields]
    rows = [(name, cells) for name, cells in rows if any(cells)]  # the others do not apply
    differing = {name for name, cells in rows if len(set(cells)) > 1}
    rows = [row for row in rows if row[0] in differing] + [r for r in rows if r[0] not in differing]
    return _table([("", [run.name for run in runs]), *rows], differing)


def _table(rows: Sequence[tuple[str, Sequence[str]]], marked: Iterable[str] = ()) -> str:
    marked = set(marked)
    lines: list[str] = []
    for i, (heading, cells) in enumerate(rows):
        kind = "th" if i == 0 else "td"
        mark = ' class="differs"' if heading in marked else ""
        shown = "".join(f"<{kind}>{_text(cell)}</{kind}>" for cell in cells)
        lines.append(f'<tr{mark}><th scope="row">{_text(heading)}</th>{shown}</tr>')
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _value(value: object) -> str:
    return (
        ""
        if value is None
        else ", ".join(map(str, value))
        if isinstance(value, list)
        else str(value)
    )


def _text(text: object) -> str:
    return html.escape(str(text), quote=True)


def _file_name(name: str, runs: Sequence[RunRecords]) -> str:
    plain = [re.sub(r"[^\w.-]+", "-", run.name) for run in runs]
    if len(set(plain)) < len(plain):
        plain = [f"{i}-{one}" for i, one in enumerate(plain, 1)]
    return plain[[run.name for run in runs].index(name)]
