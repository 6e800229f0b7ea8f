"""What training asks of a learning rule."""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from mupc.arrays import layer_square_norms
from mupc.inference import Solution
from mupc.likelihoods import Likelihood
from mupc.networks import Network
from mupc.regularisers import Regulariser

# Under mupc activities are of order one at any size, and of order ten late in training.
_LARGEST_SCALE = 1e4

Batch = tuple[Float[Array, "batch ..."], Float[Array, "batch ..."]]
"""Inputs and targets."""


class Info(NamedTuple):
    """What a reader wants to know of one gradient.

    Attributes:
        output: the feedforward output, (batch, ...), before learning.
        before: mean energy of each layer, (H + 1,), from input to output, where inference began.
        layers: the same after inference.
        precision: π of the energy that was used.
        inference: the outcome of inference less activities and errors; None for rules without it.
        sweeps: what inference cost each sample, in sweeps, (batch,): nan where that is not known,
            as some solvers have no fixed price.
    """

    output: Float[Array, "batch ..."]
    before: Float[Array, " layers"]
    layers: Float[Array, " layers"]
    precision: Float[Array, ""]
    inference: Solution | None
    sweeps: Float[Array, " batch"] | None


class LearningRule(eqx.Module):
    """Turns a batch into weight gradients. `state` is what the next batch needs."""

    likelihood: eqx.AbstractVar[Likelihood]
    regularisers: eqx.AbstractVar[tuple[Regulariser, ...]]

    @abstractmethod
    def init(self, network: Network, key: PRNGKeyArray) -> PyTree[Any]:
        """Give the state at the start of a run."""

    @abstractmethod
    def gradients(
        self,
        network: Network,
        batch: Batch,
        state: PyTree[Any],
        key: PRNGKeyArray,
        *,
        measure: bool | Bool[Array, ""] = True,
    ) -> tuple[Network, PyTree[Any], Info]:
        """Give weight gradients (of the batch mean, shaped like the network), state and info.

        With `measure` the info tells residuals of inference too, which cost sweeps of their own.
        """

    def trace(
        self, network: Network, batch: Batch, state: PyTree[Any], key: PRNGKeyArray
    ) -> Solution | None:
        """Infer with a record of every step; None for a rule without inference."""
        return None

    @abstractmethod
    def explain(self, network: Network, batch: Batch, state: PyTree[Any], key: PRNGKeyArray) -> str:
        """Say in words where the gradient of a batch goes wrong: the move, and the layer."""


def explain_feedforward(network: Network, x: Float[Array, "batch ..."]) -> str | None:
    """Say from which layer on feedforward activities overflow or grow out of bounds, if they do."""
    activities, output = network.feedforward(x)
    squares = [jnp.mean(layer_square_norms(z) / z[0, 0].size, axis=1) for z in activities]
    scales = np.sqrt(np.concatenate([*squares, [jnp.mean(output**2)]]))
    if (layer := first_beyond(scales, _LARGEST_SCALE)) is None:
        return None
    return (
        f"in the feedforward pass, whose root mean square activity is {scales[layer - 1]:.3g} at "
        f"layer {layer} of {len(scales)}"
    )


def explain_gradients(gradients: Network) -> str:
    """Say which weights have the largest gradients."""
    leaves = [pair for pair in jax.tree_util.tree_leaves_with_path(gradients) if pair[1].size]
    sizes = [float(jnp.max(jnp.abs(leaf))) for _, leaf in leaves]
    largest = int(np.argmax(np.nan_to_num(sizes, nan=np.inf, posinf=np.inf)))
    name = jax.tree_util.keystr(leaves[largest][0])
    return f"in the weights: network{name} has gradients of up to {sizes[largest]:.3g}"


def first_beyond(values: np.ndarray, limit: float) -> int | None:
    """Give the number (from 1) of the first value that is not finite or lies above the limit."""
    beyond = np.flatnonzero(~(values <= limit))
    return int(beyond[0]) + 1 if beyond.size else None
