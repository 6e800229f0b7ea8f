"""Equilibrium propagation at depth: the scale of states, and what a residual chain learns.

`states`: the root mean square of the free phase's states at initialisation, smallest and largest
over layers, at widths and depths, for several exponents of the branch multiplier L^−p; the library
has p = 3/2.
`accuracy`: test accuracy of `mupc train --network residual-hopfield` at several sizes, beside
backpropagation through the relaxation of the same network.

    python experiments/equilibrium_propagation.py states
    python experiments/equilibrium_propagation.py accuracy --sizes 128x64 32x128 --epochs 20
    python experiments/equilibrium_propagation.py accuracy --dataset mnist --sizes 8x128 --steps 900
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _tables import header, line, percent

import mupc
from mupc.parameterisations import Law
from mupc.runs import Run, train
from mupc.settings import Configuration
from mupc.settings.files import value_of

_RULES = ("equilibrium-propagation", "backpropagation")


def states(options: argparse.Namespace) -> dict[tuple[float, int, int], np.ndarray]:
    """Return the scale of every layer's state, by exponent, depth and width."""
    print(header(("exponent", "depth", "width", "smallest rms", "largest rms")), flush=True)
    found: dict[tuple[float, int, int], np.ndarray] = {}
    for exponent in options.exponents:
        for depth, width in options.sizes:
            scales = _scales(exponent, depth, width)
            found[exponent, depth, width] = scales
            ends = f"{np.min(scales):.3g}", f"{np.max(scales):.3g}"
            print(line((f"{exponent:g}", str(depth), str(width), *ends)), flush=True)
    return found


def _scales(exponent: float, depth: int, width: int) -> np.ndarray:
    laws = dataclasses.replace(mupc.hopfield(), depth=Law(depth=-exponent))
    network = mupc.residual_hopfield(
        64, 10, width=width, depth=depth, parameterisation=laws, key=jax.random.key(0)
    )
    x = jax.random.normal(jax.random.key(1), (32, 64))
    settled = eqx.filter_jit(lambda network: network.feedforward(x).activities)(network)
    return np.asarray(jnp.sqrt(jnp.mean(network.in_order(settled) ** 2, axis=(1, 2))))


def accuracy(options: argparse.Namespace) -> dict[tuple[str, int, int], list[Run]]:
    """Train every size by every rule with every seed."""
    columns = ("rule", "depth", "width", "test accuracy %", "training s", "regime report")
    print(header(columns), flush=True)
    found: dict[tuple[str, int, int], list[Run]] = {}
    for depth, width in options.sizes:
        for rule in options.rules:
            runs = [_train(rule, depth, width, seed, options) for seed in options.seeds]
            found[rule, depth, width] = runs
            tests = [run.test.accuracy for run in runs if run.test is not None]
            known = percent([value for value in tests if value is not None])
            seconds = f"{median(run.training_seconds for run in runs):.0f}"
            report = "" if runs[0].regime is None else runs[0].regime.sentence()
            print(line((rule, str(depth), str(width), known, seconds, report)), flush=True)
    return found


def _train(rule: str, depth: int, width: int, seed: int, options: argparse.Namespace) -> Run:
    settings: dict[str, Any] = {
        "network": "residual-hopfield",
        "rule": rule,
        "depth": depth,
        "width": width,
        "dataset": options.dataset,
        "schedule": "cosine",
        "seed": seed,
        "out": str(options.out / f"{options.dataset}-{depth}x{width}-{rule}-seed{seed}"),
        "report_every": 1_000_000,
        **({"epochs": options.epochs} if options.steps is None else {"steps": options.steps}),
        **{
            name: value_of(text) for name, text in (pair.split("=", 1) for pair in options.settings)
        },
    }
    return train(Configuration().changed(settings))


def _size(text: str) -> tuple[int, int]:
    depth, width = map(int, text.split("x"))
    return depth, width


_EXPERIMENTS = {"states": states, "accuracy": accuracy}
_SIZES = {
    "states": ["8x64", "8x512", "128x64", "128x512"],
    "accuracy": ["128x64", "32x128"],
}


def main(argv: Sequence[str] | None = None) -> dict[Any, Any]:
    """Run one experiment."""
    options = _options(argv)
    options.sizes = options.sizes or [_size(text) for text in _SIZES[options.experiment]]
    return _EXPERIMENTS[options.experiment](options)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("experiment", choices=list(_EXPERIMENTS))
    parser.add_argument("--sizes", type=_size, nargs="+", help="DEPTHxWIDTH")
    parser.add_argument("--exponents", type=float, nargs="+", default=[1.5, 1.0, 0.5, 2.0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--rules", nargs="+", choices=_RULES, default=list(_RULES))
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--steps", type=int, help="batches, in place of epochs")
    parser.add_argument(
        "--settings", nargs="+", default=[], metavar="NAME=VALUE", help="other settings"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--out", type=Path, default=Path("runs/equilibrium_propagation"), help="run folders"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
