"""What training asks of a learning rule."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, PRNGKeyArray, PyTree

from mupc.arrays import AnyArray, Readable
from mupc.inference import Solution
from mupc.kinds import check_kind
from mupc.likelihoods import Likelihood
from mupc.networks import Feedforward, Network
from mupc.regularisers import Regulariser

Batch = tuple[Num[AnyArray, "batch ..."], Num[AnyArray, "batch ..."]]
"""Inputs and targets."""


class Info(NamedTuple):
    """What a reader wants to know of one gradient.

    Attributes:
        output: the prediction, (batch, ...), before learning.
        before: mean size of the energy of each layer, (H + 1,), from input to output, where
            inference began.
        layers: the same, less what inference took: the mean energy after inference, unless an
            energy is below zero, as that of outputs that are nudged away from their targets.
        precision: mean π of the energy that was used.
        phases: the outcome of each inference less its points, by name; none for rules without it.
        sweeps: what they cost each sample, in sweeps, (batch,); None where that is not known, as
            some solvers have no fixed price.
        unit: the precision of the output that the gradients are measured in; the likelihood's own
            unless given.
    """

    output: Float[Array, "batch ..."]
    before: Float[Array, " layers"]
    layers: Float[Array, " layers"]
    precision: Float[Array, ""]
    phases: Mapping[str, Solution]
    sweeps: Float[Array, " batch"] | None
    unit: Float[Array, ""] | None = None


def taken_from_size(
    before: Float[Array, "..."], after: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return the size of energies before inference, and that less what inference took from them."""
    size = jnp.abs(before)
    return size, size + (after - before)


def alternating(size: int, key: PRNGKeyArray) -> Float[Array, " batch"]:
    """Return 1 and −1 in turn, beginning with either at random: batches may be of odd size."""
    first = jax.random.rademacher(key, (), dtype=float)
    return first * (1.0 - 2.0 * (jnp.arange(size) % 2))


class LearningRule(Readable):
    """Turns a batch into weight gradients.

    `state` is what the next batch needs, `carry` what the next update on the same batch needs.
    """

    latent: ClassVar[bool] = False
    """Whether it can infer the input of a network that generates."""
    likelihood: eqx.AbstractVar[Likelihood]
    regularisers: eqx.AbstractVar[tuple[Regulariser, ...]]

    @property
    def updates(self) -> int:
        """How often the weights change on one batch."""
        return 1

    def init(self, network: Network, key: PRNGKeyArray) -> PyTree[Any]:
        """Return the state at the start of a run: None if batches are independent.

        Raises:
            ValueError: if the network's input is to be inferred, and the rule does not.
        """
        del key
        self.check_input(network)
        return None

    def check_input(self, network: Network) -> None:
        """Check that the input of a network is given, or that the rule infers it.

        Raises:
            ValueError: if not.
        """
        if network.generates and not self.latent:
            raise ValueError(
                f"the input of this network is to be inferred, which {type(self).__name__} does "
                "not do: use mupc.PredictiveCoding with a likelihood of a fixed precision"
            )

    def begin(
        self, network: Network, batch: Batch, state: PyTree[Any], key: PRNGKeyArray
    ) -> tuple[PyTree[Any], PyTree[Any]]:
        """Return what the first update on a batch needs, and the state for the next batch."""
        del network, batch, key
        return None, state

    @abstractmethod
    def gradients(
        self,
        network: Network,
        batch: Batch,
        carry: PyTree[Any],
        key: PRNGKeyArray,
        *,
        measure: bool | Bool[Array, ""] = True,
    ) -> tuple[Network, PyTree[Any], Info]:
        """Return weight gradients (of the batch mean, shaped like the network), carry and info.

        With `measure` the info tells residuals of inference too, which cost sweeps of their own.
        """

    def end(self, carry: PyTree[Any], state: PyTree[Any]) -> PyTree[Any]:
        """Return the state for the next batch, after the last update on this one."""
        del carry
        return state

    def untargeted(self, network: Network, x: Num[AnyArray, "batch ..."]) -> Feedforward:
        """Return what the network does with inputs where it has no target: its feedforward pass."""
        return network.feedforward(x)

    def predict(self, network: Network, x: Num[AnyArray, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return what the network predicts: its output where it has no target.

        Raises:
            ValueError: if its input is to be inferred.
        """
        self.check_input(network)
        return self.untargeted(network, x).output

    def exact(self, network: Network) -> "LearningRule | None":
        """Return the rule of the gradient that this one tends to; None for backpropagation."""
        del network
        return None

    def diagnostics(
        self, network: Network, batch: Batch, state: PyTree[Any], key: PRNGKeyArray
    ) -> Mapping[str, Float[Array, "..."]]:
        """Return what a report of one batch shows besides: numbers, or one for each layer."""
        del network, batch, state, key
        return {}

    def trace(
        self, network: Network, batch: Batch, state: PyTree[Any], key: PRNGKeyArray
    ) -> Solution | None:
        """Infer with a record of every step; None for a rule without inference."""
        del network, batch, state, key
        return None


def check_terms(likelihood: object, regularisers: Any) -> None:
    """Check the terms of a rule's energy.

    Raises:
        TypeError: if one is not what it should be.
    """
    check_kind("likelihood", likelihood, Likelihood, "a mupc.Likelihood, e.g. mupc.Gaussian()")
    example = "a list of regularisers, e.g. [mupc.WeightDecay(1e-3)]"
    check_kind("regularisers", regularisers, (list, tuple), example)
    for one in regularisers:
        check_kind("regularisers", one, Regulariser, example)


def first_gradients(
    rule: LearningRule,
    network: Network,
    batch: Batch,
    state: PyTree[Any],
    key: PRNGKeyArray,
    *,
    measure: bool | Bool[Array, ""] = True,
) -> tuple[Network, Info]:
    """Return the gradients of the first update on a batch; no state is kept."""
    begin_key, update_key = jax.random.split(key)
    carry, _ = rule.begin(network, batch, state, begin_key)
    gradients, _, info = rule.gradients(network, batch, carry, update_key, measure=measure)
    return gradients, info
