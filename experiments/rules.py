"""Learning rules side by side: accuracy, time, layers that learn, alignment with backpropagation.

Every rule trains with the defaults of `mupc train`, nothing tuned in between, at several depths;
predictive coding also nudged one way only, where its default nudges every second sample away.
The cases beginning with `hopfield` train a residual Hopfield chain, by equilibrium propagation and
by backpropagation through its relaxation.

    python experiments/rules.py --dataset mnist --sizes 8x128 32x128 128x128 --steps 300
    python experiments/rules.py hopfield --sizes 128x64 32x128 --epochs 20
    python experiments/rules.py predictive-coding incremental --settings updates=2 steps=600
    python experiments/rules.py backpropagation incremental --vgg "32p 64p" --dataset F.npz
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from _tables import header, line, percent, size

from mupc.runs import Run, train
from mupc.settings import Configuration
from mupc.settings.files import value_of

CASES: dict[str, dict[str, Any]] = {
    "backpropagation": {"rule": "backpropagation"},
    "predictive-coding": {},
    "nudge-positive": {"nudge": "positive"},
    "nudge-negative": {"nudge": "negative"},
    "incremental": {"rule": "incremental"},
    "zero-divergence": {"rule": "zero-divergence"},
    "augmented-lagrangian": {"rule": "augmented-lagrangian"},
    "monte-carlo": {"rule": "monte-carlo"},
    "bidirectional": {"rule": "bidirectional"},
    "hybrid": {"rule": "hybrid"},
    "equilibrium-propagation": {"rule": "equilibrium-propagation"},
    "hopfield": {"network": "residual-hopfield"},
    "hopfield-backpropagation": {"network": "residual-hopfield", "rule": "backpropagation"},
}

_COLUMNS = (
    *("case", "data", "size", "test accuracy %", "training s", "ms a step"),
    *("layers learning", "least cosine to the exact gradient", "median"),
)


def measure(case: str, shape: str, options: argparse.Namespace) -> list[Run]:
    """Train one case at one size with every seed, with a report of the last batch."""
    runs: list[Run] = []
    for seed in options.seeds:
        name = f"{Path(options.dataset).stem}-{shape.replace(' ', '-')}-{case}-seed{seed}"
        settings: dict[str, Any] = {
            **options.shapes[shape],
            "dataset": options.dataset,
            "seed": seed,
            **CASES[case],
            **({"epochs": options.epochs} if options.steps is None else {"steps": options.steps}),
            "report_every": 1_000_000,
            "out": str(options.out / name),
        }
        config = Configuration().changed(settings)
        given = {key: value for key, value in options.settings.items() if key in config.flat()}
        runs.append(train(config.changed(given)))
    return runs


def row(case: str, shape: str, runs: Sequence[Run], dataset: str) -> str:
    """Return a row of the table."""
    accuracies = [run.test.accuracy for run in runs if run.test is not None]
    seconds = median(run.training_seconds for run in runs)
    reports = [run.regime for run in runs if run.regime is not None]
    learning = ", ".join(f"{report.learning}/{len(report.hidden)}" for report in reports)
    # A layer that the error has not reached has no gradient, and so no cosine.
    every = [report.cosine for report in reports if report.cosine is not None]
    cosines = [each for cosine in every if (each := [c for c in cosine if math.isfinite(c)])]
    least = f"{min(min(each) for each in cosines):.3f}" if cosines else ""
    typical = f"{median(median(each) for each in cosines):.3f}" if cosines else ""
    return line(
        [
            *(case, Path(dataset).stem, shape),
            percent([value for value in accuracies if value is not None]),
            *(f"{seconds:.0f}", f"{1e3 * seconds / runs[0].result.steps:.0f}"),
            *(learning, least, typical),
        ]
    )


def main(argv: Sequence[str] | None = None) -> dict[tuple[str, str], list[Run]]:
    """Train every case at every size."""
    options = _options(argv)
    print(header(_COLUMNS), flush=True)
    found: dict[tuple[str, str], list[Run]] = {}
    for shape in options.shapes:
        for case in options.cases:
            found[case, shape] = measure(case, shape, options)
            print(row(case, shape, found[case, shape], options.dataset), flush=True)
    return found


def _pair(text: str) -> tuple[str, Any]:
    name, value = text.split("=", 1)
    return name.replace("-", "_"), value_of(value)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    sizes = [(8, 64), (32, 64), (128, 64)]
    parser.add_argument("--sizes", type=size, nargs="+", default=sizes, help="DEPTHxWIDTH")
    parser.add_argument(
        "--vgg", metavar="LAYERS", help="a `vgg` of these layers, in place of sizes"
    )
    parser.add_argument("--dataset", default="digits", help="a kind, or an .npz file")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--steps", type=int, help="batches, in place of epochs")
    parser.add_argument(
        "--settings",
        type=_pair,
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="other settings, for the cases that have them",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/rules"), help="run folders")
    options = parser.parse_args(argv)
    if unknown := [case for case in options.cases if case not in CASES]:
        parser.error(f"there is no case {unknown[0]}: choose of {', '.join(CASES)}")
    options.settings = dict(options.settings)
    options.shapes = {f"{h}x{n}": {"depth": h, "width": n} for h, n in options.sizes}
    if options.vgg:
        options.shapes = {options.vgg: {"network": "vgg", "layers": options.vgg}}
    known = {name for case in options.cases for name in Configuration().changed(CASES[case]).flat()}
    if unknown := sorted(options.settings.keys() - known):
        parser.error(f"none of these cases has a setting {unknown[0]}")
    return options


if __name__ == "__main__":
    main()
