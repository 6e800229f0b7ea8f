"""One training step of predictive coding, optimiser included, against backpropagation's.

Predictive coding by gradient descent on activities: with a few inference steps (T = 8), and with as
many as the network has layers. No target: the ratio says what local learning costs.

    python benchmarks/training_step.py --sizes 128x128 32x512
"""

import argparse
from collections.abc import Sequence
from typing import Any

from _problems import (
    MNIST_PIXELS,
    Size,
    fixed_steps,
    random_batch,
    relu_network,
    step_arguments,
)
from _timing import Ratio, Report, interleave, medians, parser, show

import mupc
from mupc.learning import Batch, LearningRule
from mupc.networks import Chain
from mupc.training.step import Metrics, train_step

_YARDSTICK = "backpropagation"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure every size."""
    options = _options(argv)
    report = Report(options)
    for size in options.sizes:
        measure(size, options, report)
    return report.finish()


def measure(size: Size, options: argparse.Namespace, report: Report) -> None:
    """Measure one size."""
    print(f"depth {size.depth}, width {size.width}")
    network = relu_network(MNIST_PIXELS, size, options.seed)
    batch = random_batch(MNIST_PIXELS, options.batch, options.seed)
    steps = sorted({options.steps, size.depth})
    rules: dict[str, LearningRule] = {_YARDSTICK: mupc.Backpropagation()}
    rules |= {f"predictive coding, T = {T}": fixed_steps(options.step_size, T) for T in steps}
    cases = {name: Training(rule, network, batch) for name, rule in rules.items()}
    times = interleave(cases, options.rounds)
    for name, seconds in times.items():
        show(name, seconds)
    middle = medians(times)
    ratios = [
        Ratio(f"{name} / {_YARDSTICK}", middle[name], middle[_YARDSTICK])
        for name in rules
        if name != _YARDSTICK
    ]
    report.add(ratios, depth=size.depth, width=size.width, seconds=middle)


class Training:
    """Training steps on one batch, each call one: a step consumes the state, so that is kept."""

    def __init__(self, rule: LearningRule, network: Chain, batch: Batch) -> None:
        self.inputs, self.state = step_arguments(rule, network, batch)
        metrics = self()
        if isinstance(rule, mupc.PredictiveCoding):
            made, asked = float(metrics.inference_steps), int(rule.max_steps)
            if made != asked:
                raise SystemExit(f"inference made {made} of {asked} steps: lower --step-size")

    def __call__(self) -> Metrics:
        """Make a step; the metrics are ready when the whole step is."""
        self.state, metrics = train_step(self.inputs, self.state)
        return metrics


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument(
        "--sizes", type=Size.parse, nargs="+", default=[Size(128, 128), Size(32, 512)]
    )
    options.add_argument("--steps", type=int, default=8, help="of inference, beside T = depth")
    options.add_argument("--step-size", type=float, default=0.25, help="of inference")
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
