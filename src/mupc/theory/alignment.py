"""What each layer learns: gradients compared layer by layer, and how far the weights moved."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.learning import Backpropagation, Batch, LearningRule
from mupc.networks import Network, scaled_blocks


def layer_products(a: Network, b: Network) -> Float[Array, " layers"]:
    """Give the inner product of two networks' weights, (L,): one number for each weight layer."""
    products: list[Array] = []
    for (one, stacked), (other, _) in zip(scaled_blocks(a), scaled_blocks(b), strict=True):
        pairs = zip(jax.tree.leaves(one.weights), jax.tree.leaves(other.weights), strict=True)
        rows = 1 if not stacked else jax.tree.leaves(one.weights)[0].shape[0]
        parts = [jnp.sum((v * w).reshape(rows, -1), axis=1) for v, w in pairs]
        products.append(jnp.sum(jnp.stack(parts), axis=0))
    return jnp.concatenate(products)


def layer_cosines(a: Network, b: Network) -> Float[Array, " layers"]:
    """Give the cosine between two gradients, layer by layer; nan where one is zero."""
    # Squares of the smallest gradients would underflow: bring each layer to size one first.
    a, b = _normalised(a), _normalised(b)
    return layer_products(a, b) / jnp.sqrt(layer_products(a, a) * layer_products(b, b))


def relative_change(before: Network, after: Network) -> Float[Array, " layers"]:
    r"""Give $\|\Delta W_l\| / \|W_l\|$ of each weight layer."""
    arrays = eqx.filter(after, eqx.is_inexact_array), eqx.filter(before, eqx.is_inexact_array)
    change = jax.tree.map(jnp.subtract, *arrays)
    return jnp.sqrt(layer_products(change, change) / layer_products(before, before))


def yardstick(rule: LearningRule) -> Backpropagation:
    """Give backpropagation with a rule's own likelihood and regularisers."""
    return Backpropagation(rule.likelihood, rule.regularisers)


@eqx.filter_jit
def gradient_alignment(
    network: Network, batch: Batch, rule: LearningRule, other: LearningRule | None = None
) -> Float[Array, " layers"]:
    """Give the cosine between a rule's weight gradient and a yardstick's, layer by layer.

    Args:
        network: where to compare.
        batch: inputs and targets.
        rule: the rule, as at the start of a run: its state is new.
        other: the yardstick; backpropagation with the rule's own likelihood unless given.
    """
    key = jax.random.key(0)
    gradients = [
        one.gradients(network, batch, one.init(network, key), key, measure=False)[0]
        for one in (rule, other or yardstick(rule))
    ]
    return layer_cosines(*gradients)


def _normalised(network: Network) -> Network:
    """Divide every array by its layer's largest entry."""

    def divide(array: Array, *, stacked: bool) -> Array:
        axes = tuple(range(1 if stacked else 0, array.ndim))
        largest = jnp.max(jnp.abs(array), axis=axes, keepdims=True)
        return array / jnp.where(largest > 0, largest, 1)

    where = lambda n: [block.weights for block, _ in scaled_blocks(n)]  # noqa: E731
    divided = [
        jax.tree.map(lambda w, stacked=stacked: divide(w, stacked=stacked), block.weights)
        for block, stacked in scaled_blocks(network)
    ]
    return eqx.tree_at(where, network, divided)
