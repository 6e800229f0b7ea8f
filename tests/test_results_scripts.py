"""The scripts behind docs/results.md and the sweeps' benchmark, at toy size."""

import json

import numpy as np
import pytest
from test_scripts import script, table, words

__all__ = ["script"]
pytestmark = pytest.mark.full

TOY = "--dataset digits --width 8 --steps 9 --depths 2 3 --seeds"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One folder of runs, as for the tables themselves: what they have in common is run once."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def results(script, out):
    module = script("experiments/results")

    def run(name, *options, seeds="0 1"):
        return module.main([name, *words(TOY), *words(seeds), "--out", str(out), *options])

    return run


def outcomes(out):
    paths = (out / "runs" / "results").glob("*.json")
    return [json.loads(path.read_text()) for path in paths]


def mean(cells, **settings):
    there = [c for c in cells if settings.items() <= c["settings"].items()]
    return f"{100 * np.mean([c['test_accuracy'] for c in there]):.1f}"


def test_accuracy_against_depth_is_the_mean_of_the_runs(results, out):
    text = results("depth")
    accuracies, seconds = text.split("\n\n")[:2]
    seen = outcomes(out)
    assert f"\n\n{4 * 2 * 2} runs, " in text
    rows = {row["test accuracy, %"]: row for row in table(accuracies)}
    assert len(rows) == 4
    solvers = {
        path.stem: json.loads(path.read_text())["config"]["rule"].get("solver")
        for path in (out / "runs" / "points").iterdir()
    }
    paper = [c for c in seen if (solvers[c["key"]] or {}).get("kind") == "gradient-descent"]
    mupc = [c for c in paper if "parameterisation" not in c["settings"]]
    assert rows["mupc, the paper's preset"]["H = 3"].startswith(mean(mupc, depth=3, steps=9))
    exact = rows["mupc, backpropagation"]["H = 2"]
    assert exact.startswith(mean(seen, rule="backpropagation", depth=2, steps=9))
    assert len(table(seconds)) == 4
    assert "- mupc, the default rule, H = 3: gradient-weighted ρ" in text
    assert results("depth") == text  # nothing is trained again


def test_the_papers_width_after_an_epoch(results):
    rows = table(
        results("width-512", "--epochs", "0.1", "--depths", "2", "3", seeds="0").split("\n\n")[0]
    )
    paper, default, exact = rows
    assert default["test accuracy, %"] == "mupc, the default rule"
    assert paper["H = 2"]
    assert paper["H = 3"] == default["H = 2"] == exact["H = 2"] == ""
    assert default["H = 3"]
    assert exact["H = 3"]


def test_depth_and_time_at_equal_training(results):
    assert set(table(results("depth-helps", seeds="0").split("\n\n")[0])[0]) == {
        "test accuracy, %",
        "H = 1",
        "H = 2",
    }
    rows = table(results("time", "--depths", "2").split("\n\n")[0])
    assert [*rows[0]][1:] == ["1 batches", "3 batches", "9 batches", "45 batches"]
    assert rows[2]["test accuracy, %"] == "mupc, the paper's preset"
    assert "±" not in rows[2]["9 batches"]  # one seed
    assert rows[2]["45 batches"] == ""


def test_the_gradient_tends_to_backpropagations_as_the_precision_falls(results):
    rows = table(results("backpropagation", "--widths", "8", "16", "--depths", "2"))
    cosines = [
        float(row["width 16"].split()[0]) for row in rows if row["cosine (F*/loss)"][0] == "2"
    ]
    assert len(cosines) == 3
    assert cosines[0] < cosines[1] < cosines[2]
    assert cosines[2] > 0.999


def test_transfer_is_put_into_the_page_with_its_figures(results, script, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: transfer-width -->\n<!-- end: transfer-width -->\nafter\n")
    (tmp_path / "figures").mkdir()
    module = script("experiments/results")
    monkeypatch.setitem(module._NUMBERS, "default", ("rho", (0.05, 0.1)))
    monkeypatch.setitem(module._RATES, "default", (0.01, 0.02))
    monkeypatch.setitem(module._CASES, "default", ("mupc:uniform",))
    text = results(
        "transfer-width",
        "--sizes",
        "2x8",
        "2x16",
        "--page",
        str(page),
        "--presets",
        "default",
        seeds="0",
    )
    assert page.read_text() == (
        f"before\n<!-- table: transfer-width -->\n{text}\n<!-- end: transfer-width -->\nafter\n"
    )
    assert "| mupc:uniform | 2x16 |" in text
    assert len(list((tmp_path / "figures").glob("*.png"))) == 1
    with pytest.raises(SystemExit, match="has no marks"):
        module.put(page, "depth", "")


def test_a_sweep_is_measured_against_its_training_steps(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = words("--size 2x8 --steps 3 --rates 2 --rhos 3 --json")
    (found,) = script("benchmarks/sweep").main([*arguments, str(path)])["results"]
    text = capsys.readouterr().out
    assert ", after it: 0 (target: 0; met)\n" in text
    point, whole = found["ratios"]
    steps, evaluations = np.median(found["alone"]), np.median(found["evaluated"])
    assert point["ratio"] == (np.median(found["swept"]) - evaluations) / steps
    assert whole["ours"] == found["first"] + 5 * np.median(found["swept"])
    assert f"its training steps: {point['ratio']:.3f} (target: at most 1.2; " in text
