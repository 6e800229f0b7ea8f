"""One training step: a single compiled program, whatever the depth and the hyperparameters."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from mupc.hyperparameters import as_module, update_with
from mupc.kinds import check_kind
from mupc.learning import Batch, LearningRule
from mupc.networks import Network, check_network
from mupc.training.layout import Layout, kept_placed, over_members
from mupc.training.metrics import Metrics, metrics_of, of_updates

_Tree = TypeVar("_Tree")

# A loss this many times the first batch's (or 1) is divergence, though it may still be finite.
_EXPLOSION = 1e4


class State(eqx.Module):
    """What one step hands to the next; several of one kind stack into an ensemble."""

    network: Network
    optimiser: PyTree[Any]
    rule: PyTree[Any]
    key: PRNGKeyArray
    steps: Int[Array, ""]
    """How many steps were made, refused ones included."""
    first_loss: Float[Array, ""]
    failed: Int[Array, ""]
    """The first step whose update was refused, because something was not finite; -1 if none."""


def init(
    network: Network,
    rule: LearningRule,
    optimiser: optax.GradientTransformation,
    key: PRNGKeyArray,
    *,
    layout: Layout | None = None,
) -> State:
    """Return the state before the first step.

    Its arrays are copies: a step may consume its state without harm to the network.

    Args:
        network: what to train.
        rule: gives the weight gradients.
        optimiser: makes updates of them.
        key: draws whatever the rule draws.
        layout: how it is parted over devices, in all of the steps; on one unless given. What is
            returned has been made on one device first.

    Raises:
        TypeError: if one is not what it should be.
        ValueError: if the layout does not divide the network.
    """
    check_arguments(network, rule, optimiser, key)
    rule_key, key = jax.random.split(key)
    own = copy_arrays(network)
    moments = optimiser.init(eqx.filter(own, eqx.is_inexact_array))
    state = State(
        network=own,
        optimiser=copy_arrays(moments),  # some optimisers keep the parameters themselves
        rule=rule.init(own, rule_key),
        key=key,
        steps=jnp.zeros((), int),
        first_loss=jnp.zeros(()),
        failed=jnp.full((), -1, int),
    )
    if layout is None:
        return state
    check_kind("layout", layout, Layout, "mupc.Layout(…)")
    layout.check(network)
    layout.check_members(1)
    return layout.placed(state)


def check_arguments(network: object, rule: object, optimiser: object, key: object) -> None:
    """Name what is not what it should be, before it fails somewhere else.

    Raises:
        TypeError: if something is.
    """
    check_network(network)
    check_kind("rule", rule, LearningRule, "a mupc.LearningRule, e.g. mupc.PredictiveCoding()")
    example = "an optax.GradientTransformation, e.g. optax.adam(0.02)"
    check_kind("optimiser", optimiser, optax.GradientTransformation, example)
    check_kind("key", key, jax.Array, "a random key, e.g. jax.random.key(0)")


def step(
    state: State,
    batch: Batch,
    rule: LearningRule,
    optimiser: optax.GradientTransformation,
    *,
    measure: bool | Bool[Array, ""] = True,
    layout: Layout | None = None,
) -> tuple[State, Metrics]:
    r"""Make one training step: inference, weight gradients, and an update of the weights.

    It is pure: the same state, batch, rule and optimiser give the same. A step whose loss, energy
    or gradients are out of bounds is refused: it leaves the network as it was, as do all steps
    after it, and `failed` is its number. Weights that an update makes infinite are found by the
    step after it. `equinox.filter_vmap` over stacked states (and batches, or rules) trains an
    ensemble.

    Args:
        state: from `mupc.init`, or from the step before.
        batch: inputs and targets, (batch, ...) each.
        rule: gives the weight gradients.
        optimiser: from optax; build it with `mupc.traced` to change numbers without recompiling.
        measure: whether to measure the residuals of inference, which costs sweeps.
        layout: that of the state; a step with one cannot be part of a compiled function.

    Raises:
        ValueError: if the layout does not divide the batch.
    """
    inputs = batch, rule, as_module(optimiser), jnp.asarray(measure)
    if layout is None:
        return _pure_step(inputs, state)
    check_kind("layout", layout, Layout, "mupc.Layout(…)")
    layout.check_batch(len(batch[0]))
    with layout.active():
        return _pure_step((layout.parted(batch), *inputs[1:]), state)


Inputs = tuple[Batch, LearningRule, optax.GradientTransformation, Bool[Array, ""]]
"""What a step is given besides the state."""


@eqx.filter_jit
def _pure_step(inputs: Inputs, state: State) -> tuple[State, Metrics]:
    return make_step(inputs, state)


@eqx.filter_jit(donate="all-except-first")
def train_step(inputs: Inputs, state: State) -> tuple[State, Metrics]:
    """Make one step, as `step` does, and reuse the memory of the state."""
    return make_step(inputs, state)


@eqx.filter_jit(donate="all-except-first")
def train_steps(inputs: tuple[Inputs, ...], states: State) -> tuple[State, Metrics]:
    """Make a step of an ensemble, as one program; residuals are measured of all or of none.

    Its members differ in nothing but arrays; their states are one, stacked.
    """
    own, fixed = eqx.partition(stack(inputs), eqx.is_array)
    arrays, rest = eqx.partition(states, eqx.is_array)
    # One for all: mapped, the condition on it would become a computation of both branches.
    measure = inputs[0][-1]

    def one(own: Any, arrays: Any) -> tuple[Any, Metrics]:
        given = eqx.combine(own, fixed)
        new, metrics = make_step((*given[:-1], measure), eqx.combine(arrays, rest))
        return eqx.filter(new, eqx.is_array), metrics

    new, metrics = over_members(one)(own, arrays)
    return eqx.combine(new, rest), metrics


def entry(tree: _Tree, i: int) -> _Tree:
    """Return member i of stacked trees."""
    return jax.tree.map(lambda leaf: leaf[i] if eqx.is_array(leaf) else leaf, tree)


def stack(trees: Sequence[_Tree]) -> _Tree:
    """Stack trees that differ in nothing but arrays.

    Raises:
        ValueError: if they differ in more.
    """
    arrays, rest = zip(*(eqx.partition(tree, eqx.is_array) for tree in trees), strict=True)
    if not all(eqx.tree_equal(rest[0], other) for other in rest[1:]):
        raise ValueError(
            "runs trained together may differ in numbers alone, and these differ in more: train "
            "them one after the other"
        )
    return eqx.combine(jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays), rest[0])


class _Learning(NamedTuple):
    """What the updates on one batch change."""

    params: PyTree[Any]
    moments: PyTree[Any]
    carry: PyTree[Any]
    first_loss: Float[Array, ""]
    failed: Bool[Array, ""]


def make_step(inputs: Inputs, state: State) -> tuple[State, Metrics]:
    """Make one step within a compiled program."""
    batch, rule, *_ = inputs
    begin_key, key = jax.random.split(jax.random.fold_in(state.key, state.steps))
    carry, rule_state = rule.begin(state.network, batch, state.rule, begin_key)
    params, static = eqx.partition(state.network, eqx.is_inexact_array)
    carry, fixed = eqx.partition(carry, eqx.is_array)
    update = functools.partial(_update, inputs, (static, fixed))
    first_loss = jnp.where(state.steps == 0, jnp.inf, state.first_loss)
    begin = _Learning(params, state.optimiser, carry, first_loss, state.failed >= 0)
    if rule.updates == 1:
        end, metrics = update(begin, key)
    else:
        end, every = jax.lax.scan(update, begin, jax.random.split(key, rule.updates))
        metrics = of_updates(every)
        # A step is made as a whole, or not at all.
        kept = (end.params, end.moments), (begin.params, begin.moments)
        params, moments = jax.tree.map(lambda a, b: jnp.where(end.failed, b, a), *kept)
        end = end._replace(params=params, moments=moments)
    rule_state = rule.end(eqx.combine(end.carry, fixed), rule_state)
    new = State(
        network=cast(Network, eqx.combine(end.params, static)),
        optimiser=end.moments,
        rule=jax.tree.map(lambda a, b: jnp.where(end.failed, b, a), rule_state, state.rule),
        key=state.key,
        steps=state.steps + 1,
        first_loss=end.first_loss,
        failed=jnp.where(end.failed & (state.failed < 0), state.steps, state.failed),
    )
    return kept_placed(new), metrics


def _update(
    inputs: Inputs, fixed: tuple[Any, Any], at: _Learning, key: PRNGKeyArray
) -> tuple[_Learning, Metrics]:
    """Make one update, unless it or one before it is out of bounds.

    What is no array of the network and of the rule's carry is `fixed`.
    """
    batch, rule, optimiser, measure = inputs
    network, carry = eqx.combine(at.params, fixed[0]), eqx.combine(at.carry, fixed[1])
    gradients, carry, info = rule.gradients(network, batch, carry, key, measure=measure)
    metrics = metrics_of(rule, batch, info, measure)
    first_loss = jnp.where(jnp.isinf(at.first_loss), metrics.loss, at.first_loss)
    bounded = metrics.loss <= _EXPLOSION * jnp.maximum(first_loss, 1)
    sound = ~at.failed & bounded & _finite((gradients, info.layers))
    params, moments = jax.lax.cond(
        sound,
        lambda: _updated(optimiser, gradients, at.moments, at.params, metrics.loss),
        lambda: (at.params, at.moments),
    )
    carry = eqx.filter(carry, eqx.is_array)
    return _Learning(params, moments, carry, first_loss, ~sound), metrics


def _updated(
    optimiser: optax.GradientTransformation,
    gradients: PyTree[Any],
    moments: PyTree[Any],
    params: PyTree[Any],
    loss: Float[Array, ""],
) -> tuple[PyTree[Any], PyTree[Any]]:
    updates, moments = update_with(optimiser, gradients, moments, params, loss)
    return jax.tree.map(lambda p, u: jnp.asarray(p + u, p.dtype), params, updates), moments


def copy_arrays(tree: _Tree) -> _Tree:
    """Copy a tree: its arrays are new, all else is shared."""
    return jax.tree.map(lambda leaf: jnp.array(leaf) if eqx.is_array(leaf) else leaf, tree)


def _finite(tree: PyTree[Any]) -> Bool[Array, ""]:
    leaves = jax.tree.leaves(tree)
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
