"""Predictive coding: infer, then learn from local errors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num, PRNGKeyArray

from mupc.arrays import AnyArray, as_count, as_positive
from mupc.energies import Energy, FreeEnergy, Point
from mupc.inference import (
    LBFGS,
    FeedforwardStart,
    FixedSteps,
    GaussNewton,
    InErrors,
    Schedule,
    Solution,
    Solver,
    Start,
    Stopping,
    Tolerance,
    infer,
    step_limit,
)
from mupc.kinds import check_kind
from mupc.learning.regime import Held, Precisions, Regime, mean_regime_number
from mupc.learning.rule import (
    Batch,
    Info,
    LearningRule,
    alternating,
    check_terms,
    taken_from_size,
)
from mupc.likelihoods import Gaussian, Likelihood
from mupc.networks import Network
from mupc.regularisers import Regulariser

# How far from backpropagation the default is: near it, where one iteration is accurate enough.
_RHO = 0.05


# Of the solver with which a report compares, where that is no backpropagation.
_PAIRS, _STEPS = 8, 200

Nudge = Literal["positive", "negative", "alternating"]
"""Which way outputs are nudged: to the target, away from it, or every second sample away."""


class Carry(NamedTuple):
    """A batch before its update: the energy that is minimised, and where inference begins."""

    energy: Energy
    start: Point
    output: Float[Array, "batch ..."]
    factors: Float[Array, " batch"]


class PredictiveCoding(LearningRule):
    r"""Predictive coding (arXiv 2505.13124, Eqs. 3 and 4).

    Activities settle to a minimum z* of the free energy F, or as near as `max_steps` bring them;
    then the weight gradient is $\partial F / \partial W$ at fixed z*, which is local to each layer.

    Without arguments it is the rule of `mupc train`: one Gauss–Newton iteration, ρ = 0.05 held.

    Args:
        solver: how activities settle, or a schedule of solvers; `mupc.GaussNewton()` unless given.
        max_steps: the largest number of solver steps: 1 for `mupc.GaussNewton` unless given; a
            schedule has its own.
        likelihood: the output's energy; `mupc.Gaussian()` unless given.
        rho: the regime number ρ, which sets the output's precision from the first batch; 0.05
            unless a likelihood is given, whose own precision counts then.
        hold: whether the precision of a sample falls so that its regime number does not rise above
            what it was at first (see `mupc.learning.Regime`); true where there is a ρ, unless told.
        nudge: which way outputs are nudged. `positive` is to the target, as usual: the gradient is
            that of the equilibrium energy $F^*$, whose bias is of order ρ and of one sign: it
            makes λ grow, at the expense of the loss. `negative` is away from it, with precision
            −π: the bias has the other sign. `alternating` nudges every second sample of a batch
            away, beginning with the first or the second at random, so that in expectation the
            bias is of order ρ², as with random signs in equilibrium propagation (arXiv
            1602.05179 and 2006.03824) and centred nudging (arXiv 2407.01163). It is the default
            where ρ is held, and known to be below 1, and inference starts at the feedforward
            pass; else `positive` is, and anything else is refused.
            Away from its target a sample has a minimum if $\pi J J^\top$ has no eigenvalue of 1
            or more, of which ρ is a mean: rather choose `positive` where ρ is large.
        hidden_precision: precision of the errors of all hidden layers, but not of latent variables,
            whose prior keeps 1; 1 unless given. The larger it is, the more a generating network
            explains by latent variables alone.
        regularisers: further terms of the energy.
        stopping: when inference is done with a sample; `mupc.FixedSteps()` unless given where there
            is one step, else `mupc.Tolerance()`.
        start: where inference starts; `mupc.FeedforwardStart()` unless given.
        energy: builds what is minimised, of network, x, y, likelihood and regularisers:
            `mupc.FreeEnergy`, a subclass, or a function. Without a ρ any `mupc.Energy` will do.

    Raises:
        ValueError: if an argument is impossible.
        TypeError: if one is not what it should be.
    """

    latent: ClassVar[bool] = True
    solver: Solver | Schedule
    max_steps: Int[Array, ""] | None
    likelihood: Likelihood
    hidden_precision: Float[Array, ""] | None
    regularisers: tuple[Regulariser, ...]
    regime: Regime | None
    stopping: Stopping
    start: Start
    energy: Callable[..., Energy]
    nudge: Nudge = eqx.field(static=True)

    def __init__(
        self,
        solver: Solver | Schedule | None = None,
        max_steps: Int[ArrayLike, ""] | None = None,
        likelihood: Likelihood | None = None,
        *,
        rho: ArrayLike | None = None,
        hold: bool | None = None,
        nudge: Nudge | None = None,
        hidden_precision: ArrayLike | None = None,
        regularisers: Sequence[Regulariser] = (),
        stopping: Stopping | None = None,
        start: Start | None = None,
        energy: Callable[..., Energy] = FreeEnergy,
    ) -> None:
        self.solver = GaussNewton() if solver is None else solver
        one = isinstance(self.solver, GaussNewton) and max_steps is None
        steps = 1 if one else max_steps
        step_limit(self.solver, steps)
        self.max_steps = None if steps is None else as_count(steps, least=1)
        if rho is None and likelihood is None:
            rho = _RHO
        self.likelihood = Gaussian() if likelihood is None else likelihood
        check_terms(self.likelihood, regularisers)
        if rho is not None and not _is_one(self.likelihood.precision):
            raise ValueError(
                "rho sets the precision, so that the likelihood's own would have no effect: give "
                "one of them"
            )
        hold = rho is not None if hold is None else hold
        target = None if rho is None else as_positive(rho)
        self.regime = Regime(target, hold) if hold or target is not None else None
        self.hidden_precision = None if hidden_precision is None else as_positive(hidden_precision)
        self.regularisers = tuple(regularisers)
        fixed = isinstance(steps, int) and steps == 1
        self.stopping = stopping or (FixedSteps() if fixed else Tolerance())
        self.start = start or FeedforwardStart()
        check_kind("stopping", self.stopping, Stopping, "a mupc.Stopping, e.g. mupc.Tolerance()")
        check_kind("start", self.start, Start, "a mupc.Start, e.g. mupc.ZeroStart()")
        self.energy = energy
        self.nudge = self._nudge(nudge)

    @property
    def reads(self) -> "PredictiveCoding":
        """The rule that infers latent variables when they are to be read: this one."""
        return self

    @property
    def limit(self) -> Int[Array, ""]:
        """The largest number of steps."""
        return step_limit(self.solver, self.max_steps)

    def init(self, network: Network, key: PRNGKeyArray) -> Held | None:
        """Return what the regime keeps; else None: batches are independent."""
        super().init(network, key)
        return None if self.regime is None else self.regime.begin()

    def begin(
        self, network: Network, batch: Batch, state: Held | None, key: PRNGKeyArray
    ) -> tuple[Carry, Held | None]:
        """Run forwards, set every sample's precision, and start inference."""
        x = batch[0]
        activities, output = network.feedforward(x)
        energy = self.minimised(network, batch)
        point = Point(activities, jax.tree.map(jnp.zeros_like, activities))
        factors = jnp.ones(len(x), output.dtype)
        if self.regime is not None:
            state, precisions = self._measured(energy, point, state)
            energy = precisions.of(as_free(energy))
            factors = factors if precisions.factors is None else precisions.factors
        if self.nudge != "positive":
            key, signs_key = jax.random.split(key)
            signs = self._signs(len(x), signs_key)
            energy, factors = as_free(energy).times(signs), signs * factors
        return Carry(energy, self.start(energy, point, key), output, factors), state

    def settled(
        self,
        network: Network,
        x: Num[AnyArray, "batch ..."],
        y: Num[AnyArray, "batch ..."],
        observed: Num[AnyArray, "batch ..."] | None = None,
    ) -> Solution:
        """Infer the latent variables, and all else, of what a network is to generate.

        Args:
            network: one that generates.
            x: its input; where that says nothing, the data themselves.
            y: data, (batch, ...).
            observed: 1 where they are known, shaped like the likelihood's terms; all unless given.
        """
        self.check_input(network)
        energy = self.minimised(network, (x, jnp.asarray(y, float)))
        if observed is not None:
            where = lambda free: free.observed  # noqa: E731
            known = jnp.asarray(observed, float)
            energy = eqx.tree_at(where, as_free(energy), known, is_leaf=lambda leaf: leaf is None)
        start = self.start(energy, as_free(energy).run(), jax.random.key(0))
        return infer(energy, self.solver, start, max_steps=self.max_steps, stopping=self.stopping)

    def predict(self, network: Network, x: Num[AnyArray, "batch ..."]) -> Float[Array, "batch ..."]:
        """Return the output of the feedforward pass, from latent variables inferred if it has any.

        Of a network that generates, x is what it is to generate, unless it gives the mean of the
        latent variables; the output is what it makes of these alone, without the errors of other
        layers.
        """
        if not network.generates or network.about_input:
            return super().predict(network, x)
        return generated(network, x, self.reads.settled(network, x, x).point)

    def check_input(self, network: Network) -> None:
        """Check that the input of a network is given, or that the rule infers it.

        Raises:
            ValueError: if not, or if a regime near backpropagation would leave it at its mean.
        """
        super().check_input(network)
        if network.generates and self.regime is not None:
            raise ValueError(
                "the input of this network is to be inferred, and a rho is for networks whose "
                "input is given: give a likelihood with a precision, and no rho"
            )

    def exact(self, network: Network) -> LearningRule | None:
        """Return backpropagation (None); of a network that generates, the rule well settled."""
        if not network.generates:
            return None
        own = self.solver
        # In the rule's own units: in others 200 steps leave some samples unsettled.
        whitened = isinstance(own, InErrors) and own.whitened
        well = InErrors(LBFGS(_PAIRS), whitened=whitened), jnp.asarray(_STEPS), Tolerance(1e-5)
        where = lambda rule: (rule.solver, rule.max_steps, rule.stopping)  # noqa: E731
        return eqx.tree_at(where, self, well, is_leaf=lambda leaf: leaf is None)

    def minimised(self, network: Network, batch: Batch) -> Energy:
        """Return the energy of a batch, before samples have precisions and signs of their own."""
        energy = self.energy(network, *batch, self.likelihood, self.regularisers)
        if self.hidden_precision is None:
            return energy
        if not isinstance(energy, FreeEnergy) or energy.precisions is not None:
            raise ValueError(
                "hidden_precision is for a mupc.FreeEnergy without precisions of its own: leave it "
                "out, and give the energy precisions"
            )
        where = lambda free: free.precisions  # noqa: E731
        return eqx.tree_at(where, energy, self.hidden_precision, is_leaf=lambda leaf: leaf is None)

    def gradients(
        self,
        network: Network,
        batch: Batch,
        carry: Carry,
        key: PRNGKeyArray,
        *,
        measure: bool | Bool[Array, ""] = True,
    ) -> tuple[Network, Carry, Info]:
        """Infer, then differentiate with respect to the weights."""
        _check_parameters(carry.energy, network)
        energy = carry.energy.with_parameters(network)
        carry = carry._replace(energy=energy)
        if self.updates > 1:  # activities go on, under new weights
            carry = carry._replace(start=energy.at(carry.start.activities))
        _, start, output, _ = carry
        solution, gradients = self.learn(carry, key, measure=measure)
        if network.generates:
            output = generated(network, as_free(energy).x, solution.point)
        ends = energy.layers(start), energy.layers(solution.point)
        before, layers = (jnp.mean(each, axis=1) for each in taken_from_size(*ends))
        precision = unit = self.likelihood.precision
        if isinstance(energy, FreeEnergy):
            precision, unit = jnp.mean(jnp.abs(energy.precision)), energy.likelihood.precision
        phases = {"inference": solution._replace(point=Point((), ()))}
        sweeps = self.solver.cost(solution.steps)
        info = Info(output, before, layers, precision, phases, sweeps, unit)
        return gradients, carry._replace(start=solution.point), info

    def learn(
        self, carry: Carry, key: PRNGKeyArray, *, measure: bool | Bool[Array, ""] = True
    ) -> tuple[Solution, Network]:
        """Return where inference ended, and what the weights would lower there."""
        solution = self._infer(carry, key, measure=measure)
        return solution, carry.energy.weight_gradient(solution.point, unit=carry.factors)

    def diagnostics(
        self, network: Network, batch: Batch, state: Any, key: PRNGKeyArray
    ) -> Mapping[str, Float[Array, "..."]]:
        """Return ρ, the batch's mean regime number at the precisions that its samples have."""
        energy = self.begin(network, batch, state, jax.random.split(key)[0])[0].energy
        return {"rho": mean_regime_number(energy)} if isinstance(energy, FreeEnergy) else {}

    def trace(
        self, network: Network, batch: Batch, state: Any, key: PRNGKeyArray
    ) -> Solution | None:
        """Infer as for learning, with a record of every step."""
        begin_key, update_key = jax.random.split(key)
        carry, _ = self.begin(network, batch, state, begin_key)
        return self._infer(carry, update_key, trace=True)

    def _nudge(self, nudge: Nudge | None) -> Nudge:
        """Return which way outputs are nudged: what was asked for, or what suits the rest."""
        if nudge is not None and nudge not in get_args(Nudge):
            raise ValueError(f"nudge must be one of {', '.join(get_args(Nudge))}, not {nudge!r}")
        rho = None if self.regime is None else self.regime.rho
        far = rho is not None and (isinstance(rho, Tracer) or float(rho) >= 1)
        if self.regime is None or rho is None or not self.regime.hold or far:
            needed = "a rho below 1 that is held"
        elif not isinstance(self.start, FeedforwardStart):
            needed = "inference that starts at the feedforward pass"
        else:
            return nudge or "alternating"
        if nudge not in (None, "positive"):
            raise ValueError(f"nudge {nudge} needs {needed}: leave it out, or make it positive")
        return "positive"

    def _signs(self, size: int, key: PRNGKeyArray) -> Float[Array, " batch"]:
        """Return 1 for samples that are nudged to their targets, −1 for those nudged away."""
        if self.nudge == "negative":
            return jnp.full(size, -1.0)
        return alternating(size, key)

    def _measured(self, energy: Energy, point: Point, state: Any) -> tuple[Any, Precisions]:
        if state is None or self.regime is None:
            raise ValueError(
                "this rule holds the regime: begin needs the state that its init gives"
            )
        return self.regime.measure(state, as_free(energy), point)

    def _infer(
        self,
        carry: Carry,
        key: PRNGKeyArray,
        *,
        measure: bool | Bool[Array, ""] = True,
        trace: bool = False,
    ) -> Solution:
        return infer(
            carry.energy,
            self.solver,
            carry.start,
            max_steps=self.max_steps,
            stopping=self.stopping,
            key=key,
            measure=measure,
            trace=trace,
        )


def generated(
    network: Network, x: Num[AnyArray, "batch ..."], point: Point
) -> Float[Array, "batch ..."]:
    """Return the output of the inferred input alone, without the errors of other layers."""
    latents, *others = point.errors
    return network.feedforward(x, (latents, *map(jnp.zeros_like, others))).output


def _is_one(precision: ArrayLike) -> bool:
    """Return whether a precision was left at 1, as far as it can be seen before it is traced."""
    return isinstance(precision, Tracer) or float(np.asarray(precision)) == 1


def _check_parameters(energy: Energy, network: Network) -> None:
    """Check that what an energy learns is the network."""
    form = lambda tree: jax.tree.structure(eqx.filter(tree, eqx.is_inexact_array))  # noqa: E731
    if form(energy.parameters) != form(network):
        raise ValueError(
            "the parameters of the energy are not the network that is trained, so that no "
            "optimiser of it can take their gradient: write a mupc.LearningRule for this energy"
        )


def as_free(energy: Energy) -> FreeEnergy:
    """Return an energy that is one of predictions, and refuse others."""
    if not isinstance(energy, FreeEnergy):
        raise ValueError(
            f"a regime number is one of a mupc.FreeEnergy, not of {type(energy).__name__}: give "
            "a likelihood with a precision, and no rho"
        )
    return energy
