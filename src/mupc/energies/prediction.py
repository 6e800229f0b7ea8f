"""The energy of predictive coding, made of predictions: a function of errors and of activities."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mupc.arrays import (
    AnyArray,
    as_mask,
    as_nonzero_array,
    as_positive_array,
    layer_square_norms,
    over_rows,
    over_samples,
)
from mupc.energies.energy import GaussNewtonMaps, NudgedEnergy, Point, check_overrides
from mupc.kinds import check_kind
from mupc.likelihoods import Likelihood, known_part, losses
from mupc.networks import Activities, Known, Network, on_every, with_gradient
from mupc.regularisers import Regulariser, activity_terms, weight_terms


class _Own(NamedTuple):
    """What a layer's term depends on besides its errors: π and λ."""

    precision: Array | None
    multiplier: Array | None


class FreeEnergy(NudgedEnergy):
    r"""The predictive coding energy of a clamped input and target (arXiv 2505.13124, Eq. 2).

    $$F(z) = \sum_{l=1}^{H} \tfrac{\pi_l}{2} \|z_l - u_l(z_{l-1})\|^2 + f\,\ell(y, \hat y),
      \quad z_0 = x$$

    per sample, plus regularisers. A subclass may override its terms `hidden` and `of_weights` (that
    of the output is a likelihood's): everything else is derived from them, so that one of them is
    one energy everywhere. It may not override what is derived.

    Args:
        network: gives the predictions u and the output ŷ.
        x: the input, (batch, ...).
        y: the target, (batch, ...), shaped like the output.
        likelihood: ℓ.
        regularisers: further terms, on weights or on activities.
        precisions: $\pi_l$ of every hidden layer, from input to output, or one for all but a free
            input, whose prior keeps 1; 1 unless given.
        factors: f of every sample, by which its output has a precision of its own; 1 unless given.
            Below zero the sample is nudged away from its target, and its terms of regularisers on
            activities have the other sign, too; a weight gradient then has f as its unit, or the
            readout would unlearn.
        multipliers: $\lambda$, shaped like the activities: a layer's term has
            $\lambda_l^\top e_l$ besides (arXiv 2605.31022); none unless given.
        observed: 1 where y is known and 0 elsewhere, shaped like the likelihood's terms (for a
            Gaussian, like y): what is not known of y follows its prediction, and costs nothing. All
            is known unless given.
        given: 1 where the input is known, and 0 where it is inferred, (batch, ...), shaped like the
            input of a network that `mupc.with_prior(…, about_input=True)` made: what is known stays
            as x has it, and elsewhere x is the mean of the prior. Unless given, it is what the
            network knows of it (`mupc.class_decoder`), or nothing.
    """

    network: Network
    x: Num[Array, "batch ..."] = eqx.field(converter=jnp.asarray)
    y: Float[Array, "batch ..."] = eqx.field(converter=lambda y: jnp.asarray(y, float))
    likelihood: Likelihood
    regularisers: tuple[Regulariser, ...] = eqx.field(default=(), converter=tuple)
    precisions: Float[Array, " layers"] | Float[Array, ""] | None = eqx.field(
        default=None, converter=as_positive_array
    )
    factors: Float[Array, " batch"] | None = eqx.field(default=None, converter=as_nonzero_array)
    multipliers: Activities | None = None
    observed: Float[Array, "batch ..."] | None = eqx.field(default=None, converter=as_mask)
    given: Float[Array, "batch ..."] | None = eqx.field(default=None, converter=as_mask)

    def __check_init__(self) -> None:
        if self.factors is not None and self.factors.shape != self.x.shape[:1]:
            raise ValueError(
                f"factors must be {self.x.shape[0]} numbers, one for each sample, not an array of "
                f"shape {self.factors.shape}"
            )
        if self.multipliers is not None:
            form = "a tuple of arrays (layer, batch, ...), one for each bank, as activities are"
            check_kind("multipliers", self.multipliers, tuple, form)
        if self.given is not None and not (
            self.network.about_input
            and not self.network.classes
            and self.given.shape == self.x.shape
        ):
            raise ValueError(
                f"given must have the shape of x, {self.x.shape}, and the network an input that is "
                "free about it: mupc.with_prior(network, shape, about_input=True)"
            )

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_overrides(cls, FreeEnergy, _TERMS)

    # The terms. All else is derived from these.

    def hidden(
        self, e: Float[Array, "batch ..."], precision: Float[Array, ""] | None
    ) -> Float[Array, " batch"]:
        r"""Return one layer's energy of each sample, $\tfrac{\pi}{2} \|e\|^2$, from its errors."""
        squares = 0.5 * layer_square_norms(e[None])[0]
        return squares if precision is None else precision * squares

    def of_weights(self) -> Float[Array, ""]:
        """Return the sum of the regularisers' terms on the weights."""
        return weight_terms(self.regularisers, self.network)

    # What is derived.

    @property
    def parameters(self) -> Network:
        """The network."""
        return self.network

    def with_parameters(self, parameters: Network) -> "FreeEnergy":
        """Return the energy of another network."""
        return eqx.tree_at(lambda energy: energy.network, self, parameters)

    @property
    def known(self) -> Known | None:
        """What is known of a free input; None if nothing is."""
        return self.network.known(self.x) if self.given is None else Known(self.given, self.x)

    @property
    def descends(self) -> bool:
        """Whether errors go back by the derivatives of the network's predictions."""
        return self.network.exact

    @property
    def precision(self) -> Float[Array, ""] | Float[Array, " batch"]:
        """π of the output: for all samples, or of each."""
        precision = self.likelihood.precision
        return precision if self.factors is None else precision * self.factors

    @property
    def _sign(self) -> float | Float[Array, " batch"]:
        return 1.0 if self.factors is None else jnp.sign(self.factors)

    @property
    def rests(self) -> bool:
        """Whether hidden errors of zero are a minimum without a target: without activity decay."""
        return activity_terms(self.regularisers, ()) is None and self.multipliers is None

    def times(self, factors: Float[Array, " batch"]) -> "FreeEnergy":
        """Return the energy with further factors of every sample."""
        factors = factors if self.factors is None else self.factors * factors
        where = lambda energy: energy.factors  # noqa: E731
        return eqx.tree_at(where, self, factors, is_leaf=lambda leaf: leaf is None)

    def at(self, activities: Activities) -> Point:
        """Return the point of these activities, with their errors z − u."""
        if (known := self.known) is not None:
            first = self.unknown(activities)[0] + (known.where * known.values)[None]
            activities = (first, *activities[1:])
        predictions, _ = self.network.predictions(self.x, activities)
        return Point(activities, jax.tree.map(jnp.subtract, activities, predictions))

    def run(self, errors: Activities | None = None) -> Point:
        """Run the network forwards with hidden errors, all zero unless given."""
        errors = None if errors is None else self.unknown(errors)
        activities = self.network.feedforward(self.x, errors).activities
        return Point(activities, errors or jax.tree.map(jnp.zeros_like, activities))

    def output(self, point: Point) -> Float[Array, "batch ..."]:
        """Return what the last activity predicts of y."""
        # Of predictions that nobody uses, the compiler leaves nothing.
        return self.network.predictions(self.x, point.activities)[1]

    def output_loss(self, output: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Return ℓ of each sample at unit precision."""
        return losses(self.likelihood, self.y, output, self.observed)

    def of_output(self, output: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Return ℓ of each sample, at the energy's precision."""
        return self.precision * self.output_loss(output)

    def layers(self, point: Point) -> Float[Array, "layers batch"]:
        """Return each layer's energy of each sample, (H + 1, batch), from input to output."""
        terms, output = self._by_banks(point)
        return jnp.concatenate([self.network.in_order(on_every(terms)), output[None]])

    def samples(self, point: Point) -> Float[Array, " batch"]:
        """Return each sample's energy, the sum of its layers'."""
        terms, output = self._by_banks(point)
        return sum((jnp.sum(term, axis=0) for term in terms), output)

    def samples_and_gradient(
        self, activities: Activities
    ) -> tuple[Float[Array, " batch"], Activities]:
        """Return each sample's energy, and the activity gradient of their sum, in one pass."""
        term = lambda u, z, own: self._term(z - u, own)  # noqa: E731
        samples, gradient = self.network.local_gradient(
            term, self.of_output, self.x, activities, self._own(activities)
        )
        if (decay := self._decay(activities)) is None:
            return samples, self.unknown(gradient)
        more, decaying = decay
        return samples + more, self.unknown(jax.tree.map(jnp.add, gradient, decaying))

    def activity_gradient(self, point: Point) -> Activities:
        r"""Return the gradient of the batch sum, shaped like the activities.

        $$\frac{\partial F}{\partial z_l} =
          h_l - \frac{\partial u_{l+1}}{\partial z_l}^\top h_{l+1}, \quad
          h_l = \frac{\partial F_l}{\partial e_l}$$
        """
        slopes, by_output = self._slopes(point)
        down = jax.vjp(lambda z: self.network.predictions(self.x, z), point.activities)[1]
        (below,) = down((jax.tree.map(jnp.negative, slopes), by_output))
        gradient = jax.tree.map(jnp.add, slopes, below)
        if (decay := self._decay(point.activities)) is None:
            return self.unknown(gradient)
        return self.unknown(jax.tree.map(jnp.add, gradient, decay[1]))

    def weight_gradient(
        self, point: Point, *, unit: float | Float[AnyArray, ""] | Float[AnyArray, " batch"] = 1.0
    ) -> Network:
        r"""Return the gradient of the batch mean at fixed activities, shaped like the network.

        $$\frac{\partial F}{\partial W_l} = -\frac{\partial u_l}{\partial W_l}^\top h_l, \quad
          h_l = \frac{\partial F_l}{\partial e_l}$$
        """
        slopes, by_output = self._slopes(point)
        share = jnp.asarray(1 / (len(self.x) * unit))
        gradient = self.network.parameter_gradient(
            self.x,
            point.activities,
            jax.tree.map(lambda h: -over_samples(share, h) * h, slopes),
            over_rows(share, by_output) * by_output,
        )
        terms = lambda network: self.with_parameters(network).of_weights()  # noqa: E731
        return jax.tree.map(jnp.add, gradient, eqx.filter_grad(terms)(self.network))

    def error_gradient(self, point: Point) -> Activities:
        r"""Return the gradient of the batch sum by the errors.

        $$\frac{\partial F}{\partial e} = h + J^\top \frac{\partial \ell}{\partial \hat y},
          \quad J = \frac{\partial \hat y}{\partial e}$$

        (arXiv 2505.20137), plus what activity regularisers add. It costs one sweep.
        """
        slopes, by_output = self._slopes(point)
        if (decay := self._decay(point.activities)) is None:
            adjoints = self.adjoint(point)
            scaled = jax.tree.map(lambda a: over_samples(self.precision, a) * a, adjoints)
        else:
            scaled = self.network.pullback(self.x, point.activities, by_output, decay[1])
        return self.unknown(jax.tree.map(jnp.add, slopes, scaled))

    def adjoint(self, point: Point) -> Activities:
        r"""Return $J^\top g$, g the gradient of the output's loss at unit precision."""
        _, (g,) = with_gradient(self.output_loss, self.output(point))
        return self.network.pullback(self.x, point.activities, g)

    def gauss_newton(self, point: Point) -> GaussNewtonMaps:
        """Return the factors of the Gauss–Newton Hessian in errors.

        Raises:
            ValueError: if a regulariser sees the activities.
        """
        if activity_terms(self.regularisers, point.activities) is not None:
            raise ValueError(
                "GaussNewton takes no activity decay, which makes the hidden part of the energy "
                "more than one of errors: use mupc.InErrors(mupc.GradientDescent(…)) with it"
            )
        activities, output = point.activities, self.output(point)
        y, known = known_part(self.y, self.observed, output)
        strength = over_rows(jnp.sqrt(jnp.abs(self.precision)), output) * jnp.sqrt(known)
        sign = jnp.broadcast_to(jnp.sign(self.precision), (len(self.x),))
        root = lambda v: strength * jax.vmap(self.likelihood.root)(output, v)  # noqa: E731
        transposed = jax.linear_transpose(root, output)

        def up(errors: Activities) -> Float[Array, "batch ..."]:
            return transposed(self.network.pushforward(self.x, activities, self.whiten(errors)))[0]

        def down(v: Float[Array, "batch ..."]) -> Activities:
            return self.whiten(self.network.pullback(self.x, activities, root(v)))

        def residual(gradient: Activities) -> tuple[Float[Array, "batch ..."], Activities]:
            deviations = jax.vmap(self.likelihood.pearson_residual)(y, output)
            of_output = jax.tree.map(jnp.subtract, gradient, self._slopes(point)[0])
            return over_rows(sign, output) * strength * deviations, self.whiten(of_output)

        return GaussNewtonMaps(self.whiten, up, down, sign, residual)

    def of_sample(self, i: int | Int[Array, ""]) -> "FreeEnergy":
        """Return the energy of sample i alone, as a batch of one."""
        return self.taken(jnp.asarray(i)[None])

    def taken(self, rows: Int[Array, " rows"]) -> "FreeEnergy":
        """Return the energy of some samples, by their numbers in the batch."""
        each = (self.x, self.y, self.factors, self.observed, self.given)
        some = jax.tree.map(lambda v: v[rows], each)
        own = jax.tree.map(lambda v: v[:, rows], self.multipliers)
        where = lambda e: (e.x, e.y, e.factors, e.observed, e.given, e.multipliers)  # noqa: E731
        return eqx.tree_at(where, self, (*some, own), is_leaf=lambda leaf: leaf is None)

    def _term(self, e: Float[Array, "batch ..."], own: "_Own") -> Float[Array, " batch"]:
        """Return all of a layer's own energy of each sample."""
        term = self.hidden(e, own.precision)
        if own.multiplier is None:
            return term
        return term + jnp.sum(own.multiplier * e, axis=tuple(range(1, e.ndim)))

    def _by_banks(
        self, point: Point
    ) -> tuple[list[Float[Array, "_layer batch"]], Float[Array, " batch"]]:
        """Return each sample's energy of every layer, by bank, and that of its output."""
        banks = zip(point.errors, self._own(point.errors), strict=True)
        terms = [jax.vmap(self._term)(e, own) for e, own in banks]
        if (decay := activity_terms(self.regularisers, point.activities)) is not None:
            terms = [a + self._sign * b for a, b in zip(terms, decay, strict=True)]
        return terms, self.of_output(self.output(point))

    def _own(self, banks: Activities) -> tuple["_Own", ...]:
        """Return what every layer has of its own, by bank."""
        none = (None,) * len(banks)
        multipliers = none if self.multipliers is None else self.multipliers
        return tuple(map(_Own, self._numbers(banks), multipliers))

    def _numbers(self, banks: Activities) -> tuple[Float[Array, " _layer"] | None, ...]:
        """Return the precisions of every bank's layers."""
        if self.precisions is None:
            return (None,) * len(banks)
        sizes = sum(len(bank) for bank in banks)
        if self.precisions.ndim and len(self.precisions) != sizes:
            raise ValueError(
                f"precisions must be one number or {sizes}, one for every hidden layer, not "
                f"{len(self.precisions)}"
            )
        numbers = jnp.broadcast_to(self.precisions, (sizes,))
        if self.network.generates and not self.precisions.ndim:
            numbers = numbers.at[0].set(1.0)
        return self.network.in_banks(numbers)

    def whiten(self, errors: Activities) -> Activities:
        """Return $D^{-1/2}$ e, D the curvature of the hidden energies where errors are zero.

        The identity, or the hidden precisions, unless `hidden` is another term; 1 where that has
        no positive curvature. Zero where the input is known, whose precision is infinite.
        """

        def one(e: Array, number: Any) -> Array:
            if type(self).hidden is FreeEnergy.hidden:
                return e if number is None else e / jnp.sqrt(number)
            slope = jax.grad(lambda e: jnp.sum(self.hidden(e, number)))
            zero = jnp.zeros_like(e[:1])
            curvature = jax.jvp(slope, (zero,), (jnp.ones_like(zero),))[1]
            return e / jnp.sqrt(jnp.where(curvature > 0, curvature, 1))

        banks = zip(errors, self._numbers(errors), strict=True)
        return self.unknown(tuple(jax.vmap(one)(e, number) for e, number in banks))

    def unknown(self, banks: Activities) -> Activities:
        """Return banks, the first of them zero where the input is known."""
        if (known := self.known) is None:
            return banks
        return ((1 - known.where) * banks[0], *banks[1:])

    def _slopes(self, point: Point) -> tuple[Activities, Float[Array, "batch ..."]]:
        """Return the gradients of the layers' own terms: by the errors, and by the output."""
        of_layer = jax.grad(lambda e, own: jnp.sum(self._term(e, own)))
        banks = zip(point.errors, self._own(point.errors), strict=True)
        slopes = tuple(jax.vmap(of_layer)(e, own) for e, own in banks)
        return slopes, with_gradient(self.of_output, self.output(point))[1][0]

    def _decay(self, activities: Activities) -> tuple[Float[Array, " batch"], Activities] | None:
        """Return the regularisers' terms on the activities of each sample, and their gradient.

        None where the hidden energy is one of errors alone: no regulariser sees the activities.
        """
        if activity_terms(self.regularisers, activities) is None:
            return None

        def decay(*activities: Float[Array, "_layer batch ..."]) -> Array:
            terms = activity_terms(self.regularisers, activities) or ()
            total = sum((jnp.sum(term, axis=0) for term in terms), jnp.zeros(len(self.x)))
            return self._sign * total

        return with_gradient(decay, *activities)


# What a subclass may override: everything else is derived from it.
_TERMS = {"hidden", "of_weights"}
