"""Backpropagation, the yardstick."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mupc.learning.rule import Batch, Info, LearningRule, check_terms
from mupc.likelihoods import Gaussian, Likelihood, losses
from mupc.networks import Network
from mupc.regularisers import Regulariser, activity_terms, weight_terms


class Backpropagation(LearningRule):
    r"""The gradient of $\ell(y, \hat y)$ through the feedforward pass: F with all errors zero.

    Args:
        likelihood: ℓ; `mupc.Gaussian()` unless given.
        regularisers: further terms, on the weights or on the feedforward activities.

    Raises:
        TypeError: if one is not what it should be.
    """

    likelihood: Likelihood = eqx.field(default_factory=Gaussian)
    regularisers: tuple[Regulariser, ...] = eqx.field(default=(), converter=tuple)

    def __check_init__(self) -> None:
        check_terms(self.likelihood, self.regularisers)

    def gradients(
        self,
        network: Network,
        batch: Batch,
        carry: None,
        key: PRNGKeyArray,
        *,
        measure: bool | Bool[Array, ""] = True,
    ) -> tuple[Network, None, Info]:
        """Differentiate the mean loss through all layers."""
        x, y = batch

        def total(network: Network) -> tuple[Float[Array, ""], Info]:
            activities, output = network.feedforward(x)
            readout = self.likelihood.precision * losses(self.likelihood, y, output)
            nothing = [jnp.zeros(z.shape[:2], z.dtype) for z in activities]
            terms = activity_terms(self.regularisers, activities) or nothing
            hidden = network.in_order(terms)
            layers = jnp.mean(jnp.concatenate([hidden, readout[None]]), axis=1)
            info = Info(output, layers, layers, self.likelihood.precision, {}, None)
            return jnp.sum(layers) + weight_terms(self.regularisers, network), info

        gradients, info = eqx.filter_grad(total, has_aux=True)(network)
        return gradients, carry, info
