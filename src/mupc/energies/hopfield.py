"""The energy of layers that are coupled both ways, and the cost of their output."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mupc.arrays import as_array, layer_square_norms, over_samples
from mupc.energies.energy import GaussNewtonMaps, NudgedEnergy, Point
from mupc.kinds import check_kind
from mupc.likelihoods import Laplace, Likelihood, losses
from mupc.networks import Activities, Hopfield, on_every
from mupc.regularisers import Regulariser, activity_terms, weight_terms


class HopfieldEnergy(NudgedEnergy):
    r"""The energy of a Hopfield network, and a cost outside of it (arXiv 1602.05179, Eqs. 1 and 4).

    $$F(s) = E(s; x) + f\,\ell(y, \hat y(s_H))$$

    per sample, with E as `mupc.Hopfield` says, plus regularisers. Its coordinates besides states
    are increments $s_l - s_{l-1}$, which stand where a predictive coding energy has errors: in them
    the Hessian of a residual chain is the identity and what couplings add, so that solvers in
    errors (`mupc.InErrors`) move all its layers at once.

    Args:
        network: gives E and the output ŷ.
        x: the input, (batch, ...).
        y: the target, (batch, ...), shaped like the output.
        likelihood: ℓ.
        regularisers: further terms, on weights or on activities.
        factors: f of every sample, 0 for a free phase; 1 unless given.

    Raises:
        TypeError: if the network is no `mupc.Hopfield`.
        ValueError: if its states are on a box, and a regulariser is on activities, or the
            likelihood is `mupc.Laplace`.
    """

    network: Hopfield
    x: Num[Array, "batch ..."] = eqx.field(converter=jnp.asarray)
    y: Float[Array, "batch ..."] = eqx.field(converter=lambda y: jnp.asarray(y, float))
    likelihood: Likelihood
    regularisers: tuple[Regulariser, ...] = eqx.field(default=(), converter=tuple)
    factors: Float[Array, " batch"] | None = eqx.field(default=None, converter=as_array)

    def __check_init__(self) -> None:
        example = "a mupc.Hopfield, e.g. mupc.residual_hopfield(…)"
        check_kind("network", self.network, Hopfield, example)
        if self.network.box and activity_terms(self.regularisers, ()) is not None:
            raise ValueError(
                "states on a box take no regulariser on activities, such as mupc.ActivityDecay"
            )
        if self.network.box and isinstance(self.likelihood, Laplace):
            raise ValueError(
                "an output among states on a box takes no mupc.Laplace, whose kink has no "
                "curvature to divide by: use mupc.Gaussian or mupc.Categorical"
            )

    @property
    def parameters(self) -> Hopfield:
        """The network."""
        return self.network

    def with_parameters(self, parameters: Hopfield) -> "HopfieldEnergy":
        """Return the energy of another network."""
        return eqx.tree_at(lambda energy: energy.network, self, parameters)

    @property
    def rests(self) -> bool:
        """Never: states are to be inferred even without a target."""
        return False

    @property
    def bounded(self) -> bool:
        """Whether the network's states are on a box."""
        return self.network.box

    def times(self, factors: Float[Array, " batch"]) -> "HopfieldEnergy":
        """Return the energy with further factors of every sample."""
        factors = factors if self.factors is None else self.factors * factors
        where = lambda energy: energy.factors  # noqa: E731
        return eqx.tree_at(where, self, factors, is_leaf=lambda leaf: leaf is None)

    def at(self, activities: Activities) -> Point:
        """Return the point of these states, with their increments."""
        return Point(activities, self.network.increments(activities))

    def run(self, errors: Activities | None = None) -> Point:
        """Return the point of these increments; unless given, where nothing couples the states."""
        increments = self.network.rest(self.x) if errors is None else errors
        return Point(self.network.states(increments), increments)

    def output(self, point: Point) -> Float[Array, "batch ..."]:
        """Return what the readout makes of the last state."""
        return self.network.output(point.activities)

    def output_loss(self, output: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Return ℓ of each sample at unit precision."""
        return losses(self.likelihood, self.y, output)

    def adjoint(self, point: Point) -> Activities:
        r"""Return the gradient of ℓ by the increments at unit precision, $J^\top g$."""
        cost = lambda states: jnp.sum(self.output_loss(self.network.output(states)))  # noqa: E731
        return self.network.by_increments(jax.grad(cost)(point.activities))

    def layers(self, point: Point) -> Float[Array, "layers batch"]:
        """Return each layer's energy of each sample, (H + 1, batch), from input to output."""
        terms, cost = self._besides(point.activities)
        terms = jax.tree.map(jnp.add, self._squares(point), terms)
        return jnp.concatenate([self.network.in_order(on_every(terms)), cost[None]])

    def samples(self, point: Point) -> Float[Array, " batch"]:
        """Return each sample's energy, the sum of its layers'."""
        terms, cost = self._besides(point.activities)
        return sum((jnp.sum(term, axis=0) for term in (*self._squares(point), *terms)), cost)

    def of_weights(self) -> Float[Array, ""]:
        """Return the sum of the regularisers' terms on the weights."""
        return weight_terms(self.regularisers, self.network)

    def samples_and_gradient(
        self, activities: Activities
    ) -> tuple[Float[Array, " batch"], Activities]:
        """Return each sample's energy, and the gradient by the states, projected on a box."""
        samples, slopes = super().samples_and_gradient(activities)
        return samples, self.network.projected(activities, slopes)

    def to_minima(self, activities: Activities, times: Float[Array, ""]) -> Activities:
        r"""Return so many times how far layers are above their minima if neighbours stay.

        For states on a box, where the way ends: the gradient, as E bends by 1 in a layer's own
        states. In the output it bends by $1 + f\pi$ with a Gaussian cost, and by no more than that,
        or 1, with one whose own curvature is at most π.
        """
        *slopes, last = super().samples_and_gradient(activities)[1]
        nudge = self.likelihood.precision * (1.0 if self.factors is None else self.factors)
        last = last / over_samples(jnp.maximum(1 + nudge, 1), last)
        ways = tuple(times * slope for slope in (*slopes, last))
        return self.network.projected(activities, ways)

    def error_gradient(self, point: Point) -> Activities:
        """Return the gradient of the batch sum by the increments, projected on a box."""
        slopes = self.network.by_increments(self._forces(point))
        slopes = jax.tree.map(jnp.add, point.errors, slopes)
        return self.network.projected(point.activities, slopes)

    def _squares(self, point: Point) -> tuple[Float[Array, "_layer batch"], ...]:
        """Return the half squares of increments."""
        return tuple(0.5 * layer_square_norms(e) for e in point.errors)

    def _besides(
        self, activities: Activities
    ) -> tuple[tuple[Float[Array, "_layer batch"], ...], Float[Array, " batch"]]:
        """Return all other parts of the energy: those of layers, by bank, and the cost."""
        terms = self.network.couplings(self.x, activities)
        if (decay := activity_terms(self.regularisers, activities)) is not None:
            terms = jax.tree.map(jnp.add, terms, tuple(decay))
        cost = self.likelihood.precision * self.output_loss(self.network.output(activities))
        return terms, cost if self.factors is None else self.factors * cost

    def _forces(self, point: Point) -> Activities:
        """Return the gradient of these by the states."""

        def total(states: Activities) -> Float[Array, ""]:
            return sum(map(jnp.sum, jax.tree.leaves(self._besides(states))), jnp.zeros(()))

        return jax.grad(total)(point.activities)

    def gauss_newton(self, point: Point) -> GaussNewtonMaps:
        """Refuse: couplings are no sum of squares.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "GaussNewton is for energies that are a sum of squares of errors, and a Hopfield "
            "energy is none: use mupc.InErrors(mupc.LBFGS())"
        )

    def of_sample(self, i: int | Int[Array, ""]) -> "HopfieldEnergy":
        """Return the energy of sample i alone, as a batch of one."""
        one = jax.tree.map(lambda v: v[i][None], (self.x, self.y, self.factors))
        where = lambda energy: (energy.x, energy.y, energy.factors)  # noqa: E731
        return eqx.tree_at(where, self, one, is_leaf=lambda leaf: leaf is None)
