r"""What an energy is: each layer's term of each sample, and what follows from it.

One method, `layers`, says what the energy is; sums, activity gradients and weight gradients are
derived from it by automatic differentiation. None is rescaled afterwards; weight gradients may be
asked for in another unit of the energy.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from mupc.arrays import AnyArray, ratio
from mupc.networks import Activities


class Point(NamedTuple):
    """Where inference stands: activities, and the errors z − u that belong to them.

    An energy that is not made of predictions knows no errors, and leaves them empty. Points are
    made by an energy: `energy.at(activities)`, and `energy.run(errors)` where there are errors.
    """

    activities: Activities
    errors: Activities

    def __repr__(self) -> str:
        """Return the shapes of the banks."""
        return eqx.tree_pformat(self)


class Energy(eqx.Module):
    """An energy of activities, which are one array (layer, batch, ...) for each bank.

    Samples do not interact: an energy is a sum of one term per sample and layer, plus terms on the
    parameters alone. Gradient solvers need no more than this.
    """

    @property
    @abstractmethod
    def parameters(self) -> PyTree[Any]:
        """What learning changes: a network, several, precisions; weight gradients have its form."""

    @abstractmethod
    def with_parameters(self, parameters: PyTree[Any]) -> "Energy":
        """Return the energy with other parameters."""

    @property
    def descends(self) -> bool:
        """Whether `activity_gradient` is its gradient, against which it falls.

        Not so of networks in which errors go back in another way: then a residual of zero is where
        activities come to rest, and the energy may rise on the way.
        """
        return True

    @property
    def bounded(self) -> bool:
        """Whether activities are kept on a box.

        `activity_gradient` is then projected: how far a step against the gradient goes if it ends
        on the border. Only solvers that keep to it can minimise the energy: see
        `mupc.Solver.projects`.
        """
        return False

    @abstractmethod
    def layers(self, point: Point) -> Float[Array, "layers batch"]:
        """Return each layer's energy of each sample, from input to output."""

    @abstractmethod
    def of_sample(self, i: int | Int[Array, ""]) -> "Energy":
        """Return the energy of sample i alone, as a batch of one."""

    def unknown(self, banks: Activities) -> Activities:
        """Return changes of activities, zero where these are known."""
        return banks

    def of_weights(self) -> Float[Array, ""]:
        """Return the terms on the parameters alone, which count once whatever the batch."""
        return jnp.zeros(())

    def at(self, activities: Activities) -> Point:
        """Return the point of these activities."""
        return Point(activities, ())

    def samples(self, point: Point) -> Float[Array, " batch"]:
        """Return each sample's energy."""
        return jnp.sum(self.layers(point), axis=0)

    def __call__(self, point: Point) -> Float[Array, ""]:
        """Return the mean energy over the batch, plus the terms on the parameters."""
        return jnp.mean(self.samples(point)) + self.of_weights()

    def samples_and_gradient(
        self, activities: Activities
    ) -> tuple[Float[Array, " batch"], Activities]:
        """Return each sample's energy, and the activity gradient of their sum, in one pass.

        Of the *sum*: so one sample's gradient does not depend on the batch that it is in.
        """

        def total(activities: Activities) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
            samples = self.samples(self.at(activities))
            return jnp.sum(samples), samples

        gradient, samples = jax.grad(total, has_aux=True)(activities)
        return samples, gradient

    def activity_gradient(self, point: Point) -> Activities:
        """Return the gradient of the batch sum, shaped like the activities."""
        return self.samples_and_gradient(point.activities)[1]

    def weight_gradient(
        self, point: Point, *, unit: float | Float[AnyArray, ""] | Float[AnyArray, " batch"] = 1.0
    ) -> PyTree[Any]:
        """Return the gradient of the batch mean at fixed activities, shaped like the parameters.

        It is local: a layer's part depends on that layer's error and on the activity below it.

        Args:
            point: where to differentiate.
            unit: what the energy is measured in, for all samples or for each: a sample's part is
                divided by it, terms on the parameters are not.
        """

        def mean(parameters: PyTree[Any]) -> Float[Array, ""]:
            energy = self.with_parameters(parameters)
            samples = energy.samples(energy.at(point.activities))
            return jnp.mean(samples / unit) + energy.of_weights()

        return eqx.filter_grad(mean)(self.parameters)


class GaussNewtonMaps(NamedTuple):
    r"""The factors of the Gauss–Newton Hessian in errors, $D + s J^\top B B^\top J$.

    D is the curvature of the hidden energies, $s B B^\top$ the Hessian of the output's energy by
    the output, s of each sample 1, or −1 where that is nudged away from its target. `whiten`
    applies $D^{-1/2}$, `up` applies $B^\top J D^{-1/2}$ to errors and `down` its transpose to
    outputs; the latter two cost one sweep each.

    `residual` takes the energy's gradient by the errors at the same point, and returns r with
    $B r$ the gradient by the output, and `down(r)`: that is what the gradient by the errors has
    besides the hidden energies' own, and costs no sweep.
    """

    whiten: Callable[[Activities], Activities]
    up: Callable[[Activities], Float[Array, "batch ..."]]
    down: Callable[[Float[Array, "batch ..."]], Activities]
    sign: Float[Array, " batch"]
    residual: Callable[[Activities], tuple[Float[Array, "batch ..."], Activities]]


class ErrorEnergy(Energy):
    r"""An energy that can be written in hidden errors, $e_l = z_l - u_l(z_{l-1})$.

    Or in other coordinates that tell layers apart, such as what each adds to the one below.
    Solvers that move errors (`mupc.InErrors`, `mupc.GaussNewton`) need one.
    """

    @abstractmethod
    def run(self, errors: Activities | None = None) -> Point:
        """Run forwards with hidden errors, all zero unless given."""

    @abstractmethod
    def error_gradient(self, point: Point) -> Activities:
        """Return the gradient of the batch sum by the errors."""

    @abstractmethod
    def gauss_newton(self, point: Point) -> GaussNewtonMaps:
        """Return the factors of the Gauss–Newton Hessian in errors.

        Raises:
            ValueError: if the hidden energy is not one of the errors alone.
        """

    def whiten(self, errors: Activities) -> Activities:
        r"""Return $D^{-1/2}$ e, D the diagonal curvature of the hidden energy at zero errors."""
        return errors

    def coloured(self, errors: Activities) -> Activities:
        r"""Return $D^{1/2}$ e, what `whiten` undoes; zero where D is infinite."""
        units = self.whiten(jax.tree.map(jnp.ones_like, errors))
        return jax.tree.map(ratio, errors, units)


class NudgedEnergy(ErrorEnergy):
    r"""An energy of a network's activities, and a cost of its output: $E(z) + f\,C(y, \hat y(z))$.

    The factor f, of each sample its own, is how strongly the output is nudged to its target: away
    from it below zero, and not at all at zero.
    """

    @property
    @abstractmethod
    def rests(self) -> bool:
        """Whether activities are known without inference that minimise E: those of `run()`."""

    @abstractmethod
    def times(self, factors: Float[Array, " batch"]) -> "NudgedEnergy":
        """Return the energy with further factors f of every sample."""

    @abstractmethod
    def with_parameters(self, parameters: PyTree[Any]) -> "NudgedEnergy":
        """Return the energy with other parameters."""

    @abstractmethod
    def output(self, point: Point) -> Float[Array, "batch ..."]:
        """Return ŷ."""

    @abstractmethod
    def output_loss(self, output: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Return C of each sample at unit precision, from ŷ."""

    @abstractmethod
    def adjoint(self, point: Point) -> Activities:
        r"""Return the gradient of C by the errors at unit precision, $J^\top g$."""


def check_overrides(derived: type[Energy], base: type[Energy], terms: Collection[str]) -> None:
    """Check that a class overrides no more of an energy than its terms.

    Raises:
        TypeError: if it does.
    """
    given = {name for one in base.__mro__ for name in vars(one)} - set(terms)
    fields = {name for one in derived.__mro__ for name in vars(one).get("__annotations__", {})}
    own = {name for name in vars(derived) if name[0] != "_" or name == "__call__"}
    if changed := sorted(own & (given - fields)):
        raise TypeError(
            f"{derived.__name__} overrides {', '.join(changed)}, which mupc.{base.__name__} "
            "derives from its terms: override hidden or of_weights, write a mupc.Likelihood for "
            "the output, or subclass mupc.Energy, whose one term is layers"
        )
