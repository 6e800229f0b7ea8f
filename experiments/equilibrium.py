"""How close solvers come to equilibrium, and for how many sweeps, in float64.

A sweep is one pass over all layers with one matrix product per layer. Three problems at 128 layers,
precision 1: a linear network, whose equilibrium is known in closed form; tanh networks as drawn and
after training with the default rule; a ReLU network as drawn, where solvers are compared by energy.

    python experiments/equilibrium.py linear
    python experiments/equilibrium.py tanh --width 512 --budgets 24 60 --train 300
    python experiments/equilibrium.py relu
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _tables import floats, header, line
from jaxtyping import Array

import mupc
from mupc.inference import Solution
from mupc.networks import Chain
from mupc.runs import train
from mupc.settings import Configuration


class Solver(NamedTuple):
    """A solver and what it is called here."""

    name: str
    solver: mupc.Solver

    def steps(self, sweeps: int) -> int:
        """Return how many steps so many sweeps pay for."""
        costs = self.solver.cost(jnp.arange(2))
        assert costs is not None  # all of these have a fixed price
        begin, end = map(float, costs)
        return int((sweeps - begin) // (end - begin))


_ACCURATE = Solver("l-bfgs in errors", mupc.InErrors(mupc.LBFGS()))


def solvers() -> list[Solver]:
    """Return the solvers that are compared; the stable step's power iterations are counted."""
    stable = mupc.StableStep()
    momentum = mupc.GradientDescent(stable, momentum=0.9)
    return [
        *(Solver(f"gauss-newton, {n} CG", mupc.GaussNewton(n)) for n in (1, 2, 4)),
        _ACCURATE,
        Solver("momentum in errors", mupc.InErrors(momentum)),
        Solver("gradient descent in errors", mupc.InErrors(mupc.GradientDescent(stable))),
        Solver("momentum in activities", mupc.GradientDescent(0.25, momentum=0.9)),
        Solver("gradient descent in activities", mupc.GradientDescent(0.25)),
    ]


class Problem(NamedTuple):
    """An energy, and its point of the feedforward pass."""

    energy: mupc.FreeEnergy
    start: mupc.Point

    def solve(self, solver: mupc.Solver, steps: int, *, trace: bool = False) -> Solution:
        """Make all the steps."""
        return mupc.infer(
            self.energy,
            solver,
            self.start,
            max_steps=steps,
            stopping=mupc.FixedSteps(),
            trace=trace,
        )


def draw(
    data: mupc.data.Dataset, activation: Callable[[Array], Array], options: argparse.Namespace
) -> Chain:
    """Draw the network of an experiment."""
    return mupc.residual_mlp(
        data.inputs,
        data.outputs,
        depth=options.depth,
        width=options.width,
        activation=activation,
        key=jax.random.key(options.seed),
    )


def problem(network: Chain, data: mupc.data.Dataset, batch: int) -> Problem:
    """Pose the problem of the first batch, in float64."""
    network = jax.tree.map(
        lambda leaf: leaf.astype(float) if isinstance(leaf, jax.Array) else leaf, network
    )
    x, y = (jnp.asarray(part[:batch], float) for part in data.train)
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(precision=1.0))
    return Problem(energy, energy.run())


def linear(options: argparse.Namespace) -> dict[str, float]:
    """Compare with the closed form: the largest difference of an activity, over the largest."""
    data = mupc.data.load("digits").flattened()
    network = draw(data, mupc.identity, options)
    posed = problem(network, data, options.batch)
    exact = network.in_order(posed.solve(mupc.LinearSolve(), 1).point.activities)
    cases: dict[str, tuple[mupc.Solver, int]] = {
        "gauss-newton, 10 CG, one iteration": (mupc.GaussNewton(10), 1),
        "gradient descent in errors, 400 steps": (
            mupc.InErrors(mupc.GradientDescent(mupc.StableStep())),
            400,
        ),
        "gradient flow in errors": (mupc.InErrors(mupc.GradientFlow(rtol=1e-6)), 1),
        "l-bfgs in errors, 60 steps": (_ACCURATE.solver, 60),
    }
    print(header(("solver", "largest difference from the closed form")))
    differences: dict[str, float] = {}
    for name, (solver, steps) in cases.items():
        reached = network.in_order(posed.solve(solver, steps).point.activities)
        differences[name] = float(jnp.max(jnp.abs(reached - exact)) / jnp.max(jnp.abs(exact)))
        print(line([name, f"{differences[name]:.1e}"]), flush=True)
    return differences


def tanh(options: argparse.Namespace) -> list[tuple[int, np.ndarray]]:
    """Return each sample's relative residual, in activities, after several numbers of sweeps."""
    settings = {
        **{name: getattr(options, name) for name in ("dataset", "depth", "width", "seed")},
        "activation": "tanh",
        "steps": max(1, options.train),
        "out": str(options.out / f"tanh-{options.depth}x{options.width}-seed{options.seed}"),
    }
    data = mupc.data.load(options.dataset).flattened()
    if options.train:
        with floats(bits=32):
            network = train(Configuration().changed(settings)).result.network
    else:
        network = draw(data, jnp.tanh, options)
    posed = problem(network, data, options.batch)  # pyright: ignore[reportArgumentType]
    print(f"{options.train} batches of training, width {options.width}, {_ACCURATE.name}")
    print(header(("sweeps", "residual: largest", "95 % of samples", "energy: largest ratio")))
    rows: list[tuple[int, np.ndarray]] = []
    for sweeps in options.budgets:
        if _ACCURATE.steps(sweeps) < 1:  # it would not have begun
            continue
        solution = posed.solve(_ACCURATE.solver, _ACCURATE.steps(sweeps))
        residuals = np.asarray(solution.relative_residual)
        rose = float(jnp.max(solution.energy / solution.initial.energy))
        figures = (np.max(residuals), np.quantile(residuals, 0.95))
        shown = (*(f"{figure:.2g}" for figure in figures), f"{rose:.6f}")
        print(line([str(sweeps), *shown]), flush=True)
        rows.append((sweeps, residuals))
    return rows


def relu(options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the energy, over the feedforward energy, after several numbers of sweeps."""
    data = mupc.data.load(options.dataset).flattened()
    network = draw(data, jax.nn.relu, options)
    posed = problem(network, data, options.batch)
    print(header(("solver, energy after sweeps", *map(str, options.budgets))))
    table: dict[str, list[float]] = {}
    for case in solvers():
        most = max(1, case.steps(max(options.budgets)))
        solution = posed.solve(case.solver, most, trace=True)
        assert solution.trace is not None
        energies = jnp.concatenate([solution.trace.energy, solution.energy[None]])
        ratios = np.asarray(jnp.mean(energies, axis=1) / jnp.mean(solution.initial.energy))
        made = [max(0, case.steps(sweeps)) for sweeps in options.budgets]
        table[case.name] = [float(ratios[steps]) for steps in made]
        print(line([case.name, *(f"{r:.3f}" for r in table[case.name])]), flush=True)
    return table


_EXPERIMENTS = {"linear": linear, "tanh": tanh, "relu": relu}
_SIZES = {"linear": (64, 64), "tanh": (128, 32), "relu": (128, 64)}


def main(argv: Sequence[str] | None = None) -> object:
    """Run one experiment."""
    options = _options(argv)
    width, batch = _SIZES[options.experiment]
    options.width, options.batch = options.width or width, options.batch or batch
    with floats(bits=64):
        return _EXPERIMENTS[options.experiment](options)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("experiment", choices=list(_EXPERIMENTS))
    parser.add_argument("--dataset", default="mnist", help="of tanh and relu")
    parser.add_argument("--depth", type=int, default=128)
    parser.add_argument("--width", type=int, help="(default: linear 64, tanh and relu 128)")
    parser.add_argument("--batch", type=int, help="(default: tanh 32, else 64)")
    parser.add_argument(
        "--budgets", type=int, nargs="+", default=[4, 6, 12, 24, 60, 120, 240], help="sweeps"
    )
    parser.add_argument("--train", type=int, default=0, help="batches of training before (tanh)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/equilibrium"), help="run folders")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
