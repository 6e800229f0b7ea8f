"""Where the gradient of a batch goes wrong, in words: the move, and the layer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PRNGKeyArray, PyTree

from mupc.arrays import AnyArray
from mupc.learning.rule import Batch, Info, LearningRule, first_gradients
from mupc.networks import Hopfield, Network, layer_scales

# Under mupc activities are of order one at any size, and of order ten late in training.
_LARGEST_SCALE = 1e4

# Inference that multiplies the size of the energy by this much has gone wrong: it should lower it,
# and by less than all of it.
_RISE = 10.0


def explain(
    rule: LearningRule, network: Network, batch: Batch, state: PyTree[Any], key: PRNGKeyArray
) -> str:
    """Say in words where the gradient of a batch goes wrong, for any rule."""
    gradients, info = first_gradients(rule, network, batch, state, key, measure=False)
    sentences = (_untargeted(rule, network, batch[0]), _inference(info), _gradients(gradients))
    return next(sentence for sentence in sentences if sentence is not None)


def _untargeted(rule: LearningRule, network: Network, x: Num[AnyArray, "batch ..."]) -> str | None:
    """Say from which layer on activities without a target overflow or grow out of bounds."""
    scales = np.asarray(layer_scales(network, rule.untargeted(network, x)))
    beyond = np.flatnonzero(~(scales <= _LARGEST_SCALE))
    if not beyond.size:
        return None
    layer = int(beyond[0]) + 1
    where = "free phase" if isinstance(network, Hopfield) else "feedforward pass"
    return (
        f"in the {where}, whose root mean square activity is {scales[layer - 1]:.3g} at layer "
        f"{layer} of {len(scales)}"
    )


def _inference(info: Info) -> str | None:
    """Say in which layer energy ends highest, if inference raised it out of bounds."""
    before, after = (np.asarray(layers, float) for layers in (info.before, info.layers))
    size = np.nan_to_num(np.abs(after), nan=np.inf, posinf=np.inf)
    if not info.phases or np.sum(size) <= _RISE * np.abs(np.sum(before)):
        return None
    steps = int(max(jnp.max(solution.steps) for solution in info.phases.values()))
    moves = "falls" if np.sum(after) < np.sum(before) else "rises"
    return (
        f"in inference, whose energy {moves} from {np.sum(before):.3g} to {np.sum(after):.3g} "
        f"within {steps} steps, most at layer {int(np.argmax(size)) + 1} of {len(size)}"
    )


def _gradients(gradients: Network) -> str:
    """Say which weights have the largest gradients."""
    leaves = [pair for pair in jax.tree_util.tree_leaves_with_path(gradients) if pair[1].size]
    sizes = [float(_largest(leaf)) for _, leaf in leaves]
    largest = int(np.argmax(np.nan_to_num(sizes, nan=np.inf, posinf=np.inf)))
    name = jax.tree_util.keystr(leaves[largest][0])
    return f"in the weights: network{name} has gradients of up to {sizes[largest]:.3g}"


def _largest(leaf: Float[Array, "..."]) -> Float[Array, ""]:
    return jnp.max(jnp.abs(leaf))
