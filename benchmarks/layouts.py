"""What a device holds of a training step parted along depth, and what it sends, by method.

Memory is XLA's own account, against the same step on one device: at P devices a device should hold
little more than 1/P of it. Messages are counted in the compiled program (loops of a length that is
decided as they run, such as the steps of a solver, count once): what only neighbours send does not
grow with the number of devices, nor with depth.

    python benchmarks/layouts.py --size 1024x64 --devices 2 4 8
"""

import argparse
import os
from collections.abc import Sequence
from typing import Any, cast

os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}  # nothing is run here

import jax
from _messages import Messages, messages
from _problems import CLASSES, DIGITS_PIXELS, Size, random_batch, relu_network, step_arguments
from _timing import Ratio, Report, parser

import mupc
from mupc.learning import LearningRule
from mupc.networks import Network
from mupc.training.step import train_step

_LIMIT = 1.3
_CHAIN = "equilibrium propagation, residual chain"
RULES: dict[str, LearningRule] = {
    "backpropagation": mupc.Backpropagation(),
    "predictive coding, default": mupc.PredictiveCoding(),
    "predictive coding, in activities": mupc.PredictiveCoding(
        mupc.GradientDescent(0.25), 20, mupc.Gaussian(0.1), stopping=mupc.FixedSteps()
    ),
    _CHAIN: mupc.EquilibriumPropagation(),
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Compile every method's step for every number of devices."""
    options = _options(argv)
    report = Report(options)
    print("| method | devices | memory of each, MB | messages | KB | by kind |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, rule in RULES.items():
        if options.methods is None or name in options.methods:
            measure(name, rule, options, report)
    return report.finish()


def measure(name: str, rule: LearningRule, options: argparse.Namespace, report: Report) -> None:
    """Compile one method's step, and print what its devices hold and send."""
    network, batch = _network(name, options.size), random_batch(DIGITS_PIXELS, options.batch, 0)
    whole = _row(name, 1, *_compiled(rule, network, batch, None))
    ratios: list[Ratio] = []
    for devices in options.devices:
        layout = mupc.Layout(depth=devices)
        held = _row(name, devices, *_compiled(rule, network, batch, layout))
        ratios.append(
            Ratio(f"{name}: memory at {devices} / its share", held, whole / devices, _LIMIT)
        )
    report.add(ratios, method=name)


def _compiled(
    rule: LearningRule, network: Network, batch: Any, layout: mupc.Layout | None
) -> tuple[int, dict[str, Messages]]:
    """Return the bytes that each device holds in a step, and what it sends."""
    inputs, state = step_arguments(rule, cast(Any, network), batch)
    if layout is None:
        program = cast(Any, train_step).lower(inputs, state).compile().compiled
    else:
        inputs, state = (layout.parted(batch), *inputs[1:]), layout.placed(state)
        with layout.active():
            program = cast(Any, train_step).lower(inputs, state).compile().compiled
    seen = program.memory_analysis()
    results = seen.output_size_in_bytes - seen.alias_size_in_bytes
    held = seen.argument_size_in_bytes + results + seen.temp_size_in_bytes
    return held, messages(program.as_text())


def _row(name: str, devices: int, held: int, sent: dict[str, Messages]) -> int:
    number, total = (sum(getattr(one, part) for one in sent.values()) for part in Messages._fields)
    kinds = ", ".join(
        f"{kind} {one.number} of {one.bytes / 1e3:.0f} KB" for kind, one in sent.items()
    )
    print(f"| {name} | {devices} | {held / 1e6:.1f} | {number} | {total / 1e3:.0f} | {kinds} |")
    return held


def _network(name: str, size: Size) -> Network:
    """Build the network of a method, with an entry before so many repeated layers."""
    size = Size(size.depth + 1, size.width)
    if name != _CHAIN:
        return relu_network(DIGITS_PIXELS, size, seed=0)
    return mupc.residual_hopfield(
        DIGITS_PIXELS, CLASSES, width=size.width, depth=size.depth, key=jax.random.key(0)
    )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--size", type=Size.parse, default=Size(1024, 64), metavar="DEPTHxWIDTH")
    options.add_argument("--devices", type=int, nargs="+", default=[2, 4, 8])
    options.add_argument("--methods", nargs="+", choices=list(RULES), help="all unless given")
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
