"""A training step of an ensemble with one member, against the same step of a single run.

Runs that differ in numbers alone can be trained as one program, mapped over their stacked states
(`mupc sweep --together`). The mapping should cost nothing: with one member it is the work of one.

    python benchmarks/ensemble.py --sizes 64x64 128x128
"""

import argparse
from collections.abc import Sequence
from typing import Any

from _problems import (
    MNIST_PIXELS,
    Size,
    default_rule,
    random_batch,
    relu_network,
    step_arguments,
)
from _timing import Ratio, Report, interleave, medians, parser, show

from mupc.training.metrics import Metrics
from mupc.training.step import Inputs, State, stack, train_step, train_steps

_ENSEMBLE, _SINGLE = "ensemble of one", "single run"
_LIMIT = 1.1


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure every size."""
    options = _options(argv)
    report = Report(options)
    for size in options.sizes:
        print(f"depth {size.depth}, width {size.width}")
        network = relu_network(MNIST_PIXELS, size, options.seed)
        batch = random_batch(MNIST_PIXELS, options.batch, options.seed)
        cases = {
            name: case(*step_arguments(default_rule(), network, batch))
            for name, case in {_ENSEMBLE: Ensemble, _SINGLE: Single}.items()
        }
        times = interleave(cases, options.rounds)
        for name, seconds in times.items():
            show(name, seconds)
        middle = medians(times)
        ratio = Ratio(f"{_ENSEMBLE} / {_SINGLE}", middle[_ENSEMBLE], middle[_SINGLE], _LIMIT)
        report.add([ratio], depth=size.depth, width=size.width, seconds=middle)
    return report.finish()


class Single:
    """Training steps of one run, each call one: a step consumes the state, so that is kept."""

    def __init__(self, inputs: Inputs, state: State) -> None:
        self.inputs, self.state = inputs, state

    def __call__(self) -> Metrics:
        """Make a step; the metrics are ready when the whole step is."""
        self.state, metrics = train_step(self.inputs, self.state)
        return metrics


class Ensemble:
    """The same steps, of an ensemble whose only member is that run."""

    def __init__(self, inputs: Inputs, state: State) -> None:
        self.inputs, self.states = (inputs,), stack([state])

    def __call__(self) -> Metrics:
        """Make a step; the metrics are ready when the whole step is."""
        self.states, metrics = train_steps(self.inputs, self.states)
        return metrics


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument(
        "--sizes",
        type=Size.parse,
        nargs="+",
        default=[Size(64, 64), Size(128, 128)],
        metavar="DEPTHxWIDTH",
    )
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
