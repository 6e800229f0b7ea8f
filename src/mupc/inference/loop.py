"""The one inference loop: it steps a solver until every sample is done."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, PRNGKeyArray, PyTree

from mupc.arrays import any_sample, sample_norms
from mupc.energies import Energy, Point
from mupc.inference.solver import (
    InferenceResult,
    Position,
    Progress,
    Schedule,
    Solution,
    Solver,
    step_limit,
)
from mupc.inference.stopping import Stopping, Tolerance
from mupc.kinds import check_kind
from mupc.networks import Activities

# A solver in other coordinates sees its own residual, which at a great depth is up to ten times
# that of the activities: from there on the one that counts is measured as well.
_NEAR = 10.0


def infer(
    energy: Energy,
    solver: Solver | Schedule,
    start: Point | Activities,
    *,
    max_steps: Int[ArrayLike, ""] | None = None,
    stopping: Stopping | None = None,
    key: PRNGKeyArray | None = None,
    measure: bool | Bool[Array, ""] = True,
    trace: bool = False,
    throw: bool = False,
) -> Solution:
    r"""Let activities settle to a minimum of an energy.

    A sample that is done, as `stopping` says (converged, stalled) or because its energy is no
    longer finite (diverged), moves no more. One that ends above its initial energy counts as
    diverged too. Where an energy does not descend (`mupc.Energy.descends`) its changes mean
    nothing, and no sample is stalled, or has diverged, by them.

    Args:
        energy: what to minimise.
        solver: how; or a schedule of solvers.
        start: where from: a point that the energy made, such as `energy.run()`; or activities, one
            array (layer, batch, ...) per bank.
        max_steps: the largest number of solver steps, at least 1; a schedule has its own, so that
            it may be left out there.
        stopping: when a sample is done; `mupc.Tolerance()` unless given.
        key: for solvers that draw; folded by sample and by step, so that a sample draws the same
            whatever batch it leads. Key 0 unless given.
        measure: whether to measure residuals at the start and the end, one or two sweeps each.
        trace: whether to record energy and residual before every step.
        throw: raise if a sample diverges, instead of only saying so in the result.

    Raises:
        ValueError: if an argument is impossible, or the solver is for other energies.
        TypeError: if one is not what it should be.
        RuntimeError: if a sample diverges and `throw` is set.
    """
    limit = step_limit(solver, max_steps)
    check_kind("energy", energy, Energy, "a mupc.Energy, e.g. mupc.FreeEnergy(network, x, y, …)")
    _check_energy(energy, solver)
    point = start if isinstance(start, Point) else energy.at(_checked(start))
    limits = _Limits(limit, stopping or Tolerance(), jnp.asarray(measure, bool), energy.descends)
    length = int(limit) if trace else 0
    return _infer(energy, solver, point, limits, _sample_keys(key, point), length, throw)


class _Limits(NamedTuple):
    max_steps: Int[Array, ""]
    stopping: Stopping
    measure: Bool[Array, ""]
    descends: bool


class _Carry(NamedTuple):
    """What the loop carries; `trace` is None where nobody asks for one."""

    step: Int[Array, ""]
    position: Position
    state: PyTree[Any]
    initial: Progress
    lowest: Float[Array, " batch"]
    since_lowest: Int[Array, " batch"]
    steps: Int[Array, " batch"]
    result: Int[Array, " batch"]
    active: Bool[Array, " batch"]
    trace: Progress | None


@eqx.filter_jit
def _infer(
    energy: Energy,
    solver: Solver | Schedule,
    point: Point,
    limits: _Limits,
    keys: Key[Array, " batch"],
    trace: int,
    throw: bool,
) -> Solution:
    stages = solver.stages if isinstance(solver, Schedule) else ((solver, limits.max_steps),)
    carry = _initial_carry(point, trace)
    counts = carry.steps
    for i, (one, steps) in enumerate(stages):
        if i == 0 and not one.in_activities:
            wanted = limits.measure | limits.stopping.measures
            carry = carry._replace(initial=_progress(energy, point, wanted))
        position = one.enter(energy, point)
        stalled = carry.result == InferenceResult.STALLED
        carry = carry._replace(
            position=position,
            state=one.init(energy, position),
            since_lowest=counts,
            active=carry.active | stalled,
            result=jnp.where(stalled, InferenceResult.MAX_STEPS, carry.result),
        )
        carry = _run(energy, one, carry, limits, keys, steps)
        point = one.leave(energy, carry.position)
    solution = _finish(energy, point, carry, limits)
    if throw:
        diverged = jnp.any(solution.result == InferenceResult.DIVERGED)
        solution = eqx.error_if(solution, diverged, InferenceResult.DIVERGED.sentence)
    return solution


def _initial_carry(point: Point, trace: int) -> _Carry:
    """Return what the loop carries before the first solver enters."""
    batch = point.activities[0].shape[1]
    zeros, counts = jnp.zeros(batch, point.activities[0].dtype), jnp.zeros(batch, int)
    empty = jnp.zeros((trace, batch), zeros.dtype)
    return _Carry(
        step=jnp.zeros((), int),
        position=(),
        state=(),
        initial=Progress(zeros, zeros),
        lowest=zeros + jnp.inf,
        since_lowest=counts,
        steps=counts,
        result=counts + InferenceResult.MAX_STEPS,
        active=jnp.ones(batch, bool),
        trace=Progress(empty, empty) if trace else None,
    )


def _run(
    energy: Energy,
    solver: Solver,
    begin: _Carry,
    limits: _Limits,
    keys: Key[Array, " batch"],
    steps: Int[Array, ""],
) -> _Carry:
    """Step one solver until every sample is done, or it has made its steps."""
    end = jnp.minimum(begin.step + steps, limits.max_steps)

    def body(carry: _Carry) -> _Carry:
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, carry.step)
        move, state, seen = solver.step(energy, carry.position, carry.state, own)
        if not solver.in_activities:
            seen = _in_activities(energy, solver, carry, seen, limits)
        # The first step of a solver in activities sees the initial residual by itself.
        first = solver.in_activities & (carry.step == 0)
        return _advance(carry, move, state, seen, limits, first)

    def unfinished(carry: _Carry) -> Bool[Array, ""]:
        return (carry.step < end) & any_sample(carry.active)

    end_of_run = jax.lax.while_loop(unfinished, body, begin)
    if end_of_run.trace is None:
        return end_of_run
    return end_of_run._replace(trace=_filled(end_of_run.trace, end_of_run.step))


def _advance(
    carry: _Carry,
    move: Any,
    state: PyTree[Any],
    seen: Progress,
    limits: _Limits,
    first: Bool[Array, ""],
) -> _Carry:
    """Judge where the samples stood, and move those that are not done."""
    stopping = limits.stopping
    initial = jax.tree.map(lambda was, now: jnp.where(first, now, was), carry.initial, seen)
    trace = carry.trace
    if trace is not None:
        trace = jax.tree.map(
            lambda told, now: told.at[carry.step].set(
                jnp.where(carry.active | (carry.step == 0), now, told[carry.step - 1])
            ),
            trace,
            seen,
        )
    since = jnp.where(seen.energy < carry.lowest, 0, carry.since_lowest + 1)
    result = _classify(seen, seen.residual <= stopping.tolerance(initial.residual))
    stalled = stopping.stalled(since) & (result == InferenceResult.MAX_STEPS)
    if limits.descends:
        result = jnp.where(stalled, InferenceResult.STALLED, result)
    active = carry.active & (result == InferenceResult.MAX_STEPS)
    return _Carry(
        step=carry.step + 1,
        position=move(active),
        state=state,
        initial=initial,
        lowest=jnp.minimum(carry.lowest, seen.energy),
        since_lowest=since,
        steps=carry.steps + active,
        result=jnp.where(carry.active, result, carry.result),
        active=active,
        trace=trace,
    )


def _in_activities(
    energy: Energy, solver: Solver, carry: _Carry, seen: Progress, limits: _Limits
) -> Progress:
    """Measure the residual in activities, if a sample may have converged or a trace wants it."""
    if carry.trace is None and not limits.stopping.measures:
        return seen
    near = seen.residual <= _NEAR * limits.stopping.tolerance(carry.initial.residual)
    due = any_sample(carry.active & near) | (carry.trace is not None)

    def measured() -> Float[Array, " batch"]:
        return sample_norms(energy.activity_gradient(solver.leave(energy, carry.position)))

    return Progress(seen.energy, jax.lax.cond(due, measured, lambda: seen.residual))


def _progress(energy: Energy, point: Point, measure: Bool[Array, ""]) -> Progress:
    """Return the energy at a point, and the residual if it is wanted; else it is infinite."""

    def measured() -> Float[Array, " batch"]:
        return sample_norms(energy.activity_gradient(point))

    samples = energy.samples(point)
    residual = jax.lax.cond(measure, measured, lambda: jnp.full_like(samples, jnp.inf))
    return Progress(samples, residual)


def _classify(seen: Progress, converged: Bool[Array, " batch"]) -> Int[Array, " batch"]:
    finite = jnp.isfinite(seen.energy) & jnp.isfinite(seen.residual)
    result = jnp.where(converged, InferenceResult.CONVERGED, InferenceResult.MAX_STEPS)
    return jnp.where(finite, result, InferenceResult.DIVERGED)


def _finish(energy: Energy, point: Point, end: _Carry, limits: _Limits) -> Solution:
    """Look once more at where the samples stopped: the loop saw only where each step began."""
    last = _progress(energy, point, limits.measure)
    near = limits.measure & (last.residual <= limits.stopping.tolerance(end.initial.residual))
    seen = last._replace(residual=jnp.where(limits.measure, last.residual, 0))
    result = jnp.where(end.active, _classify(seen, near), end.result)
    if limits.descends:
        rose = limits.stopping.rose(end.initial.energy, last.energy)
        converged = result == InferenceResult.CONVERGED
        result = jnp.where(rose & ~converged, InferenceResult.DIVERGED, result)
    return Solution(point, *last, end.steps, result, end.initial, end.trace)


def _filled(trace: Progress, made: Int[Array, ""]) -> Progress:
    """Repeat the last figures where no step was made."""
    rows = jnp.minimum(jnp.arange(len(trace.energy)), made - 1)
    return jax.tree.map(lambda told: told[rows], trace)


def _sample_keys(key: PRNGKeyArray | None, point: Point) -> Key[Array, " batch"]:
    samples = jnp.arange(point.activities[0].shape[1])
    one = jax.random.key(0) if key is None else key
    return jax.vmap(jax.random.fold_in, (None, 0))(one, samples)


def _checked(activities: Any) -> Activities:
    banks = activities if isinstance(activities, tuple) else ((),)
    if any(getattr(z, "ndim", 0) < 2 for z in banks):
        raise ValueError(
            "start must be a point, such as energy.run(), or a tuple of activities with one array "
            "(layer, batch, ...) for each bank, such as network.feedforward(x).activities"
        )
    return activities


def _check_energy(energy: Energy, solver: Solver | Schedule) -> None:
    solvers = [one for one, _ in solver.stages] if isinstance(solver, Schedule) else [solver]
    for one in solvers:
        if not isinstance(energy, one.takes):
            raise ValueError(
                f"mupc.{type(one).__name__} needs a mupc.{one.takes.__name__}, and "
                f"{type(energy).__name__} is none: use a solver in activities, such as "
                "mupc.GradientDescent"
            )
        if energy.bounded != one.projects:
            raise ValueError(
                f"mupc.{type(one).__name__} would leave the box that activities are on: give "
                "mupc.FixedPoint() as the solver"
                if energy.bounded
                else f"mupc.{type(one).__name__} is for activities on a box, and these have none: "
                "use mupc.InErrors(mupc.LBFGS())"
            )
        if not (energy.descends or one.follows):
            raise ValueError(
                f"mupc.{type(one).__name__} needs the gradient of an energy, which a network with "
                "error kernels does not give: use mupc.GradientDescent, with a number as its step"
            )
