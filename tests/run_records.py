"""Records, run folders and sweep folders made up for tests of what reads them."""

import json

from mupc.records import Ended, Evaluation, Outcome, Regime, RunFolder, RunResult, write_outcome


def train_record(step, loss, precision=0.1):
    return {
        "kind": "train",
        "step": step,
        "epoch": step / 100,
        "loss": loss,
        "accuracy": None if loss is None else 1 - loss,
        "energy_before": None if loss is None else loss / 10,
        "energy_after": None if loss is None else loss / 20,
        "inference_steps": 2.0,
        "residual": 0.1,
        "converged": 0.5,
        "diverged": 0.0,
        "precision": precision,
        "samples_per_second": 1000.0,
        "seconds": step / 10,
    }


def validation_record(step, loss):
    fields = {"step": step, "loss": loss, "accuracy": 1 - loss, "best": True, "seconds": step / 10}
    return {"kind": "validation", **fields}


def trace_record(step, energy, residual):
    return {"kind": "trace", "step": step, "energy": energy, "residual": residual}


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
        "diagnostics": {"nudge": 0.5, "tilt": [0.25, None, 0.75, 0.5]} if inference else {},
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
        "diverged": False,
        "rho": 0.5,
        "smallest": 0.1,
        "largest": 1.0 * depth,
        "bounds": 0.01,
        "condition_number": 10.0 * depth,
        "step_limit": 2 / depth,
        "residual": 1e-6,
        "energy_ratio": 1 / (1 + depth / width),
        "cosine": [0.9, 0.8, 0.7],
        "ratio": [1.0, 1.0, 1.0],
        "whole_cosine": 0.85,
        "scale": [1.0, 1.2, 0.1],
        "moved": [0.1, 0.2, 0.3],
        "spectrum": {"eigenvalues": [0.1, 1.0, 4.0], "weights": [0.2, 0.5, 0.3]},
    }


def write_run(path, records, config=None, result=None):
    config = {"rule": "predictive-coding", "depth": 3, **(config or {})}
    folder = RunFolder.create(path, config, {"mupc": "1.0"}, Regime(0.1, 0.05))
    for record in records:
        folder.append(record)
    if result is not None:
        folder.finish(result)
    return path


def example_run(path):
    records = [
        *(train_record(step, 1 / step) for step in (10, 20, 40)),
        *(regime_record(step) for step in (0, 20, 40)),
        validation_record(20, 0.3),
        trace_record(40, [0.4, 0.3, 0.27], [1.0, 0.3, 0.02]),
    ]
    test = Evaluation(0.9, 0.1, 360)
    result = RunResult(Ended.FINISHED, "finished: 40 of 40 steps", 40, 20, test)
    return write_run(path, records, result=result)


def diverged_run(path):
    """A run of which the loss grew, and then was no number; its folder is as a run leaves it."""
    records = [
        *(train_record(step, loss) for step, loss in [(10, 2.0), (20, 1e30), (30, None)]),
        regime_record(0),
        {**regime_record(30), "change": [None] * 4, "energy_after": [None] * 4, "residual": None},
    ]
    result = RunResult(
        Ended.DIVERGED, "training diverged at step 21", 20, 20, Evaluation(0.1, float("nan"), 360)
    )
    return write_run(path, records, result=result)


def outcome(key, settings, accuracy, ended="finished", loss=0.5):
    seconds = {"seconds": 2.0, "training_seconds": 1.0}
    run = f"runs/{key}"
    return Outcome(key, settings, ended, "a reason", accuracy, loss, rho=0.05, run=run, **seconds)


def write_sweep(path, points, config=None):
    """Write points (settings, accuracy or None for one that has no result, how it ended)."""
    for name in ("points", "results", "runs"):
        (path / name).mkdir(parents=True)
    for i, (settings, accuracy, ended) in enumerate(points):
        key = f"{i:012x}"
        whole = {"depth": 3, "out": None, **(config or {}), **settings}
        point = {"settings": settings, "config": whole}
        (path / "points" / f"{key}.json").write_text(json.dumps(point))
        if ended is not None:
            result = path / "results" / f"{key}.json"
            write_outcome(result, outcome(key, settings, accuracy, ended))
    return path
