"""Sweeps: what their points are, that each is trained once, and what is recorded of it."""

import json
import random
import re

import numpy as np
import pytest

from mupc.commands.main import main
from mupc.commands.options import parse
from mupc.commands.sweep import _BASE, SweepOptions
from mupc.runs import train
from mupc.settings import Configuration
from mupc.settings.files import on_top, value_of
from mupc.sweeps import Outcome, Range, Result, Space, ranked
from mupc.sweeps.points import point_of, read_file, read_grid, read_ranges, words
from mupc.sweeps.ranking import Board, markdown
from mupc.sweeps.sweep import Standing

BASE = Configuration().changed(
    {"depth": 2, "width": 8, "steps": 3, "validation": 0.1, "report_every": 0}
)
SMALL = ["--depth", "2", "--width", "8", "--steps", "3", "--report-every", "0"]


# Points


def test_a_grid_is_every_combination_and_a_key_is_of_the_settings_alone():
    space = Space(grid={"learning_rate": [0.01, 0.02], "seed": [0, 1]}, points=[{"depth": 3}, {}])
    points = space.over(BASE)
    flat = [point.config.flat() for point in points]
    assert [(f["depth"], f["learning_rate"], f["seed"]) for f in flat] == [
        (depth, rate, seed) for depth in (3, 2) for rate in (0.01, 0.02) for seed in (0, 1)
    ]
    assert len({point.key for point in points}) == 8
    # However the settings were come by, on whatever machine.
    other = point_of(Configuration().changed({"depth": 2, "width": 8}), {"validation": 0.1})
    base = other.config.changed({"out": "elsewhere", "report_every": 0, "steps": 3})
    assert point_of(base, {"learning-rate": 0.02, "seed": 1}).key == points[-1].key
    assert len(Space(grid={"seed": [1, 1]}).over(BASE)) == 1


def test_draws_are_within_their_range_even_in_the_logarithm_and_the_same_again():
    space = Space(ranges={"learning_rate": Range(1e-3, 1e-1, logarithmic=True)}, draws=400)
    rates = [point.config.optimiser.learning_rate for point in space.over(BASE)]
    assert all(1e-3 <= rate <= 1e-1 for rate in rates)
    assert np.mean(np.log10(rates)) == pytest.approx(-2, abs=3 * 2 / np.sqrt(12 * 400))
    assert rates == [point.config.optimiser.learning_rate for point in space.over(BASE)]
    even = Space(ranges={"learning_rate": Range(1e-3, 1e-1, logarithmic=False)}, draws=400)
    rates = [point.config.optimiser.learning_rate for point in even.over(BASE)]
    assert np.mean(rates) == pytest.approx(0.0505, abs=3 * 0.099 / np.sqrt(12 * 400))


@pytest.mark.parametrize("logarithmic", [False, True])
def test_whole_numbers_are_drawn_from_end_to_end(logarithmic):
    generator = random.Random(0)
    range_ = Range(2, 8, logarithmic, whole=True)
    drawn = np.array([range_.draw(generator) for _ in range(2000)])
    assert drawn.dtype.kind == "i"
    ends = np.arange(2, 10)
    shares = np.diff(np.log(ends) if logarithmic else ends)
    expected = shares / shares.sum()
    found = [np.mean(drawn == number) for number in range(2, 9)]
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / 2000))
    points = Space(ranges={"depth": range_}, draws=5).over(BASE)
    assert all(type(point.config.network.depth) is int for point in points)


def test_a_sweep_is_read_from_a_file(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        """
        grid = {seed = [0, 1]}
        random = {precision = [0.1, 1.0, "log"], log-every = [1, 9, "int"], draws = 3}
        points = [{width = 8}, {width = 16, skips = false}]
        [base]
        depth = 2
        rule.regime.kind = "fixed"
        """
    )
    file = read_file(path)
    points = file.space.over(on_top(BASE, file.base))
    assert len(points) == 2 * 2 * 3
    assert {(p.config.network.width, p.config.network.skips) for p in points} == {
        (8, True),
        (16, False),
    }
    assert {p.config.rule.regime.kind for p in points} == {"fixed"}


def test_values_are_read_from_the_command_line():
    grid = read_grid(["learning-rate=.1,1e-3", "step-size=stable", "skips=true,false", "rho=none"])
    assert grid == {
        "learning_rate": [0.1, 1e-3],
        "step_size": ["stable"],
        "skips": [True, False],
        "rho": ["none"],
    }
    assert read_ranges(["rho=0.1:1:log", "depth=8:64:int", "width=8:64:int:log", "eps=0:1"]) == {
        "rho": Range(0.1, 1.0, logarithmic=True),
        "depth": Range(8, 64, whole=True),
        "width": Range(8, 64, logarithmic=True, whole=True),
        "eps": Range(0, 1),
    }


@pytest.mark.parametrize(
    "value", [True, "none", 0.1, 1e-12, 1 / 3, 1e30, 3, "stable", "dd/[/v2]/x.npz"]
)
def test_what_the_table_prints_can_be_typed_again(value):
    name, _, shown = words({"name": value}).partition("=")
    assert (name, value_of(shown)) == ("name", value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--grid", "learning-rat=1"], "no setting learning_rat: did you mean learning_rate?"),
        (["--grid", "seed"], "cannot read seed: write the name of a setting, ="),
        (["--grid", "seed=0", "seed=1"], "--seed: given twice"),
        (["--grid", "log-every=2.5"], "at log_every=2.5: --log-every must be a whole"),
        (["--grid", "optimiser=adam,best"], "--optimiser must be one of adam, adamw, sgd, not"),
        (["--grid", "out=a,b"], "cannot sweep over --out"),
        (["--grid", "step-size=0.5"], "--step-size is a setting of the solvers gradient-descent"),
        (["--grid", "rtol=0.5"], "--rtol would have no effect, since --max-steps is 1"),
        (["--grid", "rho=0.1", "--random", "rho=0.1:1", "--draws", "2"], "--rho: set in two ways"),
        (["--random", "rho=1:0.1", "--draws", "2"], "cannot draw --rho from 1:0.1"),
        (["--random", "depth=1:2.5:int", "--draws", "2"], "cannot draw --depth from 1:2.5:int"),
        (["--random", "rho=0.1:1:lag", "--draws", "2"], "cannot draw --rho from 0.1:1:lag"),
        (["--random", "rho=0.1:inf", "--draws", "2"], "cannot draw --rho from 0.1:inf"),
        (["--random", "rho=0.1:1"], "random search needs --draws, how many settings to draw"),
        (["--grid", "seed=0,1", "--validation", "0"], "--validation must be above 0"),
        (["--grid", "seed=0,1", "--together", "0"], "--together must be at least 1"),
        (["--grid", "seed=0,1", "--out", "x"], "--out is for a single run"),
        (["--grid", "seed=0,1", "--seed", "3"], "--seed: it is swept over, and given a value"),
        (["--grid", "validation=0.1,1.5"], "--validation must be"),
        (["--grid", "seed=0,1", "--draw-seed", "3"], "--draw-seed would have no effect"),
        (["--grid", "preset=default,paper"], "there is no setting preset"),
        (["--file", "nowhere.toml"], "cannot read nowhere.toml"),
        ([], "there is no sweep at"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_before_anything_is_written(
    options, sentence, tmp_path, capsys
):
    assert main(["sweep", str(tmp_path / "sweep"), *SMALL, *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not list((tmp_path / "sweep").glob("points/*"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[gird]", "unknown table gird; a sweep file has [base], [grid]"),
        ("grid = {seed = 1}", "the grid of seed must be a list"),
        ("[base", "is not a TOML file"),
        ("points = [1]", "each of points must be a table"),
        ("points = []", "the list of points is empty"),
        ("random = {rho = [0.1, 1], draws = 'x'}", "draws and draw_seed must be whole numbers"),
        ("points = [{learning-rate = 1}]\ngrid = {learning_rate = [1]}", "set in two ways"),
        ("random = {rho = 0.1}", "rho must be a list such as"),
        ("base = {depht = 2}", "there is no setting depht: did you mean depth?"),
        ("base = {depth = '2'}", "sweep.toml: depth must be a whole number, not 2"),
        ("base = {depth = 2}", "there is nothing to sweep over"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(text, sentence, tmp_path, capsys):
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    assert main(["sweep", str(tmp_path / "sweep"), "--file", str(path)]) == 2
    assert sentence in capsys.readouterr().err


# Training


def points(**grid):
    return Space(grid=grid).over(BASE)


def test_a_sweep_trains_each_point_as_a_run_of_its_own_would_be_and_once(tmp_path, capsys):
    out = tmp_path / "sweep"
    arguments = ["sweep", str(out), *SMALL, "--grid", "learning-rate=0.01,0.03", "seed=0,1"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "4/4 learning_rate=0.03 seed=1: validation accuracy" in printed
    results = {path.name: path.read_text() for path in (out / "results").iterdir()}
    assert len(results) == len(list((out / "runs").iterdir())) == 4
    alone = train(BASE.changed({"learning_rate": 0.03, "seed": 1, "out": str(out / "x")}))
    (same,) = [
        one
        for one in map(json.loads, results.values())
        if one["settings"] == {"learning_rate": 0.03, "seed": 1}
    ]
    assert (same["accuracy"], same["loss"]) == alone.validation[:2]
    assert (same["test_accuracy"], same["ended"]) == (alone.test.accuracy, "finished")
    assert (out / same["run"] / "network.safetensors").is_file()
    # Again, with more points, and without saying which: what there is stays as it is.
    assert main([*arguments[:-1], "seed=0,1,2"]) == 0
    assert "4 of 6 points have results already" in capsys.readouterr().out
    for given in ("--depth", "3"), ("--dataset", "mnist"):
        assert main(["sweep", str(out), *given]) == 2
        assert "settings are given, and nothing to sweep over" in capsys.readouterr().err
    assert main(["sweep", str(out), "--data", str(tmp_path)]) == 2
    assert "is no place of the data set digits" in capsys.readouterr().err
    assert main(["sweep", str(out)]) == 0
    assert "6 of 6 points have results already" in capsys.readouterr().out
    now = {path.name: path.read_text() for path in (out / "results").iterdir()}
    assert len(now) == 6
    assert results.items() <= now.items()
    assert main(["report", str(out / same["run"])]) == 0
    # A point of another kind in the same folder is not taken for a further seed.
    other = ["sweep", str(out), *SMALL, "--depth", "3", "--grid", "learning-rate=0.03", "seed=0"]
    assert main(other) == 0
    capsys.readouterr()
    assert main(["sweep", str(out)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\| depth=3 learning_rate=0.03 \| [\d.]+ \| [\d.]+ \| [\d.]+ \| 1 \|", shown)
    assert re.search(r"\| depth=2 learning_rate=0.03 \| [\d.]+ ± .* \| 3 \|", shown)


def test_points_that_diverge_or_cannot_be_trained_are_results(tmp_path, capsys):
    out = tmp_path / "sweep"
    grid = ["--grid", "learning-rate=0.01,1e30", "batch-size=64,5000"]
    assert main(["sweep", str(out), *SMALL, *grid]) == 1
    results = [json.loads(path.read_text()) for path in (out / "results").iterdir()]
    ended = {(r["settings"]["learning_rate"], r["settings"]["batch_size"]): r for r in results}
    assert ended[0.01, 64]["ended"] == "finished"
    assert ended[1e30, 64]["ended"] == "diverged"
    assert ended[1e30, 5000]["ended"] == "failed"
    assert "batch_size must be at most 1293" in ended[0.01, 5000]["message"]
    assert "Traceback" in (out / ended[0.01, 5000]["run"] / "error.txt").read_text()
    printed = capsys.readouterr().out
    assert "(1 diverged)" in printed
    assert "failed: learning_rate=0.01 batch_size=5000: it could not be trained: " in printed
    assert "best: learning_rate=0.01 batch_size=64" in printed


def test_settings_are_ranked_by_their_mean_over_seeds():
    def outcome(rate, seed, accuracy, ended="finished"):
        settings = {"learning_rate": rate, "seed": seed}
        outcome = Outcome(f"{rate}{seed}", settings, ended, "", accuracy, 1.0, run="r")
        return Result(point_of(BASE, settings), outcome)

    rows = ranked(
        [
            outcome(1, 0, 0.9),
            outcome(2, 0, 0.8),
            outcome(3, 0, None, "failed"),
            outcome(4, 0, 0.9),
            outcome(1, 1, 0.5),
            outcome(2, 1, 0.8),
            outcome(4, 1, 0.9, "diverged"),
        ]
    )
    # What does not always end well comes after what does.
    assert [row.settings["learning_rate"] for row in rows] == [2, 1, 4, 3]
    assert rows[1].cells()[1] == "70.00 ± 28.28"
    assert rows[2].cells()[4] == "2 (1 diverged)"
    assert rows[3].cells()[4] == "1 (1 failed)"
    assert rows[1].best.outcome.accuracy == 0.9


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_shown_of_a_sweep_is_text_whatever_is_in_it(terminal, monkeypatch, capsys):
    """Brackets are no markup of rich, colons no emoji."""
    for name, value in {"TERM": "xterm", "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    if terminal:
        monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda _: True))
    settings = {"dataset": "dd/[/v2]/:smile:|x.npz"}
    outcome = Outcome("k", settings, "failed", "no room for [red]", run="r")
    result = Result(point_of(BASE, {"seed": 1})._replace(settings=settings), outcome)
    with Board() as board:
        board(Standing([], 1, f"at {words(settings)}"))
        board(Standing([result], 0, ""))
    printed = capsys.readouterr().out
    assert words(settings) in printed
    assert (f"at {words(settings)}" if terminal else "no room for [red]") in printed
    assert r"dd/[/v2]/:smile:\|x.npz" in markdown(ranked([result]))


def test_a_sweep_whose_data_were_moved_goes_on_with_the_same(tmp_path, capsys):
    generator, y = np.random.default_rng(0), np.arange(60) % 2
    x = generator.normal(size=(60, 3)) + y[:, None]
    np.savez(first := tmp_path / "first.npz", x=x, y=y)
    out, small = tmp_path / "sweep", [*SMALL, "--batch-size", "8"]
    words = ["sweep", str(out), *small, "--dataset", str(first)]
    assert main([*words, "--grid", "seed=0"]) == 0
    first.rename(there := tmp_path / "there.npz")
    assert main(["sweep", str(out)]) == 2
    assert "first.npz does not exist" in capsys.readouterr().err
    assert main(["sweep", str(out), "--data", str(there)]) == 0
    np.savez(there, x=x + 1, y=y)
    assert main(["sweep", str(out), "--data", str(there)]) == 2
    assert "the data are others than those of the sweep" in capsys.readouterr().err


def test_data_that_are_named_twice_are_not_trained_on_twice(tmp_path, capsys):
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    for name in ("one", "copy"):
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
    np.savez(tmp_path / "other.npz", x=x + 1, y=y)
    words = ["sweep", str(out := tmp_path / "sweep"), *SMALL, "--batch-size", "8", "--grid"]
    paths = {name: str(tmp_path / f"{name}.npz") for name in ("one", "copy", "other")}
    assert main([*words, f"dataset={paths['one']},{paths['copy']}"]) == 2
    assert "name the same data: leave one of them out" in capsys.readouterr().err
    assert not out.exists()
    assert main([*words, f"dataset={paths['one']},{paths['other']}", "seed=0"]) == 0
    # What a folder holds can be trained whatever it is.
    begun = ["sweep", str(out := tmp_path / "moved"), *words[2:]]
    assert main([*begun, f"dataset={paths['one']}", "seed=0"]) == 0
    (tmp_path / "one.npz").rename(there := tmp_path / "there.npz")
    assert main([*begun, f"dataset={there}", "seed=0,1"]) == 0
    assert main(["sweep", str(out), "--data", str(there)]) == 0
    (tmp_path / "file").touch()
    assert main(["sweep", str(tmp_path / "file"), *SMALL, "--grid", "seed=0"]) == 2
    assert "is a file: name a folder" in capsys.readouterr().err


def test_a_refused_sweep_leaves_no_folder(tmp_path, capsys):
    out = tmp_path / "sweep"
    for given in (["--grid", "depth=0"], ["--grid", "dpth=1"]):
        assert main(["sweep", str(out), *SMALL[2:], *given]) == 2
        assert not out.exists()


def test_a_sweep_holds_samples_out_of_any_data_set(tmp_path, capsys):
    """As its file says, whatever kinds are chosen; a file of settings counts more."""
    for given, expected in [
        ([], 0.1),
        (["--dataset", "mnist"], 0.1),
        (["--validation", "0.3"], 0.3),
        (["--dataset", "mnist", "--validation", "0.3"], 0.3),
    ]:
        config = parse("sweep", ["folder", *given], SweepOptions, _BASE).config
        assert config.dataset.validation == expected
    path = tmp_path / "sweep.toml"
    path.write_text('[base]\ndataset = "mnist"\n[grid]\nseed = [0]\n')
    assert (
        parse("sweep", ["f", "--file", str(path)], SweepOptions, _BASE).config.dataset.validation
        == 0.1
    )
    path.write_text("[base]\nvalidation = 0.2\n[grid]\nseed = [0]\n")
    assert (
        parse("sweep", ["f", "--file", str(path)], SweepOptions, _BASE).config.dataset.validation
        == 0.2
    )
