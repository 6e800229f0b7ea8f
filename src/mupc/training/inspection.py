"""What a run was and did: its regime, how near to equilibrium it came, what its layers learned."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from mupc.data import Dataset
from mupc.energies import FreeEnergy
from mupc.learning import Batch, LearningRule
from mupc.networks import Network
from mupc.theory import (
    layer_cosines,
    learned_regime_number,
    regime_number,
    relative_change,
    yardstick,
)
from mupc.training.build import build_likelihood
from mupc.training.config import TrainConfig
from mupc.training.results import FitResult

# Up to here one Gauss–Newton iteration trains as well as accurate inference, and up to there
# several do (experiments/regimes.py; the table is in docs/solvers.md). A regime that is not held
# goes further away in training.
_ONE_ITERATION, _ONE_ITERATION_IF_HELD, _SEVERAL = 0.25, 0.75, 1.0


class Regime(NamedTuple):
    """The precision, and the regime number at the start (None where there is no inference)."""

    precision: float
    rho: float | None


class Inspection(NamedTuple):
    """What can be said of a finished run, on its first batch; None for what a rule does not have.

    Attributes:
        precision: π at the end.
        learned_rho: the regime number of what is still learned, at that precision.
        residual: relative residual of inference, the median over samples.
        drop: the fraction of the feedforward energy by which inference lowers it.
        cosines: between the rule's gradient and backpropagation's, smallest and median over layers.
        changes: ‖ΔW‖/‖W‖ of the residual matrices over the run: smallest, median, largest.
    """

    precision: float
    learned_rho: float | None
    residual: float | None
    drop: float | None
    cosines: tuple[float, float] | None
    changes: tuple[float, float, float] | None

    def sentences(self) -> list[str]:
        """Say it in words."""
        lines: list[str] = []
        if self.learned_rho is not None:
            lines.append(
                f"regime number of what is still learned at the end: {self.learned_rho:.2g} "
                f"(precision {self.precision:.2g})"
            )
        if self.residual is not None and self.drop is not None:
            lines.append(
                f"inference at the end: relative residual {self.residual:.2g}, energy lowered by "
                f"{self.drop:.1%}"
            )
        if self.cosines is not None:
            lines.append(
                f"cosine to backpropagation's gradient: {self.cosines[1]:.3f} in the median layer, "
                f"{self.cosines[0]:.3f} at least"
            )
        if self.changes is not None:
            lines.append(
                f"relative change of the hidden matrices: {self.changes[0]:.2g} to "
                f"{self.changes[2]:.2g}, median {self.changes[1]:.2g}"
            )
        return lines


def first_batch(config: TrainConfig, data: Dataset) -> Batch:
    """Give the first samples of the training part, a batch of them."""
    x, y = (part[: config.batch_size] for part in data.train)
    return jnp.asarray(x, float), jnp.asarray(y, float)


def measure_regime(config: TrainConfig, network: Network, data: Dataset) -> Regime:
    """Measure the regime number, or choose the precision that gives the one asked for."""
    if config.rule == "backpropagation":
        return Regime(config.precision or 1.0, None)
    x, y = first_batch(config, data)
    unit = float(jnp.mean(regime_number(FreeEnergy(network, x, y, build_likelihood(config)))))
    if config.rho is not None:
        return Regime(config.rho / unit, config.rho)
    precision = config.precision or 1.0
    return Regime(precision, precision * unit)


def enough(config: TrainConfig, regime: Regime) -> str | None:
    """Say in one sentence if the solver is not accurate enough for the regime, else nothing."""
    if regime.rho is None or config.preset == "paper":
        return None
    steps = config.max_steps or 1
    if config.solver == "gauss-newton":
        one = _ONE_ITERATION_IF_HELD if config.hold_regime else _ONE_ITERATION
        limit = one if steps < 3 else _SEVERAL
        if regime.rho > limit:
            return (
                f"at ρ = {regime.rho:.2g} inference must be accurate, and {steps} Gauss–Newton "
                f"iteration{'s are' if steps > 1 else ' is'} not enough: take --solver l-bfgs"
                + (" or --max-steps 3 --cg-steps 4" if steps < 3 and regime.rho <= _SEVERAL else "")
            )
    truncated = config.coordinates == "activities" and steps < 4 * config.depth
    if truncated and config.solver in ("gradient-descent", "adam"):
        return (
            f"{steps} steps on activities do not carry the error through {config.depth} layers, so "
            "the lower ones hardly learn: take --solver gauss-newton"
        )
    return None


def inspect(before: Network, result: FitResult, rule: LearningRule, batch: Batch) -> Inspection:
    """Look at a finished run: what inference does on a batch, and what the layers have learned."""
    looked = _look(before, result.network, rule, result.state, batch)
    changes, precision, rho, residual, drop, cosines = (np.asarray(v, float) for v in looked)
    hidden = changes[1:-1]
    has_inference = bool(np.isfinite(residual))
    spread = (float(np.min(hidden)), float(np.median(hidden)), float(np.max(hidden)))
    return Inspection(
        precision=float(precision),
        learned_rho=float(rho) if has_inference else None,
        residual=float(residual) if has_inference else None,
        drop=float(drop) if has_inference else None,
        cosines=(float(np.nanmin(cosines)), float(np.nanmedian(cosines)))
        if has_inference and not np.all(np.isnan(cosines))
        else None,
        changes=spread if hidden.size else None,
    )


@eqx.filter_jit
def _look(
    before: Network, network: Network, rule: LearningRule, state: PyTree[Any], batch: Batch
) -> tuple[Array, ...]:
    key = jax.random.key(0)
    changes = relative_change(before, network)
    gradients, _, info = rule.gradients(network, batch, state, key)
    if (seen := info.inference) is None:
        nan = jnp.full((), jnp.nan)
        return changes, info.precision, nan, nan, nan, nan
    exact, _, _ = yardstick(rule).gradients(network, batch, None, key)
    drop = 1 - jnp.mean(seen.energy) / jnp.mean(seen.initial.energy)
    energy = FreeEnergy(network, *batch, rule.likelihood)
    unit = info.precision / rule.likelihood.precision
    rho = unit * learned_regime_number(energy, network.feedforward(batch[0]))
    residual = jnp.median(seen.relative_residual)
    return changes, info.precision, rho, residual, drop, layer_cosines(gradients, exact)
