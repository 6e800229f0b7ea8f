"""Figures of training runs."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from mupc.plots.reading import RunRecords, column, numbers
from mupc.plots.style import colour, label, legend, log_if_wide, panels, plain


class Field(NamedTuple):
    """A figure of each layer: its name in the records, what it is called, and its scale."""

    title: str
    unit: str
    logarithmic: bool


FIELDS = {
    "change": Field("Relative weight change since the first step", "‖ΔW‖ / ‖W‖", True),
    "energy_after": Field("Energy after inference", "energy per sample", True),
    "cosine": Field("Gradient against backpropagation's", "cosine", False),
    "ratio": Field("Gradient's norm over backpropagation's", "ratio of norms", True),
    "scale": Field("Feedforward activity", "root mean square", True),
}


# What is zero, or missing, is grey.
_COLOURS = colormaps["viridis"].with_extremes(bad=(0.5, 0.5, 0.5, 0.4))


def curves(runs: Sequence[RunRecords]) -> Figure:
    """Draw loss, accuracy and energy against the training step; validation is dashed."""
    runs = [run for run in runs if run.of("train")]
    figure, axes = panels(3)
    losses, energies = [], []
    for i, run in enumerate(runs):
        seen, held_out = run.of("train"), run.of("validation")
        steps, style = column(seen, "step"), cast(Any, {"color": colour(i)})
        axes[0].plot(steps, loss := column(seen, "loss"), label=plain(run.name), **style)
        axes[1].plot(steps, _percent(column(seen, "accuracy")), label=plain(run.name), **style)
        axes[2].plot(steps, before := column(seen, "energy_before"), "--", **style)
        axes[2].plot(steps, after := column(seen, "energy_after"), label=plain(run.name), **style)
        losses, energies = [*losses, *loss], [*energies, *before, *after]
        if held_out:
            at, name = column(held_out, "step"), f"{run.name}, validation"
            axes[0].plot(at, column(held_out, "loss"), "--", label=name, **style)
            axes[1].plot(at, _percent(column(held_out, "accuracy")), "--", label=name, **style)
    label(axes[0], "Loss", "training step", "loss per sample")
    label(axes[1], "Accuracy", "training step", "accuracy (%)")
    label(
        axes[2], "Energy before (dashed) and after inference", "training step", "energy per sample"
    )
    log_if_wide(axes[0], losses)
    log_if_wide(axes[2], energies)
    for one in axes:
        legend(one)
    return figure


def heat_map(run: RunRecords, field: str) -> Figure:
    """Draw a figure of every layer (from input, below, to output) against the training step.

    Args:
        run: its regime records are drawn.
        field: one of `mupc.plots.runs.FIELDS`.
    """
    # The last record is of the network that was kept, which may be an earlier one.
    seen = {r["step"]: r for r in run.of("regime") if r.get(field) is not None}
    if not seen:
        raise ValueError(f"the run {run.name} has no regime records with {field}")
    steps = sorted(seen)
    about = FIELDS[field]
    figure, (axes,) = panels(1, width=6.4)
    values = np.array([numbers(seen[step][field]) for step in steps]).T
    if about.logarithmic:
        values = np.where(values > 0, values, np.nan)
    image = axes.pcolormesh(
        _edges(np.array(steps, float)),
        np.arange(values.shape[0] + 1) + 0.5,
        np.ma.masked_invalid(values),
        norm=_norm(values, logarithmic=about.logarithmic),
        cmap=_COLOURS,
    )
    image.set_gid("steps-" + "-".join(map(str, steps)))  # read again where one may hover
    axes.grid(visible=False)
    label(
        axes,
        f"{about.title}: {plain(run.name)}",
        "training step",
        "weight layer (1: from the input)",
    )
    figure.colorbar(image, label=about.unit)
    return figure


def layer_profiles(runs: Sequence[RunRecords], field: str) -> Figure:
    """Draw a figure of every layer in the last regime record of each run; dashed, in the first."""
    about = FIELDS[field]
    figure, (axes,) = panels(1, width=6.4)
    drawn: list[float] = []
    for i, run in enumerate(runs):
        seen = [record for record in run.of("regime") if record.get(field) is not None]
        if not seen:
            continue
        for record, dash in ((seen[-1], "-"), (seen[0], "--")):
            values = numbers(record[field])
            if dash == "--" and (len(seen) == 1 or field == "change"):
                continue  # the last is the first; before the first step nothing has changed
            name = plain(f"{run.name}, step {record['step']}")
            style: Any = {"markersize": 3, "linewidth": 1, "label": name, "color": colour(i)}
            axes.plot(np.arange(1, len(values) + 1), values, dash, marker=".", **style)
            drawn = [*drawn, *values]
    label(axes, about.title, "weight layer (1: from the input)", about.unit)
    if about.logarithmic:
        log_if_wide(axes, drawn)
    legend(axes)
    return figure


def inference_traces(runs: Sequence[RunRecords]) -> Figure:
    """Draw energy and residual before each inference step and at the end, of the last batch seen.

    Where a run has no trace (its inference makes one step, or has none) the two ends are drawn.
    """
    figure, axes = panels(2)
    energies, residuals = [], []
    for i, run in enumerate(runs):
        style: Any = {"color": colour(i), "marker": ".", "markersize": 4, "label": plain(run.name)}
        if traced := run.of("trace"):
            energy, residual = (traced[-1][name] for name in ("energy", "residual"))
            residual = numbers(residual)
        elif (seen := run.of("regime")) and seen[-1]["residual"] is not None:
            energy = [np.sum(numbers(seen[-1][name])) for name in ("energy_before", "energy_after")]
            residual = [1.0, seen[-1]["residual"]]
        else:
            continue
        axes[0].plot(range(len(energy)), np.asarray(energy) / energy[0], **style)
        axes[1].plot(range(len(residual)), residual, **style)
        energies, residuals = [*energies, *energy], [*residuals, *residual]
    label(axes[0], "Energy in inference", "inference step", "energy over its start")
    label(axes[1], "Residual in inference", "inference step", "‖∂F/∂z‖ over its start")
    log_if_wide(axes[1], residuals)
    for one in axes:
        legend(one)
    return figure


def spectra(runs: Sequence[RunRecords]) -> Figure:
    """Draw the density of the activity Hessian's eigenvalues, from records of `mupc theory`."""
    figure, (axes,) = panels(1, width=6.4)
    cases = {
        plain(f"{run.name}, {_case(point)}"): [numbers(point["spectrum"][n]) for n in _SPECTRUM]
        for run in runs
        for point in run.of("theory")
    }
    positive = np.concatenate([values[values > 0] for values, _ in cases.values()])
    edges = np.geomspace(positive.min() / 1.01, positive.max() * 1.01, 31)
    for i, (name, (values, weights)) in enumerate(cases.items()):
        density, _ = np.histogram(values, edges, weights=weights)
        below = float(np.sum(weights[values <= 0]))
        name = f"{name}; {below:.1%} not above 0" if below else name
        middle = np.sqrt(edges[1:] * edges[:-1])
        axes.plot(middle, density, drawstyle="steps-mid", label=name, color=colour(i))
    axes.set_xscale("log")
    label(axes, "Spectrum of the activity Hessian", "eigenvalue", "share of eigenvalues in a bin")
    legend(axes)
    return figure


_SPECTRUM = ("eigenvalues", "weights")


def _case(point: dict[str, object]) -> str:
    return (
        f"{point['parameterisation']}, {point['depth']} x {point['width']}, "
        f"{point['trained']} batches"
    )


def _percent(fractions: Sequence[float]) -> list[float]:
    return [100 * fraction for fraction in fractions]


def _edges(steps: np.ndarray) -> np.ndarray:
    """Give the borders of cells around steps: half-way between neighbours, and the two ends."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    return np.array([steps[0], *(steps[1:] + steps[:-1]) / 2, steps[-1]])


def _norm(values: np.ndarray, *, logarithmic: bool) -> Normalize:
    there = values[np.isfinite(values)]
    low, high = (float(there.min()), float(there.max())) if there.size else (0.1, 1.0)
    return (
        LogNorm(low, max(high, 1.001 * low))
        if logarithmic
        else Normalize(low, max(high, low + 1e-9))
    )
