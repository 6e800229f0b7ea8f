r"""Energies: functions of the activities whose gradients are inference and learning.

One method, `layers`, says what the energy is; sums, activity gradients and weight gradients are
derived from it by automatic differentiation (in `FreeEnergy` layer by layer, where that is faster).
None is rescaled afterwards.
"""

from abc import abstractmethod
from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.arrays import as_positive, layer_square_norms
from mupc.networks import Activities, Network, with_gradient
from mupc.regularisers import Regulariser


class Likelihood(eqx.Module):
    r"""The output's part of the energy, $\ell(y, \hat y) = \pi \cdot \text{loss}(y, \hat y)$."""

    precision: eqx.AbstractVar[Float[Array, ""]]

    @abstractmethod
    def loss(self, y: Float[Array, "..."], output: Float[Array, "..."]) -> Float[Array, ""]:
        """Give the loss of one example at unit precision."""


class Gaussian(Likelihood):
    r"""$\ell = \tfrac{\pi}{2} \|y - \hat y\|^2$: a Gaussian of precision π about the output."""

    precision: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)

    def loss(self, y: Float[Array, "..."], output: Float[Array, "..."]) -> Float[Array, ""]:
        """Give half the squared distance."""
        return 0.5 * jnp.sum((output - y) ** 2)


class Categorical(Likelihood):
    r"""$\ell = -\pi\, y^\top \log \text{softmax}(\hat y)$, with $y$ a distribution over classes."""

    precision: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)

    def loss(self, y: Float[Array, "..."], output: Float[Array, "..."]) -> Float[Array, ""]:
        """Give the cross-entropy, from logits (so it cannot overflow)."""
        return -jnp.sum(y * jax.nn.log_softmax(output))


def losses(
    likelihood: Likelihood, y: Float[Array, "batch ..."], output: Float[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """Give each sample's loss at unit precision.

    Raises:
        ValueError: if y is not shaped like the output.
    """
    if y.shape != output.shape:
        raise ValueError(
            f"y has shape {y.shape} but the network's output has shape {output.shape}: "
            "they must be equal (targets of classes are one-hot rows)"
        )
    return jax.vmap(likelihood.loss)(y, output)


class Energy(eqx.Module):
    """An energy of the hidden activities, which are one array (layer, batch, ...) per stage.

    Samples do not interact: an energy is a sum of one term per sample and layer, plus terms on the
    weights alone.
    """

    network: eqx.AbstractVar[Network]

    @abstractmethod
    def layers(self, activities: Activities) -> Float[Array, "layers batch"]:
        """Give each layer's energy of each sample, (H + 1, batch), from input to output."""

    @abstractmethod
    def of_weights(self) -> Float[Array, ""]:
        """Give the terms on the weights alone, which count once whatever the batch."""

    def samples(self, activities: Activities) -> Float[Array, " batch"]:
        """Give each sample's energy, (batch,)."""
        return jnp.sum(self.layers(activities), axis=0)

    def __call__(self, activities: Activities) -> Float[Array, ""]:
        """Give the mean energy over the batch, plus the terms on the weights."""
        return jnp.mean(self.samples(activities)) + self.of_weights()

    def samples_and_gradient(
        self, activities: Activities
    ) -> tuple[Float[Array, " batch"], Activities]:
        """Give each sample's energy, and the activity gradient of their sum, in one pass.

        Of the *sum*: so one sample's gradient does not depend on the batch that it is in.
        """

        def total(activities: Activities) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
            samples = self.samples(activities)
            return jnp.sum(samples), samples

        gradient, samples = jax.grad(total, has_aux=True)(activities)
        return samples, gradient

    def activity_gradient(self, activities: Activities) -> Activities:
        """Give the gradient of the batch sum, shaped like the activities."""
        return self.samples_and_gradient(activities)[1]

    def weight_gradient(self, activities: Activities) -> Network:
        """Give the gradient of the batch mean at fixed activities, shaped like the network.

        It is local: a layer's part depends on that layer's error and on the activity below it.
        """

        def mean(network: Network) -> Float[Array, ""]:
            return eqx.tree_at(lambda energy: energy.network, self, network)(activities)

        return eqx.filter_grad(mean)(self.network)


class FreeEnergy(Energy):
    r"""The predictive coding energy of a clamped input and target (arXiv 2505.13124, Eq. 2).

    $$F(z) = \sum_{l=1}^{H} \tfrac12 \|z_l - u_l(z_{l-1})\|^2 + \ell(y, \hat y), \quad z_0 = x$$

    per sample, plus regularisers.

    Args:
        network: gives the predictions u and the output ŷ.
        x: the input, (batch, ...).
        y: the target, (batch, ...), shaped like the output.
        likelihood: ℓ.
        regularisers: further terms, on weights or on activities.
    """

    network: Network
    x: Float[Array, "batch ..."]
    y: Float[Array, "batch ..."]
    likelihood: Likelihood
    regularisers: tuple[Regulariser, ...] = eqx.field(default=(), converter=tuple)

    def layers(self, activities: Activities) -> Float[Array, "layers batch"]:
        """Give each layer's energy of each sample, (H + 1, batch), from input to output."""
        predictions, output = self.network.predictions(self.x, activities)
        stages = zip(predictions, activities, strict=True)
        hidden = jnp.concatenate([jax.vmap(self._hidden)(u, z) for u, z in stages])
        hidden = hidden + activity_terms(self.regularisers, activities)
        return jnp.concatenate([hidden, self._output(output)[None]])

    def samples_and_gradient(
        self, activities: Activities
    ) -> tuple[Float[Array, " batch"], Activities]:
        """Give each sample's energy, and the activity gradient of their sum, in one pass.

        It is made of the same terms as `layers`: a subclass that changes one changes both.
        """

        def decay(*activities: Float[Array, "layer batch ..."]) -> Array:
            terms = activity_terms(self.regularisers, activities)
            return jnp.zeros(len(self.x)) + jnp.sum(jnp.atleast_2d(terms), axis=0)

        seen = self.network.local_gradient(self._hidden, self._output, self.x, activities)
        if seen is None:
            return super().samples_and_gradient(activities)
        samples, gradient = seen
        more, decaying = with_gradient(decay, *activities)
        return samples + more, jax.tree.map(jnp.add, gradient, decaying)

    def _hidden(
        self, u: Float[Array, "batch ..."], z: Float[Array, "batch ..."]
    ) -> Float[Array, " batch"]:
        """Give one layer's term of each sample."""
        return 0.5 * layer_square_norms((u - z)[None])[0]

    def _output(self, output: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Give the likelihood's term of each sample."""
        return self.likelihood.precision * losses(self.likelihood, self.y, output)

    def of_weights(self) -> Float[Array, ""]:
        """Give the sum of the regularisers' terms on the weights."""
        return weight_terms(self.regularisers, self.network)


def activity_terms(
    regularisers: Iterable[Regulariser], activities: Activities
) -> Float[Array, "layer batch"] | float:
    """Sum the regularisers' terms on each layer's activity of each sample."""
    terms = (regulariser.of_activities(activities) for regulariser in regularisers)
    return sum((term for term in terms if term is not None), 0.0)


def weight_terms(regularisers: Iterable[Regulariser], network: Network) -> Float[Array, ""]:
    """Sum the regularisers' terms on the weights."""
    return sum((regulariser.of_network(network) for regulariser in regularisers), jnp.zeros(()))
