r"""Energies: functions of the activities whose gradients are inference and learning.

One method, `layers`, says what the energy is; sums, activity gradients and weight gradients are
derived from it by automatic differentiation (in `FreeEnergy` layer by layer, where that is faster).
None is rescaled afterwards; weight gradients may be asked for in another unit of the energy.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from mupc.arrays import layer_square_norms
from mupc.likelihoods import Likelihood, losses
from mupc.networks import Activities, Network, with_gradient
from mupc.regularisers import Regulariser


class Energy(eqx.Module):
    """An energy of the hidden activities, which are one array (layer, batch, ...) per stage.

    Samples do not interact: an energy is a sum of one term per sample and layer, plus terms on the
    weights alone.
    """

    network: eqx.AbstractVar[Network]

    @abstractmethod
    def layers(
        self, activities: Activities, errors: Activities | None = None
    ) -> Float[Array, "layers batch"]:
        """Give each layer's energy of each sample, (H + 1, batch), from input to output.

        The hidden errors z − u, where they are known already, save one sweep.
        """

    @abstractmethod
    def of_sample(self, i: Int[Array, ""]) -> "Energy":
        """Give the energy of sample i alone, as a batch of one."""

    @abstractmethod
    def of_weights(self) -> Float[Array, ""]:
        """Give the terms on the weights alone, which count once whatever the batch."""

    def samples(
        self, activities: Activities, errors: Activities | None = None
    ) -> Float[Array, " batch"]:
        """Give each sample's energy, (batch,)."""
        return jnp.sum(self.layers(activities, errors), axis=0)

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

    def activity_gradient(
        self, activities: Activities, errors: Activities | None = None
    ) -> Activities:
        """Give the gradient of the batch sum, shaped like the activities.

        Errors that are known already save half of it, and the round-off of z − u.
        """
        del errors
        return self.samples_and_gradient(activities)[1]

    def weight_gradient(
        self, activities: Activities, errors: Activities | None = None, *, unit: ArrayLike = 1.0
    ) -> Network:
        """Give the gradient of the batch mean at fixed activities, shaped like the network.

        It is local: a layer's part depends on that layer's error and on the activity below it.
        Errors that are known already save one sweep. `unit` is what the energy is measured in: the
        samples' part is divided by it, terms on the weights are not.
        """
        del errors

        def mean(network: Network) -> Float[Array, ""]:
            energy = eqx.tree_at(lambda energy: energy.network, self, network)
            return jnp.mean(energy.samples(activities)) / unit + energy.of_weights()

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

    def errors(self, activities: Activities) -> Activities:
        """Give the hidden errors, z − u."""
        predictions, _ = self.network.predictions(self.x, activities)
        return jax.tree.map(jnp.subtract, activities, predictions)

    def layers(
        self, activities: Activities, errors: Activities | None = None
    ) -> Float[Array, "layers batch"]:
        """Give each layer's energy of each sample, (H + 1, batch), from input to output."""
        # Of predictions that nobody uses, the compiler leaves nothing.
        predictions, output = self.network.predictions(self.x, activities)
        made: Activities = jax.tree.map(jnp.subtract, activities, predictions)
        hidden = jnp.concatenate([jax.vmap(self._hidden)(e) for e in errors or made])
        if (terms := activity_terms(self.regularisers, activities)) is not None:
            hidden = hidden + terms
        return jnp.concatenate([hidden, self.of_output(output)[None]])

    def weight_gradient(
        self, activities: Activities, errors: Activities | None = None, *, unit: ArrayLike = 1.0
    ) -> Network:
        r"""Give the gradient of the batch mean at fixed activities, shaped like the network.

        With known errors, of $-\sum_l e_l^\top u_l + \ell(y, \hat y)$ at fixed e: it is the same.
        """
        if errors is None:
            return super().weight_gradient(activities, unit=unit)

        def mean(network: Network) -> Float[Array, ""]:
            total = self._at_fixed_errors(network, activities, errors)
            return total / len(self.x) / unit + weight_terms(self.regularisers, network)

        return eqx.filter_grad(mean)(self.network)

    def activity_gradient(
        self, activities: Activities, errors: Activities | None = None
    ) -> Activities:
        r"""Give the gradient of the batch sum, shaped like the activities.

        With known errors, e plus that of $-\sum_l e_l^\top u_l + \ell(y, \hat y)$ at fixed e.
        """
        if errors is None:
            return super().activity_gradient(activities)
        by_predictions = jax.grad(lambda z: self._at_fixed_errors(self.network, z, errors))
        gradient = jax.tree.map(jnp.add, errors, by_predictions(activities))
        if self.hidden_is_errors:
            return gradient
        return jax.tree.map(jnp.add, gradient, self._decay(activities)[1])

    def _at_fixed_errors(
        self, network: Network, activities: Activities, errors: Activities
    ) -> Float[Array, ""]:
        """Give −Σ eᵀu + ℓ, summed over the batch: as e = ∂(½‖e‖²)/∂e, F's slope by all in u."""
        predictions, output = network.predictions(self.x, activities)
        products = (jnp.sum(e * u) for e, u in zip(errors, predictions, strict=True))
        return jnp.sum(self.of_output(output)) - sum(products, jnp.zeros(()))

    def samples_and_gradient(
        self, activities: Activities
    ) -> tuple[Float[Array, " batch"], Activities]:
        """Give each sample's energy, and the activity gradient of their sum, in one pass.

        It is made of the same terms as `layers`: a subclass that changes one changes both.
        """
        term = lambda u, z: self._hidden(z - u)  # noqa: E731
        seen = self.network.local_gradient(term, self.of_output, self.x, activities)
        if seen is None:
            return super().samples_and_gradient(activities)
        if self.hidden_is_errors:
            return seen
        samples, gradient = seen
        more, decaying = self._decay(activities)
        return samples + more, jax.tree.map(jnp.add, gradient, decaying)

    def error_gradient(self, activities: Activities, errors: Activities) -> Activities:
        r"""Give the gradient of the batch sum by the errors, at activities that have these errors.

        $$\frac{\partial F}{\partial e} = e + J^\top \frac{\partial \ell}{\partial \hat y},
          \quad J = \frac{\partial \hat y}{\partial e}$$

        (arXiv 2505.20137), plus what activity regularisers add. It costs one sweep.
        """
        _, output = self.network.predictions(self.x, activities)
        _, (by_output,) = with_gradient(self.of_output, output)
        decaying = None if self.hidden_is_errors else self._decay(activities)[1]
        adjoints = self.network.pullback(self.x, activities, by_output, decaying)
        return jax.tree.map(jnp.add, errors, adjoints)

    @property
    def hidden_is_errors(self) -> bool:
        """Whether the hidden energy is ½‖e‖² alone: no regulariser sees the activities."""
        run = lambda x: activity_terms(self.regularisers, self.network.feedforward(x).activities)  # noqa: E731
        return jax.eval_shape(run, self.x) is None

    def gauss_newton(self, activities: Activities) -> "GaussNewtonMaps":
        """Give the factors of the Gauss–Newton Hessian in errors at some activities."""
        _, output = self.network.predictions(self.x, activities)
        strength = jnp.sqrt(self.likelihood.precision)
        root = lambda v: strength * jax.vmap(self.likelihood.root)(output, v)  # noqa: E731
        transposed = jax.linear_transpose(root, output)
        return GaussNewtonMaps(
            up=lambda d: transposed(self.network.pushforward(self.x, activities, d))[0],
            down=lambda v: self.network.pullback(self.x, activities, root(v)),
        )

    def of_sample(self, i: Int[Array, ""]) -> "FreeEnergy":
        """Give the energy of sample i alone, as a batch of one."""
        one = jax.tree.map(lambda v: v[i][None], (jnp.asarray(self.x), jnp.asarray(self.y)))
        return eqx.tree_at(lambda energy: (energy.x, energy.y), self, one)

    def _decay(self, activities: Activities) -> tuple[Float[Array, " batch"], Activities]:
        """Give the regularisers' terms on the activities of each sample, and their gradient."""

        def decay(*activities: Float[Array, "layer batch ..."]) -> Array:
            terms = activity_terms(self.regularisers, activities)
            return jnp.zeros(len(self.x)) if terms is None else jnp.sum(terms, axis=0)

        return with_gradient(decay, *activities)

    def _hidden(self, e: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Give one layer's term of each sample."""
        return 0.5 * layer_square_norms(e[None])[0]

    def of_output(self, output: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Give ℓ of each sample, at the energy's precision."""
        return self.likelihood.precision * losses(self.likelihood, self.y, output)

    def of_weights(self) -> Float[Array, ""]:
        """Give the sum of the regularisers' terms on the weights."""
        return weight_terms(self.regularisers, self.network)


class GaussNewtonMaps(NamedTuple):
    r"""The two factors of $I + J^\top B B^\top J$, with $B B^\top$ the Hessian of ℓ by the output.

    `up` applies $B^\top J$ to errors, `down` applies $J^\top B$ to outputs; one sweep each.
    """

    up: Callable[[Activities], Float[Array, "batch ..."]]
    down: Callable[[Float[Array, "batch ..."]], Activities]


class ErrorView(Energy):
    r"""An energy as a function of the hidden errors (arXiv 2505.20137).

    $$E(e) = F(z(e)) = \sum_l \tfrac12 \|e_l\|^2 + \ell(y, g(e)), \quad z_l = u_l(z_{l-1}) + e_l$$

    It has the minima of F, but the hidden part of its Hessian is the identity, where F's is a
    chain whose condition number grows with the square of the depth. Gradients cost two sweeps.
    """

    energy: FreeEnergy

    def __init__(self, energy: FreeEnergy) -> None:
        self.energy = energy

    @property
    def network(self) -> Network:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The energy's network."""
        return self.energy.network

    def activities(self, errors: Activities) -> Activities:
        """Run the network forwards with errors."""
        return self.network.feedforward(self.energy.x, errors).activities

    def layers(
        self, activities: Activities, errors: Activities | None = None
    ) -> Float[Array, "layers batch"]:
        """Give each layer's energy at hidden errors, the coordinates of this energy."""
        del errors
        return self.energy.layers(self.activities(activities), activities)

    def samples_and_gradient(
        self, activities: Activities
    ) -> tuple[Float[Array, " batch"], Activities]:
        """Give each sample's energy, and the gradient of their sum, at hidden errors."""
        z = self.activities(activities)
        return self.energy.samples(z, activities), self.energy.error_gradient(z, activities)

    def of_sample(self, i: Int[Array, ""]) -> "ErrorView":
        """Give the energy of sample i alone, as a batch of one."""
        return ErrorView(self.energy.of_sample(i))

    def of_weights(self) -> Float[Array, ""]:
        """Give the sum of the regularisers' terms on the weights."""
        return self.energy.of_weights()


def activity_terms(
    regularisers: Iterable[Regulariser], activities: Activities
) -> Float[Array, "layer batch"] | None:
    """Sum the regularisers' terms on each layer's activity of each sample; None if none has one."""
    all_terms = (regulariser.of_activities(activities) for regulariser in regularisers)
    terms = [term for term in all_terms if term is not None]
    return jnp.sum(jnp.stack(terms), axis=0) if terms else None


def weight_terms(regularisers: Iterable[Regulariser], network: Network) -> Float[Array, ""]:
    """Sum the regularisers' terms on the weights."""
    return sum((regulariser.of_network(network) for regulariser in regularisers), jnp.zeros(()))
