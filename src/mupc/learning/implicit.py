"""The exact gradient of a cost at a minimum of an energy, by implicit differentiation."""

from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

from mupc.arrays import AnyArray, any_sample, over_samples, ratio, sample_norms, sample_products
from mupc.energies import NudgedEnergy, Point
from mupc.inference import LBFGS, FixedPoint, InErrors, Solution, infer
from mupc.learning.rule import Batch, Info, LearningRule, taken_from_size
from mupc.likelihoods import Likelihood
from mupc.networks import Activities, Feedforward, Network
from mupc.regularisers import Regulariser, weight_terms

if TYPE_CHECKING:
    from mupc.learning.equilibrium_propagation import EquilibriumPropagation

# Conjugate gradients end where a sample's residual is this fraction of what it was. The largest
# number of their steps, and of those that settle.
_CLOSE, _MOST = 1e-5, 200


class ImplicitGradient(LearningRule):
    r"""What equilibrium propagation tends to as β falls: the exact gradient of the cost.

    With H the Hessian of E by the errors (or increments) where the free phase of a rule ends,

    $$\frac{dC(z^0)}{dW} = \frac{d}{d\beta} \frac{\partial F_\beta}{\partial W}(z^0 - \beta v)
      \Big|_{\beta = 0}, \quad H v = \frac{\partial C}{\partial e}$$

    (arXiv 1602.05179, Theorem 1). The free phase is settled three decades further than the rule
    does, as H may have directions downwards where that left it; H v = ∂C/∂e is solved by conjugate
    gradients, for each sample alone. It is not local: a yardstick.

    Args:
        rule: whose free phase, energy and cost it takes.
    """

    rule: "EquilibriumPropagation"
    likelihood: Likelihood
    regularisers: tuple[Regulariser, ...]

    def __init__(self, rule: "EquilibriumPropagation") -> None:
        self.rule = rule
        self.likelihood, self.regularisers = rule.likelihood, rule.regularisers

    def gradients(
        self,
        network: Network,
        batch: Batch,
        carry: None,
        key: PRNGKeyArray,
        *,
        measure: bool | Bool[Array, ""] = True,
    ) -> tuple[Network, None, Info]:
        """Settle freely, solve, and differentiate the weight gradient along the solution."""
        begun, _ = self.rule.begin(network, batch, None, key)
        energy, phases = begun.energy, {}
        free = begun.free
        if not energy.rests:
            solution = self._settled(energy, free, key, measure)
            free, phases = solution.point, {"free": solution._replace(point=Point((), ()))}
        nothing = jnp.zeros(len(batch[0]))
        force = jax.tree.map(lambda a: self.likelihood.precision * a, energy.adjoint(free))
        response = _solved(energy.times(nothing), free, force)

        def learnt(beta: Float[Array, ""]) -> Network:
            errors = jax.tree.map(lambda e, v: e - beta * v, free.errors, response)
            nudged = energy.times(beta + nothing)
            return nudged.weight_gradient(energy.run(errors))

        _, gradients = jax.jvp(learnt, (jnp.zeros(()),), (jnp.ones(()),))
        terms = eqx.filter_grad(lambda n: weight_terms(self.regularisers, n))(network)
        gradients = jax.tree.map(jnp.add, gradients, terms)  # they do not depend on β
        ends = (energy.times(nothing).layers(at) for at in (begun.free, free))
        before, layers = taken_from_size(*(jnp.mean(each, axis=1) for each in ends))
        precision = self.likelihood.precision
        return gradients, carry, Info(energy.output(free), before, layers, precision, phases, None)

    def _settled(
        self, energy: NudgedEnergy, start: Point, key: PRNGKeyArray, measure: bool | Array
    ) -> Solution:
        """Settle as the rule does, and on from there until it is an equilibrium."""
        first = self.rule.settle(energy, start, key, measure)
        free = energy.times(jnp.zeros(start.activities[0].shape[1]))
        solver = FixedPoint() if energy.bounded else InErrors(LBFGS())
        end = infer(free, solver, first.point, max_steps=_MOST, measure=measure)
        return end._replace(initial=first.initial, steps=first.steps + end.steps)

    def untargeted(self, network: Network, x: Num[AnyArray, "batch ..."]) -> Feedforward:
        """Return the activities and the output of the free phase."""
        return self.rule.untargeted(network, x)


class _Conjugate(NamedTuple):
    step: Int[Array, ""]
    solution: Activities
    residual: Activities
    direction: Activities
    square: Float[Array, " batch"]


def _solved(energy: NudgedEnergy, at: Point, right: Activities) -> Activities:
    """Return v of H v = r, H the Hessian of an energy by its errors, for each sample."""

    def product(direction: Activities) -> Activities:
        slope = lambda errors: energy.error_gradient(energy.run(errors))  # noqa: E731
        return jax.jvp(slope, (at.errors,), (direction,))[1]

    def along(size: Float[Array, " batch"], a: Activities, b: Activities) -> Activities:
        return jax.tree.map(lambda a, b: a + over_samples(size, b) * b, a, b)

    def iterate(now: _Conjugate) -> _Conjugate:
        pushed = product(now.direction)
        curvature = sample_products(now.direction, pushed)
        upward = curvature > 0  # else it is no minimum, and the sample stays where it is
        size = jnp.where(upward, ratio(now.square, curvature), 0)
        residual = along(-size, now.residual, pushed)
        square = jnp.where(upward & (now.square > 0), sample_norms(residual) ** 2, 0)
        return _Conjugate(
            now.step + 1,
            along(size, now.solution, now.direction),
            residual,
            along(ratio(square, now.square), residual, now.direction),
            square,
        )

    first = sample_norms(right) ** 2

    def unfinished(now: _Conjugate) -> Bool[Array, ""]:
        return (now.step < _MOST) & any_sample(now.square > _CLOSE**2 * first)

    zeros = jax.tree.map(jnp.zeros_like, right)
    begin = _Conjugate(jnp.zeros((), int), zeros, right, right, first)
    return jax.lax.while_loop(unfinished, iterate, begin).solution
