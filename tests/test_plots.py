"""Figures and the report: what is drawn is what the records say, and the page stands by itself."""

import html.parser
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib.figure import Figure

from mupc import plots
from mupc.cli import main
from mupc.plots.reading import read_runs
from mupc.plots.runs import FIELDS
from mupc.plots.svg import hover, svg
from mupc.records import RunError, RunFolder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)>&"'


def train_record(step, loss):
    return {
        "kind": "train",
        "step": step,
        "loss": loss,
        "accuracy": 1 - loss,
        "energy_before": loss / 10,
        "energy_after": loss / 20,
        "seconds": step / 10,
    }


def regime_record(step, inference=True):
    missing = dict.fromkeys(
        ("rho", "residual", "at_equilibrium", "diverged", "sweeps", "cosine", "ratio")
    )
    there = {
        "rho": 0.05,
        "residual": 0.02,
        "at_equilibrium": 0.5,
        "diverged": 0.0,
        "sweeps": 8.0,
        "cosine": [0.9, 0.95, 0.99, None],
        "ratio": [1.0, 1.1, 1.0, None],
    }
    return {
        "kind": "regime",
        "step": step,
        "precision": 0.1,
        "inference_steps": 2.0 if inference else 0.0,
        "energy_before": [0.0, 0.0, 0.0, 0.4],
        "energy_after": [0.1, 0.05, 0.02, 0.1],
        "scale": [1.0, 1.1, 1.2, 0.1],
        "change": [1e-3 * step, 1e-2 * step, 2e-2 * step, 1e-3 * step],
        "seconds": step / 10,
        **(there if inference else missing),
    }


def theory_record(depth, width, trained):
    return {
        "kind": "theory",
        "parameterisation": "mupc",
        "depth": depth,
        "width": width,
        "trained": trained,
        "condition_number": 10.0 * depth,
        "energy_ratio": 1 / (1 + depth / width),
        "cosine": [0.9, 0.8, 0.7],
        "whole_cosine": 0.85,
        "scale": [1.0, 1.2, 0.1],
        "moved": [0.1, 0.2, 0.3],
        "spectrum": {"eigenvalues": [0.1, 1.0, 4.0], "weights": [0.2, 0.5, 0.3]},
    }


def write_run(path, records, config=None, result=None):
    folder = RunFolder.create(
        path, {"rule": "predictive-coding", "depth": 3, **(config or {})}, {"mupc": "1.0"}, {}
    )
    for record in records:
        folder.append(record)
    if result is not None:
        folder.finish(result)
    return path


@pytest.fixture
def run(tmp_path):
    records = [
        *(train_record(step, 1 / step) for step in (10, 20, 40)),
        *(regime_record(step) for step in (0, 20, 40)),
        {"kind": "validation", "step": 20, "loss": 0.3, "accuracy": 0.7, "best": True},
        {"kind": "trace", "step": 40, "energy": [0.4, 0.3, 0.27], "residual": [1.0, 0.3, 0.02]},
    ]
    test = {"accuracy": 0.9, "loss": 0.1, "samples": 360}
    result = {"message": "training ended after 40 steps: all steps were made", "test": test}
    return write_run(tmp_path / "one", records, result=result)


def assert_labelled(figure):
    assert isinstance(figure, Figure)
    for axes in figure.axes:
        if axes.get_label() != "<colorbar>":
            assert axes.get_xlabel()
            assert axes.get_title(loc="left")
        assert axes.get_ylabel()


def test_curves_draw_the_records(run):
    figure = plots.curves([plots.read_run(run)])
    assert_labelled(figure)
    loss, accuracy, energy = (axes.lines for axes in figure.axes)
    np.testing.assert_allclose(loss[0].get_xydata(), [[10, 0.1], [20, 0.05], [40, 0.025]])
    np.testing.assert_allclose(loss[1].get_xydata(), [[20, 0.3]])
    np.testing.assert_allclose(accuracy[0].get_ydata(), [90, 95, 97.5])
    np.testing.assert_allclose(accuracy[1].get_ydata(), [70])
    np.testing.assert_allclose(energy[0].get_ydata(), [0.01, 0.005, 0.0025])
    np.testing.assert_allclose(energy[1].get_ydata(), [0.005, 0.0025, 0.00125])


@pytest.mark.parametrize("field", FIELDS)
def test_heat_maps_and_profiles_draw_every_layer(run, field):
    seen = plots.read_run(run)
    expected = np.array(
        [[math.nan if v is None else v for v in r[field]] for r in seen.of("regime")], float
    ).T
    if FIELDS[field].logarithmic:
        expected[~(expected > 0)] = math.nan  # has no logarithm: left blank
    figure = plots.heat_map(seen, field)
    assert_labelled(figure)
    (mesh,) = figure.axes[0].collections
    np.testing.assert_allclose(np.ma.filled(mesh.get_array(), math.nan), expected)
    edges = mesh.get_coordinates()
    np.testing.assert_allclose(edges[0, :, 0], [0, 10, 30, 40])
    np.testing.assert_allclose(edges[:, 0, 1], [0.5, 1.5, 2.5, 3.5, 4.5])
    profile = plots.layer_profiles([seen], field)
    assert_labelled(profile)
    last = [math.nan if v is None else v for v in seen.of("regime")[-1][field]]
    np.testing.assert_allclose(profile.axes[0].lines[0].get_ydata(), last)


def test_a_trace_is_drawn_and_without_one_the_two_ends(run, tmp_path):
    short = write_run(tmp_path / "two", [regime_record(7)])
    figure = plots.inference_traces([plots.read_run(run), plots.read_run(short)])
    assert_labelled(figure)
    energy, residual = (axes.lines for axes in figure.axes)
    np.testing.assert_allclose(energy[0].get_ydata(), [1, 0.75, 0.675])
    np.testing.assert_allclose(energy[1].get_ydata(), [1, 0.27 / 0.4])
    np.testing.assert_allclose(residual[0].get_ydata(), [1, 0.3, 0.02])
    np.testing.assert_allclose(residual[1].get_ydata(), [1, 0.02])


def test_figures_of_theory_draw_one_line_for_each_case(tmp_path):
    points = [theory_record(d, w, t) for d in (4, 8) for w in (16, 32) for t in (0, 9)]
    for draw in (plots.condition_numbers, plots.energy_ratios, plots.alignments, plots.coordinates):
        assert_labelled(draw(points))
    by_depth, by_width, by_training = plots.condition_numbers(points).axes
    for axes, ends in [(by_depth, (40, 80)), (by_width, None), (by_training, None)]:
        assert len(axes.lines) == 4
        for line in axes.lines:
            assert ends is None or tuple(line.get_ydata()) == ends
    ratio = plots.energy_ratios(points).axes[0].lines[0]
    np.testing.assert_allclose(ratio.get_xydata(), [[4, 0.8], [8, 8 / 9]])
    names = [line.get_label() for line in by_depth.lines]
    assert names == [
        "N = 16, 0 batches",
        "N = 16, 9 batches",
        "N = 32, 0 batches",
        "N = 32, 9 batches",
    ]
    run = plots.read_run(write_run(tmp_path / "theory", points[:1]))
    spectrum = plots.spectra([run])
    assert_labelled(spectrum)
    assert np.sum(spectrum.axes[0].lines[0].get_ydata()) == pytest.approx(1)


def test_a_heat_map_is_in_the_order_of_steps_whatever_that_of_the_records(tmp_path):
    """The last record is of the network that was kept, which may be an earlier one."""
    steps = (0, 100, 200, 120, 0)
    seen = plots.read_run(write_run(tmp_path / "r", [regime_record(step) for step in steps]))
    (mesh,) = plots.heat_map(seen, "change").axes[0].collections
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [0, 50, 110, 160, 200])
    np.testing.assert_allclose(mesh.get_array()[0, 1:], [0.1, 0.12, 0.2])


def test_points_of_several_runs_are_told_apart():
    points = [{**theory_record(4, w, 0), "run": r} for w in (16, 32) for r in ("one", "two")]
    names = [line.get_label() for line in plots.alignments(points).axes[0].lines]
    assert names == ["one", "two"]


def test_figures_of_theory_take_the_figure_that_they_name():
    points = [theory_record(d, 16, 0) for d in (4, 8)]
    aligned = plots.alignments(points).axes[1].lines[0]
    np.testing.assert_allclose(aligned.get_xydata(), [[4, 0.85], [8, 0.85]])
    scale, _, moved, _ = (axes.lines[0].get_ydata() for axes in plots.coordinates(points).axes)
    np.testing.assert_allclose([scale[0], moved[0]], [1.2, 0.2])


def test_a_heat_map_of_what_is_not_there_says_so(tmp_path):
    seen = plots.read_run(write_run(tmp_path / "bp", [regime_record(3, inference=False)]))
    with pytest.raises(ValueError, match="the run bp has no regime records with cosine"):
        plots.heat_map(seen, "cosine")


# The page


class Page(html.parser.HTMLParser):
    """Checks that tags close in order, and gathers addresses, text and scripts."""

    VOID = frozenset({"meta", "link", "path", "use", "image", "rect", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.ids, self.words, self.tags = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.addresses += [v for n, v in attributes if n in ("src", "href", "xlink:href", "action")]
        self.ids += [v for n, v in attributes if n == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def report(tmp_path, *runs):
    page = plots.write_report(runs, tmp_path / "out")
    return page, page.read_text()


def test_the_page_needs_nothing_but_itself(run, tmp_path):
    page, text = report(tmp_path, run)
    seen = Page(text)
    inside = [address for address in seen.addresses if address.startswith("#")]
    assert all(address.startswith(("#", "data:")) for address in seen.addresses)
    assert {address[1:] for address in inside} <= set(seen.ids)
    assert len(seen.ids) == len(set(seen.ids))
    assert not re.findall(r"url\((?!#)", text)
    words = " ".join(seen.words)
    assert "accuracy 90.00 %, loss 0.1000, 360 samples" in words
    assert "2 of 2, changed by 0.4 to 0.8" in words
    names = {path.name for path in page.parent.iterdir()}
    assert {"report.html", "curves.png", "curves.svg", "map-change-one.png"} <= names


def test_text_from_a_run_is_escaped(tmp_path):
    hostile = write_run(tmp_path / "x<b>&", [regime_record(5)], {"out": HOSTILE})
    plain = write_run(tmp_path / "plain", [regime_record(5)])
    _, text = report(tmp_path, hostile, plain)
    seen = Page(text)
    assert not [tag for tag, _ in seen.tags if tag in ("img", "b")]
    assert not [attributes for _, attributes in seen.tags if "onerror" in attributes]
    assert any(HOSTILE in words for words in seen.words)


def test_text_inside_a_script_cannot_end_it(tmp_path):
    points = [{**theory_record(4, 16, 0), "parameterisation": p} for p in (HOSTILE, "mupc")]
    _, text = report(tmp_path, write_run(tmp_path / "theory", points))
    seen = Page(text)
    scripts = [attributes for tag, attributes in seen.tags if tag == "script"]
    figures = [tag for tag, _ in seen.tags if tag == "figure"]
    assert len(scripts) == len(figures) + 1
    assert not [tag for tag, _ in seen.tags if tag == "img"]


def test_a_run_whose_figures_are_missing_is_drawn_all_the_same(tmp_path):
    broken = {
        **regime_record(8),
        "residual": None,
        "change": [None, None, 0.1, None],
        "energy_after": [None] * 4,
    }
    points = [{**theory_record(4, 16, 0), "condition_number": None, "whole_cosine": None}]
    path = write_run(tmp_path / "broken", [regime_record(0), broken, *points])
    _, text = report(tmp_path, path)
    assert "1 of 2, changed by 0.1 to 0.1; 1 not finite" in " ".join(Page(text).words)


def test_names_that_matplotlib_would_read_as_something_else(tmp_path):
    names = ("_hidden", "a $x$ b", "a b", "a-b")
    runs = [write_run(tmp_path / name, [regime_record(5)]) for name in names]
    page, _ = report(tmp_path, *runs, runs[0])
    assert len(list(page.parent.glob("map-change-*.png"))) == 5
    labels = plots.layer_profiles(read_runs(runs), "change").axes[0].get_legend_handles_labels()[1]
    assert len(labels) == 4
    figure = plots.layer_profiles(read_runs(runs[1:2]), "change")
    assert json.loads(hover(figure))[0]["lines"][0]["name"] == "a $x$ b, step 5"


def test_settings_that_differ_are_marked_and_come_first(tmp_path):
    runs = [
        write_run(tmp_path / n, [regime_record(5)], {"seed": s}) for n, s in [("a", 0), ("b", 1)]
    ]
    _, text = report(tmp_path, *runs)
    table = text[text.index("Configuration</h2>") :]
    rows = re.findall(r'<tr( class="differs")?><th scope="row">(\w*)</th>', table)
    assert rows == [("", ""), (' class="differs"', "seed"), ("", "rule"), ("", "depth")]


def test_runs_of_one_name_are_told_apart(run, tmp_path):
    (tmp_path / "other").mkdir()
    twin = write_run(tmp_path / "other" / "one", [regime_record(5)])
    _, text = report(tmp_path, run, twin)
    assert str(twin) in text
    with pytest.raises(RunError, match="there is no run at"):
        report(tmp_path, tmp_path / "nowhere")


def test_hover_values_are_those_of_the_figure(run):
    seen = plots.read_run(run)
    curves = json.loads(hover(plots.curves([seen])))
    assert curves[0]["lines"][0] == {"name": "one", "x": [10, 20, 40], "y": [0.1, 0.05, 0.025]}
    (cells,) = json.loads(hover(plots.heat_map(seen, "cosine")))
    assert cells["cells"]["x"] == [0, 10, 30, 40]
    assert cells["cells"]["values"][0] == [0.9, 0.9, 0.9]
    assert cells["cells"]["values"][3] == [None] * 3
    assert "currentColor" in svg(plots.curves([seen]))


def test_a_report_of_a_run_that_has_begun_or_has_no_records(tmp_path):
    _, text = report(tmp_path, write_run(tmp_path / "empty", []))
    assert "has not ended" in text
    assert "hold no records yet" in text


POINT = """
<script>
{
  const figure = document.querySelector("#FIGURE"), svg = figure.querySelector("svg");
  const [left, top, width, height] = JSON.parse(figure.querySelector("script").textContent)[0].box;
  const seen = svg.getBoundingClientRect(), scale = seen.width / svg.viewBox.baseVal.width;
  const clientX = seen.left + scale * (left + .99 * width);
  const clientY = seen.top + scale * (top + .5 * height);
  svg.dispatchEvent(new PointerEvent("pointermove", {clientX, clientY}));
  document.body.dataset.tip = figure.querySelector(".tip").textContent;
}
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
@pytest.mark.parametrize(
    ("figure", "tip"),
    [
        ("curves", "training step 40\none: 0.025"),
        ("map-cosine-one", "training step 40\nlayer 2: 0.95"),
    ],
)
def test_the_page_opens_in_a_browser_without_errors_and_shows_values(run, tmp_path, figure, tip):
    _, text = report(tmp_path, run)
    page = tmp_path / "seen.html"
    page.write_text(text.replace("</body>", POINT.replace("FIGURE", figure) + "</body>"))
    quiet = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    calm = "--disable-background-networking --disable-component-update --enable-logging=stderr"
    seen = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            *quiet.split(),
            *calm.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1000,800",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in seen.stderr
    assert f'data-tip="{tip}"' in seen.stdout


def test_the_command_reports_on_several_runs(run, tmp_path, capsys):
    other = write_run(tmp_path / "two", [regime_record(7, inference=False)])
    out = tmp_path / "page"
    assert main(["report", str(run), str(other), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"report: {out / 'report.html'}\n"
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "there is no run at" in capsys.readouterr().err
