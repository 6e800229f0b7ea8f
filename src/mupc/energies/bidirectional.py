"""The energy of two networks over one set of activities."""

import dataclasses
from collections.abc import Sequence
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mupc.arrays import AnyArray, as_positive
from mupc.energies.energy import ErrorEnergy, GaussNewtonMaps, Point
from mupc.energies.prediction import FreeEnergy
from mupc.kinds import check_kind
from mupc.likelihoods import Gaussian, Likelihood
from mupc.networks import Activities, Bidirectional, Chain, Network
from mupc.regularisers import Regulariser, activity_terms, weight_terms


class _TwoWays(ErrorEnergy):
    """An energy made of those of two networks, of which either is the other's upside down."""

    up: FreeEnergy
    down: FreeEnergy

    @property
    def parameters(self) -> Bidirectional:
        """Both networks."""
        return _of(self.up.network, self.down.network)

    def with_parameters(self, parameters: Bidirectional) -> "_TwoWays":
        """Return the energy of other networks."""
        where = lambda energy: (energy.up.network, energy.down.network)  # noqa: E731
        return eqx.tree_at(where, self, (parameters.up, parameters.down))

    def of_sample(self, i: int | Int[Array, ""]) -> "_TwoWays":
        """Return the energy of sample i alone, as a batch of one."""
        where = lambda energy: (energy.up, energy.down)  # noqa: E731
        return eqx.tree_at(where, self, (self.up.of_sample(i), self.down.of_sample(i)))


class BidirectionalEnergy(_TwoWays):
    r"""Two free energies of the same activities (arXiv 2505.23415).

    $$F(z) = F_{\uparrow}(z; x, y) + \alpha\, F_{\downarrow}(z; y, x)$$

    with $F_\uparrow$ that of `network.up`, whose output is the target, and $F_\downarrow$ that of
    `network.down`, whose output is the input. Its errors are those of `up`: in them the first part
    has the Hessian of a `mupc.FreeEnergy`.

    Each layer's energy is what both directions say of its activity; the input's is counted with the
    first layer's.

    Args:
        network: both networks.
        x: the input, (batch, ...).
        y: the target, (batch, ...), shaped like the output.
        likelihood: of the target.
        regularisers: further terms: on the weights of both, and once on the activities.
        strength: α.
        down_likelihood: of the input; `mupc.Gaussian()` unless given.

    Raises:
        TypeError: if the network is no `mupc.Bidirectional`.
        ValueError: if its activities are of several shapes.
    """

    strength: Float[Array, ""]

    def __init__(
        self,
        network: Bidirectional,
        x: Num[AnyArray, "batch ..."],
        y: Num[AnyArray, "batch ..."],
        likelihood: Likelihood,
        regularisers: Sequence[Regulariser] = (),
        *,
        strength: float | Float[AnyArray, ""] = 1.0,
        down_likelihood: Likelihood | None = None,
    ) -> None:
        self.up, self.down = _both(network, x, y, likelihood, down_likelihood)
        self.up = dataclasses.replace(self.up, regularisers=tuple(regularisers))
        self.strength = as_positive(strength)

    def at(self, activities: Activities) -> Point:
        """Return the point of these activities, with the errors of `up`."""
        return self.up.at(activities)

    def run(self, errors: Activities | None = None) -> Point:
        """Run `up` with hidden errors, all zero unless given."""
        return self.up.run(errors)

    def layers(self, point: Point) -> Float[Array, "layers batch"]:
        """Return each layer's energy of each sample, (H + 1, batch), from input to output."""
        *hidden, of_input = self.strength * self.down.layers(self._below(point))
        return self.up.layers(point).at[:-1].add(jnp.stack(hidden[::-1])).at[0].add(of_input)

    def of_weights(self) -> Float[Array, ""]:
        """Return the sum of the regularisers' terms on the weights of both."""
        return self.up.of_weights() + weight_terms(self.up.regularisers, self.down.network)

    def activity_gradient(self, point: Point) -> Activities:
        """Return the gradient of the batch sum, shaped like the activities."""
        return jax.tree.map(jnp.add, self.up.activity_gradient(point), self._pull(point))

    def error_gradient(self, point: Point) -> Activities:
        r"""Return the gradient of the batch sum by the errors of `up`.

        What `down` wants of the activities is carried down through `up`, as activity decay is.
        """
        pulled = self.up.network.pullback(
            self.up.x, point.activities, jnp.zeros_like(self.up.y), self._pull(point)
        )
        return jax.tree.map(jnp.add, self.up.error_gradient(point), pulled)

    def weight_gradient(
        self, point: Point, *, unit: float | Float[AnyArray, ""] | Float[AnyArray, " batch"] = 1.0
    ) -> Bidirectional:
        """Return the gradient of the batch mean at fixed activities, local in both directions."""
        down = self.down.weight_gradient(self._below(point), unit=unit)
        terms = eqx.filter_grad(lambda n: weight_terms(self.up.regularisers, n))(self.down.network)
        joined = jax.tree.map(lambda g, t: self.strength * g + t, down, terms)
        return _of(self.up.weight_gradient(point, unit=unit), joined)

    def gauss_newton(self, point: Point) -> GaussNewtonMaps:
        """Refuse: what `down` predicts is no function of the output of `up`.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "GaussNewton is for the errors of one direction, and a bidirectional energy has two: "
            "use mupc.InErrors(mupc.LBFGS())"
        )

    def _below(self, point: Point) -> Point:
        """Return the point of `down` with the same activities."""
        return self.down.at(self.parameters.downwards(point.activities))

    def _pull(self, point: Point) -> Activities:
        """Return the gradient of `down`'s part by the activities."""
        gradient = self.parameters.upwards(self.down.activity_gradient(self._below(point)))
        return jax.tree.map(lambda g: self.strength * g, gradient)


class AmortisedEnergy(_TwoWays):
    r"""The free energy of `network.down`, whose inference `network.up` learns to begin.

    Activities settle to a minimum z* of $F_\downarrow(z; y, x)$ alone, from those of the pass of
    `up` (`start`), $\hat z$. Learning changes `down` by its errors at z*, and each layer of `up`
    by how far its own prediction was from where inference ended, which is as local,

    $$\frac{\partial F_\downarrow}{\partial V}(z^*), \quad
      \frac{\partial}{\partial W} \Big( \sum_l \tfrac12 \|z^*_l - u_l(\hat z_{l-1})\|^2
      + \ell(y, \hat y) \Big)$$

    so that the pass comes nearer to z* (hybrid predictive coding, arXiv 2204.02169). Activities and
    errors are those of `down`, which begins at the target.

    Args:
        network: both networks.
        x: the input, (batch, ...).
        y: the target, (batch, ...), shaped like the output.
        likelihood: of the target, which `up` predicts.
        regularisers: further terms, on the weights of both.
        down_likelihood: of the input; `mupc.Gaussian()` unless given.

    Raises:
        TypeError: if the network is no `mupc.Bidirectional`.
        ValueError: if its activities are of several shapes, or a regulariser is on activities.
    """

    def __init__(
        self,
        network: Bidirectional,
        x: Num[AnyArray, "batch ..."],
        y: Num[AnyArray, "batch ..."],
        likelihood: Likelihood,
        regularisers: Sequence[Regulariser] = (),
        *,
        down_likelihood: Likelihood | None = None,
    ) -> None:
        if activity_terms(regularisers, ()) is not None:
            raise ValueError(
                "an amortised energy takes no regulariser on activities, which are counted from "
                "the input, where this one begins at the target"
            )
        own = tuple(regularisers)
        both = _both(network, x, y, likelihood, down_likelihood)
        self.up, self.down = (dataclasses.replace(one, regularisers=own) for one in both)

    @property
    def start(self) -> Point:
        """Where inference begins: the activities of the pass of `up`."""
        return self.at(self.parameters.downwards(self.up.run().activities))

    def at(self, activities: Activities) -> Point:
        """Return the point of these activities of `down`, with its errors."""
        return self.down.at(activities)

    def run(self, errors: Activities | None = None) -> Point:
        """Run `down` with hidden errors, all zero unless given."""
        return self.down.run(errors)

    def layers(self, point: Point) -> Float[Array, "layers batch"]:
        """Return each layer's energy of each sample, (H + 1, batch), from input to output.

        That of the input, which `down` predicts, is counted with the first layer's; the target has
        none.
        """
        *hidden, of_input = self.down.layers(point)
        return jnp.stack([*hidden[::-1], jnp.zeros_like(of_input)]).at[0].add(of_input)

    def of_weights(self) -> Float[Array, ""]:
        """Return the sum of the regularisers' terms on the weights of both."""
        return self.up.of_weights() + self.down.of_weights()

    def activity_gradient(self, point: Point) -> Activities:
        """Return the gradient of the batch sum, shaped like the activities."""
        return self.down.activity_gradient(point)

    def error_gradient(self, point: Point) -> Activities:
        """Return the gradient of the batch sum by the errors of `down`."""
        return self.down.error_gradient(point)

    def weight_gradient(
        self, point: Point, *, unit: float | Float[AnyArray, ""] | Float[AnyArray, " batch"] = 1.0
    ) -> Bidirectional:
        """Return the gradient of the batch mean at fixed activities, each network's own."""
        begun, ended = self.up.run().activities, self.parameters.upwards(point.activities)
        passed = Point(begun, jax.tree.map(jnp.subtract, ended, begun))
        return _of(
            self.up.weight_gradient(passed, unit=unit), self.down.weight_gradient(point, unit=unit)
        )

    def gauss_newton(self, point: Point) -> GaussNewtonMaps:
        """Return the factors of the Gauss–Newton Hessian in errors."""
        return self.down.gauss_newton(point)


def _of(up: Network, down: Network) -> Bidirectional:
    return Bidirectional(cast(Chain, up), cast(Chain, down))


def _both(
    network: Bidirectional,
    x: Num[AnyArray, "batch ..."],
    y: Num[AnyArray, "batch ..."],
    likelihood: Likelihood,
    down_likelihood: Likelihood | None,
) -> tuple[FreeEnergy, FreeEnergy]:
    """Return the energies of both networks."""
    example = "a mupc.Bidirectional, e.g. mupc.bidirectional_mlp(…)"
    check_kind("network", network, Bidirectional, example)
    below = Gaussian() if down_likelihood is None else down_likelihood
    check_kind("down_likelihood", below, Likelihood, "a mupc.Likelihood, e.g. mupc.Gaussian()")
    ends = (network.up, x), (network.down, y)
    seen = [jax.eval_shape(one.feedforward, given).activities for one, given in ends]
    if len(shapes := {z.shape[2:] for banks in seen for z in banks}) > 1:
        listed = ", ".join(map(str, sorted(shapes)))
        raise ValueError(
            f"two directions share activities, which must all be of one shape, not of {listed}"
        )
    return FreeEnergy(network.up, x, y, likelihood), FreeEnergy(network.down, y, x, below)
