"""Training 1,024 layers on the digits, with the default command's rule, on a laptop.

Says for every seed whether training went on without divergence and what it learned, with its time
and memory.

    python experiments/depth_1024.py --seeds 0 1 2
    python experiments/depth_1024.py --epochs 1 --max-steps 4       (sooner)
"""

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mupc.training import Ended, TrainRecord
from mupc.training.config import TrainConfig, resolve
from mupc.training.run import train


@dataclass(frozen=True)
class Outcome:
    """How one run went."""

    seed: int
    steps: int
    first_loss: float
    """Of the first batch, before any learning."""
    last_loss: float
    """Mean over the last tenth of the batches."""
    accuracy: float
    """Of the network that was best on the validation part, on the test part."""
    ended: Ended
    seconds: float
    megabytes: float
    """The process's largest resident memory up to the end of this run."""

    @property
    def verdict(self) -> str:
        """The target: steps are made without divergence, and they lower the loss."""
        went_on = self.ended is not Ended.DIVERGED and self.last_loss < self.first_loss
        return "met" if went_on else "missed"

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: loss {self.first_loss:.4f} → {self.last_loss:.4f} in {self.steps} "
            f"steps, test accuracy {self.accuracy:.2%}, {self.ended.name.lower()}, "
            f"{self.seconds:.1f} s, peak RSS {self.megabytes:.0f} MB; {self.verdict}"
        )


def main(argv: Sequence[str] | None = None) -> list[Outcome]:
    """Train with every seed."""
    options = _options(argv)
    outcomes: list[Outcome] = []
    for seed in options.seeds:
        config = _config(seed, options)
        if not outcomes:
            print(_sentence(resolve(config)))
        outcomes.append(run(config))
        print(outcomes[-1], flush=True)
    return outcomes


def run(config: TrainConfig) -> Outcome:
    """Train and test one network; the time includes compilation and evaluation."""
    began = time.perf_counter()
    finished = train(config)
    seconds = time.perf_counter() - began
    result, test = finished.result, finished.test
    assert test is not None
    assert test.accuracy is not None
    losses = [record.loss for record in result.records if isinstance(record, TrainRecord)]
    last = losses[-max(1, len(losses) // 10) :]
    return Outcome(
        config.seed,
        result.steps,
        losses[0],
        sum(last) / len(last),
        test.accuracy,
        result.ended,
        seconds,
        _peak_megabytes(),
    )


def _peak_megabytes() -> float:
    # Linux counts in units of 1,024 bytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _config(seed: int, options: argparse.Namespace) -> TrainConfig:
    return TrainConfig(
        depth=options.depth,
        width=options.width,
        epochs=options.epochs,
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        log_every=1,  # so that the first record is of the network as it was drawn
        seed=seed,
        out=str(options.out / f"digits-{options.depth}x{options.width}-seed{seed}"),
    )


def _sentence(config: TrainConfig) -> str:
    return (
        f"{config.depth} layers of width {config.width}, {config.dataset}, {config.rule} by "
        f"{config.solver}, at most {config.max_steps} steps of {config.step_size}; "
        f"{config.optimiser} {config.learning_rate}, {config.epochs} epochs of batches of "
        f"{config.batch_size}"
    )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    default = TrainConfig()
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--depth", type=int, default=1024)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--max-steps", type=int, help="of inference (default: the command's own)")
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/depth_1024"), help="run folders")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
