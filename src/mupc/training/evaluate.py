"""Evaluation: accuracy and loss of the predictions over all samples of a split."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from mupc.data import Split, check_split, evaluation_batches
from mupc.inference import FixedPoint
from mupc.learning import (
    Backpropagation,
    EquilibriumPropagation,
    LearningRule,
    PredictiveCoding,
    generated,
)
from mupc.likelihoods import Categorical, Likelihood, is_distribution, losses
from mupc.networks import Hopfield, Network, check_network
from mupc.records import Evaluation
from mupc.training.layout import samples_parted
from mupc.training.recall import class_energies
from mupc.training.results import FitResult


def evaluate(
    trained: Network | FitResult,
    split: Split,
    *,
    rule: LearningRule | None = None,
    likelihood: Likelihood | None = None,
    batch_size: int = 1000,
) -> Evaluation:
    """Evaluate a network on every sample of a split, the last partial batch included.

    The prediction is the rule's: the output of the feedforward pass, unless the rule has another
    one. At test time there is no target to clamp, and without one the feedforward activities are
    the equilibrium of a predictive coding energy (which is zero there).

    A network that generates predicts its data from the latent variables that it infers of them. One
    of classes (`mupc.class_decoder`) does so in the class that x gives, and has an accuracy, too: a
    sample is right if its energy is least in that class.

    Args:
        trained: what to evaluate: the result of `mupc.fit`, which knows its rule, or a network.
        split: x and y.
        rule: predicts; unless there is another, the feedforward pass, and of a Hopfield network the
            free phase of `mupc.EquilibriumPropagation`.
        likelihood: gives the loss, of one position at unit precision; the rule's own unless given.
        batch_size: how many samples at a time.

    Raises:
        TypeError: if it is no network, or no split.
        ValueError: if they do not go together.
    """
    check_split(split, "split")
    if isinstance(trained, FitResult):
        network, rule = trained.network, trained.rule if rule is None else rule
    else:
        network = trained
    check_network(network)
    rule = _usual(network) if rule is None else rule
    likelihood = likelihood or rule.likelihood
    loss, correct, squares, positions = 0.0, 0.0, 0.0, math.prod(split.y.shape[1:-1])
    for x, y in evaluation_batches(split, batch_size):
        sums = _evaluate_batch(network, rule, likelihood, as_input(x), jnp.asarray(y, float))
        loss, correct, squares = (
            total + float(part) for total, part in zip((loss, correct, squares), sums, strict=True)
        )
    samples, loss = len(split.x), loss / len(split.x) / positions
    targets = is_one_hot(split.y)
    numbers = network.classes > 0 or not (targets or is_distribution(split.y))
    return Evaluation(
        correct / samples if targets or network.classes else None,
        loss,
        samples,
        perplexity(loss, likelihood, split.y),
        squares / split.y.size if numbers else None,
    )


def _usual(network: Network) -> LearningRule:
    """Return a rule that predicts with a network of which nothing else is known."""
    if not isinstance(network, Hopfield):
        return Backpropagation()
    return EquilibriumPropagation(FixedPoint() if network.box else None)


@eqx.filter_jit
def _evaluate_batch(
    network: Network,
    rule: LearningRule,
    likelihood: Likelihood,
    x: Num[Array, "batch ..."],
    y: Float[Array, "batch ..."],
) -> tuple[Float[Array, ""], ...]:
    x, y = samples_parted((x, y))
    if network.classes and isinstance(rule, PredictiveCoding):
        output = generated(network, x, rule.reads.settled(network, x, y).point)
        right = hits(-class_energies(network, rule.reads, y)[0], x)
    else:
        output = rule.predict(network, x)
        right = hits(output, y)
    wrong = jnp.sum((y - jax.vmap(likelihood.mean)(output)) ** 2)
    return jnp.sum(losses(likelihood, y, output)), jnp.sum(right), wrong


def as_input(x: Num[np.ndarray, "..."]) -> Num[Array, "..."]:
    """Return inputs as JAX computes with them: whole numbers stay such, as they may be tokens."""
    return jnp.asarray(x) if x.dtype.kind in "iu" else jnp.asarray(x, float)


def hits(output: Float[Array, "batch ..."], y: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    """Return the fraction of a sample's positions whose largest output is the target's.

    An output without positions has one: it is right or wrong.
    """
    right = jnp.argmax(output, axis=-1) == jnp.argmax(y, axis=-1)
    return jnp.mean(right.reshape(len(right), -1).astype(output.dtype), axis=1)


def perplexity(loss: float, likelihood: Likelihood, y: Num[np.ndarray, "n ..."]) -> float | None:
    """Return exp(loss) where each of several positions predicts a class, as in text; else None."""
    if y.ndim < 3 or not isinstance(likelihood, Categorical):
        return None
    with np.errstate(over="ignore"):
        return float(np.exp(loss))


def is_one_hot(y: Num[np.ndarray, "n ..."]) -> bool:
    """Return whether targets are classes: every row has a single 1, and zeros elsewhere."""
    return bool(np.all((y == 0) | (y == 1)) and np.all(np.sum(y, axis=-1) == 1))
