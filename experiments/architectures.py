"""Convolutional networks and transformers: predictive coding beside backpropagation.

Trains each case with the defaults of `mupc train` and both rules, nothing tuned in between, and
prints what the held-out data say: accuracy on all test images, or nats and perplexity a character.

    python experiments/architectures.py cifar10-13 --cifar10 cifar10.npz
    python experiments/architectures.py shakespeare --seeds 0
    python experiments/architectures.py --help            (all cases)

`--cifar10` names a file of arrays x, y, x_test, y_test of pixels from 0 to 255, in place of the
published files.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _tables import header, line

from mupc.records import Evaluation, RunError
from mupc.runs import Run, train
from mupc.settings import Configuration
from mupc.settings.files import value_of

_COLUMNS = ("case", "rule", "score", "each seed", "whole s", "ρ", "regime report")
_RULES = ("backpropagation", "predictive-coding")


@dataclass(frozen=True)
class Case:
    """What is trained, and how far predictive coding may be behind: points, or a share of nats."""

    settings: dict[str, Any]
    behind: float
    least: float | None = None
    """The score that predictive coding should have, whatever backpropagation's: % or perplexity."""


def _conv(blocks: int, **more: Any) -> dict[str, Any]:
    return {"network": "conv-resnet", "blocks": blocks, "dataset": "cifar10", **more}


def _text(pairs: int, width: int, steps: int) -> dict[str, Any]:
    sizes = {"pairs": pairs, "width": width, "context": 64, "batch_size": 16, "steps": steps}
    return {"network": "transformer", "dataset": "shakespeare", **sizes}


_SMALL = {"layers": "16p 32p 64", "activation": "relu"}
"""Three convolutions."""

CASES = {
    "cifar10-13": Case(_conv(3, steps=1000), 0.5),
    "cifar10-58": Case(_conv(18, steps=300), 1.0),
    "cifar10-112": Case(_conv(36, steps=300), 1.5),
    "cifar10-13-epochs": Case(_conv(3, epochs=2), 1.0),
    "resnet-18": Case(_conv(2, stages=4, convolutions=2, epochs=1), 1.0),
    "vgg5": Case(
        {"network": "vgg", "dataset": "cifar10", "augment": "flip-crop", "epochs": 2}, 1.0
    ),
    "mnist": Case({"network": "vgg", **_SMALL, "dataset": "mnist", "epochs": 3}, 0.5, least=99.0),
    "fashion-mnist": Case(
        {"network": "vgg", **_SMALL, "dataset": "fashion-mnist", "epochs": 3}, 1.0
    ),
    "shakespeare": Case(_text(4, 128, 2000), 0.02, least=7.0),
    "shakespeare-96": Case(_text(48, 64, 300), 0.02),
    "vision-transformer": Case(
        {
            "network": "vision-transformer",
            "patch": 7,
            "width": 128,
            "dataset": "mnist",
            "steps": 900,
        },
        1.0,
        least=96.0,
    ),
}


@dataclass(frozen=True)
class Row:
    """A case with one rule: a run for each seed, and the wall time of each."""

    case: str
    rule: str
    runs: list[Run]
    seconds: list[float]

    @property
    def seen(self) -> list[Evaluation]:
        """What the held-out data say: of text, the validation split."""
        found = [run.test or run.validation for run in self.runs]
        return [evaluation for evaluation in found if evaluation is not None]

    @property
    def of_text(self) -> bool:
        """Whether nats count."""
        return self.seen[0].perplexity is not None

    @property
    def scores(self) -> list[float]:
        """Accuracy in per cent, or nats."""
        if self.of_text:
            return [evaluation.loss for evaluation in self.seen]
        return [100 * (evaluation.accuracy or 0.0) for evaluation in self.seen]

    def __str__(self) -> str:
        mean, form = statistics.fmean(self.scores), ".3f" if self.of_text else ".2f"
        spread = f" ± {statistics.stdev(self.scores):{form}}" if len(self.scores) > 1 else ""
        unit = "nats" if self.of_text else "%"
        perplexities = [each.perplexity for each in self.seen if each.perplexity is not None]
        if perplexities:
            unit += f", perplexity {statistics.fmean(perplexities):.2f}"
        rho, regime = self.runs[0].folder.regime().rho, self.runs[0].regime
        return line(
            [
                self.case,
                self.rule,
                f"{mean:{form}}{spread} {unit}",
                ", ".join(f"{score:{form}}" for score in self.scores),
                f"{statistics.median(self.seconds):.0f}",
                "" if rho is None else f"{rho:.2g}",
                "" if regime is None else regime.sentence(),
            ]
        )


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Train every case with both rules and every seed, and judge predictive coding."""
    options = _options(argv)
    print(header(_COLUMNS), flush=True)
    rows: list[Row] = []
    for name in options.cases:
        own = {rule: measure(name, rule, options) for rule in options.rules}
        rows += own.values()
        if len(own) > 1:
            print(verdict(CASES[name], *(own[rule] for rule in _RULES)), flush=True)
    return rows


def measure(name: str, rule: str, options: argparse.Namespace) -> Row:
    """Train one case with one rule and every seed."""
    runs: list[Run] = []
    seconds: list[float] = []
    for seed in options.seeds:
        out = options.out / f"{name}-{rule}-seed{seed}"
        began = time.perf_counter()
        runs.append(train(configuration(name, rule, seed, out, options)))
        seconds.append(time.perf_counter() - began)
    row = Row(name, rule, runs, seconds)
    print(row, flush=True)
    return row


def configuration(
    name: str, rule: str, seed: int, out: Path, options: argparse.Namespace
) -> Configuration:
    """Return what a case says, with a regime report of the first and of the last batch."""
    settings = {**CASES[name].settings, "rule": rule, "seed": seed, "out": str(out)}
    if settings["dataset"] == "cifar10" and options.cifar10 is not None:
        settings |= {"dataset": "npz", "path": str(options.cifar10), "scale": "standardise"}
    given = dict(pair.split("=", 1) for pair in options.set)
    chosen = {key.replace("-", "_"): value_of(value) for key, value in given.items()}
    if rule == "backpropagation":  # which has no inference, nor a regime
        inferring = Configuration().changed({**settings, **chosen, "rule": "predictive-coding"})
        known = Configuration().changed(settings).flat()
        own = inferring.flat().keys() - (known.keys() - {"precision"})
        chosen = {key: value for key, value in chosen.items() if key not in own}
    return Configuration().changed({**settings, "report_every": 1_000_000, **chosen})


def verdict(case: Case, yardstick: Row, ours: Row) -> str:
    """Say how far predictive coding is behind, and whether that is within the limit."""
    mean, theirs = statistics.fmean(ours.scores), statistics.fmean(yardstick.scores)
    if ours.of_text:
        behind, unit = mean / theirs - 1, "of backpropagation's nats"
        shown, limit = f"{behind:+.1%}", f"{case.behind:.0%}"
        score = statistics.fmean(each.perplexity or 0.0 for each in ours.seen)
        enough = case.least is None or score <= case.least
        least = "" if case.least is None else f"; perplexity {score:.2f} (at most {case.least:g})"
    else:
        behind, unit = theirs - mean, "points behind"
        shown, limit = f"{behind:+.2f}", f"{case.behind:g}"
        enough = case.least is None or mean >= case.least
        least = "" if case.least is None else f"; {mean:.2f} % (at least {case.least:g})"
    met = behind <= case.behind and enough
    return f"{ours.case}: {shown} {unit} (at most {limit}){least}: {'met' if met else 'missed'}"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--rules", nargs="+", choices=_RULES, default=list(_RULES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cifar10", type=Path, help="an .npz file in place of the published files")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="other settings, for all cases"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/architectures"), help="run folders")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.cases if name not in CASES]:
        raise RunError(f"there is no case {unknown[0]}: choose of {', '.join(CASES)}")
    return options


if __name__ == "__main__":
    main()
