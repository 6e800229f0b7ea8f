"""One training step: a single compiled program, whatever the depth and the hyperparameters."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from mupc.inference import InferenceResult
from mupc.learning import Batch, Info, LearningRule
from mupc.likelihoods import losses
from mupc.networks import Network
from mupc.training.metrics import hits

_Tree = TypeVar("_Tree")

# A loss this many times the first batch's (or 1) is divergence, though it may still be finite.
_EXPLOSION = 1e4


class State(eqx.Module):
    """What one step hands to the next."""

    network: Network
    optimiser: PyTree[Any]
    rule: PyTree[Any]
    first_loss: Float[Array, ""]
    failed: Int[Array, ""]
    """The first step whose update was refused, because something was not finite; -1 if none."""


class Inputs(NamedTuple):
    """What a step is given besides the state."""

    rule: LearningRule
    optimiser: optax.GradientTransformation
    batch: Batch
    step: Int[Array, ""]
    measure: Bool[Array, ""]
    key: PRNGKeyArray


class Metrics(NamedTuple):
    """Batch means; see `TrainRecord`. What was not measured is nan."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    energy_before: Float[Array, ""]
    energy_after: Float[Array, ""]
    inference_steps: Float[Array, ""]
    residual: Float[Array, ""]
    converged: Float[Array, ""]
    diverged: Float[Array, ""]
    precision: Float[Array, ""]


MEASURED = ("residual", "converged")
"""The figures that only steps with `measure` know; they are nan in others."""


@eqx.filter_jit(donate="all-except-first")
def train_step(inputs: Inputs, state: State) -> tuple[State, Metrics]:
    """Make one step, unless loss, energy or gradients are out of bounds.

    A step that is refused leaves the network as it was, and no step is made after it. Weights that
    an update makes infinite are found by the step after it, and by `fit` after the last.
    """
    return _step(inputs, state)


@eqx.filter_jit(donate="all-except-first")
def train_steps(
    inputs: tuple[Inputs, ...], states: tuple[State, ...]
) -> list[tuple[State, Metrics]]:
    """Make a step of several runs at once: `train_step` of each, as one program.

    All are at the same step, and differ in nothing but arrays.
    """
    own = jax.tree.map(lambda leaf: 0 if eqx.is_array(leaf) else None, inputs[0])
    # One number for all: mapped, the condition on it would become a computation of both branches.
    own = own._replace(step=None, measure=None)
    stacked = _stack(inputs)._replace(step=inputs[0].step, measure=inputs[0].measure)
    new, metrics = eqx.filter_vmap(_step, in_axes=(own, eqx.if_array(0)))(stacked, _stack(states))
    return [_entry((new, metrics), i) for i in range(len(states))]


def _stack(trees: Sequence[_Tree]) -> _Tree:
    arrays, rest = zip(*(eqx.partition(tree, eqx.is_array) for tree in trees), strict=True)
    if not all(eqx.tree_equal(rest[0], other) for other in rest[1:]):
        raise ValueError(
            "runs trained together may differ in numbers alone, and these differ in more: train "
            "them one after the other"
        )
    return eqx.combine(jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays), rest[0])


def _entry(tree: _Tree, i: int) -> _Tree:
    return jax.tree.map(lambda leaf: leaf[i] if eqx.is_array(leaf) else leaf, tree)


def _step(inputs: Inputs, state: State) -> tuple[State, Metrics]:
    rule, optimiser, batch, step, measure, key = inputs
    gradients, rule_state, info = rule.gradients(
        state.network, batch, state.rule, jax.random.fold_in(key, step), measure=measure
    )
    metrics = _metrics(rule, batch, info)
    first_loss = jnp.where(step == 0, metrics.loss, state.first_loss)
    params, static = eqx.partition(state.network, eqx.is_inexact_array)
    bounded = metrics.loss <= _EXPLOSION * jnp.maximum(first_loss, 1)
    sound = bounded & _finite((gradients, info.layers))
    failed = jnp.where(sound | (state.failed >= 0), state.failed, step)

    def update() -> tuple[Network, PyTree[Any], PyTree[Any]]:
        updates, moments = optimiser.update(cast(Any, gradients), state.optimiser, params)
        return jax.tree.map(jnp.add, params, updates), moments, rule_state

    # A branch, where a selection would read and write the weights and their moments once more.
    params, moments, rule_state = jax.lax.cond(
        sound & (state.failed < 0), update, lambda: (params, state.optimiser, state.rule)
    )
    return State(eqx.combine(params, static), moments, rule_state, first_loss, failed), metrics


def copy_arrays(tree: _Tree) -> _Tree:
    """Copy a tree: its arrays are new, all else is shared."""
    return jax.tree.map(lambda leaf: jnp.array(leaf) if eqx.is_array(leaf) else leaf, tree)


def begin(
    network: Network, rule: LearningRule, optimiser: optax.GradientTransformation, key: PRNGKeyArray
) -> State:
    """Give the state before the first step, on copies: steps consume their buffers."""
    own = copy_arrays(network)
    return State(
        network=own,
        optimiser=optimiser.init(eqx.filter(own, eqx.is_inexact_array)),
        rule=rule.init(own, key),
        first_loss=jnp.zeros(()),
        failed=jnp.full((), -1),
    )


def _finite(tree: PyTree[Any]) -> Bool[Array, ""]:
    leaves = jax.tree.leaves(tree)
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _metrics(rule: LearningRule, batch: Batch, info: Info) -> Metrics:
    _, y = batch
    energy, zero = jnp.sum(info.layers), jnp.zeros(())
    loss = jnp.mean(losses(rule.likelihood, y, info.output))
    accuracy = jnp.mean(hits(info.output, y))
    if (seen := info.inference) is None:
        nan = jnp.full((), jnp.nan)
        return Metrics(loss, accuracy, energy, energy, zero, nan, nan, zero, info.precision)
    return Metrics(
        loss,
        accuracy,
        energy_before=jnp.mean(seen.initial.energy),
        energy_after=energy,
        inference_steps=jnp.mean(seen.steps),
        residual=jnp.mean(seen.relative_residual),
        converged=jnp.where(
            jnp.isnan(seen.residual[0]),
            jnp.nan,
            jnp.mean(seen.result == InferenceResult.CONVERGED),
        ),
        diverged=jnp.mean(seen.result == InferenceResult.DIVERGED),
        precision=info.precision,
    )
