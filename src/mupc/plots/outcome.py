"""What a report says of its runs in words and numbers."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from mupc.plots.page import table
from mupc.plots.reading import RunRecords
from mupc.records import Ended, RegimeRecord, counted, figure, span


def outcome(runs: Sequence[RunRecords]) -> str:
    """Return a table of how the runs ended, a run a column."""
    rows = [["", *(run.name for run in runs)]]
    for name, cell in _ROWS.items():
        cells = [cell(run) for run in runs]
        if any(cells):
            rows.append([name, *cells])
    return table(rows)


def diverged(runs: Sequence[RunRecords]) -> list[str]:
    """Return a sentence for each run that diverged."""
    sentences: list[str] = []
    for run in (run for run in runs if run.diverged):
        lost = [record.step for record in run.train if not math.isfinite(record.loss)]
        test = run.result.test if run.result is not None else None
        words = f"{run.name} diverged"
        if run.result is not None and run.result.ended is Ended.DIVERGED:
            words += f": {run.result.message}"
        if lost:
            words += f". Its loss is not finite from step {lost[0]:,} on"
        elif test is not None and not math.isfinite(test.loss):
            words += ". Its test loss is not finite"
        sentences.append(f"{words}.")
    if sentences and len(sentences) < len(runs):
        sentences.append(
            "What diverged does not choose the scales of figures: it leaves them at the edge."
        )
    return sentences


def _ended(run: RunRecords) -> str:
    result = run.result
    if run.theory:
        return f"{counted(len(run.theory), 'network')} measured"
    if result is None:
        return "has not ended"
    steps = counted(result.steps, "step")
    return {
        Ended.FINISHED: f"finished: {steps}",
        Ended.STOPPED_EARLY: f"stopped early after {steps}: {Ended.STOPPED_EARLY.value}",
        Ended.INTERRUPTED: f"interrupted after {steps}; mupc train --resume {run.path} resumes it",
    }.get(result.ended, f"diverged after {steps}")


def _split(name: Literal["test", "validation"]) -> Callable[[RunRecords], str]:
    def cell(run: RunRecords) -> str:
        if run.result is None or (found := getattr(run.result, name)) is None:
            return ""
        step = f"step {run.result.network_from_step:,}"
        return f"{found.words} ({step}; {counted(found.samples, 'sample')})"

    return cell


def _seconds(run: RunRecords) -> str:
    return f"{figure(run.train[-1].seconds, '.3g')} s" if run.train else ""


def _last(cell: Callable[[RegimeRecord], str]) -> Callable[[RunRecords], str]:
    return lambda run: cell(run.reports[-1]) if run.reports else ""


def _learning(record: RegimeRecord) -> str:
    if not record.step or not record.hidden:
        return ""
    lost = sum(not math.isfinite(change) for change in record.hidden)
    rest = f"; {lost} not finite" if lost else ""
    return (
        f"{record.learning} of {len(record.hidden)} (relative change {span(record.hidden)}{rest})"
    )


_ROWS: dict[str, Callable[[RunRecords], str]] = {
    "folder": lambda run: run.path,
    "ended": _ended,
    "test split": _split("test"),
    "validation split": _split("validation"),
    "training time": _seconds,
    "ρ at the first batch": lambda run: figure(run.regime.rho, ".3g"),
    "last regime report at step": _last(lambda record: f"{record.step:,}"),
    "gradient-weighted ρ": _last(lambda record: figure(record.rho, ".3g")),
    "residual of inference": _last(lambda record: figure(record.residual, ".3g")),
    "samples at equilibrium (residual ≤ 0.01)": _last(
        lambda record: (
            f"{figure(record.at_equilibrium, '.0f', 100)} %"
            if record.at_equilibrium is not None
            else ""
        )
    ),
    "inference steps": _last(lambda record: figure(record.inference_steps, ".3g")),
    "sweeps of inference": _last(lambda record: figure(record.sweeps, ".3g")),
    "cosine with the exact gradient": _last(lambda record: record.cosines()),
    "hidden weight matrices learning": _last(_learning),
}
