"""`mupc transfer`: a grid of rates at a base size and at others, heat maps, and a verdict."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from jaxtyping import Float

from mupc.records import write_json
from mupc.sweeps.command import VALIDATION, check_validation
from mupc.sweeps.folder import Outcome, SweepFolder
from mupc.sweeps.points import Point, point_of
from mupc.sweeps.ranking import BADLY, Board
from mupc.sweeps.sweep import sweep
from mupc.sweeps.transfer import Cell, Verdict, around, optimum, verdict
from mupc.training.config import PRESETS, ConfigError, PresetName, TrainConfig, option
from mupc.training.results import counted


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """Tune learning rates on a small network, reuse them on larger ones, and say what it costs.

    The base is the network of --depth and --width. All options of `mupc train` are settings that
    the runs have in common. What is there already is not trained again.
    """

    folder: Annotated[str, tyro.conf.Positional]
    """Folder of the runs, of the figures and of transfer.json."""
    base: tyro.conf.OmitArgPrefixes[TrainConfig]
    """What the runs have in common."""
    sizes: tuple[str, ...]
    """Sizes to transfer to, hidden layers x width: 8x512 128x64."""
    learning_rates: tuple[float, ...] = (0.005, 0.01, 0.02, 0.04, 0.08)
    """Learning rates of the weights."""
    step_sizes: tuple[float, ...] = ()
    """Step sizes of inference, the learning rates of activities; for the solvers gradient-descent
    and adam."""
    precisions: tuple[float, ...] = ()
    """Output precisions, instead of step sizes."""
    rhos: tuple[float, ...] = ()
    """Regime numbers, instead of step sizes."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds."""
    cases: tuple[str, ...] = ("mupc:raw", "mupc:uniform", "standard:raw")
    """Parameterisations and learning-rate rules to judge, the last one as a control."""
    near: tuple[int, int] | None = None
    """At the sizes, try only what lies at most so many steps of the grid from the base's optimum,
    in the learning rate and in the other number (default: try all)."""
    together: int = 1
    """Points to train as one program, as for `mupc sweep`."""


class Case(NamedTuple):
    """A parameterisation and a learning-rate rule."""

    parameterisation: str
    rule: str

    def __str__(self) -> str:
        return f"{self.parameterisation}:{self.rule}"


class Size(NamedTuple):
    """Hidden layers and their width."""

    depth: int
    width: int

    def __str__(self) -> str:
        return f"{self.depth}x{self.width}"


class Plan(NamedTuple):
    """What is tried: learning rates times values of another field, at sizes, the base's first."""

    rates: tuple[float, ...]
    field: str
    values: tuple[float, ...]
    sizes: tuple[Size, ...]
    cases: tuple[Case, ...]

    def point(self, config: TransferConfig, case: Case, size: Size, cell: Cell, seed: int) -> Point:
        """Give one run."""
        settings = {
            "parameterisation": case.parameterisation,
            "learning_rate_rule": case.rule,
            "depth": size.depth,
            "width": size.width,
            "learning_rate": self.rates[cell.rate],
            self.field: self.values[cell.other],
            "seed": seed,
        }
        return point_of(config.base, settings)

    def points(
        self, config: TransferConfig, sizes: Sequence[Size], centres: Mapping[Case, Cell] | None
    ) -> list[Point]:
        """Give the runs at some sizes: of all places of the grid, or of those near a centre."""
        shape, near = (len(self.rates), len(self.values)), config.near if centres else None
        return [
            self.point(config, case, size, cell, seed)
            for case in self.cases
            for size in sizes
            for cell in around((centres or {}).get(case, Cell(0, 0)), shape, near)
            for seed in config.seeds
        ]

    def accuracies(
        self, config: TransferConfig, case: Case, size: Size, outcomes: Mapping[str, Outcome]
    ) -> Float[np.ndarray, "seeds rates others"]:
        """Arrange outcomes, which are by key of the point; nan for what was not tried.

        What diverged, or could not be trained, counts as 0: whoever reuses its rates has nothing.
        """
        found = np.full((len(config.seeds), len(self.rates), len(self.values)), np.nan)
        for place in np.ndindex(*found.shape):
            cell, seed = Cell(*place[1:]), config.seeds[place[0]]
            outcome = outcomes.get(self.point(config, case, size, cell, seed).key)
            if outcome is not None:
                found[place] = 0.0 if outcome.ended in BADLY else outcome.accuracy
        return found


def defaults(preset: PresetName) -> Any:
    """Give what the options of `mupc transfer` are unless given."""
    base = dataclasses.replace(PRESETS[preset], depth=8, width=128, validation=VALIDATION)
    return TransferConfig(folder=tyro.MISSING, base=base, sizes=tyro.MISSING)


class Judged(NamedTuple):
    """What `transfer` found: a table and sentences, in Markdown, figures, and what failed."""

    table: list[str]
    sentences: list[str]
    figures: list[Path]
    failed: str


def run(config: TransferConfig) -> int:
    """Train, print the verdicts, and write figures and transfer.json.

    Raises:
        ConfigError, DataError, RunError: with a sentence that says what is wrong.
    """
    judged = transfer(config)
    print("\n".join([*judged.table, *judged.sentences]))
    if judged.failed:
        print(f"{judged.failed}: they count as 0; see error.txt in their run folders")
    for path in judged.figures:
        print(f"figure: {path}")
    return 1 if judged.failed else 0


def transfer(config: TransferConfig) -> Judged:
    """Train what has not been trained, judge it, and write figures and transfer.json.

    Raises:
        ConfigError, DataError, RunError: with a sentence that says what is wrong.
    """
    plan = _plan(config)
    check_validation(plan.points(config, plan.sizes, None))  # before anything is written or run
    folder, small = SweepFolder(config.folder), plan.sizes[:1]
    outcomes = _sweep(config, folder, plan.points(config, small, None))
    base = {case: plan.accuracies(config, case, small[0], outcomes) for case in plan.cases}
    centres = {case: optimum(found) for case, found in base.items()}
    outcomes |= _sweep(config, folder, plan.points(config, plan.sizes[1:], centres))
    table = [f"| {' | '.join(_COLUMNS)} |", f"|{' --- |' * len(_COLUMNS)}"]
    records: list[dict[str, Any]] = []
    for case in plan.cases:
        for size in plan.sizes:
            found = plan.accuracies(config, case, size, outcomes)
            judged = verdict(base[case], found)
            table.append(f"| {' | '.join(_cells(plan, case, size, judged))} |")
            records.append(_record(plan, config.seeds, case, size, found, judged))
    write_json(folder.path / "transfer.json", {"sizes": records})
    sentences = [_sentence(plan, case, records) for case in plan.cases]
    failed = sum(outcome.ended == "failed" for outcome in outcomes.values())
    said = f"{counted(failed, 'point')} could not be trained" if failed else ""
    return Judged(table, sentences, _draw(folder.path, records), said)


def _sentence(plan: Plan, case: Case, records: Sequence[dict[str, Any]]) -> str:
    base = str(plan.sizes[0])
    others = [r for r in records if r["case"] == str(case) and r["size"] != base]
    losses = [record["loss"] for record in others]
    edges = sum(record["at_edge"] for record in others)
    open_ = (
        f" ({edges} of them at the edge of the grid: a wider one may find better)" if edges else ""
    )
    return (
        f"{case}: the optimum of {base}, reused at {counted(len(losses), 'other size')}{open_}, "
        f"costs {100 * np.mean(losses):.1f} points of accuracy on average, {100 * max(losses):.1f} "
        "at most"
    )


def _sweep(
    config: TransferConfig, folder: SweepFolder, points: Sequence[Point]
) -> dict[str, Outcome]:
    with Board() as board:
        results = sweep(folder, points, together=config.together, watch=board)
    outcomes = [result.outcome for result in results]
    if any(outcome.ended not in BADLY and outcome.accuracy is None for outcome in outcomes):
        raise ConfigError("transfer is judged by accuracy: take data whose targets are classes")
    return {outcome.key: outcome for outcome in outcomes}


_COLUMNS = (
    "case",
    "size",
    "optimum",
    "accuracy there %",
    "at the base's optimum %",
    "costs, points",
    "95 % of resamples",
    "moved by, steps",
)


def _cells(plan: Plan, case: Case, size: Size, judged: Verdict) -> tuple[str, ...]:
    rate, value = plan.rates[judged.best.rate], plan.values[judged.best.other]
    edge = " (at the edge)" if judged.at_edge else ""
    low, high = judged.interval or (np.nan, np.nan)
    return (
        str(case),
        str(size),
        f"rate {rate:g}, {plan.field} {value:g}{edge}",
        f"{100 * judged.accuracy:.1f}",
        f"{100 * judged.reused:.1f}",
        f"{100 * judged.loss:.1f}",
        "one seed" if judged.interval is None else f"{100 * low:.1f} to {100 * high:.1f}",
        f"{judged.moved.rate}, {judged.moved.other}",
    )


def _record(
    plan: Plan,
    seeds: Sequence[int],
    case: Case,
    size: Size,
    found: Float[np.ndarray, "seeds rates others"],
    judged: Verdict,
) -> dict[str, Any]:
    return {
        "case": str(case),
        "size": str(size),
        "learning_rates": plan.rates,
        "field": plan.field,
        "values": plan.values,
        "seeds": seeds,
        "accuracies": found.tolist(),
        **judged._asdict(),
    }


def _draw(folder: Path, records: Sequence[dict[str, Any]]) -> list[Path]:
    """Draw one figure for each case, as PNG and SVG; give the paths of the former."""
    from mupc.plots import transfer_maps  # loads matplotlib

    paths: list[Path] = []
    for case in dict.fromkeys(record["case"] for record in records):
        figure = transfer_maps([record for record in records if record["case"] == case])
        paths.append(folder / f"transfer-{case.replace(':', '-')}.png")
        figure.savefig(paths[-1], dpi=150)
        figure.savefig(paths[-1].with_suffix(".svg"))
    return paths


_OTHERS = {"step_sizes": "step_size", "precisions": "precision", "rhos": "rho"}


def _plan(config: TransferConfig) -> Plan:
    """Read what is to be tried.

    Raises:
        ConfigError: if it cannot be understood.
    """
    given = [name for name in _OTHERS if getattr(config, name)]
    if len(given) != 1:
        raise ConfigError(
            "give one of --step-sizes, --precisions and --rhos: the numbers of inference that are "
            "tried with every learning rate"
        )
    (name,) = given
    values = getattr(config, name)
    for field, numbers in {"learning_rates": config.learning_rates, name: values}.items():
        if not numbers or list(numbers) != sorted(set(numbers)):
            raise ConfigError(f"{option(field)} must be different numbers, the smallest first")
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise ConfigError("--seeds must be different numbers, at least one")
    if config.near is not None and min(config.near) < 0:
        raise ConfigError("--near must be two numbers of at least 0")
    for field in ("parameterisation", "learning_rate_rule", "learning_rate", _OTHERS[name], "seed"):
        if getattr(config.base, field) != getattr(PRESETS[config.base.preset], field):
            raise ConfigError(
                f"{option(field)} would have no effect, since --cases, --learning-rates, "
                f"{option(name)} and --seeds say what is tried: leave it out"
            )
    if config.base.out is not None:
        raise ConfigError("--out is for a single run: the runs are kept in the folder of transfer")
    base = Size(config.base.depth, config.base.width)
    sizes = tuple(dict.fromkeys([base, *map(_size, config.sizes)]))
    if len(sizes) < 2:
        raise ConfigError(f"--sizes must name a size other than the base's, {base}")
    return Plan(config.learning_rates, _OTHERS[name], values, sizes, _cases(config.cases))


def _size(text: str) -> Size:
    try:
        depth, width = map(int, text.split("x"))
    except ValueError:
        raise ConfigError(
            f"--sizes: cannot read {text}: write hidden layers, x and width, such as 128x64"
        ) from None
    return Size(depth, width)


def _cases(texts: Sequence[str]) -> tuple[Case, ...]:
    cases = [Case(*text.partition(":")[::2]) for text in texts]
    if not cases or not all(case.rule for case in cases):
        raise ConfigError(
            f"--cases: cannot read {' '.join(texts)}: write a parameterisation, a colon and a "
            "learning-rate rule, such as mupc:raw"
        )
    return tuple(dict.fromkeys(cases))
