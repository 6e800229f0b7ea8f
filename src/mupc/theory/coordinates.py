"""Coordinate checks: how large activities are, layer by layer, and how far updates move them."""

from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mupc.hyperparameters import update_with
from mupc.learning import Batch, LearningRule
from mupc.likelihoods import losses
from mupc.networks import Network, layer_scales


class Coordinates(NamedTuple):
    """Root mean squares over samples and units, of each activity and, last, of the output.

    Attributes:
        scales: of the feedforward pass (of a Hopfield network: settled), before any update.
        changes: of how the updates have changed it.
    """

    scales: Float[Array, " layers"]
    changes: Float[Array, " layers"]


@eqx.filter_jit
def coordinate_check(
    network: Network,
    batch: Batch,
    rule: LearningRule,
    optimiser: optax.GradientTransformation,
    *,
    updates: int = 3,
) -> Coordinates:
    """Measure a network's coordinates, and how far some updates on one batch move them.

    Under a parameterisation that scales rightly neither depends on width and depth (arXiv
    2203.03466, appendix on coordinate checking; arXiv 2505.13124, Fig. 3, in depth).

    Args:
        network: at any width and depth.
        batch: inputs and targets.
        rule: gives the weight gradients.
        optimiser: makes updates of them, with its learning rate.
        updates: how many times the rule learns from the batch.
    """
    key = jax.random.key(0)
    params, static = eqx.partition(network, eqx.is_inexact_array)

    def update(_i: Int[Array, ""], carry: tuple[Network, Any, Any]) -> tuple[Network, Any, Any]:
        params, moments, state = carry
        carry, state = rule.begin(eqx.combine(params, static), batch, state, key)
        for _ in range(rule.updates):
            here = eqx.combine(params, static)
            gradients, carry, info = rule.gradients(here, batch, carry, key, measure=False)
            loss = jnp.mean(losses(rule.likelihood, batch[1], info.output))
            steps, moments = update_with(optimiser, gradients, moments, params, loss)
            params = jax.tree.map(jnp.add, params, steps)
        return params, moments, rule.end(carry, state)

    begin = (params, optimiser.init(cast(Any, params)), rule.init(network, key))
    moved = jax.lax.fori_loop(0, updates, update, begin)[0]
    before = rule.untargeted(network, batch[0])
    after = rule.untargeted(eqx.combine(moved, static), batch[0])
    change = jax.tree.map(jnp.subtract, after, before)
    return Coordinates(layer_scales(network, before), layer_scales(network, change))
