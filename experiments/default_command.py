"""The README's command, `mupc train`, timed from the start of its process to the end.

Every run is a fresh process, so its time includes imports, compilation, evaluation and the run
folder. The same network trained by backpropagation stands beside it. Accuracies are read from the
run folders.

    python experiments/default_command.py --seeds 0 1 2
    python experiments/default_command.py --seeds 0 -- --depth 8 --width 16     (other settings)
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mupc.records import RunFolder


@dataclass(frozen=True)
class Timed:
    """One process: its test accuracy, how training ended, and its wall-clock time."""

    seed: int
    accuracy: float
    ended: str
    seconds: float

    def __str__(self) -> str:
        learned = f"test accuracy {self.accuracy:.2%}, {self.ended}"
        return f"seed {self.seed}: {learned}, {self.seconds:.1f} s"


def main(argv: Sequence[str] | None = None) -> dict[str, list[Timed]]:
    """Run both rules with every seed; judge predictive coding."""
    options = _options(argv)
    backpropagation = ["--rule", "backpropagation"]
    rules = {"predictive-coding": [], "backpropagation": backpropagation}
    outcomes: dict[str, list[Timed]] = {}
    for rule, arguments in rules.items():
        outcomes[rule] = []
        for seed in options.seeds:
            folder = options.out / f"{rule}-seed{seed}"
            outcomes[rule].append(run([*arguments, *options.settings], seed, folder))
            print(f"{rule}, {outcomes[rule][-1]}", flush=True)
    for rule, runs in outcomes.items():
        print(summary(rule, runs))
    print(verdict(outcomes["predictive-coding"], options))
    return outcomes


def run(arguments: Sequence[str], seed: int, folder: Path) -> Timed:
    """Run the command once.

    Raises SystemExit with the command's own words if it leaves no result.
    """
    command = [sys.executable, "-m", "mupc", "train", "--seed", str(seed)]
    began = time.perf_counter()
    process = subprocess.run(
        [*command, "--out", folder, *arguments], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if process.returncode not in (0, 1):  # 1: training diverged, which is a result
        raise SystemExit(f"mupc train ended with status {process.returncode}: {process.stderr}")
    result = RunFolder.open(folder).result()
    if result is None or result.test is None or result.test.accuracy is None:
        raise SystemExit(f"{folder} holds no test accuracy")
    return Timed(seed, result.test.accuracy, result.ended.name.lower(), seconds)


def summary(rule: str, runs: Sequence[Timed]) -> str:
    """Return the mean accuracy with its standard deviation over seeds, and the times."""
    accuracies = [run.accuracy for run in runs]
    spread = f" ± {statistics.stdev(accuracies):.2%}" if len(runs) > 1 else ""
    seconds = [run.seconds for run in runs]
    return (
        f"{rule}: test accuracy {statistics.mean(accuracies):.2%}{spread} over {len(runs)} seeds, "
        f"{statistics.median(seconds):.1f} s (median; {min(seconds):.1f} to {max(seconds):.1f})"
    )


def verdict(runs: Sequence[Timed], options: argparse.Namespace) -> str:
    """Compare the mean accuracy and the median time with the targets."""
    accuracy = statistics.mean(run.accuracy for run in runs)
    seconds = statistics.median(run.seconds for run in runs)
    accurate = "met" if accuracy >= options.at_least else "missed"
    fast = "met" if seconds < options.within else "missed"
    return (
        f"mean accuracy {accuracy:.2%} (target: at least {options.at_least:.1%}; {accurate}), "
        f"median time {seconds:.1f} s (target: under {options.within:g} s; {fast})"
    )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-least", type=float, default=0.975, help="target mean accuracy")
    parser.add_argument("--within", type=float, default=20.0, help="target median time in seconds")
    parser.add_argument("--out", type=Path, default=Path("runs/default_command"))
    parser.add_argument("settings", nargs="*", help="after --: settings for both, as of mupc train")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
