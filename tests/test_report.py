"""The report: the page stands by itself, escapes what it shows, and opens in a browser."""

import html.parser
import json
import pathlib
import re
import shutil
import subprocess

import pytest
from matplotlib.figure import Figure
from run_records import example_run, regime_record, theory_record, write_run

from mupc import plots
from mupc.cli import main
from mupc.plots.reading import read_runs
from mupc.plots.svg import hover, svg
from mupc.records import RunError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)>&"'


@pytest.fixture
def files_drawn():
    """Of a test whose pictures are drawn into their files too."""


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Leave pictures empty in their files, and draw those of the page: they take the time."""
    save = Figure.savefig

    def savefig(figure, to, **more):
        if isinstance(to, pathlib.Path) and "files_drawn" not in request.fixturenames:
            to.touch()
        else:
            save(figure, to, **more | ({"dpi": 20} if "dpi" in more else {}))

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def run(tmp_path):
    return example_run(tmp_path / "one")


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


def test_the_page_needs_nothing_but_itself(run, tmp_path, files_drawn):
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
    starts = {path.suffix: path.read_bytes()[:8] for path in page.parent.iterdir()}
    assert starts[".png"] == b"\x89PNG\r\n\x1a\n"
    assert starts[".svg"].startswith(b"<?xml")


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


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"kind": "train", "loss": "abc"}, "metrics.jsonl is damaged: loss is 'abc' in a record"),
        ({"kind": "regime", "cosine": [1, "x"]}, "is damaged: cosine is [1, 'x'] in a record"),
        ({"step": 3}, "a record does not say of what kind it is"),
    ],
)
def test_a_damaged_record_gets_one_sentence(record, sentence, tmp_path, capsys):
    assert main(["report", str(write_run(tmp_path / "run", [record]))]) == 2
    assert sentence in capsys.readouterr().err


def test_the_page_says_how_many_layers_have_a_gradient(run, tmp_path):
    _, text = report(tmp_path, run)
    words = " ".join(Page(text).words)
    assert "median layer 0.950, least 0.900, in 3 layers (1 without a gradient)" in words


def test_settings_that_differ_are_marked_and_come_first(tmp_path):
    runs = [
        write_run(tmp_path / n, [regime_record(5)], {"seed": s}) for n, s in [("a", 0), ("b", 1)]
    ]
    _, text = report(tmp_path, *runs)
    table = text[text.index("Configuration</h2>") : text.index("Versions</h2>")]
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
    assert "hold no records" in text


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


def test_versions_that_differ_are_marked(tmp_path):
    paths = [write_run(tmp_path / name, [regime_record(5)]) for name in ("a", "b")]
    (paths[1] / "environment.json").write_text('{"mupc": "2.0"}')
    _, text = report(tmp_path, *paths)
    versions = text[text.index("Versions</h2>") :]
    assert '<tr class="differs"><th scope="row">mupc</th><td>1.0</td><td>2.0</td></tr>' in versions
