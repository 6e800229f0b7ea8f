"""`mupc transfer`: verdicts on grids whose answer is known, and the command at toy size."""

import importlib
import json

import numpy as np
import pytest

from mupc.cli import main
from mupc.plots import transfer_maps
from mupc.sweeps.transfer import Cell, around, optimum, verdict

# The package has a function of this name.
sweep_module = importlib.import_module("mupc.sweeps.sweep")


def hill(top, *, height=0.9, slope=0.05, shape=(5, 4), seeds=3):
    """Accuracies that fall evenly from a summit, alike for every seed."""
    i, j = np.indices(shape)
    one = height - slope * (abs(i - top[0]) + abs(j - top[1]))
    return np.repeat(one[None], seeds, axis=0)


def test_an_optimum_that_stays_costs_nothing():
    judged = verdict(hill((2, 1)), hill((2, 1), height=0.95))
    assert judged.base == judged.best == (2, 1)
    assert (judged.loss, judged.moved, judged.interval) == (0, (0, 0), (0, 0))
    assert not judged.at_edge
    assert judged.accuracy == pytest.approx(0.95)


def test_an_optimum_that_moves_costs_the_height_of_the_slope():
    judged = verdict(hill((2, 1)), hill((3, 3)))
    assert judged.moved == (1, 2)
    assert judged.loss == pytest.approx(3 * 0.05)
    assert judged.reused == pytest.approx(0.9 - 3 * 0.05)
    assert judged.interval == pytest.approx((0.15, 0.15))
    assert judged.at_edge
    assert verdict(hill((2, 1), seeds=1), hill((3, 3), seeds=1)).interval is None


def test_the_interval_is_the_bootstraps():
    """Two seeds, one of which loses nothing: a quarter of the resamples hold it alone."""
    base = hill((2, 1), seeds=2)
    target = hill((2, 1), seeds=2)
    target[1, 3, 1] += 0.25  # for the second seed a neighbour is better, by 0.2
    judged = verdict(base, target)
    assert judged.loss == pytest.approx((-0.05 + 0.2) / 2)
    assert judged.interval == pytest.approx((0.0, 0.2))
    assert verdict(base, target) == judged  # drawn from a fixed seed


def test_what_was_not_tried_counts_for_nothing():
    target = hill((3, 1))
    target[:, 3, :] = np.nan
    judged = verdict(hill((2, 1)), target)
    assert judged.best == (2, 1)
    assert judged.at_edge
    assert optimum(target) == judged.best
    with pytest.raises(ValueError, match="the base's optimum was not tried"):
        verdict(hill((3, 1)), target)
    with pytest.raises(ValueError, match="no place of the grid was tried"):
        optimum(np.full((2, 3, 3), np.nan))
    with pytest.raises(ValueError, match="cannot be compared"):
        verdict(hill((2, 1)), hill((2, 1), shape=(5, 5)))


def test_places_near_one_are_those_a_few_steps_away():
    assert around(Cell(0, 2), (3, 5), (1, 1)) == [(i, j) for i in (0, 1) for j in (1, 2, 3)]
    assert len(around(Cell(0, 2), (3, 5), None)) == 15
    assert around(Cell(1, 1), (3, 5), (0, 0)) == [(1, 1)]


def test_an_edge_is_where_a_neighbour_was_not_tried():
    assert verdict(hill((0, 1)), hill((0, 1))).at_edge
    only_rates = hill((2, 0), shape=(5, 1))
    assert not verdict(only_rates, only_rates).at_edge  # one value has no neighbours to miss
    near = hill((2, 1))
    near[:, [0, 1, 3, 4]] = np.nan
    assert verdict(hill((2, 1)), near).at_edge  # whether another rate is better was not tried


def test_of_places_alike_the_bases_is_the_optimum():
    flat = np.full((2, 3, 3), 0.5)
    assert verdict(hill((1, 2), shape=(3, 3), seeds=2), flat).moved == (0, 0)


def test_heat_maps_show_means_and_both_optima():
    shape = {"learning_rates": [0.1, 0.2], "values": [1.0, 2.0, 3.0], "field": "rho"}
    accuracies = [[[0.1, 0.2, 0.3], [0.4, 0.5, None]], [[0.3, 0.4, 0.5], [0.6, 0.7, None]]]
    record = {**shape, "case": "mupc:raw", "size": "8x16", "accuracies": accuracies}
    figure = transfer_maps([{**record, "base": [0, 2], "best": [1, 1]}])
    (axes,) = figure.axes
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown, [[20, 30, 40], [50, 60, np.nan]])
    assert [tuple(c.get_offsets()[0]) for c in axes.collections] == [(2, 0), (1, 1)]
    assert [text.get_text() for text in axes.texts] == ["20.0", "30.0", "40.0", "50.0", "60.0"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "3"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("ρ", "learning rate")


SMALL = ["--depth", "2", "--width", "8", "--steps", "3", "--report-every", "0", "--sizes", "3x8"]
GRID = ["--learning-rates", "0.01", "0.02", "--rhos", "0.05", "0.1", "0.2", "--seeds", "0", "1"]


def test_the_command_trains_judges_and_draws_and_says_the_same_again(tmp_path, capsys):
    out = tmp_path / "transfer"
    cases = ["--cases", "mupc:raw", "standard:uniform", "--near", "0", "1"]
    arguments = ["transfer", str(out), *SMALL, *GRID, *cases]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    table = printed[printed.index("| case") :]
    assert "| mupc:raw | 3x8 | rate " in table
    records = json.loads((out / "transfer.json").read_text())["sizes"]
    assert [(r["case"], r["size"]) for r in records] == [
        (case, size) for case in ("mupc:raw", "standard:uniform") for size in ("2x8", "3x8")
    ]
    base, target = (np.array(r["accuracies"], float) for r in records[:2])
    assert base.shape == target.shape == (2, 2, 3)
    assert not np.isnan(base).any()
    i, j = records[0]["best"]
    tried = np.zeros((2, 3), bool)
    tried[i, max(0, j - 1) : j + 2] = True
    np.testing.assert_array_equal(~np.isnan(target).any(axis=0), tried)
    means = np.mean(target, axis=0)
    loss = np.nanmax(means) - means[i, j]
    assert records[1]["loss"] == pytest.approx(loss)
    assert f"costs {100 * loss:.1f} points of accuracy on average" in printed
    assert (out / "transfer-mupc-raw.png").is_file()
    assert main(arguments) == 0
    again = capsys.readouterr().out
    assert again[again.index("| case") :] == table
    # Another folder, the same seeds: the same table.
    assert main(["transfer", str(tmp_path / "b"), *arguments[2:]]) == 0
    other = capsys.readouterr().out
    assert other[other.index("| case") :].replace(str(tmp_path / "b"), str(out)) == table


def test_what_diverges_or_cannot_be_trained_counts_as_nothing(tmp_path, capsys, monkeypatch):
    out = tmp_path / "transfer"
    train = sweep_module.train_together

    def fail_wide(configs, **options):
        if configs[0].width == 9:
            raise MemoryError("there is no room")
        return train(configs, **options)

    monkeypatch.setattr(sweep_module, "train_together", fail_wide)
    grid = ["--learning-rates", "0.01", "1e30", "--rhos", "0.05", "--seeds", "0"]
    sizes = ["--sizes", "2x9", "3x8", "--cases", "mupc:raw"]
    assert main(["transfer", str(out), *SMALL[:-2], *grid, *sizes]) == 1
    printed = capsys.readouterr().out
    assert "2 points could not be trained: they count as 0" in printed
    base, wide, deep = json.loads((out / "transfer.json").read_text())["sizes"]
    assert base["accuracies"][0][1] == deep["accuracies"][0][1] == [0.0]
    assert base["best"] == [0, 0]
    assert wide["accuracies"] == [[[0.0], [0.0]]]
    assert (wide["loss"], wide["moved"]) == (0, [0, 0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "give one of --step-sizes, --precisions and --rhos"),
        (["--rhos", "0.1", "--precisions", "1"], "give one of --step-sizes"),
        (["--rhos", "0.2", "0.1"], "--rhos must be different numbers, the smallest first"),
        (["--rhos", "0.1", "--seeds", "1", "1"], "--seeds must be different numbers"),
        (["--rhos", "0.1", "--sizes", "2x8"], "a size other than the base's, 2x8"),
        (["--rhos", "0.1", "--sizes", "8"], "--sizes: cannot read 8"),
        (["--rhos", "0.1", "--cases", "mupc"], "--cases: cannot read mupc"),
        (["--rhos", "0.1", "--cases", "mupd:raw"], "--parameterisation must be one of"),
        (["--step-sizes", "0.1"], "--step-size would have no effect"),
        (["--rhos", "0.1", "--seed", "3"], "--seed would have no effect, since --cases"),
        (["--rhos", "0.1", "--out", "x"], "--out is for a single run"),
        (["--rhos", "0.1", "--near", "-1", "0"], "--near must be two numbers of at least 0"),
    ],
)
def test_a_transfer_that_makes_no_sense_is_refused_before_anything_is_written(
    options, sentence, tmp_path, capsys
):
    out = tmp_path / "transfer"
    assert main(["transfer", str(out), *SMALL, *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()
