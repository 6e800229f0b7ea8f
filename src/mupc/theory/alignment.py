"""What each layer learns: gradients compared layer by layer, and how far the weights moved."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.arrays import ratio
from mupc.learning import Backpropagation, Batch, Info, LearningRule, first_gradients
from mupc.networks import Layer, Network, is_scaled


class Alignment(NamedTuple):
    """One gradient compared with another, layer by layer.

    Attributes:
        cosine: between the two; zero where one of them is.
        ratio: of the first's norm to the other's; zero or infinite where one is zero.
    """

    cosine: Float[Array, " layers"]
    ratio: Float[Array, " layers"]


def layer_products(a: Network, b: Network) -> Float[Array, " layers"]:
    """Return the inner product of two networks' weights, (L,): one number for each weight layer."""
    return _products(a, [_weights(layer) for layer in a.layers], [_weights(i) for i in b.layers])


def alignment(a: Network, b: Network) -> Alignment:
    """Compare gradients layer by layer: the cosine between them, and the ratio of their norms."""
    # Squares of the smallest gradients would underflow: bring each layer to size one first.
    (u, largest_a), (v, largest_b) = _normalised(a), _normalised(b)
    squares, others = _products(a, u, u), _products(b, v, v)
    cosine = ratio(_products(a, u, v), jnp.sqrt(squares * others))
    sizes = largest_a * jnp.sqrt(squares), largest_b * jnp.sqrt(others)
    beyond = (sizes[0] > 0) & (sizes[1] == 0)
    return Alignment(cosine, jnp.where(beyond, jnp.inf, ratio(*sizes)))


def relative_change(before: Network, after: Network) -> Float[Array, " layers"]:
    r"""Return $\|\Delta W_l\| / \|W_l\|$ of each weight layer."""
    arrays = eqx.filter(after, eqx.is_inexact_array), eqx.filter(before, eqx.is_inexact_array)
    change = jax.tree.map(jnp.subtract, *arrays)
    sizes = layer_products(before, before)
    return jnp.sqrt(layer_products(change, change) / jnp.where(sizes > 0, sizes, 1))


def yardstick(rule: LearningRule, unit: Float[Array, ""] | None = None) -> Backpropagation:
    """Return backpropagation with a rule's own likelihood and regularisers.

    Args:
        rule: the rule.
        unit: the output's precision, `Info.unit`; the likelihood's own unless given.
    """
    likelihood = rule.likelihood
    if unit is not None:
        likelihood = eqx.tree_at(lambda one: one.precision, likelihood, unit)
    return Backpropagation(likelihood, rule.regularisers)


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

    def first(rule: LearningRule) -> tuple[Network, Info]:
        state = rule.init(network, key)
        return first_gradients(rule, network, batch, state, key, measure=False)

    gradients, info = first(rule)
    return alignment(gradients, first(other or yardstick(rule, info.unit))[0])


def _products(
    network: Network, u: list[list[Array]], v: list[list[Array]]
) -> Float[Array, " layers"]:
    rows = [
        _sum([jnp.sum(a * b, axis=_axes(a, layer)) for a, b in zip(*own, strict=True)], layer)
        for layer, *own in zip(network.layers, u, v, strict=True)
    ]
    return _ordered(network, rows)


def _normalised(network: Network) -> tuple[list[list[Array]], Float[Array, " layers"]]:
    """Divide a layer's weights by their largest entry, and return that of each layer."""
    divided, rows = list[list[Array]](), list[Array]()
    for layer in network.layers:
        weights = _weights(layer)
        parts = [jnp.max(jnp.abs(w), axis=_axes(w, layer), initial=0) for w in weights]
        largest = jnp.max(jnp.stack(parts), axis=0) if parts else _sum([], layer)
        rows.append(largest)
        divided.append([w / _shaped(jnp.where(largest > 0, largest, 1), w) for w in weights])
    return divided, _ordered(network, rows)


def _weights(layer: Layer) -> list[Array]:
    """Return a layer's arrays that count: its weights, or all if it has no scales."""
    if is_scaled(layer.block):
        return [p.array for p in layer.block.parameters if p.scale.kind == "weight"]
    return jax.tree.leaves(eqx.filter(layer.block, eqx.is_inexact_array))


def _sum(parts: list[Array], layer: Layer) -> Array:
    """Add up the parts of a layer, or of each layer of a stack; a layer may have no parameters."""
    if parts:
        return sum(parts[1:], parts[0])
    leaves = jax.tree.leaves(eqx.filter(layer.block, eqx.is_array))
    return jnp.zeros(leaves[0].shape[0] if layer.stacked else ())


def _ordered(network: Network, rows: list[Array]) -> Float[Array, " layers"]:
    """Join one number for every layer, from input to output."""
    *hidden, readout = (jnp.atleast_1d(row) for row in rows)
    return jnp.concatenate([network.in_order(hidden), readout])


def _axes(array: Array, layer: Layer) -> tuple[int, ...]:
    """Return the axes of one layer's array: all but the leading one of a stack."""
    return tuple(range(1 if layer.stacked else 0, array.ndim))


def _shaped(values: Array, like: Array) -> Array:
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))
