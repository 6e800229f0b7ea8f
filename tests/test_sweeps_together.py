"""One compilation for many points, and runs that are trained in step."""

import signal

import jax
import numpy as np
import pytest
from test_sweeps import BASE, points

from mupc.runs import train, train_together
from mupc.settings import ConfigError
from mupc.settings.setting import Traced
from mupc.sweeps import Space, SweepFolder, sweep


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("fields", "grid"),
    [
        ({}, {"learning_rate": [0.01, 0.02], "rho": [0.05, 0.1], "eps": [1e-12, 1e-8]}),
        ({"max_steps": 3}, {"rtol": [1e-3, 1e-2], "atol": [0.0, 1e-3], "seed": [0, 1]}),
        (
            {"solver": "gradient-descent", "optimiser": "adamw", "regime": "fixed"},
            {
                "step_size": [0.1, 0.2],
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
    first, *rest = Space(grid=grid).over(BASE.changed(fields))
    assert set(grid) <= first.config.carrying(Traced)
    assert {point.config.program() for point in rest} == {first.config.program()}
    jax.clear_caches()
    folder = SweepFolder(tmp_path / "sweep")
    sweep(folder, [first])
    assert compiled
    compiled.clear()
    assert len(sweep(folder, rest)) == len(rest)
    assert not compiled


def runs(tmp_path, name, grid, steps, **fields):
    points = Space(grid=grid).over(BASE.changed({"steps": steps, **fields}))
    return [
        point.config.changed({"out": str(tmp_path / f"{name}{i}")})
        for i, point in enumerate(points)
    ]


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rule": "backpropagation", "optimiser": "sgd"},
        {"solver": "l-bfgs", "max_steps": 4},
        {"solver": "gradient-descent", "report_every": 1},
        {"rule": "incremental", "optimiser": "sgd"},
        {"rule": "augmented-lagrangian"},
        {"rule": "zero-divergence"},
        {"rule": "monte-carlo"},
        {"rule": "bidirectional", "depth": 3, "width": 8},
        {"rule": "hybrid", "depth": 3, "width": 8},
        {"rule": "equilibrium-propagation"},
        {"network": "residual-hopfield", "depth": 3, "width": 8, "optimiser": "sgd"},
    ],
)
def test_runs_in_step_are_runs_in_turn(fields, tmp_path):
    """One step agrees to round-off, and records come when they would alone.

    With SGD that is so of several updates a step, and of two phases' difference over a small nudge:
    Adam divides by what round-off is part of.
    """
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


@pytest.mark.full
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
    with pytest.raises(ConfigError, match=r"may differ in rho, .*, eps, floor, seed alone"):
        train_together(runs(tmp_path, "t", {"depth": [2, 3]}, 1))


@pytest.mark.full
def test_several_steps_where_there_was_one_are_another_program(tmp_path):
    """Inference of a single step measures no residual."""
    grid = {"max_steps": [1, 2], "seed": [0, 1]}
    with pytest.raises(ConfigError, match="may differ in rho"):
        train_together(runs(tmp_path, "t", grid, 1))
    results = sweep(SweepFolder(tmp_path / "sweep"), points(**grid), together=4)
    assert [result.outcome.ended for result in results] == ["finished"] * 4


def test_a_sweep_in_step_is_a_sweep_in_turn(tmp_path):
    grid = {"learning_rate": [0.01, 0.02], "depth": [2, 3], "seed": [0, 1]}
    one = sweep(SweepFolder(tmp_path / "one"), points(**grid))
    four = sweep(SweepFolder(tmp_path / "four"), points(**grid), together=3)
    assert [r.point.key for r in one] == [r.point.key for r in four]
    losses = [[result.outcome.loss for result in results] for results in (one, four)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_sweep_in_step_that_was_interrupted_goes_on_where_each_run_stopped(tmp_path):
    grid, base = {"learning_rate": [0.01, 0.02]}, BASE.changed({"steps": 6, "log_every": 1})
    tasks = Space(grid=grid).over(base)

    asked = []

    def watch(standing):
        if "step 2/" in standing.now and not asked:
            asked.append(standing)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        sweep(SweepFolder(tmp_path / "cut"), tasks, together=2, watch=watch)
    seen = []
    cut = sweep(
        SweepFolder(tmp_path / "cut"), tasks, together=2, watch=lambda s: seen.append(s.now)
    )
    assert not any("step 2/" in now for now in seen)
    whole = sweep(SweepFolder(tmp_path / "whole"), tasks)
    losses = [[result.outcome.loss for result in results] for results in (cut, whole)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
