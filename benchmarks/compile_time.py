"""Trace and compile time of the default training step at two depths, and its number of equations.

Depth is an axis of arrays, so the program is the same at every depth: as many equations in it at
depth 8 as at 512, and no longer to compile at 1,024 layers than at 8.

    python benchmarks/compile_time.py --depths 8 1024 --equations 8 512
"""

import argparse
import itertools
import os
import time
from collections.abc import Sequence
from typing import Any

import jax
from _problems import (
    DIGITS_PIXELS,
    Size,
    default_rule,
    random_batch,
    relu_network,
    step_arguments,
    trace_step,
)
from _timing import Ratio, Report, medians, parser, show
from jax.extend.core import ClosedJaxpr, Jaxpr

from mupc.training.step import Inputs, State

_LIMIT = 1.3
_STAGES = ("trace", "lower", "compile")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Count equations, then time the stages of compilation."""
    options = _options(argv)
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        raise SystemExit("unset JAX_COMPILATION_CACHE_DIR: it would time the reading of a file")
    report = Report(options)
    count(options, report)
    compile_times(options, report)
    return report.finish()


def count(options: argparse.Namespace, report: Report) -> None:
    """Count the equations of the training step at two depths."""
    counts = {
        depth: equations(trace_step(_arguments(depth, options)).jaxpr.jaxpr)
        for depth in options.equations
    }
    same = len(set(counts.values())) == 1
    for depth, number in counts.items():
        print(f"depth {depth}: {number} equations")
    print(f"  equal (target): {'met' if same else 'missed'}")
    report.add(equations=counts, verdict="met" if same else "missed")


def equations(jaxpr: Jaxpr) -> int:
    """Count the equations of a program with those of the programs in it (a loop's body is one)."""
    inner = [leaf for eqn in jaxpr.eqns for leaf in jax.tree.leaves(eqn.params, is_leaf=_is_jaxpr)]
    programs = [leaf.jaxpr if isinstance(leaf, ClosedJaxpr) else leaf for leaf in inner]
    nested = sum(equations(program) for program in programs if isinstance(program, Jaxpr))
    return len(jaxpr.eqns) + nested


def _is_jaxpr(value: object) -> bool:
    return isinstance(value, Jaxpr | ClosedJaxpr)


def compile_times(options: argparse.Namespace, report: Report) -> None:
    """Time the stages at two depths, in turns, each time with empty caches."""
    arguments = {depth: _arguments(depth, options) for depth in options.depths}
    stages(arguments[options.depths[0]])  # the first compilation also starts the compiler
    rounds = [
        {depth: stages(arguments[depth]) for depth in options.depths} for _ in range(options.rounds)
    ]
    middle: dict[int, dict[str, float]] = {}
    for depth in options.depths:
        times = {name: [turn[depth][name] for turn in rounds] for name in (*_STAGES, "total")}
        middle[depth] = medians(times)
        print(f"depth {depth}")
        for name, seconds in times.items():
            show(name, seconds)
    shallow, deep = options.depths
    ratios = [
        Ratio(name, middle[deep][name], middle[shallow][name], _LIMIT if name == "total" else None)
        for name in (*_STAGES, "total")
    ]
    print(f"depth {deep} / depth {shallow}")
    report.add(ratios, seconds=middle)


def stages(arguments: tuple[Inputs, State]) -> dict[str, float]:
    """Time each stage once, in seconds."""
    marks = [time.perf_counter()]
    traced = trace_step(arguments)
    marks.append(time.perf_counter())
    lowered = traced.lower()
    marks.append(time.perf_counter())
    lowered.compile()
    marks.append(time.perf_counter())
    seconds = [after - before for before, after in itertools.pairwise(marks)]
    return {**dict(zip(_STAGES, seconds, strict=True)), "total": marks[-1] - marks[0]}


def _arguments(depth: int, options: argparse.Namespace) -> tuple[Inputs, State]:
    network = relu_network(DIGITS_PIXELS, Size(depth, options.width), seed=0)
    batch = random_batch(DIGITS_PIXELS, options.batch, seed=0)
    return step_arguments(default_rule(), network, batch)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--depths", type=int, nargs=2, default=[8, 1024], help="to compile")
    options.add_argument("--equations", type=int, nargs=2, default=[8, 512], help="to count at")
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--rounds", type=int, default=7)
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
