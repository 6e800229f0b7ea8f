"""What training reports, and what it returns."""

import dataclasses
import enum
import math
import statistics
from collections.abc import Mapping
from typing import Any, cast

from jaxtyping import PyTree

from mupc.learning import LearningRule
from mupc.networks import Network
from mupc.records import layers_that_learned

EQUILIBRIUM = 1e-2
"""Relative residual up to which one may speak of equilibrium."""


class Ended(enum.Enum):
    """Why training ended; the value is the sentence."""

    FINISHED = "all steps were made"
    STOPPED_EARLY = "the validation part was no longer predicted better"
    INTERRUPTED = "it was interrupted"
    TERMINATED = "it was asked to end (SIGTERM)"
    DIVERGED = "it diverged"


@dataclasses.dataclass(frozen=True)
class TrainRecord:
    """Means over the batches since the previous record (energies at the precision of each batch).

    `energy_before` and `energy_after` are before and after inference; rules without inference
    leave both equal. `residual` (relative to where inference started) and `converged` are of the
    last batch alone: measuring them costs sweeps. They are None without inference, and in a record
    of a run that was interrupted.
    """

    step: int
    epoch: float
    loss: float
    accuracy: float | None
    energy_before: float
    energy_after: float
    inference_steps: float
    residual: float | None
    converged: float | None
    diverged: float
    precision: float
    samples_per_second: float
    seconds: float
    kind: str = "train"


@dataclasses.dataclass(frozen=True)
class ValidationRecord:
    """Loss and accuracy over the whole validation part."""

    step: int
    loss: float
    accuracy: float | None
    best: bool
    seconds: float
    kind: str = "validation"


@dataclasses.dataclass(frozen=True)
class RegimeRecord:
    r"""What inference and learning do with one batch, layer by layer.

    Layers are in tuples from input to output, one entry for each weight layer (H + 1). What a rule
    has not (backpropagation has no inference) is None.

    Attributes:
        step: how many steps had been made.
        precision: π of this batch, mean over samples.
        rho: the regime number at the samples' precisions, `mupc.theory.mean_regime_number`.
        inference_steps: mean over samples.
        sweeps: what they cost, mean over samples; None for solvers without a fixed price.
        residual: relative to where inference began, median over samples.
        at_equilibrium: fraction of the samples whose residual is at most 1e-2.
        diverged: fraction of the samples whose inference diverged.
        energy_before, energy_after: mean energy of each layer before and after inference.
        scale: root mean square of the feedforward activities, and of the output.
        cosine: between the gradient used and backpropagation's, before the optimiser.
        ratio: of their norms, at one unit of energy.
        change: ‖ΔW‖/‖W‖ since the first step.
        seconds: since training began.
        diagnostics: what else the rule shows, by name: numbers, or one for each layer.
    """

    step: int
    precision: float
    inference_steps: float
    energy_before: tuple[float, ...]
    energy_after: tuple[float, ...]
    scale: tuple[float, ...]
    change: tuple[float, ...]
    seconds: float
    rho: float | None = None
    sweeps: float | None = None
    residual: float | None = None
    at_equilibrium: float | None = None
    diverged: float | None = None
    cosine: tuple[float, ...] | None = None
    ratio: tuple[float, ...] | None = None
    diagnostics: Mapping[str, float | tuple[float, ...] | None] = dataclasses.field(
        default_factory=dict[str, Any]
    )
    kind: str = "regime"

    @property
    def drop(self) -> float | None:
        """The fraction of the energy by which inference lowers it."""
        before = sum(self.energy_before)
        return None if self.residual is None or not before else 1 - sum(self.energy_after) / before

    @property
    def hidden(self) -> tuple[float, ...]:
        """The relative changes of the hidden matrices."""
        return self.change[1:-1]

    @property
    def learning(self) -> int:
        """How many hidden matrices have changed by a tenth of the largest change, or more."""
        return layers_that_learned(self.hidden)

    def sentence(self) -> str:
        """Say it in one line of words."""
        parts: list[str] = []
        if self.rho is not None:
            parts.append(f"gradient-weighted ρ {self.rho:.2g} (precision {self.precision:.2g})")
        parts += [_told(name, value) for name, value in self.diagnostics.items()]
        if self.at_equilibrium is not None:
            left = "not finite" if self.residual is None else f"{self.residual:.2g}"
            cost = "" if self.sweeps is None else f" ({self.sweeps:.0f} sweeps)"
            fall = "" if self.drop is None else f", energy lowered by {self.drop:.1%}"
            lost = f", diverged in {self.diverged:.0%} of samples" if self.diverged else ""
            made = counted(self.inference_steps, "step")
            parts.append(
                f"inference: residual {left} after {made}"
                f"{cost}, {self.at_equilibrium:.0%} of samples at equilibrium{fall}{lost}"
            )
        if self.cosine is not None and (seen := [c for c in self.cosine if not math.isnan(c)]):
            none = len(self.cosine) - len(seen)
            rest = f", in {len(seen)} layers ({none} without a gradient)" if none else ""
            parts.append(
                f"gradient vs backpropagation: cosine {statistics.median(seen):.3f}, "
                f"{min(seen):.3f} at least{rest}"
            )
        if self.hidden and self.step:
            parts.append(
                f"{self.learning} of {len(self.hidden)} hidden matrices learning "
                f"(changed by {min(self.hidden):.2g} to {max(self.hidden):.2g})"
            )
        return "; ".join(parts)


def _told(name: str, value: float | tuple[float, ...] | None) -> str:
    """Say a rule's own figure: a number, or the least and the largest of those of the layers."""
    layers = value if isinstance(value, tuple) else () if value is None else (value,)
    known = [one for one in layers if not math.isnan(one)]
    if not known:
        return f"{name} unknown"
    if isinstance(value, tuple):
        return f"{name} {min(known):.2g}–{max(known):.2g}"
    return f"{name} {known[0]:.2g}"


def counted(number: float, noun: str) -> str:
    """Say how many: 1 step, 2 steps."""
    written = f"{number:,.0f}" if number == round(number) else f"{number:.3g}"
    return f"{written} {noun}{'' if number == 1 else 's'}"


@dataclasses.dataclass(frozen=True)
class TraceRecord:
    """Inference step by step, on one batch: where it began, and after every step.

    Attributes:
        step: how many training steps had been made.
        energy: mean over samples.
        residual: relative to where inference began, median over samples.
    """

    step: int
    energy: tuple[float, ...]
    residual: tuple[float, ...]
    kind: str = "trace"


Record = TrainRecord | ValidationRecord | RegimeRecord | TraceRecord

_KINDS = {kind.kind: kind for kind in (TrainRecord, ValidationRecord, RegimeRecord, TraceRecord)}


def record_from(values: Mapping[str, Any]) -> Record:
    """Rebuild a record from what `dataclasses.asdict` made of it, or from its line in a file."""
    made: dict[str, Any] = {
        # JSON has no nan: among numbers it is null.
        name: {key: _listed(one) for key, one in value.items()}
        if isinstance(value, dict)
        else _listed(value)
        for name, value in values.items()
    }
    return _KINDS[values["kind"]](**made)


def _listed(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return tuple(math.nan if one is None else one for one in cast(list[Any], value))


def scalars(record: Record) -> dict[str, float]:
    """Give the numbers of a record, by kind and name, as loggers take them.

    Of what there is for each layer, it gives the least and the largest. What is not finite, or was
    not measured, is left out. A trace has no numbers of its own.
    """
    found: dict[str, float] = {}
    if isinstance(record, TraceRecord):
        return found
    values = dataclasses.asdict(record)
    values |= values.pop("diagnostics", {})
    for name, value in values.items():
        if isinstance(value, tuple):
            layers = [one for one in value if math.isfinite(one)]
            if layers:
                found |= {f"{name}/least": min(layers), f"{name}/largest": max(layers)}
        elif isinstance(value, int | float) and name != "step" and math.isfinite(value):
            found[name] = float(value)
    return {f"{record.kind}/{name}": value for name, value in found.items()}


@dataclasses.dataclass(frozen=True)
class FitResult:
    """The outcome of training.

    Attributes:
        network: the best on the validation part; without one the last, and after divergence the
            one before the step that failed.
        rule: what it was trained by.
        state: what the learning rule had kept by then, for its next batch.
        step: how many steps that network was trained for.
        steps: how many steps were made.
        ended: why training ended.
        message: a sentence that says so.
        records: all records, in order.
    """

    network: Network
    rule: LearningRule
    state: PyTree[Any]
    step: int
    steps: int
    ended: Ended
    message: str
    records: tuple[Record, ...]
