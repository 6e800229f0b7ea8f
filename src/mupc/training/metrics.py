"""What a training step tells of itself."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mupc.inference import InferenceResult, Solution
from mupc.learning import Batch, Info, LearningRule
from mupc.likelihoods import losses
from mupc.training.evaluate import hits


class Metrics(NamedTuple):
    """Batch means; see `TrainRecord`. Residual and convergence are known if it was `measured`."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    energy_before: Float[Array, ""]
    energy_after: Float[Array, ""]
    inference_steps: Float[Array, ""]
    residual: Float[Array, ""]
    converged: Float[Array, ""]
    diverged: Float[Array, ""]
    precision: Float[Array, ""]
    measured: Bool[Array, ""]


MEASURED = ("residual", "converged")
"""The figures that only steps with `measure` know, of rules with inference."""


def of_updates(every: Metrics) -> Metrics:
    """Return a batch's metrics: the prediction before its first update, the steps of all."""
    first, last = (jax.tree.map(lambda values, i=i: values[i], every) for i in (0, -1))
    return last._replace(
        loss=first.loss,
        accuracy=first.accuracy,
        energy_before=first.energy_before,
        inference_steps=jnp.sum(every.inference_steps),
        diverged=jnp.max(every.diverged),
    )


def metrics_of(rule: LearningRule, batch: Batch, info: Info, measure: Bool[Array, ""]) -> Metrics:
    """Return the metrics of one update on a batch."""
    y = jnp.asarray(batch[1], info.output.dtype)
    return Metrics(
        loss=jnp.mean(losses(rule.likelihood, y, info.output)) / math.prod(y.shape[1:-1]),
        accuracy=jnp.mean(hits(info.output, y).astype(info.output.dtype)),
        energy_before=jnp.sum(info.before),
        energy_after=jnp.sum(info.layers),
        precision=info.precision,
        measured=measure & bool(info.phases),
        **_of_phases(info.phases),
    )


def _of_phases(phases: Mapping[str, Solution]) -> dict[str, Array]:
    """Return the steps of all inferences of a batch, and the worst of their ends."""
    if not phases:
        nothing, unknown = jnp.zeros(()), jnp.full((), jnp.inf)
        return {
            "inference_steps": nothing,
            "residual": unknown,
            "converged": nothing,
            "diverged": nothing,
        }

    def share(solution: Solution, result: InferenceResult) -> Array:
        return jnp.mean((solution.result == result).astype(float))

    ends = [
        (
            jnp.mean(solution.steps.astype(float)),
            jnp.mean(solution.relative_residual),
            1 - share(solution, InferenceResult.CONVERGED),
            share(solution, InferenceResult.DIVERGED),
        )
        for solution in phases.values()
    ]
    steps, *worst = zip(*ends, strict=True)
    residual, others, diverged = (jnp.max(jnp.stack(values)) for values in worst)
    return {
        "inference_steps": jnp.sum(jnp.stack(steps)),
        "residual": residual,
        "converged": 1 - others,
        "diverged": diverged,
    }
