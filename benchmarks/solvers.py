"""How close each solver comes to equilibrium, and at what price, from 8 layers to 1,024.

Solvers start at the feedforward activities of a ReLU network as drawn, on a batch of the digits, in
a regime that is truly predictive coding's (ρ = 0.6). A sweep is one pass over all layers with one
matrix product per layer; what a solver takes besides is seen in the time of its sweeps over that of
bare products. The table gives the energy over that of the start, and the median of the samples'
residuals over theirs at the start.

    python benchmarks/solvers.py --depths 8 32 128 512 1024
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from _problems import DIGITS_PIXELS, Size, relu_network
from _timing import Ratio, Report, interleave, medians, parser

import mupc
from mupc.theory import precision_for

_YARDSTICK = "one bare product per layer"
_COLUMNS = (
    "depth",
    "solver",
    "steps",
    "sweeps",
    "energy",
    "residual",
    "ms",
    "sweep / bare product",
    "MB",
    "compile s",
)


class Case(NamedTuple):
    """A solver, how many steps it makes, and how many sweeps these take."""

    solver: mupc.Solver
    steps: int
    sweeps: int


def cases() -> dict[str, Case]:
    """Return what is compared. Steps that have to be shrunk take a sweep more, not counted here."""
    stable = mupc.StableStep()
    power = 2 * int(stable.iterations)
    newton = {
        f"Gauss–Newton {steps} x {cg}": Case(mupc.GaussNewton(cg), steps, 2 * steps * cg)
        for steps, cg in [(1, 1), (1, 2), (3, 4)]
    }
    quasi = {
        f"L-BFGS in errors, {steps}": Case(mupc.InErrors(mupc.LBFGS()), steps, 4 + 2 * steps)
        for steps in (10, 30)
    }
    momentum = mupc.InErrors(mupc.GradientDescent(stable, momentum=0.9))
    return {
        **newton,
        **quasi,
        "momentum in errors, 30": Case(momentum, 30, power + 60),
        "momentum in activities, 30": Case(mupc.GradientDescent(0.25, momentum=0.9), 30, 60),
        "gradient descent in activities, 30": Case(mupc.GradientDescent(0.25), 30, 60),
    }


class Problem(NamedTuple):
    """An energy, and where inference begins."""

    energy: mupc.FreeEnergy
    start: mupc.Point


def problem(size: Size, options: argparse.Namespace) -> Problem:
    """Pose the problem of a size."""
    network = relu_network(DIGITS_PIXELS, size, options.seed)
    data = mupc.data.load("digits").flattened()
    x, y = (jnp.asarray(v[: options.batch], float) for v in data.train)
    unit = mupc.FreeEnergy(network, x, y, mupc.Gaussian())
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(precision_for(options.rho, unit)))
    return Problem(energy, energy.run())


def solve(posed: Problem, solver: mupc.Solver, steps: int, *, measure: bool) -> mupc.Solution:
    """Make all the steps."""
    energy, start = posed
    return mupc.infer(
        energy, solver, start, max_steps=steps, stopping=mupc.FixedSteps(), measure=measure
    )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure every depth."""
    options = _options(argv)
    report = Report(options)
    rows = [row for depth in options.depths for row in measure(depth, options, report)]
    print()
    for row in (_COLUMNS, ["---"] * len(_COLUMNS), *rows):
        print(f"| {' | '.join(row)} |")
    return report.finish()


def measure(depth: int, options: argparse.Namespace, report: Report) -> list[list[str]]:
    """Measure one depth."""
    print(f"depth {depth}, width {options.width}")
    posed = problem(Size(depth, options.width), options)
    compiled = {name: compile_solver(posed, case) for name, case in cases().items()}
    timed: dict[str, Callable[[], Any]] = {
        name: partial(solve, posed, case.solver, case.steps, measure=False)
        for name, case in cases().items()
    }
    timed[_YARDSTICK] = products(Size(depth, options.width), options.batch)
    middle = medians(interleave(timed, options.rounds))
    figures: dict[str, dict[str, float]] = {}
    rows: list[list[str]] = []
    ratios: list[Ratio] = []
    sweep = {_YARDSTICK: middle[_YARDSTICK]}
    for name, case in cases().items():
        solution = solve(posed, case.solver, case.steps, measure=True)
        energy = float(jnp.mean(solution.energy) / jnp.mean(solution.initial.energy))
        residual = float(jnp.median(solution.relative_residual))
        sweep[name] = middle[name] / case.sweeps
        ratios.append(Ratio(f"{name} / {_YARDSTICK}", sweep[name], middle[_YARDSTICK]))
        figures[name] = {"energy": energy, "residual": residual, **compiled[name]}
        counts = [str(depth), name, str(case.steps), str(case.sweeps)]
        reached = [f"{energy:.4f}", f"{residual:.1e}", f"{1e3 * middle[name]:.1f}"]
        price = [f"{ratios[-1].value:.2f}", f"{compiled[name]['bytes'] / 1e6:.0f}"]
        rows.append([*counts, *reached, *price, f"{compiled[name]['compile seconds']:.1f}"])
    report.add(ratios, depth=depth, width=options.width, seconds=sweep, solvers=figures)
    return rows


def compile_solver(posed: Problem, case: Case) -> dict[str, float]:
    """Return the seconds that compiling takes, from nothing, and the bytes that inference needs."""
    jax.clear_caches()
    run = jax.jit(partial(solve, steps=case.steps, measure=False))
    began = time.perf_counter()
    program = run.lower(posed, case.solver).compile()
    seconds = time.perf_counter() - began
    if (sizes := program.memory_analysis()) is None:
        raise SystemExit(f"XLA gives no account of memory on {jax.default_backend()}")
    return {
        "compile seconds": seconds,
        "bytes": sizes.temp_size_in_bytes + sizes.output_size_in_bytes,
    }


def products(size: Size, batch: int) -> Callable[[], Any]:
    """Return a pass with nothing but a matrix product in each layer."""
    z_key, w_key = jax.random.split(jax.random.key(0))
    W = jax.random.normal(w_key, (size.depth, size.width, size.width)) * size.width**-0.5
    z = jax.random.normal(z_key, (batch, size.width))

    @jax.jit
    def run(z: jax.Array, W: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return jax.lax.scan(lambda z, W: (z @ W, z), z, W)[1]

    return partial(run, z, W)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--depths", type=int, nargs="+", default=[8, 32, 128, 512, 1024])
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--rho", type=float, default=0.6, help="regime number")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
