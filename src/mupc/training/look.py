"""The regime report: what inference and learning do with one batch, layer by layer."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from mupc.energies import FreeEnergy
from mupc.inference import InferenceResult
from mupc.learning import Batch, LearningRule
from mupc.networks import Network
from mupc.theory import (
    alignment,
    layer_scales,
    learned_regime_number,
    relative_change,
    yardstick,
)
from mupc.training.results import EQUILIBRIUM, RegimeRecord, TraceRecord


class Model(NamedTuple):
    """A network in training: as it began, as it is, with its rule and the rule's state."""

    first: Network
    network: Network
    rule: LearningRule
    state: PyTree[Any]


def look(
    model: Model, batch: Batch, key: PRNGKeyArray, *, step: int, seconds: float
) -> RegimeRecord:
    """Look at what inference and learning do with a batch; nothing is changed.

    It costs a step of the rule, one of backpropagation, and the sweeps of residuals.
    """
    seen = _look(model, batch, key)
    values = {name: short(np.asarray(value, float)) for name, value in seen.items()}
    return RegimeRecord(step=step, seconds=seconds, **values)


def look_inside(model: Model, batch: Batch, key: PRNGKeyArray, *, step: int) -> TraceRecord | None:
    """Follow inference step by step on a batch; None for a rule that has none."""
    _, network, rule, state = model
    # Not compiled as one: the length of a trace is a number that a program would have to know.
    solution = rule.trace(network, batch, state, key)
    if solution is None or solution.trace is None:
        return None
    began, made = solution.initial.residual, int(jnp.max(solution.steps))
    residuals = jnp.concatenate([solution.trace.residual[:made], solution.residual[None]])
    relative = residuals / jnp.where(began > 0, began, 1)
    energies = jnp.concatenate([solution.trace.energy[:made], solution.energy[None]])
    energy, residual = jnp.mean(energies, axis=1), jnp.median(relative, axis=1)
    return TraceRecord(step, short(np.asarray(energy)), short(np.asarray(residual)))


@eqx.filter_jit
def _look(model: Model, batch: Batch, key: PRNGKeyArray) -> dict[str, Array]:
    first, network, rule, state = model
    gradients, _, info = rule.gradients(network, batch, state, key)
    start = network.feedforward(batch[0])
    always = {
        "precision": info.precision,
        "energy_before": info.before,
        "energy_after": info.layers,
        "scale": layer_scales(start),
        "change": relative_change(first, network),
    }
    nan = jnp.full((), jnp.nan)
    if (inference := info.inference) is None or info.sweeps is None:
        missing = ("rho", "sweeps", "residual", "at_equilibrium", "diverged", "cosine", "ratio")
        return always | dict.fromkeys(missing, nan) | {"inference_steps": jnp.zeros(())}
    relative = inference.relative_residual
    exact, _, _ = yardstick(rule).gradients(network, batch, None, key)
    cosine, ratio = alignment(gradients, exact)
    energy = FreeEnergy(network, *batch, rule.likelihood)
    unit = info.precision / rule.likelihood.precision
    return always | {
        "rho": unit * learned_regime_number(energy, start),
        "inference_steps": jnp.mean(inference.steps),
        "sweeps": jnp.mean(info.sweeps),
        "residual": jnp.median(jnp.where(jnp.isnan(relative), jnp.inf, relative)),
        "at_equilibrium": jnp.mean(relative <= EQUILIBRIUM),
        "diverged": jnp.mean(inference.result == InferenceResult.DIVERGED),
        "cosine": cosine,
        "ratio": ratio,
    }


def short(values: np.ndarray) -> Any:
    """Give a number or a tuple of them, to four digits: records stay small. One nan is None."""
    if values.ndim == 0:
        return None if np.isnan(values) else float(f"{values:.4g}")
    return tuple(float(f"{value:.4g}") for value in values)
