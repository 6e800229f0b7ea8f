"""What the regime report adds to training, at its interval, over the training steps between.

A report repeats a batch's inference and learning beside backpropagation, and measures residuals.

    python benchmarks/regime_report.py --sizes 128x128
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
from _problems import (
    MNIST_PIXELS,
    Size,
    default_rule,
    random_batch,
    relu_network,
    step_arguments,
)
from _timing import Ratio, Report, interleave, medians, parser, show

from mupc.settings import Configuration
from mupc.training.report import Model, regime_report
from mupc.training.step import train_step

_STEP, _REPORT = "training step", "regime report"
_LIMIT = 0.05


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure every size."""
    options = _options(argv)
    report = Report(options)
    for size in options.sizes:
        print(f"depth {size.depth}, width {size.width}")
        network = relu_network(MNIST_PIXELS, size, options.seed)
        batch = random_batch(MNIST_PIXELS, options.batch, options.seed)
        rule = default_rule()
        inputs, state = step_arguments(rule, network, batch)
        held = [state]

        def step(inputs: Any = inputs, held: list[Any] = held) -> Any:
            held[0], metrics = train_step(inputs, held[0])
            return metrics

        def seen(
            rule: Any = rule, network: Any = network, batch: Any = batch, held: list[Any] = held
        ) -> Any:
            model = Model(network, held[0].network, rule, held[0].rule)
            return regime_report(model, batch, jax.random.key(0), step=0, seconds=0.0)

        times = interleave({_STEP: step, _REPORT: seen}, options.rounds)
        for name, seconds in times.items():
            show(name, seconds)
        middle = medians(times)
        between = options.interval * middle[_STEP]
        name = f"{_REPORT} / {options.interval} training steps"
        ratios = [Ratio(name, middle[_REPORT], between, _LIMIT)]
        report.add(ratios, depth=size.depth, width=size.width, seconds=middle)
    return report.finish()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument(
        "--sizes", type=Size.parse, nargs="+", default=[Size(128, 128)], metavar="DEPTHxWIDTH"
    )
    options.add_argument("--interval", type=int, default=Configuration().training.report_every)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
