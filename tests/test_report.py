"""The report: the page stands by itself, escapes what it shows, and opens in a browser."""

import base64
import csv
import dataclasses
import html.parser
import json
import math
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib.figure import Figure
from run_records import (
    diverged_run,
    example_run,
    outcome,
    regime_record,
    theory_record,
    train_record,
    write_run,
    write_sweep,
)

from mupc import plots
from mupc.commands.main import main
from mupc.plots.page import csv_text
from mupc.plots.pictures import write_grid
from mupc.plots.svg import drawn_panels
from mupc.plots.sweep import sweep_report
from mupc.records import Evaluation, RunError, read_outcome, write_outcome

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

    VOID = frozenset({"meta", "link", "path", "use", "image", "rect", "br", "img"})

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
    assert "finished: 40 steps" in words
    assert "accuracy 90.00 %, loss 0.1 (step 20; 360 samples)" in words
    assert "2 of 2 (relative change 0.4–0.8)" in words
    assert "cosine with the exact gradient" in words
    assert "median 0.950, minimum 0.900, in 3 layers (1 without a gradient)" in words
    assert not [tag for tag, _ in seen.tags if tag == "script"]
    names = {path.name for path in page.parent.iterdir()}
    assert {"report.html", "curves.png", "curves.svg", "map-change-one.png"} <= names
    starts = {path.suffix: path.read_bytes()[:8] for path in page.parent.iterdir()}
    assert starts[".png"] == b"\x89PNG\r\n\x1a\n"
    assert starts[".svg"].startswith(b"<?xml")


def test_what_commands_made_of_a_network_is_within_the_page(run, tmp_path):
    pixels = np.random.default_rng(0).uniform(size=(3, 8, 8, 1))
    write_grid(pathlib.Path(run) / "denoise.png", [pixels, pixels])
    scores = {"error": 0.01234, "psnr": 20.5, "ssim": None, "sweeps": "damaged"}
    (pathlib.Path(run) / "denoise.scores.json").write_text(json.dumps(scores))
    _, text = report(tmp_path, run)
    assert base64.b64encode((pathlib.Path(run) / "denoise.png").read_bytes()).decode() in text
    words = " ".join(Page(text).words)
    assert "data, with noise, and without it again; mean squared error 0.01234; PSNR (dB) 20.5" in (
        words
    )
    assert "SSIM" not in words
    (pathlib.Path(run) / "denoise.scores.json").write_text("[")
    with pytest.raises(RunError, match=r"denoise\.scores\.json is damaged"):
        report(tmp_path, run)


def test_text_from_a_run_is_escaped(tmp_path):
    hostile = write_run(tmp_path / "x<b>&", [train_record(5, 0.5)], {"out": HOSTILE})
    plain = write_run(tmp_path / "plain", [train_record(5, 0.5)])
    _, text = report(tmp_path, hostile, plain)
    seen = Page(text)
    assert not [tag for tag, _ in seen.tags if tag in ("img", "b")]
    assert not [attributes for _, attributes in seen.tags if "onerror" in attributes]
    assert any(HOSTILE in words for words in seen.words)


def test_hostile_text_inside_a_drawing_is_escaped(tmp_path):
    points = [{**theory_record(4, 16, 0), "parameterisation": p} for p in (HOSTILE, "mupc")]
    _, text = report(tmp_path, write_run(tmp_path / "theory", points))
    assert not [tag for tag, _ in Page(text).tags if tag in ("img", "script")]


def test_a_run_whose_figures_are_missing_is_drawn_all_the_same(tmp_path):
    broken = {
        **regime_record(8),
        "residual": None,
        "change": [None, None, 0.1, None],
        "energy_after": [None] * 4,
        "diagnostics": {"nudge": None, "tilt": [None] * 4},
    }
    missing = dict.fromkeys(("condition_number", "whole_cosine", "energy_ratio", "residual"))
    spectrum = {"eigenvalues": [None], "weights": [None]}
    points = [{**theory_record(4, 16, 0), **missing, "spectrum": spectrum}]
    path = write_run(tmp_path / "broken", [regime_record(0), broken, *points])
    _, text = report(tmp_path, path)
    words = " ".join(Page(text).words)
    assert "1 of 2 (relative change 0.1–0.1; 1 not finite)" in words
    assert "did not learn (relative change below a tenth of the run's largest): broken: 2." in words


def test_a_run_that_diverged_says_so_and_harms_no_other(run, tmp_path):
    lost = diverged_run(tmp_path / "lost")
    _, text = report(tmp_path, run, lost)
    words = " ".join(Page(text).words)
    sentence = (
        "lost diverged: training diverged at step 21. Its loss is not finite from step 30 on."
    )
    assert sentence in words
    assert "lost (diverged)" in words  # the legends
    assert "accuracy 10.00 %, loss not finite (step 20; 360 samples)" in words
    assert "2 of 2 (relative change 0.4–0.8)" in words
    assert "by the runs that did not diverge" in words
    assert "nan" not in words
    _, text = report(tmp_path, lost)
    assert sentence in " ".join(Page(text).words)


def test_no_figure_is_a_row_of_digits(tmp_path):
    result = dataclasses.replace(
        plots.read_run(example_run(tmp_path / "one")).result,
        test=Evaluation(0.5, 185113696906982.1875, 7),
    )
    path = write_run(tmp_path / "large", [train_record(5, 185113696906982.1875)], result=result)
    _, text = report(tmp_path, path)
    assert "loss 1.851e+14 " in " ".join(Page(text).words)
    assert not re.search(r"\d{9}", text[text.index("Outcome</h2>") : text.index("Figures</h2>")])


def test_twelve_runs_give_a_page_without_a_warning_and_one_legend_a_figure(tmp_path, files_drawn):
    runs = [
        write_run(
            tmp_path / f"a-run-with-a-name-of-some-length-{i}", [train_record(5, 0.5 / (i + 1))]
        )
        for i in range(12)
    ]
    _, text = report(tmp_path, *runs)
    section = text[text.index('<section id="curves"') : text.index('<section id="seconds"')]
    keys = re.findall(r"border-color: (#\w+)", section)
    assert len(set(keys)) == len(keys) == 12


def test_energies_of_other_precisions_are_not_to_be_compared(tmp_path):
    runs = [
        write_run(tmp_path / name, [train_record(5, 0.5, precision)])
        for name, precision in (("a", 0.1), ("b", 1.0))
    ]
    _, text = report(tmp_path, *runs)
    assert "Precisions at the end: a 0.1, b 1." in text
    _, text = report(tmp_path, runs[0])
    assert "Precisions at the end" not in text


def test_names_that_matplotlib_would_read_as_something_else(tmp_path):
    names = ("_hidden", "a $x$ b", "a b", "a-b")
    runs = [write_run(tmp_path / name, [regime_record(5, inference=False)]) for name in names]
    page, _ = report(tmp_path, *runs, runs[0])
    assert len(list(page.parent.glob("map-change-*.png"))) == 5
    figure = plots.layer_profiles(plots.read_runs(runs), "change")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [rf"{name}, step 5".replace("$", r"\$") for name in names]
    (panel,) = drawn_panels(figure, "x")
    assert panel.rows[0][1:] == [f"{name}, step 5" for name in names]


def test_the_numbers_of_a_figure_are_a_table(run):
    loss, *_ = drawn_panels(plots.curves([plots.read_run(run)]), "curves")
    assert loss.rows == [
        ["training step", "one", "one, validation"],
        ["10", "0.1", ""],
        ["20", "0.05", "0.3"],
        ["40", "0.025", ""],
    ]
    assert "currentColor" in loss.drawing
    (cosines,) = drawn_panels(plots.heat_map(plots.read_run(run), "cosine"), "map")
    assert cosines.rows[0] == ["layer, training step", "0", "20", "40"]
    assert cosines.rows[2] == ["2", "0.95", "0.95", "0.95"]
    assert cosines.rows[4] == ["4", "", "", ""]


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({**train_record(1, 0.5), "loss": "abc"}, "loss must be a number, got 'abc'"),
        ({**train_record(1, 0.5), "step": None}, "step must be a whole number, got None"),
        ({**regime_record(1), "cosine": [1, "x"]}, "cosine must be a number, got 'x'"),
        ({**regime_record(1), "scale": 3}, "scale must be a list of numbers, got 3"),
        (
            {**regime_record(1), "diagnostics": {"a": "b"}},
            "diagnostics.a must be a number, got 'b'",
        ),
        ({**theory_record(4, 8, 0), "spectrum": 1}, "spectrum must be a table of names and values"),
        ({"kind": "train", "step": 3}, "epoch is missing"),
        ({"step": 3}, "kind must be one of train, validation, regime, trace, theory, got None"),
    ],
)
def test_a_damaged_record_gets_one_sentence(record, sentence, tmp_path, capsys):
    path = write_run(tmp_path / "run", [regime_record(0), record])
    assert main(["report", str(path)]) == 2
    assert f"metrics.jsonl, line 2, is damaged: {sentence}" in capsys.readouterr().err


def test_damage_to_other_files_of_a_run_is_named(run, tmp_path):
    for name, content, sentence in [
        ("result.json", '{"ended": "finished"}', "message is missing"),
        ("result.json", '{"ended": "well"}', "ended must be one of finished, stopped_early"),
        ("regime.json", '{"precision": "a", "rho": 1}', "precision must be a number, got 'a'"),
        ("config.json", "[1]", "it holds no table of names and values"),
    ]:
        before = (run / name).read_text()
        (run / name).write_text(content)
        with pytest.raises(RunError, match=f"{name} is damaged.*{re.escape(sentence)}"):
            plots.read_run(run)
        (run / name).write_text(before)


def test_settings_that_differ_are_marked_and_come_first(tmp_path):
    runs = [write_run(tmp_path / n, [], {"seed": s}) for n, s in [("a", 0), ("b", 1)]]
    _, text = report(tmp_path, *runs)
    table = text[text.index("Configuration</h2>") : text.index("Versions</h2>")]
    rows = re.findall(r'<tr( class="differs")?><th scope="row">(\w*)</th>', table)
    assert rows == [("", ""), (' class="differs"', "seed"), ("", "rule"), ("", "depth")]


def test_tables_in_a_configuration_are_shown_by_their_names(tmp_path):
    config = {"network": {"kind": "mlp", "depth": 5, "block": {"width": 7}}, "seed": 1}
    _, text = report(tmp_path, write_run(tmp_path / "a", [], config))
    assert '<th scope="row">network.depth</th><td>5</td>' in text
    assert '<th scope="row">network.block.width</th><td>7</td>' in text


def test_runs_of_one_name_are_told_apart(tmp_path):
    run = write_run(tmp_path / "one", [])
    (tmp_path / "other").mkdir()
    twin = write_run(tmp_path / "other" / "one", [])
    _, text = report(tmp_path, run, twin)
    assert str(twin) in text
    with pytest.raises(RunError, match="there is no run at"):
        report(tmp_path, tmp_path / "nowhere")


def test_a_report_of_a_run_that_has_begun_or_has_no_records(tmp_path):
    _, text = report(tmp_path, write_run(tmp_path / "empty", []))
    assert "has not ended" in text
    assert "There are no records yet." in text


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_the_page_opens_in_a_browser_without_errors(run, tmp_path):
    page, _ = report(tmp_path, run)
    quiet = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    calm = "--disable-background-networking --disable-component-update --enable-logging=stderr"
    seen = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            *quiet.split(),
            *calm.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=390,800",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in seen.stderr
    assert "Relative weight change" in seen.stdout


def test_the_command_reports_on_several_runs(tmp_path, capsys):
    run = write_run(tmp_path / "one", [train_record(5, 0.5)])
    other = write_run(tmp_path / "two", [])
    out = tmp_path / "page"
    assert main(["report", str(run), str(other), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"report: {out / 'report.html'}\n"
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "there is no run at" in capsys.readouterr().err


def test_versions_that_differ_are_marked(tmp_path):
    paths = [write_run(tmp_path / name, []) for name in ("a", "b")]
    (paths[1] / "environment.json").write_text('{"mupc": "2.0"}')
    _, text = report(tmp_path, *paths)
    versions = text[text.index("Versions</h2>") :]
    assert '<tr class="differs"><th scope="row">mupc</th><td>1.0</td><td>2.0</td></tr>' in versions


# Sweeps

# What a sweep of learning rates and widths left, two seeds each.
RATES = [
    ({"learning_rate": rate, "width": width, "seed": seed}, accuracy, ended)
    for rate, width, seed, accuracy, ended in [
        (0.01, 8, 0, 0.8, "finished"),
        (0.01, 8, 1, 0.9, "finished"),
        (0.1, 8, 0, 0.5, "finished"),
        (0.1, 8, 1, 0.7, "finished"),
        (1.0, 8, 0, 0.1, "diverged"),
        (1.0, 8, 1, 0.1, "failed"),
        (0.01, 16, 0, 0.9, "finished"),
        (0.01, 16, 1, 0.95, "finished"),
        (0.1, 16, 0, None, None),
    ]
]


def test_a_sweep_is_reported_as_a_ranking(tmp_path, files_drawn):
    page, text = report(tmp_path, write_sweep(tmp_path / "sweep", RATES))
    words = " ".join(Page(text).words)
    ranking = text[text.index("the best first</h2>") : text.index("Best points</h2>")]
    rows = re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td>', ranking)
    assert rows == [
        ("learning_rate=0.01 width=16", "92.50 ± 3.54"),
        ("learning_rate=0.01 width=8", "85.00 ± 7.07"),
        ("learning_rate=0.1 width=8", "60.00 ± 14.14"),
        ("learning_rate=1 width=8", "10.00 ± 0.00"),
    ]
    assert "2 (1 diverged, 1 failed)" in ranking
    assert "9 points in" in words
    assert "(1 diverged, 1 failed); 1 not finished." in words
    assert "runs/000000000007" in text[text.index("Best points</h2>") :]  # the very best
    names = {path.name for path in page.parent.iterdir()}
    assert {"sweep-learning_rate.png", "sweep-width.svg", "sweep-seconds.png"} <= names
    with (page.parent / "sweep.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["accuracy"] for row in table[:2]] == ["0.8", "0.9"]
    assert table[2]["learning_rate"] == "0.1"
    assert [row["ended"] for row in table[4:6]] == ["diverged", "failed"]
    assert table[8]["ended"] == "not finished"
    assert table[8]["accuracy"] == ""


def test_a_swept_number_is_drawn_as_mean_and_spread_over_seeds(tmp_path):
    path = write_sweep(tmp_path / "sweep", RATES)
    figure = sweep_report(path).pictures[0].figures["sweep-learning_rate"]
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    lines = {line.get_label(): line for line in axes.lines if line.get_label() != "_nolegend_"}
    np.testing.assert_allclose(lines["width=8"].get_xydata(), [[0.01, 85], [0.1, 60]])
    np.testing.assert_allclose(lines["width=16"].get_xydata(), [[0.01, 92.5]])
    deviation = math.sqrt(2) * 10  # of 50 and 70
    bands = [band.get_paths()[0].vertices for band in axes.collections if band.get_paths()]
    assert any(np.isclose(band, [0.1, 60 + deviation]).all(1).any() for band in bands)
    crosses = [line.get_xdata() for line in axes.lines if line.get_label() == "_nolegend_"]
    assert [1.0] in [list(cross) for cross in crosses]


def test_many_combinations_stay_legible(tmp_path):
    points = [
        ({"depth": d, "learning_rate": r, "seed": 0}, 0.5 + d / 100, "finished")
        for d in range(1, 31)
        for r in (0.1, 0.2)
    ]
    figure = sweep_report(write_sweep(tmp_path / "s", points)).pictures[1]
    (drawn,) = figure.figures.values()
    names = [key.name for key in drawn.keys[0]]
    assert names[0] == "depth=30"  # the best one
    assert names[-1] == "20 other combinations"
    assert len(names) == 11


def test_points_drawn_at_random_are_points_of_one_colour(tmp_path):
    points = [({"learning_rate": r, "rho": r / 2}, r, "finished") for r in (0.1, 0.23, 0.4)]
    for picture in sweep_report(write_sweep(tmp_path / "s", points)).pictures[:2]:
        (drawn,) = picture.figures.values()
        assert len({line.get_color() for line in drawn.axes[0].lines}) == 1
        assert not drawn.legends


def test_settings_in_tables_and_in_other_points_tell_points_apart(tmp_path):
    path = write_sweep(tmp_path / "s", [({"network.depth": 4}, 0.5, "finished")])
    nested = {"settings": {"network.depth": 8}, "config": {"network": {"depth": 8}, "rho": 0.1}}
    (path / "points" / "a.json").write_text(json.dumps(nested))
    write_outcome(path / "results" / "a.json", outcome("a", {}, 0.25))
    title, pictures, *_ = sweep_report(path)
    assert title == "s"
    (drawn,) = pictures[0].figures.values()
    places = sorted(x for line in drawn.axes[0].lines for x in line.get_xdata())
    assert places == [4, 8]


def test_sweeps_and_runs_are_not_mixed(run, tmp_path):
    sweep = write_sweep(tmp_path / "sweep", RATES)
    with pytest.raises(RunError, match="is a sweep: report on it alone"):
        report(tmp_path, run, sweep)
    with pytest.raises(RunError, match="has no points yet"):
        report(tmp_path, write_sweep(tmp_path / "empty", []))


def test_a_damaged_outcome_is_named_and_nan_is_read_again(tmp_path):
    path = tmp_path / "a.json"
    write_outcome(path, outcome("a", {"seed": 0}, float("nan"), loss=float("inf")))
    found = read_outcome(path)
    assert (found.accuracy, found.loss) == (None, None)
    path.write_text('{"key": "a", "settings": {}, "ended": 3, "message": ""}')
    with pytest.raises(RunError, match=r"a.json is damaged: ended must be a text, got 3"):
        read_outcome(path)


def test_no_text_in_a_csv_is_a_formula():
    rows = [["=1+1", "+a", "-2", "@x", 'a,"b"', -2.5, None, float("nan"), "\t=1"]]
    (read,) = csv.reader(csv_text(rows).splitlines())
    assert read == ["'=1+1", "'+a", "'-2", "'@x", 'a,"b"', "-2.5", "", "", "'\t=1"]
