"""What a generating network makes of data: of all of them, or of the part that is known."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray
from numpy.typing import ArrayLike

from mupc.arrays import as_mask
from mupc.inference import drawn_like
from mupc.kinds import check_sizes
from mupc.learning import LearningRule, PredictiveCoding, as_free, generated
from mupc.networks import Network, check_network
from mupc.training.results import FitResult


class Recall(NamedTuple):
    """What was inferred of data, all as NumPy arrays.

    Attributes:
        completed: the data where they are known; elsewhere what the network predicts of them from
            all that was inferred.
        predicted: what all inferred activities predict of the data.
        generated: what the inferred latent variables generate by themselves, without the errors of
            other layers.
        latents: the inferred latent variables; of a network of classes with the class before them,
            and those of all classes.
        relative_residual: of the inference of each sample.
        sweeps: what that cost each sample; None where it is not known.
        classes: the class of each sample, of a network of classes, by number: that in which its
            energy is least; else None.
    """

    completed: Float[np.ndarray, "n ..."]
    predicted: Float[np.ndarray, "n ..."]
    generated: Float[np.ndarray, "n ..."]
    latents: Float[np.ndarray, "n ..."]
    relative_residual: Float[np.ndarray, " n"]
    sweeps: Float[np.ndarray, " n"] | None
    classes: Int[np.ndarray, " n"] | None = None


def recall(
    trained: Network | FitResult,
    x: ArrayLike,
    observed: ArrayLike | None = None,
    *,
    rule: LearningRule | None = None,
    batch_size: int = 1000,
) -> Recall:
    r"""Infer what explains the known part of data, and read from it the data, all of them.

    $$z^* = \arg\min_z \tfrac12 \|z_0\|^2 + \sum_l \tfrac{\pi_l}{2} \|z_l - u_l(z_{l-1})\|^2
      + \pi \sum_{i \text{ known}} t_i(y_i, \hat y_i(z_H))$$

    What is not known of y follows its prediction, and takes no part. So an associative memory is
    read (arXiv 2109.08063), an image completed, noise removed: what is known is an array like the
    data, and other parts of them need no other program.

    Of a network of classes (`mupc.class_decoder`) that is done in each class, and that whose energy
    is least is taken: so data are classified by what generates them.

    Args:
        trained: a network that generates, such as of `mupc.decoder`, or the result of `mupc.fit`.
        x: data, (n, ...).
        observed: 1 where they are known and 0 elsewhere; of one sample, or of each. All unless
            given. Values of x elsewhere do not matter. It is for likelihoods of single numbers:
            all but `mupc.Categorical`.
        rule: infers, by its solver and its precisions; that of the result unless given.
        batch_size: how many samples at a time.

    Raises:
        TypeError: if it is no network, or the rule is not one that infers an input.
        ValueError: if the network does not generate, or arrays do not go together.
    """
    network, rule = _parted(trained, rule)
    data = np.asarray(x)
    check_sizes(batch_size=batch_size)
    known = np.ones(data.shape) if observed is None else np.asarray(as_mask(np.asarray(observed)))
    if known.shape not in (data.shape, data.shape[1:]):
        raise ValueError(
            f"observed must have the shape of the data, {data.shape}, or of one of them, "
            f"{data.shape[1:]}, not {known.shape}"
        )
    if not len(data):
        raise ValueError("there is nothing to recall: x holds no samples")
    known = np.broadcast_to(known, data.shape)
    batches = (slice(i, i + batch_size) for i in range(0, len(data), batch_size))
    whole = observed is None
    parts = [
        _recall(network, rule, jnp.asarray(data[s]), None if whole else jnp.asarray(known[s]))
        for s in batches
    ]
    return Recall(*jax.tree.map(lambda *each: np.concatenate(each), *parts))


def class_energies(
    network: Network,
    rule: PredictiveCoding,
    y: Num[Array, "batch ..."],
    observed: Float[Array, "batch ..."] | None = None,
) -> tuple[Float[Array, "batch classes"], Float[Array, " batch"] | None]:
    """Return the energy of data in every class, its latent variables inferred, and what that cost.

    Args:
        network: one of classes.
        rule: infers.
        y: data.
        observed: 1 where they are known; all unless given.
    """

    def of(number: Int[Array, ""]) -> tuple[Float[Array, " batch"], Float[Array, " batch"] | None]:
        label = jax.nn.one_hot(number, network.classes)
        solution = rule.settled(network, jnp.tile(label, (len(y), 1)), y, observed)
        return solution.energy, rule.solver.cost(solution.steps)

    energies, costs = jax.lax.map(of, jnp.arange(network.classes))
    energies = jnp.where(jnp.isfinite(energies), energies, jnp.inf)  # where inference diverged
    return energies.T, None if costs is None else jnp.sum(costs, axis=0)


def sample(
    trained: Network | FitResult,
    count: int,
    *,
    classes: ArrayLike | None = None,
    rule: LearningRule | None = None,
    key: PRNGKeyArray,
) -> Float[np.ndarray, "count ..."]:
    r"""Draw data from a network that generates: latent variables from their prior, and on.

    $$z_0 \sim N(0, I), \quad z_l \sim N(u_l(z_{l-1}), \pi_l^{-1} I)$$

    and of y its mean, so that it carries no noise of its own.

    Args:
        trained: a network that generates, or the result of `mupc.fit`.
        count: how many are drawn.
        classes: the number of each one's class, of a network of classes; one after the other, from
            the first, unless given.
        rule: its `hidden_precision` is that of hidden layers; that of the result unless given.
        key: draws them, each of a key of its own.

    Raises:
        TypeError: if it is no network, or the rule is not one that infers an input.
        ValueError: if the network does not generate, or classes are not those of the network.
    """
    network, rule = _parted(trained, rule)
    check_sizes(count=count)
    if not network.classes:
        if classes is not None:
            raise ValueError("this network has no classes, of which data could be drawn")
        # Its batch has the number of samples, and nothing else of it is read.
        return np.asarray(_sample(network, rule, jnp.zeros((count, 1)), key))
    numbers = np.arange(count) % network.classes if classes is None else np.asarray(classes)
    if numbers.shape != (count,) or not np.isin(numbers, np.arange(network.classes)).all():
        raise ValueError(
            f"classes must be {count} whole numbers from 0 to {network.classes - 1}, one for each "
            "sample"
        )
    labels = jax.nn.one_hot(numbers.astype(int), network.classes)
    return np.asarray(_sample(network, rule, labels, key))


@eqx.filter_jit
def _sample(
    network: Network, rule: PredictiveCoding, x: Float[Array, "batch _"], key: PRNGKeyArray
) -> Float[Array, "batch ..."]:
    activities, output = network.feedforward(x)
    errors = drawn_like(activities, jnp.ones(()), key)
    energy = as_free(rule.minimised(network, (x, output)))
    point = energy.run(energy.whiten(errors))
    return jax.vmap(rule.likelihood.mean)(energy.output(point))


def _parted(
    trained: Network | FitResult, rule: LearningRule | None
) -> tuple[Network, PredictiveCoding]:
    if isinstance(trained, FitResult):
        network, rule = trained.network, trained.rule if rule is None else rule
    else:
        network = trained
    check_network(network)
    if not network.generates or (network.about_input and not network.classes):
        raise ValueError(
            "this network's input is given: it is networks that generate, such as of "
            "mupc.decoder(…) or mupc.with_prior(…), that recall and draw data"
        )
    if not isinstance(rule, PredictiveCoding):
        raise TypeError(
            "rule must be a mupc.PredictiveCoding, which infers latent variables, not "
            f"{type(rule).__name__}"
        )
    return network, rule.reads


@eqx.filter_jit
def _recall(
    network: Network,
    rule: PredictiveCoding,
    x: Num[Array, "batch ..."],
    observed: Float[Array, "batch ..."] | None,
) -> tuple[Array | None, ...]:  # in the order of `Recall`
    x = x.astype(float)
    labels, class_sweeps, classes = x, None, None  # without classes the input is not read
    if network.classes:
        energies, class_sweeps = class_energies(network, rule, x, observed)
        classes = jnp.argmin(energies, axis=1)
        labels = jax.nn.one_hot(classes, network.classes)
    solution = rule.settled(network, labels, x, observed)
    mean = jax.vmap(rule.likelihood.mean)
    output = mean(network.predictions(labels, solution.point.activities)[1])
    sweeps = rule.solver.cost(solution.steps)
    if sweeps is not None and class_sweeps is not None:
        sweeps = sweeps + class_sweeps
    return (
        x if observed is None else jnp.where(observed > 0, x, output),
        output,
        mean(generated(network, labels, solution.point)),
        solution.point.activities[0][0],
        solution.relative_residual,
        sweeps,
        classes,
    )
