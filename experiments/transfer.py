"""What it costs to reuse the learning rate of a small network on a large one.

Trains a grid of learning rates × values of one number of inference (rho, step_size or precision)
at several sizes. Reusing the optimum of the first size, the base, costs the score at the size's own
optimum less that at the base's; as the optimum is the best of what was seen, that is rather too
large than too small. The score is the accuracy on the validation split, or the nats a character of
text. A run that diverged counts as 0, of text as infinitely many nats.

    python experiments/transfer.py --sizes 8x64 8x256 32x64 --rates 0.01 0.02 0.04
    python experiments/transfer.py --sizes 8x64 8x256 --preset paper --number step_size
        --values 0.01 0.02 --cases mupc:raw mupc:mup --settings steps=100
    python experiments/transfer.py --sizes 3x8 3x32 12x8 --settings network=conv-resnet
        dataset=cifar10 steps=300 --cases mupc:uniform            (blocks x channels)
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _tables import header, line
from jaxtyping import Float
from matplotlib.figure import Figure

from mupc.plots.style import label, panels, plain
from mupc.records import BADLY
from mupc.settings import Configuration
from mupc.settings.files import PRESETS, preset, value_of
from mupc.sweeps import SweepFolder, point_of, sweep
from mupc.sweeps.ranking import Board

Scores = Float[np.ndarray, "seeds rates values"]
"""The larger the better: per cent of accuracy, or nats with a minus."""
_RESAMPLES, _INTERVAL = 4000, (2.5, 97.5)  # per cent
COLUMNS = (
    *("case", "size", "optimum", "score there, % or nats", "at the base's optimum"),
    *("costs, points or nats", "95 % of resamples", "moved by, steps"),
)
_SIZES = {
    "residual-mlp": ("depth", "width"),
    "conv-resnet": ("blocks", "channels"),
    "transformer": ("pairs", "width"),
    "vision-transformer": ("pairs", "width"),
}
"""The settings of a size such as 8x64, by network."""


class Unit(NamedTuple):
    """What scores are in.

    Attributes:
        words: its name.
        form: how its numbers are printed.
        shown: what the colours of a heat map tell apart, below the best.
    """

    words: str
    form: str
    shown: float


POINTS, NATS = Unit("points of accuracy", ".1f", 20.0), Unit("nats", ".3f", 0.5)


class Grid(NamedTuple):
    """What is tried: learning rates × values of another setting, with every seed."""

    rates: Sequence[float]
    number: str
    values: Sequence[float]
    seeds: Sequence[int]


class Verdict(NamedTuple):
    """What reusing the base's optimum costs, from means over seeds.

    Attributes:
        base, best: places in the grid, of the base's optimum and of the size's own.
        score, reused: of the size at its own optimum, and at the base's.
        interval: of the loss, 95 % of bootstrap resamples of the seeds; None for one seed.
        at_edge: whether the grid ends beside an optimum: there may be a better one beyond.
    """

    base: tuple[int, int]
    best: tuple[int, int]
    score: float
    reused: float
    interval: tuple[float, float] | None
    at_edge: bool

    @property
    def loss(self) -> float:
        """What it costs; it is never negative."""
        return self.score - self.reused


def optimum(found: Scores, preferred: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the place of the highest mean over seeds; of several the preferred, or the first."""
    means = np.mean(found, axis=0)
    if preferred is not None and means[preferred] == np.max(means):
        return preferred
    rate, value = np.unravel_index(np.argmax(means), means.shape)
    return int(rate), int(value)


def verdict(base: Scores, found: Scores) -> Verdict:
    """Return what reusing the optimum of one size at another costs, on the same grid."""
    means, at_base, interval = np.mean(found, axis=0), optimum(base), None
    best = optimum(found, preferred=at_base)
    if (seeds := len(base)) > 1:
        draws = np.random.default_rng(0).integers(seeds, size=(_RESAMPLES, seeds))
        drawn = [(np.mean(found[draw], axis=0), optimum(base[draw])) for draw in draws]
        low, high = np.percentile(
            [np.max(mean) - mean[place] for mean, place in drawn], _INTERVAL, method="nearest"
        )
        interval = float(low), float(high)
    ends = [(place, n) for at in (at_base, best) for place, n in zip(at, means.shape, strict=True)]
    at_edge = any(n > 1 and place in (0, n - 1) for place, n in ends)
    return Verdict(at_base, best, float(means[best]), float(means[at_base]), interval, at_edge)


def measure(
    folder: SweepFolder, configs: Sequence[Configuration], grid: Grid
) -> tuple[Float[np.ndarray, "configs seeds rates values"], Unit]:
    """Return scores over the grid, and what they are in."""
    tried = itertools.product(configs, grid.seeds, grid.rates, grid.values)
    points = [
        point_of(config, {"seed": seed, "learning_rate": rate, grid.number: value})
        for config, seed, rate, value in tried
    ]
    with Board() as board:
        outcomes = [result.outcome for result in sweep(folder, points, watch=board)]
    if any(outcome.perplexity is not None for outcome in outcomes):
        unit = NATS
        found = [-np.inf if o.ended in BADLY else _score(o.loss, -1) for o in outcomes]
    else:
        unit = POINTS
        found = [0.0 if o.ended in BADLY else _score(o.accuracy, 100) for o in outcomes]
    if np.any(np.isnan(found)):
        raise SystemExit("transfer is judged by accuracy or nats: use classes or text")
    shape = len(configs), len(grid.seeds), len(grid.rates), len(grid.values)
    return np.array(found).reshape(shape), unit


def _score(value: float | None, factor: float) -> float:
    return np.nan if value is None else factor * value


def transfer(
    folder: SweepFolder, base: Configuration, sizes: Sequence[str], case: str, grid: Grid
) -> tuple[list[str], Figure]:
    """Return rows of the table, a sentence and a figure, of a case such as `mupc:raw`."""
    laws, rule = case.split(":")
    base = base.changed({"parameterisation": laws, "learning_rate_rule": rule})
    if (names := _SIZES.get(base.network.kind)) is None:
        raise SystemExit(f"a size AxB is known of {', '.join(_SIZES)}, not of {base.network.kind}")
    shapes = [dict(zip(names, map(int, size.split("x")), strict=True)) for size in sizes]
    scores, unit = measure(folder, [base.changed(shape) for shape in shapes], grid)
    found = list(scores)
    verdicts = [verdict(found[0], one) for one in found]
    rows = [_row(case, size, v, grid, unit) for size, v in zip(sizes, verdicts, strict=True)]
    losses, edges = [v.loss for v in verdicts[1:]], sum(v.at_edge for v in verdicts[1:])
    wider = f" ({edges} of them at the edge of the grid: a wider one may find better)"
    rows.append(
        f"- {case}: the optimum of {sizes[0]}, reused at {len(losses)} other sizes"
        f"{wider if edges else ''}, costs {np.mean(losses):{unit.form}} {unit.words} on average, "
        f"{max(losses):{unit.form}} at most"
    )
    return rows, heat_maps([f"{case}, {size}" for size in sizes], found, verdicts, grid, unit)


def _row(case: str, size: str, judged: Verdict, grid: Grid, unit: Unit) -> str:
    (rate, value), edge = judged.best, " (at the edge)" if judged.at_edge else ""
    low, high = judged.interval or (np.nan, np.nan)
    return line(
        (
            *(case, size, f"rate {grid.rates[rate]:g}, {grid.number} {grid.values[value]:g}{edge}"),
            *(f"{abs(v):{unit.form}}" for v in (judged.score, judged.reused, judged.loss)),
            f"{low:{unit.form}} to {high:{unit.form}}" if judged.interval else "one seed",
            ", ".join(str(abs(a - b)) for a, b in zip(judged.base, judged.best, strict=True)),
        )
    )


def heat_maps(
    titles: Sequence[str],
    found: Sequence[Scores],
    verdicts: Sequence[Verdict],
    grid: Grid,
    unit: Unit,
) -> Figure:
    """Draw scores over the grid: a dashed circle is the base's optimum, a square the size's."""
    figure, panel = panels(len(titles), width=1.6 + 0.62 * len(grid.values), height=4.0)
    means = [np.mean(one, axis=0) for one in found]
    best = np.max(means)
    for axes, title, mean, judged in zip(panel, titles, means, verdicts, strict=True):
        axes.grid(visible=False)
        axes.imshow(mean, origin="lower", aspect="auto", vmin=best - unit.shown, vmax=best)
        for (i, j), value in np.ndenumerate(mean):
            colour = "white" if value < best - unit.shown / 3 else "black"
            axes.text(
                j,
                i,
                f"{abs(value):{unit.form}}",
                ha="center",
                va="center",
                fontsize=7,
                color=colour,
            )
        for (i, j), marker, dashes in ((judged.base, "o", "--"), (judged.best, "s", "-")):
            style: Any = {"marker": marker, "linestyles": dashes, "facecolors": "none"}
            axes.scatter(j, i, s=420, edgecolors="#ef4444", linewidths=1.6, **style)
        axes.set_xticks(range(len(grid.values)), [f"{value:g}" for value in grid.values])
        axes.set_yticks(range(len(grid.rates)), [f"{rate:g}" for rate in grid.rates])
        label(axes, plain(title), grid.number.replace("_", " "), "learning rate")
    return figure


def main(argv: Sequence[str] | None = None) -> list[str]:
    """Train what has not been trained, print the table and the verdicts, and draw the figures."""
    options = _options(argv)
    grid = Grid(options.rates, options.number, options.values, options.seeds)
    given = {name: value_of(text) for name, _, text in (s.partition("=") for s in options.settings)}
    base = preset(options.preset).changed({"validation": 0.1, "report_every": 0, **given})
    parts: list[str] = []
    for case in options.cases:
        rows, figure = transfer(SweepFolder(options.out), base, options.sizes, case, grid)
        parts += rows
        figure.savefig(options.out / f"transfer-{case.replace(':', '-')}.png", dpi=150)
    parts.sort(key=lambda row: row.startswith("- "))  # the table, then what is said of it
    print("\n".join([header(COLUMNS), *parts]))
    return parts


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--sizes", nargs="+", required=True, help="8x64 8x512: the base first")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.005, 0.01, 0.02, 0.04, 0.08])
    parser.add_argument("--number", choices=("rho", "step_size", "precision"), default="rho")
    parser.add_argument("--values", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    cases = ["mupc:raw", "mupc:uniform", "standard:raw"]
    parser.add_argument("--cases", nargs="+", default=cases, help="parameterisation:rule of rates")
    parser.add_argument("--preset", choices=PRESETS, default="default")
    parser.add_argument("--settings", nargs="+", default=[], help="of mupc train: steps=100")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"), help="a sweep's folder")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
