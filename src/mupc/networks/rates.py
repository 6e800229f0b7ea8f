"""Optax transformations that know a network's layers: scaled rates, and bounds of weights."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from mupc.arrays import as_positive
from mupc.networks.block import is_scaled
from mupc.networks.chain import Chain
from mupc.networks.network import Network, check_network
from mupc.parameterisations import Scale


def scale_adam(network: PyTree[Any]) -> optax.GradientTransformation:
    """Multiply updates by the *mup* rule's factors for Adam; chain it after `optax.adam`.

    Under `mupc` with skips the residual weights' factor is √(N₀L₀/(NL)) (N their own fan-in), that
    of biases beside the branch L₀/L, of biases within it √(L₀/L), all others 1 (times γ, but for
    the readout bias); under `standard` and `ntk` all are 1. Without this transformation the rule is
    *raw*: one rate for all layers, as in the μPC paper.
    """
    return scale_by(rate_factors(network, lambda scale: scale.adam))


def scale_sgd(network: PyTree[Any]) -> optax.GradientTransformation:
    """Multiply updates by the *mup* rule's factors for plain SGD; chain it after `optax.sgd`.

    Under `mupc`: weights, biases within a branch and the input bias γ²N/N₀, biases beside a branch
    γ²NL₀/(N₀L), readout bias 1.
    """
    return scale_by(rate_factors(network, lambda scale: scale.sgd))


def scale_uniform(network: PyTree[Any]) -> optax.GradientTransformation:
    """Multiply updates by √(N₀/N) · √L₀ L^(α−1), within bounds: the *uniform* rule.

    L^−α is the multiplier of branches, so that the factor is √(N₀L₀/(NL)) under Depth-μP, and N the
    weight's own fan-in. Under Adam each of L residual layers then changes what it adds, and all of
    them together the output, by as much at any width N, number L of layers and exponent α < 1. Of a
    hidden layer the part of depth is at most √8 and the whole at most 4; of input and readout,
    where N is the width, the whole is at least 1 and at most 8.
    """
    return scale_by(rate_factors(network, lambda scale: scale.uniform))


def bound_weights(network: Network, bound: ArrayLike) -> optax.GradientTransformation:
    r"""Scale each layer's weights down to a root mean square of `bound`; chain it after all others.

    $$W \leftarrow W \min(1, \text{bound} / \text{rms}(W))$$

    after each update, for each array of weights of each layer, as the kernels of convolutional
    neural generative coding are kept to a norm (arXiv 2211.12047). Weights of `mupc.ntk` and
    `mupc.mupc` begin at a root mean square of 1. Biases are left alone.

    Resuming does not see that a bound was changed.

    Raises:
        TypeError: if it is no network.
        ValueError: if the bound is not positive, or an array lies in no scaled block.
    """
    check_network(network)
    limit = as_positive(bound)
    chain = lambda node: isinstance(node, Chain)  # noqa: E731
    chains = list(filter(chain, jax.tree.leaves(network, is_leaf=chain)))
    stacked = {
        id(node)
        for part in chains or [network]
        for layer in part.layers
        if layer.stacked
        for node in jax.tree.leaves(layer.block, is_leaf=is_scaled)
    }

    def axes(node: Any) -> Any:
        first = int(id(node) in stacked)
        return _factors(node, lambda scale: first if scale.kind == "weight" else -1)

    return _bounded(limit, jax.tree.map(axes, network, is_leaf=is_scaled))


def _bounded(limit: Float[ArrayLike, ""], axes: PyTree[int]) -> optax.GradientTransformation:
    """Bound weights whose arrays begin with so many axes of layers; −1 for what is left alone."""

    def one(first: int, change: Array, before: Array) -> Array:
        if first < 0:
            return change
        after = before + change
        squares = jnp.mean(after**2, axis=tuple(range(first, after.ndim)), keepdims=True)
        return after * limit / jnp.maximum(jnp.sqrt(squares), limit) - before

    def update(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        if params is None:
            raise ValueError("bounds of weights need them: give them to the optimiser's update")
        return jax.tree.map(one, axes, updates, params)

    return optax.stateless(update)


def scale_by(factors: PyTree[float | Float[Array, "..."]]) -> optax.GradientTransformation:
    """Multiply each array's update by its factor."""

    def update(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        del params
        return jax.tree.map(lambda factor, update: factor * update, factors, updates)

    return optax.stateless(update)


def rate_factors(network: PyTree[Any], choose: Callable[[Scale], float]) -> PyTree[float]:
    """Return the learning-rate factor of every trainable array, in the network's own structure.

    Raises:
        ValueError: if a trainable array lies in no scaled block.
    """
    return jax.tree.map(lambda node: _factors(node, choose), network, is_leaf=is_scaled)


def _factors(node: Any, choose: Callable[[Scale], float]) -> Any:
    """Return the factor of each trainable array of a block, None for what does not train."""
    if is_scaled(node):
        structure = jax.tree.structure(eqx.filter(node, eqx.is_inexact_array))
        return jax.tree.unflatten(structure, [choose(scale) for scale in node.scales])
    if eqx.is_inexact_array(node):
        raise ValueError(
            f"an array of shape {node.shape} lies in no scaled block, so it has no "
            "learning-rate factor; make a block of the module it belongs to by mupc.Scaled"
        )
    return None
