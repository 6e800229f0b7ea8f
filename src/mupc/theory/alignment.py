"""What each layer learns: gradients compared layer by layer, and how far the weights moved."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mupc.learning import Backpropagation, Batch, LearningRule
from mupc.networks import Network, scaled_blocks


class Alignment(NamedTuple):
    """One gradient compared with another, layer by layer; nan where one is zero.

    Attributes:
        cosine: between the two.
        ratio: of the first's norm to the other's.
    """

    cosine: Float[Array, " layers"]
    ratio: Float[Array, " layers"]


def layer_products(a: Network, b: Network) -> Float[Array, " layers"]:
    """Give the inner product of two networks' weights, (L,): one number for each weight layer."""
    products: list[Array] = []
    for (one, stacked), (other, _) in zip(scaled_blocks(a), scaled_blocks(b), strict=True):
        pairs = zip(jax.tree.leaves(one.weights), jax.tree.leaves(other.weights), strict=True)
        parts = [jnp.sum(v * w, axis=_axes(v, stacked=stacked)) for v, w in pairs]
        products.append(jnp.atleast_1d(sum(parts)))
    return jnp.concatenate(products)


def alignment(a: Network, b: Network) -> Alignment:
    """Compare gradients layer by layer: the cosine between them, and the ratio of their norms."""
    # Squares of the smallest gradients would underflow: bring each layer to size one first.
    (a, largest_a), (b, largest_b) = _normalised(a), _normalised(b)
    squares, others = layer_products(a, a), layer_products(b, b)
    cosine = layer_products(a, b) / jnp.sqrt(squares * others)
    return Alignment(cosine, largest_a / largest_b * jnp.sqrt(squares / others))


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
) -> Alignment:
    """Compare a rule's weight gradient with a yardstick's, layer by layer.

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
    return alignment(*gradients)


def _normalised(network: Network) -> tuple[Network, Float[Array, " layers"]]:
    """Divide a layer's arrays by their largest entry, and give that of each layer."""
    largest = [
        _largest(block.weights, stacked=stacked) for block, stacked in scaled_blocks(network)
    ]
    divided = [
        jax.tree.map(lambda w, by=by: w / _shaped(jnp.where(by > 0, by, 1), w), block.weights)
        for (block, _), by in zip(scaled_blocks(network), largest, strict=True)
    ]
    where = lambda n: [block.weights for block, _ in scaled_blocks(n)]  # noqa: E731
    rows = jnp.concatenate([jnp.atleast_1d(by) for by in largest])
    return eqx.tree_at(where, network, divided), rows


def _largest(weights: PyTree[Array], *, stacked: bool) -> Array:
    """Give the largest entry of one layer, or of each layer of a stack."""
    leaves = jax.tree.leaves(weights)
    parts = [jnp.max(jnp.abs(w), axis=_axes(w, stacked=stacked), initial=0) for w in leaves]
    return jnp.max(jnp.stack(parts), axis=0)


def _axes(array: Array, *, stacked: bool) -> tuple[int, ...]:
    """Give the axes of one layer's array: all but the leading one of a stack."""
    return tuple(range(1 if stacked else 0, array.ndim))


def _shaped(values: Array, like: Array) -> Array:
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))
