"""Records and run folders made up for tests of what reads them."""

from mupc.records import RunFolder


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


def example_run(path):
    records = [
        *(train_record(step, 1 / step) for step in (10, 20, 40)),
        *(regime_record(step) for step in (0, 20, 40)),
        {"kind": "validation", "step": 20, "loss": 0.3, "accuracy": 0.7, "best": True},
        {"kind": "trace", "step": 40, "energy": [0.4, 0.3, 0.27], "residual": [1.0, 0.3, 0.02]},
    ]
    test = {"accuracy": 0.9, "loss": 0.1, "samples": 360}
    result = {"message": "training ended after 40 steps: all steps were made", "test": test}
    return write_run(path, records, result=result)
