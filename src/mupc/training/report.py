"""The regime report: what inference and learning do with one batch, layer by layer."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from mupc.inference import InferenceResult
from mupc.learning import Backpropagation, Batch, LearningRule, first_gradients, taken_from_size
from mupc.networks import Network
from mupc.records import EQUILIBRIUM, RegimeRecord, TraceRecord
from mupc.theory import (
    alignment,
    exact_gradient,
    layer_scales,
    relative_change,
    yardstick,
)
from mupc.training.trees import on_host


class Model(NamedTuple):
    """A network in training: as it began, as it is, with its rule and the rule's state."""

    first: Network
    network: Network
    rule: LearningRule
    state: PyTree[Any]


def regime_report(
    model: Model, batch: Batch, key: PRNGKeyArray, *, step: int, seconds: float
) -> RegimeRecord:
    """Return what inference and learning do with a batch; nothing is changed.

    It costs a step of the rule, one of backpropagation, and the sweeps of residuals.
    """
    figures = _figures(model, batch, key)
    diagnostics = _shortened(figures.pop("diagnostics"))
    rho: Any = diagnostics.pop("rho", None)
    return RegimeRecord(
        step=step,
        seconds=seconds,
        rho=rho,
        diagnostics=diagnostics,
        layers=model.network.structure,
        exact=model.rule.exact(model.network) is not None,
        **_shortened(figures),
    )


def trace_report(model: Model, batch: Batch, key: PRNGKeyArray, *, step: int) -> TraceRecord | None:
    """Return what each step of inference does with a batch; None for a rule that has none."""
    _, network, rule, state = model
    # Not compiled as one: the length of a trace is a number that a program would have to know.
    solution = rule.trace(network, batch, state, key)
    if solution is None or solution.trace is None:
        return None
    start, steps = solution.initial.residual, int(jnp.max(solution.steps))
    residuals = jnp.concatenate([solution.trace.residual[:steps], solution.residual[None]])
    relative = residuals / jnp.where(start > 0, start, 1)
    energies = jnp.concatenate([solution.trace.energy[:steps], solution.energy[None]])
    _, energies = taken_from_size(energies[0], energies)
    energy, residual = jnp.mean(energies, axis=1), jnp.median(relative, axis=1)
    return TraceRecord(step, short(on_host(energy)), short(on_host(residual)))


@eqx.filter_jit
def _figures(model: Model, batch: Batch, key: PRNGKeyArray) -> dict[str, Any]:
    first, network, rule, state = model
    gradients, info = first_gradients(rule, network, batch, state, key)
    figures: dict[str, Any] = {
        "precision": info.precision,
        "energy_before": info.before,
        "energy_after": info.layers,
        "scale": layer_scales(network, rule.untargeted(network, batch[0])),
        "change": relative_change(first, network),
        "inference_steps": jnp.zeros(()),
        "diagnostics": dict(rule.diagnostics(network, batch, state, key)),
    }
    if not isinstance(rule, Backpropagation):
        other = yardstick(rule, network, info.unit)
        cosine, ratio = alignment(gradients, exact_gradient(other, network, batch, key))
        # Without a gradient there is no direction: unknown, in the record.
        cosine = jnp.where((ratio > 0) & jnp.isfinite(ratio), cosine, jnp.inf)
        figures |= {"cosine": cosine, "ratio": ratio}
    if not info.phases:
        return figures
    solutions = info.phases.values()
    relative = jnp.max(jnp.stack([s.relative_residual for s in solutions]), axis=0)
    result = jnp.stack([s.result for s in solutions])
    if len(info.phases) > 1:  # the median of each, beside that of a sample's worst
        figures["diagnostics"] |= {
            f"residual of the {name} phase": jnp.median(s.relative_residual)
            for name, s in info.phases.items()
        }
    figures |= {} if info.sweeps is None else {"sweeps": jnp.mean(info.sweeps)}
    return figures | {
        "inference_steps": sum(jnp.mean(s.steps) for s in solutions),
        "residual": jnp.median(relative),
        "at_equilibrium": jnp.mean(relative <= EQUILIBRIUM),
        "diverged": jnp.mean(jnp.any(result == InferenceResult.DIVERGED, axis=0)),
    }


def _shortened(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: short(on_host(value).astype(float)) for name, value in values.items()}


def short(values: np.ndarray) -> Any:
    """Return a number or a tuple of them, to four digits: records stay small.

    What is not finite is unknown: None, or nan in a tuple.
    """
    if values.ndim == 0:
        return float(f"{values:.4g}") if np.isfinite(values) else None
    return tuple(float(f"{value:.4g}") if np.isfinite(value) else math.nan for value in values)
