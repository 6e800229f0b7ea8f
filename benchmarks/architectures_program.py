"""The compiled training step of convolutional networks and transformers: size, time and memory.

Its number of equations and the time to compile it do not grow with the depth. Its memory is
compared with that of weights, gradients, the optimiser's state and six arrays as large as the
activities.

    python benchmarks/architectures_program.py
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from _problems import step_arguments, trace_step
from _timing import Ratio, Report, parser
from architectures_step import problem_of
from compile_time import equations, stages
from memory import bytes_of, compile_step

import mupc
from mupc.training.step import Inputs, State

_COMPILE, _MEMORY, _ACTIVITY_ARRAYS = 1.3, 1.5, 6
_PAIRS = ("conv-3", "conv-36", "transformer-4x64", "transformer-48x64")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Compare each two networks that differ in depth alone."""
    options = _options(argv)
    report = Report(options)
    for shallow, deep in zip(options.cases[::2], options.cases[1::2], strict=True):
        both = [arguments(name, options) for name in (shallow, deep)]
        counts = [equations(trace_step(one).jaxpr.jaxpr) for one in both]
        same = "met" if counts[0] == counts[1] else "missed"
        print(f"{shallow} and {deep}: {counts[0]} and {counts[1]} equations (equal): {same}")
        seconds = [
            statistics.median(sum(stages(one).values()) for _ in range(options.rounds))
            for one in both
        ]
        ratios = [Ratio(f"compile time, {deep} / {shallow}", seconds[1], seconds[0], _COMPILE)]
        for name, one in zip((shallow, deep), both, strict=True):
            held, needed = compile_step(one).bytes, yardstick(*one)
            ratios.append(Ratio(f"memory of {name} / yardstick", held, needed, _MEMORY))
        report.add(ratios, cases=[shallow, deep], equations=counts, seconds=seconds)
    return report.finish()


def arguments(name: str, options: argparse.Namespace) -> tuple[Inputs, State]:
    """Return those of the training step of the default rule."""
    problem = problem_of(name, options)
    rule = mupc.PredictiveCoding(likelihood=problem.likelihood)
    return step_arguments(rule, problem.network, problem.batch)


def yardstick(inputs: Inputs, state: State) -> int:
    """Return the bytes of what training must hold, and of six arrays of activities."""
    network, (x, _) = state.network, inputs[0]
    activities = eqx.filter_eval_shape(lambda x: network.feedforward(x).activities, x)
    weights = bytes_of(network)
    return 2 * weights + bytes_of(state.optimiser) + _ACTIVITY_ARRAYS * bytes_of(activities)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("cases", nargs="*", default=list(_PAIRS), help="shallow, deep, …")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seed", type=int, default=0)
    jax.config.update("jax_enable_compilation_cache", False)
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
