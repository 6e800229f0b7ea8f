"""How accurate must inference be? Accuracy and time over regime × solver × depth.

Far from backpropagation (ρ near 1 and above) the equilibrium lies far from the feedforward
activities, and a solver that does not reach it does not train the network. Trains on the digits
with the defaults of `mupc train`, but for ρ and the solver.

    python experiments/regimes.py --depths 128 --activations relu tanh
    python experiments/regimes.py --fixed-precision
    python experiments/regimes.py --depths 1024 --regimes 0.6 --solvers gauss-newton-3x4
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from _tables import header, line, percent

from mupc.runs import Run, train
from mupc.settings import Configuration

# Names say iterations × conjugate gradient steps, and steps.
SOLVERS: dict[str, dict[str, Any]] = {
    "gauss-newton-1x1": {"solver": "gauss-newton", "max_steps": 1, "cg_steps": 1},
    "gauss-newton-1x2": {"solver": "gauss-newton", "max_steps": 1, "cg_steps": 2},
    "gauss-newton-3x4": {"solver": "gauss-newton", "max_steps": 3, "cg_steps": 4, "rtol": 0.0},
    "l-bfgs-10": {"solver": "l-bfgs", "max_steps": 10},
    "l-bfgs-30": {"solver": "l-bfgs", "max_steps": 30},
}
_COLUMNS = ("depth", "activation", "ρ", "solver", "test accuracy %", "residual", "training s")


def main(argv: Sequence[str] | None = None) -> dict[tuple[int, str, float, str], list[Run]]:
    """Train every case with every seed; print a row as soon as it is known."""
    options = _options(argv)
    print(header(_COLUMNS), flush=True)
    outcomes: dict[tuple[int, str, float, str], list[Run]] = {}
    for depth in options.depths:
        for activation in options.activations:
            for solver in options.solvers:
                for rho in options.regimes:
                    case = depth, activation, rho, solver
                    runs = [_train(*case, seed, options) for seed in options.seeds]
                    outcomes[case] = runs
                    print(_row(case, runs), flush=True)
    return outcomes


def _train(
    depth: int, activation: Any, rho: float, solver: str, seed: int, options: argparse.Namespace
) -> Run:
    name = f"{depth}x{options.width}-{activation}-rho{rho:g}-{solver}-seed{seed}"
    settings = {
        "depth": depth,
        "width": options.width,
        "activation": activation,
        "rho": rho,
        # From ρ = 1 on samples need not have a minimum away from their targets.
        **({"regime": "initial"} if options.fixed_precision else {"nudge": "positive"}),
        "steps": options.steps,
        "seed": seed,
        "out": str(options.out / name),
    }
    return train(Configuration().changed({**settings, **SOLVERS[solver]}))


def _row(case: tuple[int, str, float, str], runs: Sequence[Run]) -> str:
    depth, activation, rho, solver = case
    tests = [run.test for run in runs]
    accuracies = [t.accuracy for t in tests if t is not None and t.accuracy is not None]
    residuals = [run.regime.residual for run in runs if run.regime is not None]
    residual = mean(value for value in residuals if value is not None)
    seconds = median(run.training_seconds for run in runs)
    figures = [percent(accuracies), f"{residual:.2g}", f"{seconds:.1f}"]
    return line([str(depth), activation, f"{rho:g}", solver, *figures])


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--depths", type=int, nargs="+", default=[128])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--activations", nargs="+", default=["relu", "tanh"])
    parser.add_argument("--regimes", type=float, nargs="+", default=[0.02, 0.06, 0.2, 0.6, 2.0])
    parser.add_argument("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS))
    parser.add_argument(
        "--fixed-precision", action="store_true", help="do not hold the regime in training"
    )
    parser.add_argument("--steps", type=int, default=300, help="batches to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/regimes"), help="run folders")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
