"""What checkpoints add to training at their default interval: one, over the minutes between two.

A checkpoint holds network, optimiser, the best network so far and a thousand records; it is written
to a folder given, or to the system's folder for what is temporary.

    python benchmarks/checkpoints.py --sizes 128x128
"""

import argparse
import dataclasses
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
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

from mupc.records import TrainRecord
from mupc.settings import Configuration
from mupc.training import Checkpoints
from mupc.training.checkpoint import Snapshot
from mupc.training.step import train_step

_STEP, _CHECKPOINT = "training step", "checkpoint"
_LIMIT = 0.03
_RECORDS = 1000


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure every size."""
    options = _options(argv)
    report = Report(options)
    records = [TrainRecord(i, 0, 1, 0.5, 1, 1, 1, 1, 1, 0, 1, 1e3, 1) for i in range(_RECORDS)]
    for size in options.sizes:
        print(f"depth {size.depth}, width {size.width}")
        network = relu_network(MNIST_PIXELS, size, options.seed)
        batch = random_batch(MNIST_PIXELS, options.batch, options.seed)
        inputs, state = step_arguments(default_rule(), network, batch)
        held, count = [state], itertools.count()
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            checkpoints = Checkpoints(folder)

            def step(inputs: Any = inputs, held: list[Any] = held) -> Any:
                held[0], metrics = train_step(inputs, held[0])
                return metrics

            def keep(
                held: list[Any] = held,
                count: Any = count,
                kept: Checkpoints = checkpoints,
                network: Any = network,
            ) -> Any:
                progress = {"records": [dataclasses.asdict(record) for record in records]}
                if not kept.save(Snapshot(next(count), (held[0], network), progress, {})):
                    raise SystemExit(f"{kept.path} cannot be written")

            times = interleave({_STEP: step, _CHECKPOINT: keep}, options.rounds)
            checkpoints.close()
        for name, seconds in times.items():
            show(name, seconds)
        middle = medians(times)
        between = 60 * options.minutes
        name = f"{_CHECKPOINT} / {options.minutes:g} minutes of training"
        ratios = [
            Ratio(name, middle[_CHECKPOINT], between, _LIMIT),
            Ratio(f"{_CHECKPOINT} / {_STEP}", middle[_CHECKPOINT], middle[_STEP]),
        ]
        report.add(ratios, depth=size.depth, width=size.width, seconds=middle)
    return report.finish()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument(
        "--sizes", type=Size.parse, nargs="+", default=[Size(128, 128)], metavar="DEPTHxWIDTH"
    )
    options.add_argument("--minutes", type=float, default=Configuration().run.checkpoint_minutes)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--folder", type=Path, help="where checkpoints are written")
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
