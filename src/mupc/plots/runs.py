"""Figures of training runs, and of their inference: a line for each run, in the run's colour."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mupc.plots.reading import RunRecords, numbers
from mupc.plots.style import Chart, Key, label, legend, panels, plain, scaled
from mupc.records import TrainRecord, ValidationRecord

_FEW = 40  # points that are marked one by one


class Line(NamedTuple):
    """What is drawn of a run: x, y, a dash, what the line is besides the run's, and if it is pale.

    Without a dash there are points alone.
    """

    x: Iterable[float]
    y: Iterable[float]
    dash: str = "-"
    what: str = ""
    pale: bool = False


def draw(
    axes: Axes,
    runs: Sequence[RunRecords],
    lines: Callable[[RunRecords], list[Line]],
    *,
    log: bool = True,
) -> None:
    """Draw lines of every run; what diverged does not choose the scale of the others."""
    sound: list[float] = []
    lost: list[float] = []
    for run in runs:
        for line in lines(run):
            x, y = np.asarray([*line.x], float), np.asarray([*line.y], float)
            name = f"{run.name}, {line.what}" if line.what else run.name
            mark = "." if len(x) < _FEW else ""
            if np.all(x == np.round(x)):
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.plot(
                *(x, y),
                linestyle=line.dash or "none",
                color=run.colour,
                alpha=0.4 if line.pale else 1.0,
                marker=mark,
                markersize=4,
                label=plain(name),
            )
            (lost if run.diverged else sound).extend(y)
    scaled(axes, sound, lost, log=log)


def name_runs(figure: Chart, runs: Sequence[RunRecords], what: Callable[[RunRecords], str]) -> None:
    """Name the runs below a figure."""
    legend(figure, [Key(f"{run.label}{what(run)}", run.colour) for run in runs])


def _nothing(_: RunRecords) -> str:
    return ""


def curves(runs: Sequence[RunRecords]) -> Figure:
    """Draw loss, accuracy and energy against the training step; validation is dashed."""
    runs = [run for run in runs if run.train]
    classes = any(record.accuracy is not None for run in runs for record in run.train)
    figure, axes = panels(2 + classes)
    draw(axes[0], runs, lambda run: _of(run, _steps, lambda record: record.loss))
    loss = "loss (nats per position)" if _of_text(runs) else "loss per sample"
    label(axes[0], f"Loss{_held_out(runs)}", "training step", loss)
    if classes:
        draw(axes[1], runs, lambda run: _of(run, _steps, _percent), log=False)
        label(axes[1], f"Accuracy{_held_out(runs)}", "training step", "accuracy (%)")
    draw(axes[-1], runs, _energies)
    label(axes[-1], "Energy before (dashed) and after inference", "training step", _ENERGY)
    name_runs(figure, runs, _nothing)
    return figure


_ENERGY = "energy per sample"


def accuracy_in_time(runs: Sequence[RunRecords]) -> Figure:
    """Draw accuracy (loss of text, or of targets without classes) against seconds of training."""
    runs = [run for run in runs if run.train]
    of_text = _of_text(runs)
    classes = not of_text and any(
        record.accuracy is not None for run in runs for record in run.train
    )
    figure, (axes,) = panels(1)
    value = _percent if classes else lambda record: record.loss
    draw(axes, runs, lambda run: _of(run, _time, value), log=not classes)
    loss = "loss (nats per position)" if of_text else "loss"
    title = f"{'Accuracy' if classes else 'Loss'} in time{_held_out(runs)}"
    label(axes, title, "seconds since training began", "accuracy (%)" if classes else loss)
    name_runs(figure, runs, _nothing)
    return figure


def _held_out(runs: Sequence[RunRecords]) -> str:
    """Return what a title says of dashed lines, if there are any."""
    return " (validation dashed)" if any(run.validation for run in runs) else ""


def _of_text(runs: Sequence[RunRecords]) -> bool:
    return any(record.perplexity is not None for run in runs for record in run.train)


def _of(
    run: RunRecords,
    x: Callable[[TrainRecord | ValidationRecord], float],
    y: Callable[[TrainRecord | ValidationRecord], float | None],
) -> list[Line]:
    """Return training, and validation dashed."""
    lines = [Line(map(x, run.train), numbers(map(y, run.train)))]
    if run.validation:
        held_out = Line(map(x, run.validation), numbers(map(y, run.validation)), "--", "validation")
        lines.append(held_out)
    return lines


def _steps(record: TrainRecord | ValidationRecord) -> float:
    return record.step


def _time(record: TrainRecord | ValidationRecord) -> float:
    return record.seconds


def _percent(record: TrainRecord | ValidationRecord) -> float | None:
    return None if record.accuracy is None else 100 * record.accuracy


def _energies(run: RunRecords) -> list[Line]:
    steps = [record.step for record in run.train]
    return [
        Line(steps, numbers(record.energy_before for record in run.train), "--", "before"),
        Line(steps, numbers(record.energy_after for record in run.train)),
    ]


def inferred(run: RunRecords) -> tuple[np.ndarray, np.ndarray] | None:
    """Return energy, over its start, and residual of the last batch seen, step by step.

    Of a run without a trace (its inference makes one step) these are the two ends; a run without
    inference has none.
    """
    last = run.reports[-1] if run.reports else None
    if run.traces:
        energy, residual = run.traces[-1].energy, run.traces[-1].residual
    elif last is not None and last.residual is not None:
        energy = (sum(last.energy_before), sum(last.energy_after))
        residual = (1.0, last.residual)
    else:
        return None
    start, residuals = numbers(energy), numbers(residual)
    # What did not begin with a finite energy has none to compare with.
    return (start / start[0], residuals) if start.size and np.abs(start[0]) > 0 else None


def inference_traces(runs: Sequence[RunRecords]) -> Figure:
    """Draw energy and residual before each inference step and at the end, of the last batch seen.

    Where a run has no trace (its inference makes one step, or has none) the two ends are drawn.
    """
    runs = [run for run in runs if inferred(run) is not None]
    figure, axes = panels(2)
    for i, panel in enumerate(axes):
        draw(panel, runs, lambda run, i=i: _trace(run, i))
    label(axes[0], "Energy in inference", "inference step", "energy over its start")
    label(axes[1], "Residual in inference", "inference step", "‖∂F/∂z‖ over its start")
    name_runs(figure, runs, _nothing)
    return figure


def _trace(run: RunRecords, which: int) -> list[Line]:
    found = inferred(run)
    return [] if found is None else [Line(range(len(found[which])), found[which])]
