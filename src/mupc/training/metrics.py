"""Evaluation: accuracy and loss of the feedforward pass over all samples of a part."""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mupc.data import Split, evaluation_batches
from mupc.likelihoods import Gaussian, Likelihood, losses
from mupc.networks import Network


class Evaluation(NamedTuple):
    """Accuracy is a fraction (None if the targets are not classes), loss a mean over samples."""

    accuracy: float | None
    loss: float
    samples: int


def evaluate(
    network: Network,
    split: Split,
    *,
    likelihood: Likelihood | None = None,
    batch_size: int = 1000,
) -> Evaluation:
    """Evaluate a network on every sample of a part of the data, the last partial batch included.

    The prediction is the output of the feedforward pass: at test time there is no target to
    clamp, and without one the feedforward activities are the equilibrium (energy zero).

    Args:
        network: what to evaluate.
        split: x and y.
        likelihood: gives the loss (at unit precision); `mupc.Gaussian()` unless given.
        batch_size: how many samples at a time.

    Raises:
        TypeError: if it is no part.
    """
    given: Any = split
    if not isinstance(given, Split):
        raise TypeError(f"give a part such as data.test, not {type(given).__name__}")
    likelihood = likelihood or Gaussian()
    loss, correct = 0.0, 0
    for x, y in evaluation_batches(split, batch_size):
        batch_loss, batch_correct = _evaluate_batch(
            network, likelihood, jnp.asarray(x, float), jnp.asarray(y, float)
        )
        loss, correct = loss + float(batch_loss), correct + int(batch_correct)
    samples = len(split.x)
    accuracy = correct / samples if is_one_hot(split.y) else None
    return Evaluation(accuracy, loss / samples, samples)


@eqx.filter_jit
def _evaluate_batch(
    network: Network,
    likelihood: Likelihood,
    x: Float[Array, "batch ..."],
    y: Float[Array, "batch ..."],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    output = network.feedforward(x).output
    return jnp.sum(losses(likelihood, y, output)), jnp.sum(hits(output, y))


def hits(output: Float[Array, "batch ..."], y: Float[Array, "batch ..."]) -> Array:
    """Say of each sample whether the largest output is the target's largest entry."""
    return jnp.argmax(output, axis=-1) == jnp.argmax(y, axis=-1)


def is_one_hot(y: Float[np.ndarray, "n outputs"]) -> bool:
    """Say whether targets are classes: every row has a single 1, and zeros elsewhere."""
    return bool(np.all((y == 0) | (y == 1)) and np.all(np.sum(y, axis=-1) == 1))


def is_distribution(y: Float[np.ndarray, "n outputs"]) -> bool:
    """Say whether every row of targets is a distribution: none negative, and their sum 1."""
    return bool(np.all(y >= 0) and np.allclose(np.sum(y, axis=-1), 1, atol=1e-5))
