"""What each layer learns: gradients compared layer by layer, and how far the weights moved."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mupc.arrays import ratio
from mupc.learning import Backpropagation, Batch, LearningRule, first_gradients
from mupc.networks import Layer, Network, exact_errors, gradient_as_of, is_scaled


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
    pairs = zip(a.layers, b.layers, strict=True)
    return _ordered(a, [jnp.sum(_rows(u) * _rows(v), axis=1) for u, v in pairs])


def alignment(a: Network, b: Network) -> Alignment:
    """Compare gradients layer by layer: the cosine between them, and the ratio of their norms."""
    pairs = zip(a.layers, b.layers, strict=True)
    compared = [_compared(_rows(u), _rows(v)) for u, v in pairs]
    return Alignment(*(_ordered(a, rows) for rows in zip(*compared, strict=True)))


def relative_change(before: Network, after: Network) -> Float[Array, " layers"]:
    r"""Return $\|\Delta W_l\| / \|W_l\|$ of each weight layer."""
    arrays = eqx.filter(after, eqx.is_inexact_array), eqx.filter(before, eqx.is_inexact_array)
    change = jax.tree.map(jnp.subtract, *arrays)
    sizes = layer_products(before, before)
    return jnp.sqrt(layer_products(change, change) / jnp.where(sizes > 0, sizes, 1))


def yardstick(
    rule: LearningRule, network: Network, unit: Float[Array, ""] | None = None
) -> LearningRule:
    """Return what a rule's gradient of a network is compared with.

    That is backpropagation with the rule's own likelihood and regularisers, unless the rule tends
    to another gradient.

    Args:
        rule: the rule.
        network: what it trains.
        unit: the output's precision, `Info.unit`; the likelihood's own unless given.
    """
    if (own := rule.exact(network)) is not None:
        return own
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
        other: the yardstick; `yardstick(rule, network)` unless given.
    """
    key = jax.random.key(0)
    state = rule.init(network, key)
    gradients, info = first_gradients(rule, network, batch, state, key, measure=False)
    other = other or yardstick(rule, network, info.unit)
    return alignment(gradients, exact_gradient(other, network, batch, key))


def exact_gradient(
    other: LearningRule, network: Network, batch: Batch, key: PRNGKeyArray
) -> Network:
    """Return a yardstick's gradient, in which errors go back by the kernels of predictions."""
    bare = exact_errors(network)
    state = other.init(bare, key)
    gradient, _ = first_gradients(other, bare, batch, state, key, measure=False)
    return gradient_as_of(network, gradient)


def _compared(u: Float[Array, "layers n"], v: Float[Array, "layers n"]) -> tuple[Array, Array]:
    """Return the cosine between rows, and the ratio of their norms."""
    # Squares of the smallest gradients would underflow: bring each row to size one first.
    largest = [jnp.max(jnp.abs(rows), axis=1, initial=0) for rows in (u, v)]
    u, v = (
        rows / jnp.where(most > 0, most, 1)[:, None]
        for rows, most in zip((u, v), largest, strict=True)
    )
    squares, others = jnp.sum(u * u, axis=1), jnp.sum(v * v, axis=1)
    cosine = ratio(jnp.sum(u * v, axis=1), jnp.sqrt(squares * others))
    sizes = largest[0] * jnp.sqrt(squares), largest[1] * jnp.sqrt(others)
    beyond = (sizes[0] > 0) & (sizes[1] == 0)
    return cosine, jnp.where(beyond, jnp.inf, ratio(*sizes))


def _rows(layer: Layer) -> Float[Array, "layers n"]:
    """Return the weights of a layer, or of each of a stack, as a row; all arrays if unscaled."""
    leaves = jax.tree.leaves(eqx.filter(layer.block, eqx.is_inexact_array))
    if not layer.stacked and not leaves:
        return jnp.zeros((1, 0))
    depth = jax.tree.leaves(eqx.filter(layer.block, eqx.is_array))[0].shape[0]
    if is_scaled(layer.block):
        leaves = [p.array for p in layer.block.parameters if p.scale.kind == "weight"]
    flat = [leaf.reshape(depth if layer.stacked else 1, -1) for leaf in leaves]
    return jnp.concatenate(flat, axis=1) if flat else jnp.zeros((depth if layer.stacked else 1, 0))


def _ordered(network: Network, rows: Sequence[Array]) -> Float[Array, " layers"]:
    """Join one number for every layer, from input to output."""
    *hidden, readout = rows
    return jnp.concatenate([network.in_order(hidden), readout])
