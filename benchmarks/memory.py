"""Memory of the compiled training step, by XLA's own account, against what training must hold.

The yardstick is the weights, their gradients, the optimiser's state, and four arrays as large as
the activities: those at the start, those now, their predictions and their gradient. Inference keeps
no history, so T = 512 steps take what 8 take: T is an argument of one program.

    python benchmarks/memory.py --depth 1024 --width 64 --steps 8 512
"""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from _problems import (
    DIGITS_PIXELS,
    Size,
    fixed_steps,
    random_batch,
    relu_network,
    step_arguments,
)
from _timing import Ratio, Report, parser
from jaxtyping import PyTree

from mupc.training.step import Inputs, State, train_step

_LIMIT = 1.5
_ACTIVITY_ARRAYS = 4


class Program(NamedTuple):
    """A compiled training step: its text before optimisation, and the bytes of its buffers."""

    text: str
    parts: dict[str, int]

    @property
    def bytes(self) -> int:
        """All buffers; an output that reuses an argument's buffer counts once."""
        return sum(self.parts.values())


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Compile the step for every number of inference steps, and compare."""
    options = _options(argv)
    report = Report(options)
    needed = yardstick(_arguments(options.steps[0], options)[1], options.batch)
    _show("yardstick", needed)
    programs = {steps: compile_step(_arguments(steps, options)) for steps in options.steps}
    for steps, program in programs.items():
        _show(f"training step, T = {steps}", program.parts)
        ratio = Ratio("memory / yardstick", program.bytes, sum(needed.values()), _LIMIT)
        report.add([ratio], steps=steps, bytes=program.parts, yardstick=needed)
    same = len({program.text for program in programs.values()}) == 1
    print(f"one program for T = {' and '.join(map(str, options.steps))}: {_word(same)}")
    report.add(one_program=same, verdict=_word(same))
    return report.finish()


def yardstick(state: State, batch: int) -> dict[str, int]:
    """Return the bytes of what training must hold."""
    network = state.network
    weights = bytes_of(network)
    x = jax.ShapeDtypeStruct((batch, DIGITS_PIXELS), jnp.result_type(float))
    activities = eqx.filter_eval_shape(lambda x: network.feedforward(x).activities, x)
    return {
        "weights": weights,
        "gradients": weights,
        "optimiser": bytes_of(state.optimiser),
        "activities": _ACTIVITY_ARRAYS * bytes_of(activities),
    }


def compile_step(arguments: tuple[Inputs, State]) -> Program:
    """Compile the very function that `mupc.fit` calls, and ask how much memory it takes."""
    lowered = cast(Any, train_step).lower(*arguments).lowered
    sizes = lowered.compile().memory_analysis()
    if sizes is None:
        raise SystemExit(f"XLA gives no account of memory on {jax.default_backend()}")
    parts = {
        "arguments": sizes.argument_size_in_bytes,
        "temporaries": sizes.temp_size_in_bytes,
        "new outputs": sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
    }
    return Program(lowered.as_text(), parts)


def _arguments(steps: int, options: argparse.Namespace) -> tuple[Inputs, State]:
    network = relu_network(DIGITS_PIXELS, Size(options.depth, options.width), seed=0)
    batch = random_batch(DIGITS_PIXELS, options.batch, seed=0)
    return step_arguments(fixed_steps(options.step_size, steps), network, batch)


def bytes_of(tree: PyTree[Any]) -> int:
    """Return how many bytes the arrays of a tree take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _show(name: str, parts: dict[str, int]) -> None:
    listed = ", ".join(f"{part} {size / 1e6:.3f}" for part, size in parts.items())
    print(f"{name}: {sum(parts.values()) / 1e6:.3f} MB ({listed})")


def _word(met: bool) -> str:
    return "met" if met else "missed"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--depth", type=int, default=1024)
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--steps", type=int, nargs=2, default=[8, 512], help="of inference")
    options.add_argument("--step-size", type=float, default=0.25, help="of inference")
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
