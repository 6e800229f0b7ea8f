"""Sweeps: what their points are, that each is trained once, and what is recorded of it."""

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from mupc.cli import main
from mupc.sweeps import Outcome, Range, Result, Space, SweepFolder, ranked, sweep
from mupc.sweeps.claims import Claims
from mupc.sweeps.points import point_of, read_file, read_grid, read_ranges
from mupc.training.config import NUMBERS, ConfigError, TrainConfig, program
from mupc.training.run import train, train_together

BASE = TrainConfig(depth=2, width=8, steps=3, validation=0.1, report_every=0)
SMALL = ["--depth", "2", "--width", "8", "--steps", "3", "--report-every", "0"]


# Points


def test_a_grid_is_every_combination_and_a_key_is_of_the_settings_alone():
    space = Space(grid={"learning_rate": [0.01, 0.02], "seed": [0, 1]}, points=[{"depth": 3}, {}])
    points = space.over(BASE)
    assert [(p.config.depth, p.config.learning_rate, p.config.seed) for p in points] == [
        (depth, rate, seed) for depth in (3, 2) for rate in (0.01, 0.02) for seed in (0, 1)
    ]
    assert len({point.key for point in points}) == 8
    # However the settings were come by, on whatever machine.
    other = point_of(TrainConfig(depth=2, width=8), {"steps": 3, "validation": 0.1, "seed": 1})
    moved = TrainConfig(**{**vars(other.config), "out": "elsewhere", "data_dir": "/data"})
    base = TrainConfig(**{**vars(moved), "report_every": 0, "seed": 0})
    assert point_of(base, {"learning-rate": 0.02, "seed": 1}).key == points[-1].key
    assert len(Space(grid={"seed": [1, 1]}).over(BASE)) == 1


def test_draws_are_within_their_range_even_in_the_logarithm_and_the_same_again():
    space = Space(ranges={"learning_rate": Range(1e-3, 1e-1, logarithmic=True)}, draws=400)
    rates = [point.config.learning_rate for point in space.over(BASE)]
    assert all(1e-3 <= rate <= 1e-1 for rate in rates)
    assert np.mean(np.log10(rates)) == pytest.approx(-2, abs=3 * 2 / np.sqrt(12 * 400))
    assert rates == [point.config.learning_rate for point in space.over(BASE)]
    even = Space(ranges={"learning_rate": Range(1e-3, 1e-1, logarithmic=False)}, draws=400)
    rates = [point.config.learning_rate for point in even.over(BASE)]
    assert np.mean(rates) == pytest.approx(0.0505, abs=3 * 0.099 / np.sqrt(12 * 400))


def test_a_sweep_is_read_from_a_file(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        """
        base = {depth = 2, learning-rate = 1}
        grid = {seed = [0, 1]}
        random = {precision = [0.1, 1.0, "log"], draws = 3}
        points = [{width = 8}, {width = 16, skips = false}]
        """
    )
    base, space = read_file(path)
    assert base == {"depth": 2, "learning_rate": 1}
    points = space.over(BASE)
    assert len(points) == 2 * 2 * 3
    assert {(p.config.width, p.config.skips) for p in points} == {(8, True), (16, False)}


def test_values_are_read_from_the_command_line():
    grid = read_grid(["learning-rate=.1,1e-3", "step-size=stable", "skips=true,false", "rho=none"])
    assert grid == {
        "learning_rate": [0.1, 1e-3],
        "step_size": ["stable"],
        "skips": [True, False],
        "rho": [None],
    }
    assert read_ranges(["rho=0.1:1:log"]) == {"rho": Range(0.1, 1.0, True)}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--grid", "learning-rat=1"], "there is no setting learning-rat: learning_rate is the"),
        (["--grid", "seed"], "cannot read seed: write the name of a setting, ="),
        (["--grid", "seed=0", "seed=1"], "--seed: given twice"),
        (["--grid", "depth=2.5"], "at --depth 2.5: --depth must be a whole number, not 2.5"),
        (["--grid", "optimiser=adam,best"], "--optimiser must be one of adam, adamw, sgd, not"),
        (["--grid", "out=a,b"], "--out is no setting to sweep over"),
        (["--grid", "momentum=0.5"], "--momentum would have no effect"),
        (["--grid", "rho=0.1", "--random", "rho=0.1:1", "--draws", "2"], "--rho: set in two ways"),
        (["--random", "rho=1:0.1", "--draws", "2"], "cannot draw --rho from 1:0.1"),
        (["--random", "rho=0.1:1"], "--draws is 0: random search needs both"),
        (["--grid", "seed=0,1", "--validation", "0"], "--validation must be above 0"),
        (["--grid", "seed=0,1", "--together", "0"], "--together must be at least 1"),
        (["--grid", "seed=0,1", "--out", "x"], "--out is for a single run"),
        (["--grid", "seed=0,1", "--seed", "3"], "--seed: it is swept over, and given a value"),
        (["--grid", "validation=0.1,1.5"], "--validation must be at least 0 and below 1"),
        (["--grid", "seed=0,1", "--draw-seed", "3"], "--draw-seed would have no effect"),
        (["--grid", "preset=default,paper"], "--preset is no setting to sweep over"),
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
        ("[gird]", "gird is not what a sweep consists of"),
        ("grid = {seed = 1}", "the grid of --seed must be a list"),
        ("[base", "is not a TOML file"),
        ("points = [1]", "each of points must be a table"),
        ("points = []", "the list of points is empty"),
        ("random = {rho = [0.1, 1], draws = 'x'}", "draws and draw_seed must be whole numbers"),
        ("points = [{learning-rate = 1}]\ngrid = {learning_rate = [1]}", "set in two ways"),
        ("random = {rho = 0.1}", "rho must be a list such as"),
        ("base = {depht = 2}", "there is no setting depht: depth is the nearest"),
        ("base = {depth = '2'}", "--depth must be a whole number, not '2'"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(text, sentence, tmp_path, capsys):
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    assert main(["sweep", str(tmp_path / "sweep"), "--file", str(path)]) == 2
    assert sentence in capsys.readouterr().err


# Claims


def test_of_many_that_claim_at_once_one_is_served(tmp_path):
    claims = [Claims(tmp_path) for _ in range(16)]
    barrier, taken = threading.Barrier(16), []

    def take(one):
        barrier.wait()
        taken.append(one.take("point"))

    threads = [threading.Thread(target=take, args=(one,)) for one in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (claim,) = [one for one in taken if one is not None]
    assert claim.held
    claim.release()


def test_a_claim_holds_while_its_heart_beats_and_is_free_soon_after(tmp_path):
    first = Claims(tmp_path, stale_after=0.6).take("point")
    time.sleep(1.2)
    assert Claims(tmp_path, stale_after=0.6).take("point") is None
    first._ended.set()  # as if the process had been killed
    first._heart.join()
    assert first.held
    time.sleep(0.7)
    others = [Claims(tmp_path, stale_after=0.6).take("point") for _ in range(2)]
    assert others[1] is None
    assert others[0].number == 2
    assert not first.held  # should it have been asleep, it knows now
    first.release()  # what is no longer its own it does not free
    assert Claims(tmp_path, stale_after=0.6).take("point") is None
    others[0].release()
    assert Claims(tmp_path).take("point").number == 3


# Training


def points(**grid):
    return Space(grid=grid).over(BASE)


def test_a_sweep_trains_each_point_as_a_run_of_its_own_would_be_and_once(tmp_path, capsys):
    out = tmp_path / "sweep"
    arguments = ["sweep", str(out), *SMALL, "--grid", "learning-rate=0.01,0.03", "seed=0,1"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "4/4 learning_rate=0.03 seed=1: accuracy" in printed
    results = {path.name: path.read_text() for path in (out / "results").iterdir()}
    assert len(results) == len(list((out / "runs").iterdir())) == 4
    alone = train(
        TrainConfig(**{**vars(BASE), "learning_rate": 0.03, "seed": 1, "out": str(out / "x")})
    )
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
    assert main(["sweep", str(out), "--depth", "3"]) == 2
    assert "settings are given, and nothing to sweep over" in capsys.readouterr().err
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
    assert "--batch-size" in ended[0.01, 5000]["message"]
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


@pytest.mark.parametrize(
    ("fields", "grid"),
    [
        ({}, {"learning_rate": [0.01, 0.02], "rho": [0.05, 0.1], "eps": [1e-12, 1e-8]}),
        ({"max_steps": 3}, {"rtol": [1e-3, 1e-2], "atol": [0.0, 1e-3], "seed": [0, 1]}),
        (
            {"solver": "gradient-descent", "optimiser": "adamw"},
            {
                "step_size": [0.1, 0.2],
                "momentum": [0.1, 0.2],
                "precision": [1.0, 2.0],
                "adamw_decay": [0.1, 0.2],
            },
        ),
        ({"optimiser": "sgd"}, {"sgd_momentum": [0.1, 0.2]}),
    ],
)
def test_a_grid_of_numbers_compiles_its_training_step_once(fields, grid, tmp_path):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **about: (
            compiled.append(about) if name.endswith("backend_compile_duration") else None
        )
    )
    assert set(grid) <= set(NUMBERS)
    first, *rest = Space(grid=grid).over(dataclasses.replace(BASE, **fields))
    assert {program(point.config) for point in rest} == {program(first.config)}
    jax.clear_caches()
    folder = SweepFolder(tmp_path / "sweep")
    sweep(folder, [first])
    assert compiled
    compiled.clear()
    assert len(sweep(folder, rest)) == len(rest)
    assert not compiled


def runs(tmp_path, name, grid, steps, **fields):
    base = TrainConfig(**{**vars(BASE), "steps": steps, **fields})
    configs = [point.config for point in Space(grid=grid).over(base)]
    return [
        TrainConfig(**{**vars(config), "out": str(tmp_path / f"{name}{i}")})
        for i, config in enumerate(configs)
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rule": "backpropagation", "optimiser": "sgd"},
        {"solver": "l-bfgs", "max_steps": 4},
        {"solver": "gradient-descent", "report_every": 1},
    ],
)
def test_runs_in_step_are_runs_in_turn(fields, tmp_path):
    """One step agrees to round-off, and records come when they would alone."""
    grid = {"learning_rate": [0.01, 0.3], "seed": [0, 1]}
    together = train_together(runs(tmp_path, "t", grid, 1, **fields))
    for one, config in zip(together, runs(tmp_path, "a", grid, 1, **fields), strict=True):
        alone = train(config)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
            one.result.network,
            alone.result.network,
        )
        kinds = [[(r.kind, r.step) for r in run.result.records] for run in (one, alone)]
        assert kinds[0] == kinds[1]


def test_runs_in_step_learn_as_well_as_in_turn(tmp_path):
    grid, fields = {"learning_rate": [0.005, 0.02], "seed": [0, 1]}, {"width": 32, "depth": 4}
    together = train_together(runs(tmp_path, "t", grid, 100, **fields))
    for one, config in zip(together, runs(tmp_path, "a", grid, 100, **fields), strict=True):
        alone = train(config)
        assert one.test.accuracy == pytest.approx(alone.test.accuracy, abs=0.005)


def test_a_run_that_ends_early_does_not_disturb_those_in_step_with_it(tmp_path):
    grid = {"learning_rate": [1e-7, 0.02, 1e30]}
    fields = {"evaluate_every": 2, "early_stopping": 2, "log_every": 1, "optimiser": "sgd"}
    together = train_together(runs(tmp_path, "t", grid, 20, **fields))
    alone = [train(config) for config in runs(tmp_path, "a", grid, 20, **fields)]
    for one, other in zip(together, alone, strict=True):
        assert (one.result.ended, one.result.steps) == (other.result.ended, other.result.steps)
        np.testing.assert_allclose(one.test.loss, other.test.loss, rtol=1e-4)  # nan for a ruin
    assert len({run.result.steps for run in alone}) > 1


def test_runs_that_differ_in_more_than_numbers_are_not_trained_in_step(tmp_path):
    with pytest.raises(ConfigError, match="may differ in --learning-rate, --rho, --precision, "):
        train_together(runs(tmp_path, "t", {"depth": [2, 3]}, 1))


def test_a_sweep_in_step_is_a_sweep_in_turn(tmp_path):
    grid = {"learning_rate": [0.01, 0.02], "depth": [2, 3], "seed": [0, 1]}
    one = sweep(SweepFolder(tmp_path / "one"), points(**grid))
    four = sweep(SweepFolder(tmp_path / "four"), points(**grid), together=3)
    assert [r.point.key for r in one] == [r.point.key for r in four]
    losses = [[result.outcome.loss for result in results] for results in (one, four)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


# Several processes, and kills

SCRIPT = """
import sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
from mupc.sweeps import Space, SweepFolder, sweep
from mupc.training.config import TrainConfig
base = TrainConfig(depth=2, width=8, steps=40, validation=0.1, report_every=0, log_every=1)
points = Space(grid={"seed": list(range(int(sys.argv[2])))}).over(base)
print("ready", flush=True)
input()
sweep(SweepFolder(sys.argv[1], stale_after=1.5), points)
"""
KILLS = int(os.environ.get("MUPC_KILLS", "2"))


@contextlib.contextmanager
def sweeping(folder, count, processes=1):
    """Processes that begin a sweep at one time."""
    command = [sys.executable, "-c", SCRIPT, str(folder), str(count)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        begun = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(processes)]
        for process in begun:
            assert process.stdout.readline() == "ready\n"
        for process in begun:
            process.stdin.write("\n")
            process.stdin.flush()
        yield begun


def finished(folder):
    """Every file that tells of a finished point, with what says that it was not written again."""
    seen = {}
    for path in folder.glob("results/*.json"):
        run = folder / json.loads(path.read_text())["run"]
        for file in [path, *run.iterdir()]:
            seen[file] = (file.stat().st_ino, file.stat().st_mtime_ns)
    return seen


def test_two_processes_on_one_folder_never_train_the_same_point(tmp_path):
    folder = tmp_path / "sweep"
    with sweeping(folder, 12, processes=2) as processes:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    names = sorted(path.name for path in (folder / "claims").iterdir())
    assert len(names) == 12
    assert all(name.endswith("-1") for name in names)
    claimed = {path.read_text() for path in (folder / "claims").iterdir()}
    assert len(claimed) == 2  # both worked
    assert len(list((folder / "results").iterdir())) == len(list((folder / "runs").iterdir())) == 12


def test_kills_lose_no_finished_point_and_repeat_none(tmp_path):
    """At random moments, but for the last kill: that comes when something has been finished."""
    folder, generator = tmp_path / "sweep", np.random.default_rng(0)
    before = {}
    for kill in range(KILLS):
        with sweeping(folder, 30) as (process,):
            time.sleep(generator.uniform(0.2, 5))
            while kill == KILLS - 1 and not finished(folder):
                time.sleep(0.1)
            process.kill()
        now = finished(folder)
        assert before.items() <= now.items()
        before = now
    assert before
    with sweeping(folder, 30) as (process,):
        assert process.wait(timeout=120) == 0
    now = finished(folder)
    assert before.items() <= now.items()
    assert len(list((folder / "results").iterdir())) == 30
    assert len(list((folder / "runs").iterdir())) == 30  # what was cut short is cleared away


def test_one_that_was_asleep_while_another_finished_gives_way(tmp_path):
    """Its claim is taken and its run cleared away while it trains: the other's result counts."""
    (point,) = points(seed=[0])
    ours = SweepFolder(tmp_path / "sweep")
    others = SweepFolder(tmp_path / "sweep", stale_after=0)  # to it our heart is still
    woken = []

    def asleep(standing):
        if "step" in standing.now and not woken:
            woken.append(standing)
            sweep(others, [point])

    (result,) = sweep(ours, [point], watch=asleep)
    assert woken
    assert result.outcome.run.endswith("-2")
    assert [path.name for path in (tmp_path / "sweep" / "runs").iterdir()] == [
        pathlib.Path(result.outcome.run).name
    ]


def test_the_failure_of_who_watches_is_not_the_points(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")

    def watch(standing):
        if "step" in standing.now:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sweep(folder, points(seed=[0]), watch=watch)
    (result,) = sweep(folder, points(seed=[0]))  # at once: the claim was given back
    assert result.outcome.ended == "finished"


def test_points_that_failed_are_trained_again_when_asked(tmp_path, monkeypatch, capsys):
    module = importlib.import_module("mupc.sweeps.sweep")
    train = module.train_together
    monkeypatch.setattr(module, "train_together", lambda *_, **__: 1 / 0)
    arguments = ["sweep", str(tmp_path / "sweep"), *SMALL, "--grid", "seed=0,1"]
    assert main(arguments) == 1
    assert "it could not be trained: division by zero" in capsys.readouterr().out
    monkeypatch.setattr(module, "train_together", train)
    assert main(arguments) == 1  # they have results
    assert main([*arguments, "--retry-failed"]) == 0
    assert len(list((tmp_path / "sweep" / "runs").iterdir())) == 2
