"""The tables of docs/results.md, each by one command that can be interrupted and taken up again.

    python experiments/results.py depth
    python experiments/results.py width-512
    python experiments/results.py transfer-width
    python experiments/results.py transfer-depth
    python experiments/results.py backpropagation
    python experiments/results.py depth-helps
    python experiments/results.py time

With --page the table also replaces the one in that file, between its two marks.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import transfer
from _tables import header, line, percent

from mupc.records import RunFolder, TheoryRecord, any_record_from
from mupc.runs.survey import TheoryOptions, survey
from mupc.settings import Configuration
from mupc.settings.files import PRESETS, preset, stored
from mupc.sweeps import Outcome, Point, SweepFolder, point_of, sweep
from mupc.sweeps.ranking import Board


class Method(NamedTuple):
    """A way to train, and from which column on only the first seed is run: it takes too long."""

    name: str
    settings: Mapping[str, Any]
    preset: str = "default"
    one_seed_from: int = 10**9


_DEFAULT = Method("mupc, the default rule", {})
_BACKPROPAGATION = Method("mupc, backpropagation", {"rule": "backpropagation"})
_PAPER = Method("mupc, the paper's preset", {}, "paper", 128)
_ACCURATE = Method(
    "mupc, ρ = 0.6, Gauss–Newton 3 x 4",
    {"rho": 0.6, "nudge": "positive", "max_steps": 3, "cg_steps": 4},
)
# The paper's rates are for mupc; these did best at 8 layers (see the page).
_STANDARD = Method(
    "standard, the paper's inference",
    {"parameterisation": "standard", "learning_rate": 0.001, "step_size": 0.16},
    "paper",
    128,
)


# What transfer tries: rates that suit mupc, and lower ones for the standard parameterisation.
_RATES = {
    "paper": (0.001, 0.004, 0.0125, 0.025, 0.05, 0.1, 0.2),
    "default": (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08),
}
_NUMBERS = {
    "paper": ("step_size", (0.5 / 64, 2.5 / 64, 10 / 64, 20 / 64, 40 / 64)),
    "default": ("rho", (0.0125, 0.025, 0.05, 0.1, 0.2)),
}
_CASES = {
    "paper": ("mupc:raw", "mupc:mup", "standard:raw"),
    "default": ("mupc:raw", "mupc:uniform", "standard:raw"),
}


class Case(NamedTuple):
    """A cell of a table."""

    method: Method
    column: int
    seed: int


def depth(options: argparse.Namespace) -> str:
    """Accuracy against depth, one width: the paper's Fig. 1."""
    methods = (_DEFAULT, _PAPER, _STANDARD, _BACKPROPAGATION)
    cases = _cases(methods, options.depths, options.seeds)
    return _accuracies(cases, "depth", options, steps=options.steps, width=options.width)


def width_512(options: argparse.Namespace) -> str:
    """Accuracy after one epoch at the paper's width."""
    paper = _cases([_PAPER._replace(one_seed_from=10**9)], options.depths[:1], options.seeds)
    others = _cases((_DEFAULT, _BACKPROPAGATION), options.depths[-1:], options.seeds)
    return _accuracies(
        [*paper, *others], "depth", options, epochs=options.epochs, width=4 * options.width
    )


def depth_helps(options: argparse.Namespace) -> str:
    """Whether depth helps, at equal training."""
    methods, depths = (_DEFAULT, _BACKPROPAGATION), [1, *options.depths[::2]]
    cases = _cases(methods, depths, options.seeds)
    return _accuracies(cases, "depth", options, steps=options.steps, width=options.width)


def time_(options: argparse.Namespace) -> str:
    """Accuracy against wall time, by the number of batches."""
    methods = (_DEFAULT, _ACCURATE, _PAPER._replace(one_seed_from=0), _BACKPROPAGATION)
    cases = _cases(methods, [options.steps // n for n in (9, 3, 1)], options.seeds)
    longer = _cases((_DEFAULT, _BACKPROPAGATION), [5 * options.steps], options.seeds)
    sizes = {"depth": max(options.depths), "width": options.width}
    return _accuracies([*cases, *longer], "steps", options, **sizes)


def _cases(methods: Sequence[Method], columns: Sequence[int], seeds: Sequence[int]) -> list[Case]:
    return [
        Case(method, column, seed)
        for column in columns
        for method in methods
        for seed in (seeds[:1] if column >= method.one_seed_from else seeds)
    ]


def _point(case: Case, field: str, options: argparse.Namespace, same: Mapping[str, Any]) -> Point:
    settings = {"seed": case.seed, **same, field: case.column, **case.method.settings}
    return point_of(preset(case.method.preset).changed({"dataset": options.dataset}), settings)


def _accuracies(cases: Sequence[Case], field: str, options: argparse.Namespace, **same: Any) -> str:
    """Train, and return a table of test accuracies and training times, methods by columns."""
    points = [_point(case, field, options, same) for case in cases]
    with Board() as board:
        results = sweep(SweepFolder(options.out / "runs"), points, chosen=False, watch=board)
    found = [(case, result.outcome) for case, result in zip(cases, results, strict=True)]
    columns = list(dict.fromkeys(case.column for case in cases))
    heads = [f"H = {n:,}" if field == "depth" else f"{n:,} batches" for n in columns]
    rows: dict[str, list[list[Outcome]]] = {
        name: [
            [outcome for case, outcome in found if (case.method.name, case.column) == (name, n)]
            for n in columns
        ]
        for name in dict.fromkeys(case.method.name for case in cases)
    }
    lines = [header(("test accuracy, %", *heads))]
    lines += [line((name, *map(_cell, row))) for name, row in rows.items()]
    lines += ["", header(("training steps, s", *heads))]
    lines += [line((name, *map(_seconds, row))) for name, row in rows.items()]
    minutes = sum(outcome.seconds for _, outcome in found) / 60
    lines += ["", f"{len(found)} runs, {minutes:.1f} minutes. At the end, first seed:", ""]
    for name, row in rows.items():
        column, last = [(n, cell[0]) for n, cell in zip(heads, row, strict=True) if cell][-1]
        if last.regime:
            lines.append(f"- {name}, {column}: {last.regime}")
    return "\n".join(lines)


def _cell(outcomes: Sequence[Outcome]) -> str:
    accuracies = [o.test_accuracy for o in outcomes if o.test_accuracy is not None]
    bad = sum(outcome.ended in ("diverged", "failed") for outcome in outcomes)
    lost = f" ({bad} of {len(outcomes)} diverged)" if bad else ""
    return percent(accuracies) + lost if accuracies else lost.strip()


def _seconds(outcomes: Sequence[Outcome]) -> str:
    times = [o.training_seconds for o in outcomes if o.ended not in ("diverged", "failed")]
    return f"{statistics.median(times):.1f}" if times else "–" if outcomes else ""


def transfer_width(options: argparse.Namespace) -> str:
    """Transfer of learning rate and step size, or ρ, across width."""
    return _transfer("transfer-width", ["8x64", "8x128", "8x256", "8x512"], options)


def transfer_depth(options: argparse.Namespace) -> str:
    """Transfer across depth."""
    return _transfer("transfer-depth", ["8x64", "32x64", "128x64"], options)


def _transfer(table: str, sizes: Sequence[str], options: argparse.Namespace) -> str:
    parts: list[str] = []
    words = {"paper": "the paper's inference", "default": "the default rule"}
    for name in options.presets:
        given = {"dataset": options.dataset, "validation": 0.1, "report_every": 0}
        base = preset(name).changed({**given, "steps": options.steps // 9})
        grid = transfer.Grid(_RATES[name], *_NUMBERS[name], options.seeds)
        rows, figures = list[str](), list[str]()
        for case in _CASES[name]:
            folder = SweepFolder(options.out / table / name)
            found, figure = transfer.transfer(folder, base, options.sizes or sizes, case, grid)
            rows += found
            if options.page is not None:
                path = Path("figures", f"{table}-{name}-transfer-{case.replace(':', '-')}.png")
                figure.savefig(options.page.parent / path, dpi=150)
                figures.append(f"![{table}, {words[name]}]({path})")
        said = [row for row in rows if row.startswith("- ")]
        head = header(transfer.COLUMNS)
        parts += [f"With {words[name]}:", "", head, *(row for row in rows if row not in said)]
        parts += ["", *said, "", *figures, ""]
    return "\n".join(parts).strip()


def backpropagation(options: argparse.Namespace) -> str:
    """How predictive coding's gradient tends to backpropagation's, with size and precision."""
    widths, depths = options.widths, options.depths[:: max(1, len(options.depths) - 2)]
    found: dict[tuple[float, int, int], TheoryRecord] = {}
    for precision in (1.0, 0.1, 0.01):
        out = options.out / "backpropagation" / f"precision-{precision:g}"
        grid = {"depths": depths, "widths": widths, "at_precision": precision, "hessians": 1}
        theory = TheoryOptions.checked(grid)
        settings = {"activation": "tanh", "dataset": options.dataset, "out": str(out)}
        config = Configuration().changed(settings)
        for record in _surveyed(theory, config):
            found[precision, record.depth, record.width] = record
    lines = [header(("cosine (F*/loss)", *(f"width {width}" for width in widths)))]
    for precision in (1.0, 0.1, 0.01):
        for layers in depths:
            seen = [found[precision, layers, width] for width in widths]
            cells = [f"{r.whole_cosine:.4f} ({r.energy_ratio:.3f})" for r in seen]
            lines.append(line((f"{layers} layers, π = {precision:g}", *cells)))
    return "\n".join(lines)


def _surveyed(options: TheoryOptions, config: Configuration) -> Sequence[TheoryRecord]:
    """Return the records of a survey, of an earlier call if that was the same and ended."""
    out = Path(config.run.out)
    if not (out / "config.json").is_file():
        show = lambda record: print(f"{record.depth}x{record.width}", flush=True)  # noqa: E731
        return survey(options, config, show)[1]
    run = RunFolder.open(out)
    records = [any_record_from(values, str(out)) for values in run.records()]
    tables = run.config()
    theory = TheoryOptions.checked(tables.pop("theory"))
    whole = len(records) == len(options.depths) * len(options.widths)
    if theory != options or stored(tables) != config or not whole:
        raise SystemExit(f"{out} holds a part of this table, or another one: remove it")
    return [record for record in records if isinstance(record, TheoryRecord)]


_TABLES: dict[str, Callable[[argparse.Namespace], str]] = {
    "depth": depth,
    "width-512": width_512,
    "transfer-width": transfer_width,
    "transfer-depth": transfer_depth,
    "backpropagation": backpropagation,
    "depth-helps": depth_helps,
    "time": time_,
}


def main(argv: Sequence[str] | None = None) -> str:
    """Make one table; print it, and put it into the page if one is named."""
    options = _options(argv)
    if options.page is not None:
        put(options.page, options.table, None)  # before hours of work
    began = time.perf_counter()
    table = _TABLES[options.table](options)
    print(table)
    print(f"{time.perf_counter() - began:.0f} s in this process")
    if options.page is not None:
        put(options.page, options.table, table)
    return table


def put(page: Path, name: str, table: str | None) -> None:
    """Replace what lies between the marks of a table; None: only see that they are there.

    Raises:
        SystemExit: if the page has no such marks.
    """
    begin, end = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
    text, count = re.subn(
        f"{begin}.*?{end}",
        lambda _: f"{begin}\n{table}\n{end}",
        page.read_text("utf-8"),
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(f"{page} has no marks {begin} and {end}")
    if table is not None:
        page.write_text(text, "utf-8")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("table", choices=list(_TABLES))
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--sizes", nargs="+", help="of transfer (default: the table's own)")
    presets = ["paper", "default"]
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=presets, help="likewise")
    parser.add_argument("--steps", type=int, default=900, help="batches; transfer: a ninth of it")
    parser.add_argument("--epochs", type=float, default=1.0, help="of width-512")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="run folders")
    parser.add_argument("--page", type=Path, help="page whose table is to be replaced")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
