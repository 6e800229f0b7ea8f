"""The default rule at any size, nothing tuned in between, beside backpropagation.

Trains networks of several widths and depths with the defaults of `mupc train` on the whole training
split, and prints for every size and rule the test accuracy, the training time, the regime, how
close inference came to equilibrium, how the gradient compares with backpropagation's, and how the
hidden matrices have changed.

    python experiments/default_rule.py
    python experiments/default_rule.py --dataset mnist --sizes 128x128 --steps 900
    python experiments/default_rule.py --sizes 4096x64 10000x64 --epochs 5 --seeds 0
"""

import argparse
import math
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _tables import header, line, percent

from mupc.runs import Run, train
from mupc.settings import Configuration
from mupc.training import Ended

_COLUMNS = (
    "depth x width",
    "rule",
    "test accuracy %",
    "each seed",
    "training s",
    "whole s",
    "ρ",
    "residual",
    "energy drop",
    "cosine to backpropagation: median, least",
    "relative change: least, median, most",
    "peak MB",
)


@dataclass(frozen=True)
class Row:
    """One size and rule: a run for each seed, and the wall time of each."""

    runs: list[Run]
    seconds: list[float]
    megabytes: float

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies of the runs; a run that diverged counts with what was left of it."""
        tests = [run.test for run in self.runs]
        return [test.accuracy for test in tests if test is not None and test.accuracy is not None]

    def __str__(self) -> str:
        config = self.runs[0].config
        diverged = sum(run.result.ended is Ended.DIVERGED for run in self.runs)
        return line(
            [
                f"{config.flat()['depth']} x {config.flat()['width']}",
                config.rule.kind + (f" ({diverged} diverged)" if diverged else ""),
                percent(self.accuracies),
                ", ".join(f"{100 * accuracy:.2f}" for accuracy in self.accuracies),
                f"{statistics.median(run.training_seconds for run in self.runs):.1f}",
                f"{statistics.median(self.seconds):.1f}",
                *_inspected(self.runs[0]),
                f"{self.megabytes:.0f}",
            ]
        )


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Train every size with every rule and seed; print a row as soon as it is known."""
    options = _options(argv)
    print(header(_COLUMNS), flush=True)
    rows: list[Row] = []
    for size in options.sizes:
        for rule in options.rules:
            rows.append(measure(size, rule, options))
            print(rows[-1], flush=True)
    return rows


def measure(size: str, rule: str, options: argparse.Namespace) -> Row:
    """Train one size with one rule and every seed; times include compilation in the first."""
    depth, width = map(int, size.split("x"))
    runs: list[Run] = []
    seconds: list[float] = []
    for seed in options.seeds:
        settings = {
            "dataset": options.dataset,
            "depth": depth,
            "width": width,
            "activation": options.activation,
            "rule": rule,
            "seed": seed,
            "out": str(options.out / f"{options.dataset}-{size}-{rule}-seed{seed}"),
        }
        settings |= {"epochs": options.epochs} if options.epochs else {"steps": options.steps}
        if options.rho is not None and rule == "predictive-coding":
            settings["rho"] = options.rho
        began = time.perf_counter()
        runs.append(train(Configuration().changed(settings)))
        seconds.append(time.perf_counter() - began)
    return Row(runs, seconds, peak_megabytes())


def peak_megabytes() -> float:
    """Return the process's largest resident memory so far."""
    # Linux counts in units of 1,024 bytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _inspected(run: Run) -> list[str]:
    seen, rho = run.regime, run.folder.regime().rho
    assert seen is not None
    cosines = [cosine for cosine in seen.cosine or () if not math.isnan(cosine)]
    hidden = seen.hidden
    changes = [min(hidden), statistics.median(hidden), max(hidden)] if hidden else []
    return [
        "" if rho is None else f"{rho:.3g}",
        "" if seen.residual is None else f"{seen.residual:.2g}",
        "" if seen.drop is None else f"{seen.drop:.1%}",
        f"{statistics.median(cosines):.3f}, {min(cosines):.3f}" if cosines else "",
        ", ".join(f"{change:.3f}" for change in changes),
    ]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    sizes = ["8x64", "8x512", "128x64", "128x128", "128x512", "1024x64"]
    rules = ["predictive-coding", "backpropagation"]
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--sizes", nargs="+", default=sizes, metavar="DEPTHxWIDTH")
    parser.add_argument("--activation", default="relu")
    parser.add_argument("--rules", nargs="+", choices=rules, default=rules)
    parser.add_argument("--rho", type=float, help="regime number (default: the command's own)")
    parser.add_argument("--steps", type=int, default=300, help="batches to train on")
    parser.add_argument("--epochs", type=float, help="instead of --steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/default_rule"), help="run folders")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
