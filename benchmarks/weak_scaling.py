"""How far depth could be parted, on paper: devices are added, and layers with them.

Each of P devices has so many layers, and the batch is the same. What is measured, on one device: a
training step of one device's layers, and one feedforward pass of these at every size of
microbatch. What is counted, in the programs of 2 and of 8 devices: the messages between
neighbours, of which s · (M + P − 1) are of s sweeps in M microbatches, and others are not (of each
inference step, where these are a loop). By the time that a message takes and the bandwidth of a
link

    T(P) = T(1) + s · [(M + P − 1) · t(B / M) − t(B)] + messages · latency + bytes / bandwidth

for a step, where t is the time of a sweep. No message is assumed to go while something is computed,
no device to be slower than another, and sums over devices to cost nothing: of 1,024 devices nothing
has been seen.

    python benchmarks/weak_scaling.py --size 128x128 --faster 1 100
"""

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}

import equinox as eqx
from _messages import messages
from _problems import DIGITS_PIXELS, Size, fixed_steps, random_batch, relu_network, step_arguments
from _timing import Report, interleave, medians, parser, show

import mupc
from mupc.learning import Batch, LearningRule
from mupc.networks import microbatches
from mupc.training.step import train_step

_STEPS = 20
RULES: dict[str, tuple[LearningRule, int]] = {
    "layer-parallel (gradient descent in activities)": (fixed_steps(0.25, _STEPS), _STEPS),
    "pipelined (the default)": (mupc.PredictiveCoding(), 1),
}
"""Methods, with the inference steps that their program has in a loop."""

_COUNTED = (2, 8)
_BYTES = 4  # of a number


class Link(NamedTuple):
    """Between neighbours: seconds that a message takes whatever its size, and bytes a second."""

    name: str
    latency: float
    bandwidth: float


LINKS = (
    Link("2 µs, 100 GB/s", 2e-6, 100e9),
    Link("10 µs, 10 GB/s", 10e-6, 10e9),
    Link("50 µs, 1 GB/s", 50e-6, 1e9),
)
"""Of the order of what accelerators of one host have, a cluster's network, and Ethernet."""


class Counted(NamedTuple):
    """Messages between neighbours in a step: how many sweeps there are, and how many others."""

    sweeps: float
    others: float


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, count, and print what follows."""
    options = _options(argv)
    report = Report(options)
    network = relu_network(DIGITS_PIXELS, Size(options.size.depth + 1, options.size.width), seed=0)
    batch = random_batch(DIGITS_PIXELS, options.batch, 0)
    parts = {microbatches(options.batch, devices) for devices in options.devices}
    sizes = sorted({options.batch // m for m in {1, *parts}})
    passes = {f"feedforward pass, {b} samples": _feedforward(network, b) for b in sizes}
    steps = {name: _step(rule, network, batch) for name, (rule, _) in RULES.items()}
    times = interleave({**steps, **passes}, options.rounds)
    for name, seconds in times.items():
        show(name, seconds)
    found = medians(times)
    of_pass = dict(zip(sizes, (found[name] for name in passes), strict=True))
    for name, (rule, looped) in RULES.items():
        counted = _counted(rule, options)
        print(
            f"\n{name}: {counted.sweeps:.1f} sweeps, {counted.others:.1f} other messages"
            + (f" (each of {looped} steps)" if looped > 1 else "")
        )
        shares = _table(options, counted, looped, found[name], of_pass)
        report.add(method=name, **counted._asdict(), efficiency=shares)
    return report.finish()


def _turns(devices: int, batch: int) -> int:
    """Return how many turns a sweep takes."""
    return microbatches(batch, devices) + devices - 1


def _feedforward(network: Any, samples: int) -> Callable[[], Any]:
    x, _ = random_batch(DIGITS_PIXELS, samples, 0)
    run = eqx.filter_jit(lambda network, x: network.feedforward(x))
    return lambda: run(network, x)


def _step(rule: LearningRule, network: Any, batch: Batch) -> Callable[[], Any]:
    """Return a training step that goes on from where the one before ended."""
    inputs, state = step_arguments(rule, network, batch)
    held = [state]

    def step() -> Any:
        held[0], metrics = train_step(inputs, held[0])
        return metrics

    return step


def _counted(rule: LearningRule, options: argparse.Namespace) -> Counted:
    """Count what neighbours send in the programs of two numbers of devices; depth is no matter."""
    network = relu_network(DIGITS_PIXELS, Size(17, 8), seed=0)
    batch = random_batch(DIGITS_PIXELS, options.batch, 0)
    numbers: list[int] = []
    for devices in _COUNTED:
        layout = mupc.Layout(depth=devices)
        inputs, state = step_arguments(rule, network, batch)
        inputs, state = (layout.parted(batch), *inputs[1:]), layout.placed(state)
        with layout.active():
            program = cast(Any, train_step).lower(inputs, state).compile().compiled
        numbers.append(messages(program.as_text())["collective-permute"].number)
    few, many = (_turns(devices, options.batch) for devices in _COUNTED)
    sweeps = (numbers[1] - numbers[0]) / (many - few)
    return Counted(sweeps, numbers[0] - sweeps * few)


def _table(
    options: argparse.Namespace,
    counted: Counted,
    looped: int,
    step: float,
    of_pass: dict[int, float],
) -> dict[str, float]:
    """Print and return a step of one device's layers over one of all devices, by link."""
    shares: dict[str, float] = {}
    print("| a device computes | devices | idle in sweeps | " + " | ".join(_names()) + " |")
    print("| --- | --- | --- " + "| --- " * len(LINKS) + "|")
    for faster in options.faster:
        for devices in options.devices:
            turns, parts = _turns(devices, options.batch), microbatches(options.batch, devices)
            whole, part = of_pass[options.batch], of_pass[options.batch // parts]
            # Beyond the whole batch's, which the measured step has.
            sweeping = counted.sweeps * (turns * part - whole) if devices > 1 else 0.0
            in_turns = counted.sweeps * turns * (devices > 1)
            others = counted.others * looped * (devices > 1)
            sample = options.size.width * _BYTES
            sent = sample * (in_turns * options.batch / parts + others * options.batch)
            cells: list[str] = []
            for link in LINKS:
                sending = (in_turns + others) * link.latency + sent / link.bandwidth
                share = step / faster / ((step + sweeping) / faster + sending)
                shares[f"{faster:g}, {devices}, {link.name}"] = share
                cells.append(f"{100 * share:.0f} %")
            idle = (devices - 1) / turns
            print(f"| {faster:g} × | {devices} | {100 * idle:.0f} % | " + " | ".join(cells) + " |")
    return shares


def _names() -> list[str]:
    return [link.name for link in LINKS]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--size", type=Size.parse, default=Size(128, 128), metavar="DEPTHxWIDTH")
    options.add_argument("--devices", type=int, nargs="+", default=[1, 2, 8, 32, 128, 1024])
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument(
        "--faster", type=float, nargs="+", default=[1, 100], help="than this device computes"
    )
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
