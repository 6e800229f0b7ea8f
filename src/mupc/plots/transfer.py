"""Figures of hyperparameter transfer, from the records of `mupc transfer`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mupc.plots.reading import numbers
from mupc.plots.style import label, panels, plain

_SHOWN = 20.0  # points of accuracy below the best that the colours tell apart
_NAMES = {"step_size": "step size of inference", "precision": "precision π", "rho": "ρ"}


def transfer_maps(records: Sequence[dict[str, Any]]) -> Figure:
    """Draw accuracy against learning rate and the other number, a panel for each size.

    A dashed circle marks the optimum of the first size, the base, in every panel, a square that of
    the panel's own. Accuracies are means over seeds; what was not tried is left blank.
    """
    values = records[0]["values"]
    figure, axes = panels(len(records), width=1.6 + 0.62 * len(values), height=4.0)
    means = [100 * np.mean(_accuracies(record), axis=0) for record in records]
    best = max(float(np.nanmax(mean)) for mean in means)
    for one, record, mean in zip(axes, records, means, strict=True):
        one.grid(visible=False)
        one.imshow(
            mean, origin="lower", aspect="auto", cmap="viridis", vmin=best - _SHOWN, vmax=best
        )
        for (i, j), value in np.ndenumerate(mean):
            if not np.isnan(value):
                colour = "white" if value < best - _SHOWN / 3 else "black"
                one.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)
        for place, marker, size in ((record["base"], "o", 420), (record["best"], "s", 420)):
            one.scatter(
                place[1],
                place[0],
                s=size,
                marker=marker,
                facecolors="none",
                edgecolors="#ef4444",
                linewidths=1.6,
                linestyles="--" if marker == "o" else "-",
            )
        one.set_xticks(range(len(values)), [f"{v:g}" for v in values])
        one.set_yticks(
            range(len(record["learning_rates"])), [f"{v:g}" for v in record["learning_rates"]]
        )
        title = f"{record['case']}, {record['size']}"
        label(one, plain(title), _NAMES[record["field"]], "learning rate")
    return figure


def _accuracies(record: dict[str, Any]) -> np.ndarray:
    return np.array([[numbers(row) for row in grid] for grid in record["accuracies"]])
