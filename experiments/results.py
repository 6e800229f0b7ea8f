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
import dataclasses
import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _tables import header, line, percent

from mupc.records import RunFolder
from mupc.sweeps import Outcome, Point, SweepFolder, sweep
from mupc.sweeps.points import point_of
from mupc.sweeps.ranking import Board
from mupc.sweeps.transfer_command import TransferConfig, transfer
from mupc.training.config import PRESETS, PresetName
from mupc.training.survey import TheoryConfig, TheoryRecord, survey


class Method(NamedTuple):
    """A way to train, and from which column on only the first seed is run: it takes too long."""

    name: str
    settings: Mapping[str, Any]
    preset: PresetName = "default"
    one_seed_from: int = 10**9


_DEFAULT = Method("mupc, the default rule", {})
_BACKPROPAGATION = Method("mupc, backpropagation", {"rule": "backpropagation"})
_PAPER = Method("mupc, the paper's preset", {}, "paper", 128)
_ACCURATE = Method("mupc, ρ = 0.6, Gauss–Newton 3 x 4", {"rho": 0.6, "max_steps": 3, "cg_steps": 4})
# The paper's rates are for mupc; these did best at 8 layers (see the page).
_STANDARD = Method(
    "standard, the paper's inference",
    {"parameterisation": "standard", "learning_rate": 0.001, "step_size": 0.16},
    "paper",
    128,
)


# What transfer tries: rates that suit mupc, and lower ones for the standard parameterisation.
GRIDS: dict[PresetName, dict[str, Any]] = {
    "paper": {
        "step_sizes": (0.5 / 64, 2.5 / 64, 10 / 64, 20 / 64, 40 / 64),
        "learning_rates": (0.001, 0.004, 0.0125, 0.025, 0.05, 0.1, 0.2),
        "cases": ("mupc:raw", "mupc:mup", "standard:raw"),
    },
    "default": {
        "rhos": (0.0125, 0.025, 0.05, 0.1, 0.2),
        "learning_rates": (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08),
        "cases": ("mupc:raw", "mupc:uniform", "standard:raw"),
    },
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
    base = PRESETS[case.method.preset]
    base = dataclasses.replace(base, dataset=options.dataset, validation=0.0, epochs=None)
    return point_of(base, settings)


def _accuracies(cases: Sequence[Case], field: str, options: argparse.Namespace, **same: Any) -> str:
    """Train, and give a table of test accuracies and training times, methods by columns."""
    points = [_point(case, field, options, same) for case in cases]
    with Board() as board:
        results = sweep(SweepFolder(options.out / "runs"), points, watch=board)
    found = [(case, result.outcome) for case, result in zip(cases, results, strict=True)]
    columns = list(dict.fromkeys(case.column for case in cases))
    unit = "H = {:,}" if field == "depth" else "{:,} batches"
    heads = [unit.format(column) for column in columns]
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
    base, sizes = (8, 64), [f"8x{width}" for width in (128, 256, 512)]
    return _transfer("transfer-width", base, sizes, options, near=None)


def transfer_depth(options: argparse.Namespace) -> str:
    """Transfer across depth."""
    return _transfer("transfer-depth", (8, 64), ["32x64", "128x64"], options, near=(1, 2))


def _transfer(
    name: str,
    base: tuple[int, int],
    sizes: Sequence[str],
    options: argparse.Namespace,
    near: tuple[int, int] | None,
) -> str:
    parts: list[str] = []
    presets: dict[PresetName, str] = {
        "paper": "the paper's inference",
        "default": "the default rule",
    }
    for preset in options.presets:
        words = presets[preset]
        config = TransferConfig(
            folder=str(options.out / name / preset),
            base=dataclasses.replace(
                PRESETS[preset],
                dataset=options.dataset,
                depth=base[0],
                width=base[1],
                steps=options.steps // 9,
                validation=0.1,
                report_every=0,
            ),
            sizes=tuple(options.sizes or sizes),
            seeds=tuple(options.seeds),
            near=near,
            **GRIDS[preset],
        )
        judged = transfer(config)
        parts += [f"With {words}:", "", *judged.table, "", *(f"- {s}" for s in judged.sentences)]
        parts.append("")
        for path in judged.figures:
            if options.page is not None:
                figure = options.page.parent / "figures" / f"{name}-{preset}-{path.name}"
                figure.write_bytes(path.read_bytes())
                parts.append(f"![{name}, {words}]({figure.relative_to(options.page.parent)})")
        parts.append("")
    return "\n".join(parts).strip()


def backpropagation(options: argparse.Namespace) -> str:
    """How predictive coding's gradient tends to backpropagation's, with size and precision."""
    widths, depths = options.widths, options.depths[:: max(1, len(options.depths) - 2)]
    found: dict[tuple[float, int, int], TheoryRecord] = {}
    for precision in (1.0, 0.1, 0.01):
        out = options.out / "backpropagation" / f"precision-{precision:g}"
        config = TheoryConfig(
            depths=tuple(depths),
            widths=tuple(widths),
            precision=precision,
            dataset=options.dataset,
            hessians=1,
            out=str(out),
        )
        for record in _surveyed(out, config):
            found[precision, record.depth, record.width] = record
    lines = [header(("cosine (F*/loss)", *(f"width {width}" for width in widths)))]
    for precision in (1.0, 0.1, 0.01):
        for layers in depths:
            seen = [found[precision, layers, width] for width in widths]
            cells = [f"{r.whole_cosine:.4f} ({r.energy_ratio:.3f})" for r in seen]
            lines.append(line((f"{layers} layers, π = {precision:g}", *cells)))
    return "\n".join(lines)


def _surveyed(out: Path, config: TheoryConfig) -> list[TheoryRecord]:
    """Return the records of a survey, of an earlier call if that was the same and ended."""
    if not (out / "config.json").is_file():
        return survey(config, lambda record: print(f"{record.depth}x{record.width}", flush=True))[1]
    run = RunFolder.open(out)
    records = list(run.records())
    same = run.config() == json.loads(json.dumps(dataclasses.asdict(config)))
    if not same or len(records) != len(config.depths) * len(config.widths):
        raise SystemExit(f"{out} holds a part of this table, or another one: remove it")
    return [TheoryRecord(**record) for record in records]


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
    parser.add_argument(
        "--presets",
        nargs="+",
        choices=list(PRESETS),
        default=["paper", "default"],
        help="to transfer",
    )
    parser.add_argument("--steps", type=int, default=900, help="batches; transfer: a ninth of it")
    parser.add_argument("--epochs", type=float, default=1.0, help="of width-512")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="run folders")
    parser.add_argument("--page", type=Path, help="page whose table is to be replaced")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
