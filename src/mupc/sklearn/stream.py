"""Training on data that come in parts, one pass through each."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from mupc.data import Weights, epoch_order
from mupc.hyperparameters import as_module
from mupc.learning import Batch
from mupc.runs.setup import Setup
from mupc.settings import Configuration
from mupc.training.step import State, copy_arrays, init, train_step


class Stream(NamedTuple):
    """Where training stands."""

    setup: Setup
    state: State
    steps: int


def first_state(setup: Setup) -> State:
    """Return the state before the first step."""
    member = setup.member
    return init(member.network, member.rule, member.optimiser, member.key)


def one_pass(
    stream: Stream,
    config: Configuration,
    x: Float32[np.ndarray, "n inputs"],
    y: Float32[np.ndarray, "n outputs"],
    weights: Weights | None,
) -> tuple[Stream, float]:
    """Return where training stands after a pass through some data, and the last batch's loss."""
    (member, _), state, made = stream
    state = copy_arrays(state)  # steps consume it: an interruption leaves what was there
    optimiser, measure, loss = as_module(member.optimiser), jnp.asarray(False), float("nan")
    for chosen in batches(config, made, len(x), weights):
        batch = as_batch(x[chosen], y[chosen])
        state, metrics = train_step((batch, member.rule, optimiser, measure), state)
        made, loss = made + 1, float(metrics.loss)
    return stream._replace(state=state, steps=made), loss


def batches(
    config: Configuration, made: int, samples: int, weights: Weights | None
) -> list[np.ndarray]:
    """Return the indices of each batch of a pass that begins after so many steps.

    The last one is filled up from the beginning: a batch of another size would compile anew.
    """
    training = config.training
    order = epoch_order(training.seed, made, samples, weights)
    whole = -(-samples // training.batch_size) * training.batch_size
    return np.split(np.resize(order, whole), whole // training.batch_size)


def as_batch(x: Float32[np.ndarray, "n inputs"], y: Float32[np.ndarray, "n outputs"]) -> Batch:
    """Return arrays as JAX's, of its default precision."""
    return jnp.asarray(x, float), jnp.asarray(y, float)
