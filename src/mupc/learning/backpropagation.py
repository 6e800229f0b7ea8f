"""Backpropagation, the yardstick."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from mupc.energies import activity_terms, weight_terms
from mupc.learning.rule import (
    Batch,
    Info,
    LearningRule,
    explain_feedforward,
    explain_gradients,
)
from mupc.likelihoods import Gaussian, Likelihood, losses
from mupc.networks import Network
from mupc.regularisers import Regulariser


class Backpropagation(LearningRule):
    r"""The gradient of $\ell(y, \hat y)$ through the feedforward pass: F with all errors zero.

    Args:
        likelihood: ℓ; `mupc.Gaussian()` unless given.
        regularisers: further terms, on the weights or on the feedforward activities.
    """

    likelihood: Likelihood = eqx.field(default_factory=Gaussian)
    regularisers: tuple[Regulariser, ...] = eqx.field(default=(), converter=tuple)

    def init(self, network: Network, key: PRNGKeyArray) -> None:
        """Give None: batches are independent."""

    def gradients(
        self,
        network: Network,
        batch: Batch,
        state: PyTree[Any],
        key: PRNGKeyArray,
        *,
        measure: bool | Bool[Array, ""] = True,
    ) -> tuple[Network, PyTree[Any], Info]:
        """Differentiate the mean loss through all layers."""
        x, y = batch

        def total(network: Network) -> tuple[Float[Array, ""], Info]:
            activities, output = network.feedforward(x)
            readout = self.likelihood.precision * losses(self.likelihood, y, output)
            terms = activity_terms(self.regularisers, activities)
            depth = sum(z.shape[0] for z in activities)
            hidden = jnp.zeros((depth, len(x))) if terms is None else terms
            layers = jnp.mean(jnp.concatenate([hidden, readout[None]]), axis=1)
            info = Info(output, layers, layers, self.likelihood.precision, None, None)
            return jnp.sum(layers) + weight_terms(self.regularisers, network), info

        gradients, info = eqx.filter_grad(total, has_aux=True)(network)
        return gradients, state, info

    def explain(self, network: Network, batch: Batch, state: PyTree[Any], key: PRNGKeyArray) -> str:
        """Look for the layer where feedforward activities or gradients go wrong."""
        gradients, _, _ = self.gradients(network, batch, state, key)
        return explain_feedforward(network, batch[0]) or explain_gradients(gradients)
