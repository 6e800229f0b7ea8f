"""The records that runs leave, one type each: what is written, read again and drawn."""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

from mupc.records.layers import kind_of, layer_names
from mupc.records.words import counted, figure, listed, span

# A layer learns if it changes by at least this fraction of what the one does that changes most.
_LEARNS = 0.1

EQUILIBRIUM = 1e-2
"""Relative residual up to which one may speak of equilibrium."""

NUDGE_OVER_RESIDUAL = "nudge over residual"
"""What equilibrium propagation measures of its phases: how much one goes beyond the other."""

# At 2 the cosine with the exact gradient was .68 to .78, at 9 .94 (32 layers of width 64).
_LEAST_NUDGE = 5.0


@dataclasses.dataclass(frozen=True)
class TrainRecord:
    """Means over the batches since the previous record (energies at the precision of each batch).

    `loss` is that of one position where an output has several; `perplexity` is its exponential
    where these predict classes, as in text, and None elsewhere.
    `energy_before` and `energy_after` are before and after inference (of samples nudged away from
    their targets: the size, and that less what inference took); rules without inference leave both
    equal. `residual` (relative to where inference started) and `converged` are of the
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
    perplexity: float | None = None
    kind: str = "train"


@dataclasses.dataclass(frozen=True)
class ValidationRecord:
    """Loss and accuracy over the whole validation split; see `Evaluation`."""

    step: int
    loss: float
    accuracy: float | None
    best: bool
    seconds: float
    perplexity: float | None = None
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
        energy_before, energy_after: mean energy of each layer before and after inference, as in
            `TrainRecord`.
        scale: root mean square of the activities without a target, and of the output.
        cosine: between the gradient used and what it is compared with (`mupc.theory.yardstick`),
            before the optimiser: backpropagation's, or the exact one of the rule itself.
        exact: whether it is the latter.
        ratio: of their norms, at one unit of energy.
        change: ‖ΔW‖/‖W‖ since the first step.
        seconds: since training began.
        diagnostics: what else the rule shows, by name: numbers, or one for each layer.
        layers: how the network is built, from which `names` follow; empty if it does not say.
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
    exact: bool = False
    ratio: tuple[float, ...] | None = None
    diagnostics: Mapping[str, float | tuple[float, ...] | None] = dataclasses.field(
        default_factory=dict[str, Any]
    )
    layers: str = ""
    kind: str = "regime"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers; empty if they have none."""
        return layer_names(self.layers)

    @property
    def drop(self) -> float | None:
        """The fraction of the energy by which inference lowers it; None if it is not known."""
        before, after = sum(self.energy_before), sum(self.energy_after)
        known = self.residual is not None and math.isfinite(before + after) and before
        return 1 - after / before if known else None

    @property
    def hidden(self) -> tuple[float, ...]:
        """The relative changes of the hidden weight matrices."""
        return self.change[1:-1]

    @property
    def learned(self) -> tuple[bool, ...]:
        """Which hidden weight matrices have changed by a tenth of the largest change, or more."""
        least = _LEARNS * max(filter(math.isfinite, self.hidden), default=0)
        return tuple(math.isfinite(change) and change >= least > 0 for change in self.hidden)

    @property
    def learning(self) -> int:
        """How many hidden weight matrices did."""
        return sum(self.learned)

    @property
    def unlearned(self) -> list[str]:
        """The hidden layers that did not learn: their names, or else their numbers (1: the entry).

        A network of one kind of block after the other has layers of numbers.
        """
        names = self.names
        plain = len({kind_of(name) for name in names}) <= 3 and not any("." in n for n in names)
        hidden = [str(i) for i in range(2, len(self.change))] if plain else names[1:-1]
        return [name for name, learned in zip(hidden, self.learned, strict=True) if not learned]

    def sentence(self) -> str:
        """Return it in one line of words."""
        parts: list[str] = []
        if self.rho is not None:
            rho = figure(self.rho, ".2g")
            parts.append(f"gradient-weighted ρ {rho} (precision {figure(self.precision, '.2g')})")
        parts += [f"{name} {span(value)}" for name, value in self.diagnostics.items()]
        if self.noisy:
            parts.append(
                "the nudge hardly exceeds what the free phase left to do, so that its gradients "
                "are in large part noise: give that more steps, or take a larger nudge"
            )
        if self.at_equilibrium is not None:
            residual = figure(self.residual, ".2g") or "not finite"
            sweeps = "" if self.sweeps is None else f" ({self.sweeps:.0f} sweeps)"
            fall = "" if self.drop is None else f", energy {_moved(self.drop)}"
            lost = f", diverged in {self.diverged:.0%} of samples" if self.diverged else ""
            parts.append(
                f"inference: residual {residual} after {counted(self.inference_steps, 'step')}"
                f"{sweeps}, {self.at_equilibrium:.0%} of samples at equilibrium{fall}{lost}"
            )
        if cosines := self.cosines():
            other = "the exact gradient" if self.exact else "backprop"
            parts.append(f"cosine with {other}: {cosines}")
        if self.hidden and self.step:
            parts.append(
                f"{self.learning} of {len(self.hidden)} hidden weight matrices learning "
                f"(relative change {span(self.hidden)})"
            )
            if self.learning and not (rest := self.unlearned or ["1"])[0].isdigit():
                parts.append(f"not learning: {listed(rest)}")
        return "; ".join(parts)

    @property
    def noisy(self) -> bool:
        """Whether phases differ too little to tell their difference from what they lack."""
        nudge = self.diagnostics.get(NUDGE_OVER_RESIDUAL)
        return isinstance(nudge, float) and nudge < _LEAST_NUDGE

    def cosines(self) -> str:
        """Return the median and the minimum over the layers in words; empty without a gradient."""
        known = [cosine for cosine in self.cosine or () if math.isfinite(cosine)]
        if self.cosine is None or not known:
            return ""
        none = len(self.cosine) - len(known)
        rest = f", in {len(known)} layers ({none} without a gradient)" if none else ""
        return f"median {statistics.median(known):.3f}, minimum {min(known):.3f}{rest}"


def _moved(drop: float) -> str:
    """Return by how much of its size an energy fell or rose, in words."""
    return f"{'raised' if round(drop, 3) < 0 else 'lowered'} by {abs(drop):.1%}"


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


@dataclasses.dataclass(frozen=True)
class TheoryRecord:
    """One network, measured; None stands for what is not a number.

    Attributes:
        parameterisation, depth, width, trained: which one; batches it was trained for.
        diverged: whether training did; the network is the last sound one.
        rho: regime number, mean over samples, at the feedforward activities.
        smallest, largest: eigenvalues of the activity Hessian at equilibrium, median over samples.
        bounds: within this distance of either there is an eigenvalue, largest over samples.
        condition_number: their ratio, median over samples; None where one is not positive definite.
        step_limit: 2 / largest.
        residual: relative residual of the equilibrium, largest over samples.
        energy_ratio: F* over the loss at the same precision, of the batch.
        cosine, ratio: gradient at equilibrium against backpropagation's, layer by layer.
        whole_cosine: the cosine of all weights together.
        scale, moved: root mean square of every activity and of the output, and of their change by
            three updates of Adam (backpropagation's gradient; under mupc with the rates `mup`).
        spectrum: density of the Hessians' eigenvalues: `eigenvalues` and their `weights`.
    """

    parameterisation: str
    depth: int
    width: int
    trained: int
    diverged: bool
    rho: float | None
    smallest: float | None
    largest: float | None
    bounds: float | None
    condition_number: float | None
    step_limit: float | None
    residual: float | None
    energy_ratio: float | None
    cosine: tuple[float, ...]
    ratio: tuple[float, ...]
    whole_cosine: float | None
    scale: tuple[float, ...]
    moved: tuple[float, ...]
    spectrum: dict[str, tuple[float, ...]]
    kind: str = "theory"


Record = TrainRecord | ValidationRecord | RegimeRecord | TraceRecord
