"""The one inference loop: it steps a solver until every sample is done."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from mupc.arrays import as_count, as_not_negative, sample_norms
from mupc.energies import Energy
from mupc.inference.solver import (
    InferenceResult,
    Position,
    Progress,
    Schedule,
    Solution,
    Solver,
    step_limit,
)
from mupc.networks import Activities

# A sample whose energy ends this much above where it began has diverged; less is round-off.
_RISE = 1e-3

# A solver in other coordinates sees its own residual, which at a great depth is up to ten times
# that of the activities: from there on the one that counts is measured as well.
_NEAR = 10.0


def infer(
    energy: Energy,
    solver: Solver | Schedule,
    activities: Activities,
    *,
    max_steps: int | Int[Array, ""] | None = None,
    rtol: ArrayLike = 1e-3,
    atol: ArrayLike = 0.0,
    patience: int | Int[Array, ""] = 10,
    errors: Activities | None = None,
    measure: bool | Bool[Array, ""] = True,
    trace: bool = False,
    throw: bool = False,
) -> Solution:
    r"""Let activities settle to a minimum of an energy.

    A sample is done, and moves no more, when $\|\partial F / \partial z\|_2 \le \text{atol} +
    \text{rtol} \cdot \|\partial F / \partial z\|_2^{(0)}$ (converged), when its energy has reached
    no new low for `patience` steps (stalled), or when its energy is no longer finite (diverged). A
    sample that ends above its initial energy counts as diverged too.

    Args:
        energy: what to minimise.
        solver: how; or a schedule of solvers.
        activities: where to start, one array (layer, batch, ...) per stage.
        max_steps: the largest number of solver steps, at least 1; a schedule has its own, so that
            it may be left out there.
        rtol: relative tolerance. With `rtol=0`, `atol=0` and `patience=0` all steps are made.
        atol: absolute tolerance.
        patience: see above; 0 never calls a sample stalled.
        errors: z − u at the start, if they are known (zero at the feedforward activities); this
            saves a sweep of solvers that move errors.
        measure: whether to measure residuals at the start and the end, one or two sweeps each.
        trace: whether to record energy and residual before every step.
        throw: raise if a sample diverges, instead of only saying so in the result.

    Raises:
        ValueError: if an argument is impossible.
        RuntimeError: if a sample diverges and `throw` is set.
    """
    if any(jnp.ndim(z) < 2 for z in activities):
        raise ValueError(
            "activities must be a tuple with one array (layer, batch, ...) for each stage, such as "
            "network.feedforward(x).activities"
        )
    limit = step_limit(solver, max_steps)
    limits = _Limits(
        limit,
        as_not_negative(rtol),
        as_not_negative(atol),
        as_count(patience),
        jnp.asarray(measure, bool),
    )
    length = int(limit) if trace else 0
    return _infer(energy, solver, activities, errors, limits, length, throw)


class _Limits(NamedTuple):
    max_steps: Int[Array, ""]
    rtol: Float[Array, ""]
    atol: Float[Array, ""]
    patience: Int[Array, ""]
    measure: Bool[Array, ""]

    def tolerance(self, initial: Progress) -> Float[Array, " batch"]:
        return jnp.where(self.strict, 0.0, self.atol + self.rtol * initial.residual)

    @property
    def strict(self) -> Bool[Array, ""]:
        """Whether there is no tolerance, so that nobody asks for a residual on the way."""
        return (self.rtol == 0) & (self.atol == 0)


class _Carry(NamedTuple):
    """What the loop carries; `initial` and `trace` are None where they are not yet, or never."""

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
    activities: Activities,
    errors: Activities | None,
    limits: _Limits,
    trace: int,
    throw: bool,
) -> Solution:
    batch = activities[0].shape[1]
    zeros = jnp.zeros(batch, activities[0].dtype)
    counts = jnp.zeros(batch, int)
    stages = solver.stages if isinstance(solver, Schedule) else ((solver, limits.max_steps),)
    empty = jnp.full((trace, batch), jnp.nan, zeros.dtype)
    carry = _Carry(
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
    for i, (one, steps) in enumerate(stages):
        position = one.enter(energy, activities, errors)
        if i == 0 and position is not activities:
            wanted = limits.measure | ~limits.strict
            carry = carry._replace(initial=_look(energy, activities, errors, wanted))
        carry = carry._replace(
            position=position,
            state=one.init(energy, position),
            since_lowest=counts,
            active=carry.active | (carry.result == InferenceResult.STALLED),
            result=jnp.where(
                carry.result == InferenceResult.STALLED, InferenceResult.MAX_STEPS, carry.result
            ),
        )
        # The first step of a solver in activities sees the initial residual by itself.
        carry = _run(energy, one, carry, limits, steps, sees_start=position is activities)
        activities, errors = one.leave(energy, carry.position)
    solution = _finish(energy, activities, errors, carry, limits)
    if throw:
        diverged = jnp.any(solution.result == InferenceResult.DIVERGED)
        solution = eqx.error_if(solution, diverged, InferenceResult.DIVERGED.sentence)
    return solution


def _run(
    energy: Energy,
    solver: Solver,
    begin: _Carry,
    limits: _Limits,
    steps: Int[Array, ""],
    *,
    sees_start: bool,
) -> _Carry:
    """Step one solver until every sample is done, or it has made its steps."""
    patience, end = limits.patience, jnp.minimum(begin.step + steps, limits.max_steps)

    def body(carry: _Carry) -> _Carry:
        move, state, seen = solver.step(energy, carry.position, carry.state)
        if not sees_start:
            seen = _in_activities(energy, solver, carry, seen, limits)
        initial = carry.initial
        if sees_start:
            initial = jax.tree.map(
                lambda first, now: jnp.where(carry.step == 0, now, first), initial, seen
            )
        since = jnp.where(seen.energy < carry.lowest, 0, carry.since_lowest + 1)
        result = _classify(seen, seen.residual <= limits.tolerance(initial))
        stalled = (patience > 0) & (since >= patience) & (result == InferenceResult.MAX_STEPS)
        result = jnp.where(stalled, InferenceResult.STALLED, result)
        active = carry.active & (result == InferenceResult.MAX_STEPS)
        trace = carry.trace
        if trace is not None:
            trace = jax.tree.map(lambda seen, now: seen.at[carry.step].set(now), trace, seen)
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

    def unfinished(carry: _Carry) -> Bool[Array, ""]:
        return (carry.step < end) & jnp.any(carry.active)

    return jax.lax.while_loop(unfinished, body, begin)


def _in_activities(
    energy: Energy, solver: Solver, carry: _Carry, seen: Progress, limits: _Limits
) -> Progress:
    """Measure the residual in activities, if a sample may have converged or a trace wants it."""
    near = seen.residual <= _NEAR * limits.tolerance(carry.initial)
    due = jnp.any(carry.active & near) & ~limits.strict
    if carry.trace is not None:
        due = jnp.ones((), bool)

    def measured() -> Float[Array, " batch"]:
        return sample_norms(energy.activity_gradient(*solver.leave(energy, carry.position)))

    return Progress(seen.energy, jax.lax.cond(due, measured, lambda: seen.residual))


def _look(
    energy: Energy, activities: Activities, errors: Activities | None, measure: Bool[Array, ""]
) -> Progress:
    """Give the energy at activities, and the residual if it is wanted."""

    def measured() -> Float[Array, " batch"]:
        return sample_norms(energy.activity_gradient(activities, errors))

    samples = energy.samples(activities, errors)
    residual = jax.lax.cond(measure, measured, lambda: jnp.full_like(samples, jnp.nan))
    return Progress(samples, residual)


def _classify(seen: Progress, converged: Bool[Array, " batch"]) -> Int[Array, " batch"]:
    finite = jnp.isfinite(seen.energy) & jnp.isfinite(seen.residual)
    result = jnp.where(converged, InferenceResult.CONVERGED, InferenceResult.MAX_STEPS)
    return jnp.where(finite, result, InferenceResult.DIVERGED)


def _finish(
    energy: Energy,
    activities: Activities,
    errors: Activities | None,
    end: _Carry,
    limits: _Limits,
) -> Solution:
    """Look once more at where the samples stopped: the loop saw only where each step began."""
    last = _look(energy, activities, errors, limits.measure)
    near = last.residual <= limits.tolerance(end.initial)
    seen = last._replace(residual=jnp.where(limits.measure, last.residual, 0))
    result = jnp.where(end.active, _classify(seen, near), end.result)
    rose = last.energy > (1 + _RISE) * end.initial.energy
    converged = result == InferenceResult.CONVERGED
    result = jnp.where(rose & ~converged, InferenceResult.DIVERGED, result)
    return Solution(
        activities,
        errors,
        *last,
        steps=end.steps,
        result=result,
        initial=end.initial,
        trace=end.trace,
    )
