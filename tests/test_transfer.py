"""Transfer of learning rates: verdicts on grids whose answer is known, and the experiment."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from test_scripts import script, table, words

from mupc.records import Outcome
from mupc.settings import Configuration

__all__ = ["script"]


@pytest.fixture
def transfer(script):
    return script("experiments/transfer")


def hill(top, *, height=0.9, slope=0.05, shape=(5, 4), seeds=3):
    """Accuracies that fall evenly from a summit, alike for every seed."""
    i, j = np.indices(shape)
    one = height - slope * (abs(i - top[0]) + abs(j - top[1]))
    return np.repeat(one[None], seeds, axis=0)


def test_an_optimum_that_stays_costs_nothing(transfer):
    judged = transfer.verdict(hill((2, 1)), hill((2, 1), height=0.95))
    assert judged.base == judged.best == (2, 1)
    assert (judged.loss, judged.interval) == (0, (0, 0))
    assert not judged.at_edge
    assert judged.score == pytest.approx(0.95)


def test_an_optimum_that_moves_costs_the_height_of_the_slope(transfer):
    judged = transfer.verdict(hill((2, 1)), hill((3, 3)))
    assert judged.best == (3, 3)
    assert judged.loss == pytest.approx(3 * 0.05)
    assert judged.reused == pytest.approx(0.9 - 3 * 0.05)
    assert judged.interval == pytest.approx((0.15, 0.15))
    assert judged.at_edge
    assert transfer.verdict(hill((2, 1), seeds=1), hill((3, 3), seeds=1)).interval is None


def test_the_interval_is_the_bootstraps(transfer):
    """Two seeds, one of which loses nothing: a quarter of the resamples hold it alone."""
    base = hill((2, 1), seeds=2)
    target = hill((2, 1), seeds=2)
    target[1, 3, 1] += 0.25  # for the second seed a neighbour is better, by 0.2
    judged = transfer.verdict(base, target)
    assert judged.loss == pytest.approx((-0.05 + 0.2) / 2)
    assert judged.interval == pytest.approx((0.0, 0.2))
    assert transfer.verdict(base, target) == judged  # drawn from a fixed seed


def test_an_edge_is_where_the_grid_ends(transfer):
    assert transfer.verdict(hill((0, 1)), hill((0, 1))).at_edge
    assert transfer.verdict(hill((4, 1)), hill((2, 1))).at_edge
    only_rates = hill((2, 0), shape=(5, 1))
    assert not transfer.verdict(only_rates, only_rates).at_edge  # one value has no neighbours


def test_of_places_alike_the_bases_is_the_optimum(transfer):
    flat = np.full((2, 3, 3), 0.5)
    assert transfer.verdict(hill((1, 2), shape=(3, 3), seeds=2), flat).best == (1, 2)


def test_heat_maps_show_means_and_both_optima(transfer):
    grid = transfer.Grid([0.1, 0.2], "rho", [1.0, 2.0, 3.0], [0, 1])
    found = 100 * np.array([[[0.1, 0.2, 0.3], [0.4, 0.5, 0.2]], [[0.3, 0.4, 0.5], [0.6, 0.7, 0.2]]])
    judged = transfer.Verdict((0, 2), (1, 1), 0.6, 0.4, None, at_edge=True)
    (axes,) = transfer.heat_maps(["8x16 $"], [found], [judged], grid, transfer.POINTS).axes
    np.testing.assert_allclose(axes.images[0].get_array(), [[20, 30, 40], [50, 60, 20]])
    assert [tuple(c.get_offsets()[0]) for c in axes.collections] == [(2, 0), (1, 1)]
    assert [text.get_text() for text in axes.texts][:3] == ["20.0", "30.0", "40.0"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "3"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rho", "learning rate")


SMALL = "--sizes 2x8 3x8 --rates 0.01 1e30 --values 0.05 0.1 --settings steps=3 --seeds 0 1"


@pytest.mark.full
def test_the_experiment_trains_judges_and_draws_and_says_the_same_again(transfer, tmp_path, capsys):
    arguments = words(f"{SMALL} --cases mupc:raw standard:uniform --out {tmp_path}")
    parts = transfer.main(arguments)
    printed = capsys.readouterr().out
    assert printed.endswith("\n".join(parts) + "\n")
    rows = {(row["case"], row["size"]): row for row in table(printed)}
    assert list(rows) == [(c, s) for c in ("mupc:raw", "standard:uniform") for s in ("2x8", "3x8")]
    results = [json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()]
    configs = {
        path.stem: json.loads(path.read_text())["config"]["network"]
        for path in (tmp_path / "points").iterdir()
    }

    def mean(depth, rate, rho):
        """Validation accuracy of the case mupc:raw; what diverged counts as 0."""
        found = [
            r["accuracy"] if r["ended"] == "finished" else 0.0
            for r in results
            if configs[r["key"]]["depth"] == depth
            and configs[r["key"]]["parameterisation"]["kind"] == "mupc"
            and (r["settings"]["learning_rate"], r["settings"]["rho"]) == (rate, rho)
        ]
        assert len(found) == 2
        return np.mean(found)

    places = [(rate, rho) for rate in (0.01, 1e30) for rho in (0.05, 0.1)]
    assert mean(2, 1e30, 0.05) == 0
    at_base = max(places, key=lambda place: mean(2, *place))
    best = max(mean(3, *place) for place in places)
    row = rows["mupc:raw", "3x8"]
    assert row["score there, % or nats"] == f"{100 * best:.1f}"
    assert row["at the base's optimum"] == f"{100 * mean(3, *at_base):.1f}"
    assert f"costs {100 * (best - mean(3, *at_base)):.1f} points of accuracy" in parts[-2]
    assert (tmp_path / "transfer-mupc-raw.png").is_file()
    assert transfer.main(arguments) == parts
    assert "16 of 16 points have results already" in capsys.readouterr().out


@pytest.mark.parametrize("text", [False, True])
def test_scores_are_per_cent_or_nats_and_what_diverged_is_the_worst(transfer, monkeypatch, text):
    """Of a size of blocks and channels; an accuracy of zero is one."""
    figures = [(0.0, 2.0), (0.5, 1.5), (None, None), (0.25, 1.0)]
    outcomes = [
        Outcome("", {}, "finished" if a is not None else "diverged", "", a, loss, loss)
        if text or a is None
        else Outcome("", {}, "finished", "", a, loss)
        for a, loss in figures
    ]
    results = [SimpleNamespace(outcome=outcome) for outcome in outcomes]
    monkeypatch.setattr(transfer, "sweep", lambda folder, points, watch: results)
    grid = transfer.Grid([0.1, 0.2], "rho", [0.05], [0])
    base = Configuration().changed({"network": "conv-resnet"})
    configs = [base.changed({"blocks": n}) for n in (1, 2)]
    scores, unit = transfer.measure(None, configs, grid)
    expected = [-2.0, -1.5, -np.inf, -1.0] if text else [0.0, 50.0, 0.0, 25.0]
    np.testing.assert_array_equal(scores.ravel(), expected)
    assert unit is (transfer.NATS if text else transfer.POINTS)
    rows, _ = transfer.transfer(None, base, ["1x4", "2x4"], "mupc:uniform", grid)
    assert f"costs {'0.000 nats' if text else '0.0 points'}" in rows[-1]
    with pytest.raises(SystemExit, match="not of vgg"):
        transfer.transfer(None, base.changed({"network": "vgg"}), ["1x4"], "mupc:uniform", grid)
