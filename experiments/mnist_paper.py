"""The setting of the μPC paper (arXiv 2505.13124) on MNIST, at width 128.

The preset `paper` and nothing tuned: residual ReLU networks of 128 and of 30 layers reach an
accuracy that was set beforehand, and the standard parameterisation at 64 layers stays near chance
or diverges. Prints a Markdown table; a run folder for each row lies under --out.

    python experiments/mnist_paper.py --seeds 0 1 2
    python experiments/mnist_paper.py --parameterisations mupc --depths 30
    python experiments/mnist_paper.py --quick       (digits, a few layers: seconds)

A batch takes time in proportion to depth squared, as T = H: at 128 layers one to two seconds on two
CPU cores.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from _tables import header, line

from mupc.runs import train
from mupc.settings import Configuration
from mupc.settings.files import preset
from mupc.training import Ended

# Guessing is right in a tenth of the cases; a network below this has learned next to nothing.
_NEAR_CHANCE = 0.2


@dataclass(frozen=True)
class Case:
    """A network, how long it is trained, and what is expected of its test accuracy."""

    parameterisation: Literal["mupc", "standard"]
    depth: int
    steps: int
    at_least: float | None
    """None: that it stays near chance, or that training diverges."""


@dataclass(frozen=True)
class Row:
    """A finished run and whether it was as expected."""

    case: Case
    config: Configuration
    accuracy: float
    ended: Ended
    seconds: float

    @property
    def verdict(self) -> str:
        """What happened, against what was expected."""
        if self.case.at_least is not None:
            met = self.accuracy >= self.case.at_least
            return f"{'met' if met else 'missed'}: at least {self.case.at_least:.0%}"
        if self.ended is Ended.DIVERGED:
            return "met: diverged"
        return "met: near chance" if self.accuracy < _NEAR_CHANCE else "missed: it learned"


PAPER = preset("paper")
CASES = (
    Case("mupc", depth=128, steps=300, at_least=0.90),
    Case("mupc", depth=30, steps=900, at_least=0.93),
    Case("standard", depth=64, steps=300, at_least=None),
)
# Small enough for a test. Few layers and few steps: the standard network learns here too.
QUICK = PAPER.changed({"dataset": "digits"})
QUICK_CASES = (Case("mupc", depth=6, steps=60, at_least=0.6),)

_COLUMNS = (
    "parameterisation",
    "depth",
    "width",
    "batches",
    "seed",
    "test accuracy",
    "ended",
    "seconds",
    "verdict",
)


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Train every chosen case with every seed; print a row as soon as it is known."""
    options = _options(argv)
    print(header(_COLUMNS), flush=True)
    rows: list[Row] = []
    for case, seed in product(options.cases, options.seeds):
        rows.append(run(case, _config(case, seed, options)))
        print(line(_cells(rows[-1])), flush=True)
    return rows


def run(case: Case, config: Configuration) -> Row:
    """Train and test one network; the time includes compilation and evaluation."""
    began = time.perf_counter()
    finished = train(config)
    seconds = time.perf_counter() - began
    assert finished.test is not None
    assert finished.test.accuracy is not None
    return Row(case, finished.config, finished.test.accuracy, finished.result.ended, seconds)


def _config(case: Case, seed: int, options: argparse.Namespace) -> Configuration:
    name = f"{case.parameterisation}-{case.depth}x{options.width}-{case.steps}-seed{seed}"
    settings = {
        "parameterisation": case.parameterisation,
        "depth": case.depth,
        "width": options.width,
        "steps": case.steps,
        "seed": seed,
        "out": str(options.out / name),
    }
    place = {} if options.data_dir is None else {"data_dir": options.data_dir}
    return (QUICK if options.quick else PAPER).changed({**settings, **place})


def _cells(row: Row) -> list[str]:
    settings = row.config.flat()
    names = ("parameterisation", "depth", "width", "steps", "seed")
    return [
        *(str(settings[name]) for name in names),
        f"{row.accuracy:.2%}",
        row.ended.name.lower(),
        f"{row.seconds:.1f}",
        row.verdict,
    ]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a toy size, on digits")
    parser.add_argument("--parameterisations", nargs="+", help="only these (default: all)")
    parser.add_argument("--depths", type=int, nargs="+", help="only these (default: all)")
    parser.add_argument("--steps", type=int, nargs="+", help="only cases with so many batches")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--data-dir", help="folder of MNIST (else MUPC_DATA, else a download)")
    parser.add_argument("--out", type=Path, default=Path("runs/mnist_paper"), help="run folders")
    options = parser.parse_args(argv)
    options.cases = [case for case in _known(options) if _chosen(case, options)]
    if not options.cases:
        parser.error("no case is left: see CASES in this file for what there is")
    return options


def _known(options: argparse.Namespace) -> tuple[Case, ...]:
    return QUICK_CASES if options.quick else CASES


def _chosen(case: Case, options: argparse.Namespace) -> bool:
    wanted = {
        case.parameterisation: options.parameterisations,
        case.depth: options.depths,
        case.steps: options.steps,
    }
    return all(values is None or value in values for value, values in wanted.items())


if __name__ == "__main__":
    main()
