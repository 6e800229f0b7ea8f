"""A grid of runs that share one compiled training step, against the training steps alone.

Sweeps over 4 learning rates × 11 regime numbers, a few points at a time; in between, a run by
itself gives the time of its training steps in steady state, and evaluations are timed.

    python benchmarks/sweep.py
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _problems import Size
from _timing import Ratio, Report, parser

import mupc
from mupc.runs import Run, train
from mupc.settings import Configuration
from mupc.sweeps import Point, SweepFolder, point_of, sweep

_LIMIT = 1.2
_CHUNK = 4


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Sweep, print the times and the ratio to their yardstick, and return the report."""
    options = parser(__doc__)
    options.add_argument("--size", type=Size.parse, default=Size(8, 128), metavar="DEPTHxWIDTH")
    options.add_argument("--dataset", default="digits")
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--rates", type=int, default=4, help="learning rates")
    options.add_argument("--rhos", type=int, default=11, help="regime numbers")
    given = options.parse_args(argv)
    report = Report(given)
    base = Configuration().changed(
        {
            "dataset": given.dataset,
            "depth": given.size.depth,
            "width": given.size.width,
            "batch_size": given.batch,
            "steps": given.steps,
            "validation": 0.1,
        }
    )
    grid = itertools.product(
        np.geomspace(0.005, 0.04, given.rates), np.geomspace(0.01, 0.3, given.rhos)
    )
    points = [
        point_of(base, {"learning_rate": float(rate), "rho": float(rho)}) for rate, rho in grid
    ]
    with tempfile.TemporaryDirectory() as folder:
        _measure(points, Path(folder), report)
    return report.finish()


def _measure(points: Sequence[Point], path: Path, report: Report) -> None:
    compiled = count_compilations()
    folder, first, rest = SweepFolder(path / "sweep"), points[:1], points[1:]
    began = time.perf_counter()
    sweep(folder, first)
    at_first, programs = time.perf_counter() - began, len(compiled)
    chunks = [rest[i : i + _CHUNK] for i in range(0, len(rest), _CHUNK)]
    swept: list[float] = []
    alone: list[float] = []
    evaluated: list[float] = []
    for i, chunk in enumerate(chunks):
        began = time.perf_counter()
        sweep(folder, chunk)
        swept.append((time.perf_counter() - began) / len(chunk))
        run = train(points[0].config.changed({"out": str(path / str(i))}))
        alone.append(run.training_seconds)
        evaluated.append(_evaluation_seconds(run))
    later = len(compiled) - programs
    point, steps, evaluations = map(statistics.median, (swept, alone, evaluated))
    print(
        f"  programs compiled for the first point: {programs}, after it: {later} "
        f"(target: 0; {'missed' if later else 'met'})"
    )
    print(
        f"  the first point {at_first:.2f} s, each other {point:.3f} s, of it {evaluations:.3f} s"
    )
    print(f"  evaluations; the training steps of one run {steps:.3f} s")
    whole = at_first + point * len(rest)
    ratios = [
        Ratio(
            "a point, evaluations apart / its training steps", point - evaluations, steps, _LIMIT
        ),
        Ratio("the whole sweep, with all compilation / training steps", whole, steps * len(points)),
    ]
    report.add(ratios, swept=swept, alone=alone, evaluated=evaluated, first=at_first)


def count_compilations() -> list[str]:
    """Return a list to which every compilation adds its event."""
    events: list[str] = []

    def heard(event: str, duration_secs: float, **kwargs: str | int) -> None:
        del duration_secs, kwargs
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(heard)
    return events


def _evaluation_seconds(run: Run) -> float:
    """Time what a run evaluates: its validation split, in training and after it, and its test."""
    data, began = run.data, time.perf_counter()
    for split in (data.validation, data.validation, data.test):
        assert split is not None
        mupc.evaluate(run.result, split)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
