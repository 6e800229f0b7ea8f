"""Equilibrium propagation: two equilibria of one energy, apart by a nudge, and their contrast."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num, PRNGKeyArray

from mupc.arrays import AnyArray, as_count, as_positive, ratio, sample_norms
from mupc.energies import FreeEnergy, HopfieldEnergy, NudgedEnergy, Point
from mupc.inference import (
    LBFGS,
    InErrors,
    Schedule,
    Solution,
    Solver,
    Stopping,
    Tolerance,
    infer,
    step_limit,
)
from mupc.kinds import check_kind
from mupc.learning.implicit import ImplicitGradient
from mupc.learning.regime import sensitivity
from mupc.learning.rule import (
    Batch,
    Info,
    LearningRule,
    alternating,
    check_terms,
    taken_from_size,
)
from mupc.likelihoods import Gaussian, Likelihood
from mupc.networks import Feedforward, Hopfield, Network
from mupc.records import NUDGE_OVER_RESIDUAL
from mupc.regularisers import Regulariser, weight_terms

# How strong a nudge is, unless given: far from 1, where samples nudged away have no equilibrium,
# and as far from what the free phase leaves to do.
_RHO = 0.15

# Of the default solver: enough for three decades of the residual late in training.
_PAIRS, _STEPS = 4, 20

Phases = Literal["centred", "one-sided", "random-sign", "fourth-order"]
"""Which equilibria are compared: of β and −β, of β and 0, of one of ±β and 0, of ±β/2 and ±β."""


class _Nudge(NamedTuple):
    """A phase: how many times β it is nudged by, and what its gradient over β counts."""

    times: float
    share: float


_NUDGES: Mapping[Phases, Mapping[str, _Nudge]] = {
    "centred": {"nudged": _Nudge(1, 1 / 2), "opposite": _Nudge(-1, -1 / 2)},
    "one-sided": {"nudged": _Nudge(1, 1)},
    "random-sign": {"nudged": _Nudge(1, 1)},
    "fourth-order": {
        "nudged": _Nudge(1, -1 / 6),
        "opposite": _Nudge(-1, 1 / 6),
        "nudged by half": _Nudge(1 / 2, 4 / 3),
        "opposite by half": _Nudge(-1 / 2, -4 / 3),
    },
}
"""The nudged phases. A single one is compared with the free phase."""


class _Carry(NamedTuple):
    """A batch before its update: its energy, and where the free phase begins."""

    energy: NudgedEnergy
    free: Point


class EquilibriumPropagation(LearningRule):
    r"""Equilibrium propagation (arXiv 1602.05179), centred unless told (arXiv 2006.03824, Eq. 8).

    With a cost C of the output, $z^\beta$ minimises $F_\beta = E + \beta C$, and

    $$\hat g = \frac{1}{2\beta} \left( \frac{\partial F_\beta}{\partial W}(z^{\beta})
      - \frac{\partial F_{-\beta}}{\partial W}(z^{-\beta}) \right)
      = \frac{d}{dW} C(z^0) + O(\beta^2)$$

    which is local to each layer. `one-sided` compares $z^\beta$ with the free phase $z^0$, with a
    bias of order β; `random-sign` does so with −β for every second sample, in expectation of order
    β². `fourth-order` takes the difference of four phases,

    $$\hat g = \frac{1}{\beta} \left( \tfrac43 (F'_{\beta/2} - F'_{-\beta/2})
      - \tfrac16 (F'_{\beta} - F'_{-\beta}) \right), \quad
      F'_\beta = \frac{\partial F_\beta}{\partial W}(z^\beta)$$

    whose bias is of order β⁴, as with four nudges on a circle in the complex plane (arXiv
    2209.00530), with real states. Every nudged phase starts where the free one ended, so that what
    the free phase left to do is done in all, and is not taken for a difference.

    On the energy of a predictive coding network the free phase is its feedforward pass, and the
    rule is predictive coding with outputs nudged both ways, each sample twice.

    Args:
        solver: how activities settle, or a schedule of solvers; `mupc.InErrors(mupc.LBFGS(4))`
            unless given. States on a box need `mupc.FixedPoint()`.
        max_steps: the largest number of solver steps of the free phase, 20 unless given.
        likelihood: C, the output's cost; `mupc.Gaussian()` unless given.
        beta: β, for all samples; set by ρ unless given.
        rho: ρ, how strongly each sample is nudged, $\beta_i = \rho / \max(\lambda_i,
            \bar\lambda)$ with λ the sensitivity of its output where the free phase ended and
            $\bar\lambda$ the batch's (`mupc.learning.sensitivity`): the same at any width and
            depth, where a β is not. 0.15 unless given.
        phases: which equilibria are compared.
        nudged_steps: the largest number of steps of a nudged phase.
        regularisers: further terms of the energy.
        stopping: when a phase is done with a sample; `mupc.Tolerance()` unless given.
        energy: builds E, of network, x, y, likelihood and regularisers: `mupc.HopfieldEnergy` for a
            `mupc.Hopfield` and `mupc.FreeEnergy` for other networks unless given.

    Raises:
        ValueError: if an argument is impossible.
        TypeError: if one is not what it should be.
    """

    solver: Solver | Schedule
    max_steps: Int[Array, ""]
    nudged_steps: Int[Array, ""]
    likelihood: Likelihood
    beta: Float[Array, ""] | None
    rho: Float[Array, ""] | None
    regularisers: tuple[Regulariser, ...]
    stopping: Stopping
    energy: Callable[..., NudgedEnergy]
    phases: Phases = eqx.field(static=True)

    def __init__(
        self,
        solver: Solver | Schedule | None = None,
        max_steps: Int[ArrayLike, ""] | None = None,
        likelihood: Likelihood | None = None,
        *,
        beta: ArrayLike | None = None,
        rho: ArrayLike | None = None,
        phases: Phases = "centred",
        nudged_steps: Int[ArrayLike, ""] = 8,
        regularisers: Sequence[Regulariser] = (),
        stopping: Stopping | None = None,
        energy: Callable[..., NudgedEnergy] | None = None,
    ) -> None:
        self.solver = InErrors(LBFGS(_PAIRS)) if solver is None else solver
        own = isinstance(self.solver, Schedule) and max_steps is None
        self.max_steps = step_limit(self.solver, None if own else max_steps or _STEPS)
        self.nudged_steps = as_count(nudged_steps, least=1)
        self.likelihood = Gaussian() if likelihood is None else likelihood
        check_terms(self.likelihood, regularisers)
        if beta is not None and rho is not None:
            raise ValueError("rho sets beta, so that another would have no effect: give one")
        self.beta = None if beta is None else as_positive(beta)
        self.rho = as_positive(_RHO if rho is None else rho) if beta is None else None
        if phases not in get_args(Phases):
            raise ValueError(f"phases must be one of {', '.join(get_args(Phases))}, not {phases!r}")
        self.phases = phases
        self.regularisers = tuple(regularisers)
        self.stopping = stopping or Tolerance()
        check_kind("stopping", self.stopping, Stopping, "a mupc.Stopping, e.g. mupc.Tolerance()")
        self.energy = energy_of if energy is None else energy

    def begin(
        self, network: Network, batch: Batch, state: None, key: PRNGKeyArray
    ) -> tuple[_Carry, None]:
        """Return the energy, and where its free phase begins."""
        energy = self.energy(network, *batch, self.likelihood, self.regularisers)
        if isinstance(energy, FreeEnergy) and not energy.rests:
            raise ValueError(
                "equilibrium propagation of a predictive coding energy takes no activity decay, "
                "with which its free phase would not be the feedforward pass"
            )
        return _Carry(energy, energy.run()), state

    def gradients(
        self,
        network: Network,
        batch: Batch,
        carry: _Carry,
        key: PRNGKeyArray,
        *,
        measure: bool | Bool[Array, ""] = True,
    ) -> tuple[Network, _Carry, Info]:
        """Settle freely and nudged, and compare what the weights would lower in each."""
        energy = carry.energy.with_parameters(network)
        free_key, nudged_key, signs_key = jax.random.split(key, 3)
        solutions: dict[str, Solution] = {}
        free = carry.free
        if not energy.rests:
            solutions["free"] = self.settle(energy, free, free_key, measure)
            free = solutions["free"].point
        signs, beta = self._signs(len(batch[0]), signs_key), self._strength(energy, free)
        ends: list[tuple[NudgedEnergy, Point, Float[Array, " batch"]]] = []
        for name, nudge in _NUDGES[self.phases].items():
            one = energy.times(nudge.times * beta * signs)
            solutions[name] = self._infer(one, free, self.nudged_steps, nudged_key, measure)
            ends.append((one, solutions[name].point, signs / nudge.share))
        first, nudged, _ = ends[0]
        if len(ends) == 1 and not energy.rests:
            ends.append((energy.times(jnp.zeros_like(signs)), free, -signs))
        gradients = self._contrast(network, beta, ends)
        before, after = (jnp.mean(first.layers(p), axis=1) for p in (free, nudged))
        before, layers = taken_from_size(before, after)
        phases = {name: one._replace(point=Point((), ())) for name, one in solutions.items()}
        costs = [self.solver.cost(one.steps) for one in solutions.values()]
        known = [cost for cost in costs if cost is not None]
        sweeps = sum(known, jnp.zeros(())) if len(known) == len(costs) else None
        info = Info(
            energy.output(free),
            before,
            layers,
            jnp.mean(beta) * self.likelihood.precision,
            phases,
            sweeps,
            self.likelihood.precision,
        )
        return gradients, carry, info

    def untargeted(self, network: Network, x: Num[AnyArray, "batch ..."]) -> Feedforward:
        """Return the activities and the output of the free phase."""
        shape = jax.eval_shape(lambda x: network.feedforward(x).output, x)
        y = jnp.zeros(shape.shape, shape.dtype)
        energy = self.energy(network, x, y, self.likelihood, self.regularisers)
        free = energy.run()
        if not energy.rests:
            free = self.settle(energy, free, jax.random.key(0), False).point
        return Feedforward(free.activities, energy.output(free))

    def exact(self, network: Network) -> ImplicitGradient:
        """Return the gradient that this one tends to as β falls."""
        del network
        return ImplicitGradient(self)

    def diagnostics(
        self, network: Network, batch: Batch, state: None, key: PRNGKeyArray
    ) -> Mapping[str, Float[Array, "..."]]:
        r"""Return by how much the nudge exceeds what the free phase left to do.

        The median over samples of $\|\beta\, \partial C / \partial e\| / \|\partial E / \partial
        e\|$ where the free phase ended. Where it is not well above 1, what is compared is mostly
        how far phases are from their ends.
        """
        carry, _ = self.begin(network, batch, state, key)
        energy = carry.energy
        if energy.rests:
            return {}
        free = self.settle(energy, carry.free, key, False).point
        left = energy.times(jnp.zeros(len(batch[0]))).error_gradient(free)
        strength = self._strength(energy, free) * self.likelihood.precision
        pull = strength * sample_norms(energy.adjoint(free))
        # A residual of zero is one that rounding hides.
        rest = jnp.maximum(sample_norms(left), jnp.finfo(pull.dtype).eps * pull)
        return {NUDGE_OVER_RESIDUAL: jnp.median(ratio(pull, rest))}

    def trace(
        self, network: Network, batch: Batch, state: None, key: PRNGKeyArray
    ) -> Solution | None:
        """Settle freely, or nudged if that is known, with a record of every step."""
        carry, _ = self.begin(network, batch, state, key)
        beta = self._strength(carry.energy, carry.free)
        energy = carry.energy.times(beta if carry.energy.rests else jnp.zeros_like(beta))
        return self._infer(energy, carry.free, self.max_steps, key, True, trace=True)

    def settle(
        self,
        energy: NudgedEnergy,
        start: Point,
        key: PRNGKeyArray,
        measure: bool | Bool[Array, ""],
    ) -> Solution:
        """Settle without a target."""
        free = energy.times(jnp.zeros(start.activities[0].shape[1]))
        return self._infer(free, start, self.max_steps, key, measure)

    def _infer(
        self,
        energy: NudgedEnergy,
        start: Point,
        steps: Int[Array, ""],
        key: PRNGKeyArray,
        measure: bool | Bool[Array, ""],
        *,
        trace: bool = False,
    ) -> Solution:
        return infer(
            energy,
            self.solver,
            start,
            max_steps=steps,
            stopping=self.stopping,
            key=key,
            measure=measure,
            trace=trace,
        )

    def _signs(self, size: int, key: PRNGKeyArray) -> Float[Array, " batch"]:
        """Return 1, or −1 for samples whose one nudge is away from their target."""
        return alternating(size, key) if self.phases == "random-sign" else jnp.ones(size)

    def _strength(self, energy: NudgedEnergy, free: Point) -> Float[Array, " batch"]:
        """Return β of each sample."""
        seen = sensitivity(energy, free)
        if self.rho is None:
            return jnp.broadcast_to(jnp.asarray(self.beta), seen.each.shape)
        level = jnp.maximum(seen.each, seen.mean())
        return jnp.where(level > 0, ratio(self.rho / self.likelihood.precision, level), 1.0)

    def _contrast(
        self,
        network: Network,
        beta: Float[Array, " batch"],
        ends: Sequence[tuple[NudgedEnergy, Point, Float[Array, " batch"]]],
    ) -> Network:
        """Sum the phases' gradients, each divided by β and by its own number for every sample."""
        parts = [e.weight_gradient(point, unit=beta * n) for e, point, n in ends]
        gradients = jax.tree.map(lambda *one: sum(one), *parts)
        if not self.regularisers:
            return gradients
        # Each part has the terms on the weights, which count once.
        terms = eqx.filter_grad(lambda n: weight_terms(self.regularisers, n))(network)
        extra = len(ends) - 1
        return jax.tree.map(lambda g, t: g - extra * t, gradients, terms)


def energy_of(network: Network, *terms: Any) -> NudgedEnergy:
    """Return the energy of a network, of x, y, a likelihood and regularisers."""
    if isinstance(network, Hopfield):
        return HopfieldEnergy(network, *terms)
    return FreeEnergy(network, *terms)
