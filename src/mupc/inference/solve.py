"""The one inference loop: it steps a solver until every sample is done."""

import enum
from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from mupc.arrays import as_count, as_not_negative, over_samples, sample_norms
from mupc.energies import Energy
from mupc.networks import Activities

# A sample whose energy ends this much above where it began has diverged; less is round-off.
_RISE = 1e-3


class InferenceResult(enum.IntEnum):
    """How inference ended for a sample."""

    MAX_STEPS = 0
    CONVERGED = 1
    STALLED = 2
    DIVERGED = 3

    @property
    def sentence(self) -> str:
        """What it means."""
        return {
            InferenceResult.MAX_STEPS: "the largest number of steps was made before convergence",
            InferenceResult.CONVERGED: "the residual fell below its tolerance",
            InferenceResult.STALLED: "the energy no longer falls",
            InferenceResult.DIVERGED: (
                "the energy rose above its initial value or overflowed: the step size is too "
                "large; take a smaller one, or mupc.StableStep()"
            ),
        }[self]


class Progress(NamedTuple):
    """What a solver saw at the activities it was given: each sample's energy and residual norm."""

    energy: Float[Array, " batch"]
    residual: Float[Array, " batch"]


class Solver(eqx.Module):
    """A method of inference. Samples are independent: what it keeps, it keeps per sample."""

    @abstractmethod
    def init(self, energy: Energy, activities: Activities) -> PyTree[Any]:
        """Give the state before the first step."""

    @abstractmethod
    def step(
        self, energy: Energy, activities: Activities, state: PyTree[Any]
    ) -> tuple[Activities, PyTree[Any], Progress]:
        """Make one step; `Progress` is of the activities given, not of those returned."""


class Solution(NamedTuple):
    """The outcome of inference; all but the activities have shape (batch,).

    Attributes:
        activities: where the samples came to rest.
        energy: F there.
        residual: ‖∂F/∂z‖₂ over all layers there.
        steps: how many steps the sample made.
        result: how it ended, an `InferenceResult`.
        initial: energy and residual at the activities that inference was given.
    """

    activities: Activities
    energy: Float[Array, " batch"]
    residual: Float[Array, " batch"]
    steps: Int[Array, " batch"]
    result: Int[Array, " batch"]
    initial: Progress

    @property
    def relative_residual(self) -> Float[Array, " batch"]:
        """The residual as a fraction of the initial one (as it is, if that was zero)."""
        began = self.initial.residual
        return self.residual / jnp.where(began > 0, began, 1)


class _Carry(NamedTuple):
    step: Int[Array, ""]
    activities: Activities
    state: PyTree[Any]
    initial: Progress
    lowest: Float[Array, " batch"]
    since_lowest: Int[Array, " batch"]
    steps: Int[Array, " batch"]
    result: Int[Array, " batch"]
    active: Bool[Array, " batch"]


def infer(
    energy: Energy,
    solver: Solver,
    activities: Activities,
    *,
    max_steps: int | Int[Array, ""],
    rtol: ArrayLike = 1e-3,
    atol: ArrayLike = 0.0,
    patience: int | Int[Array, ""] = 10,
    throw: bool = False,
) -> Solution:
    r"""Let activities settle to a minimum of an energy.

    A sample is done, and moves no more, when $\|\partial F / \partial z\|_2 \le \text{atol} +
    \text{rtol} \cdot \|\partial F / \partial z\|_2^{(0)}$ (converged), when its energy has reached
    no new low for `patience` steps (stalled), or when its energy is no longer finite (diverged). A
    sample that ends above its initial energy counts as diverged too.

    Args:
        energy: what to minimise.
        solver: how.
        activities: where to start, one array (layer, batch, ...) per stage.
        max_steps: the largest number of solver steps, at least 1.
        rtol: relative tolerance. With `rtol=0`, `atol=0` and `patience=0` all steps are made.
        atol: absolute tolerance.
        patience: see above; 0 never calls a sample stalled.
        throw: raise if a sample diverges, instead of only saying so in the result.

    Raises:
        RuntimeError: if a sample diverges and `throw` is set.
    """
    limits = _Limits(
        as_count(max_steps, least=1),
        as_not_negative(rtol),
        as_not_negative(atol),
        as_count(patience),
    )
    return _infer(energy, solver, activities, limits, throw)


class _Limits(NamedTuple):
    max_steps: Int[Array, ""]
    rtol: Float[Array, ""]
    atol: Float[Array, ""]
    patience: Int[Array, ""]

    def tolerance(self, initial: Progress) -> Float[Array, " batch"]:
        return self.atol + self.rtol * initial.residual


@eqx.filter_jit
def _infer(
    energy: Energy, solver: Solver, activities: Activities, limits: _Limits, throw: bool
) -> Solution:
    patience = limits.patience
    batch = activities[0].shape[1]
    zeros = jnp.zeros(batch, activities[0].dtype)
    counts = jnp.zeros(batch, int)
    unknown = Progress(zeros, zeros)
    begin = _Carry(
        step=jnp.zeros((), int),
        activities=activities,
        state=solver.init(energy, activities),
        initial=unknown,
        lowest=zeros + jnp.inf,
        since_lowest=counts,
        steps=counts,
        result=counts + InferenceResult.MAX_STEPS,
        active=jnp.ones(batch, bool),
    )

    def body(carry: _Carry) -> _Carry:
        moved, state, seen = solver.step(energy, carry.activities, carry.state)
        initial = jax.tree.map(
            lambda first, now: jnp.where(carry.step == 0, now, first), carry.initial, seen
        )
        since = jnp.where(seen.energy < carry.lowest, 0, carry.since_lowest + 1)
        result = _classify(seen, seen.residual <= limits.tolerance(initial))
        stalled = (patience > 0) & (since >= patience) & (result == InferenceResult.MAX_STEPS)
        result = jnp.where(stalled, InferenceResult.STALLED, result)
        active = carry.active & (result == InferenceResult.MAX_STEPS)
        return _Carry(
            step=carry.step + 1,
            activities=_move(active, moved, carry.activities),
            state=state,
            initial=initial,
            lowest=jnp.minimum(carry.lowest, seen.energy),
            since_lowest=since,
            steps=carry.steps + active,
            result=jnp.where(carry.active, result, carry.result),
            active=active,
        )

    def unfinished(carry: _Carry) -> Bool[Array, ""]:
        return (carry.step < limits.max_steps) & jnp.any(carry.active)

    end = jax.lax.while_loop(unfinished, body, begin)
    solution = _finish(energy, end, limits.tolerance(end.initial))
    if throw:
        diverged = jnp.any(solution.result == InferenceResult.DIVERGED)
        solution = eqx.error_if(solution, diverged, InferenceResult.DIVERGED.sentence)
    return solution


def _classify(seen: Progress, converged: Bool[Array, " batch"]) -> Int[Array, " batch"]:
    finite = jnp.isfinite(seen.energy) & jnp.isfinite(seen.residual)
    result = jnp.where(converged, InferenceResult.CONVERGED, InferenceResult.MAX_STEPS)
    return jnp.where(finite, result, InferenceResult.DIVERGED)


def _move(active: Bool[Array, " batch"], moved: Activities, stay: Activities) -> Activities:
    return jax.tree.map(
        lambda new, old: jnp.where(over_samples(active, old), new, old), moved, stay
    )


def _finish(energy: Energy, end: _Carry, tolerance: Float[Array, " batch"]) -> Solution:
    """Look once more at where the samples stopped: the loop saw only where each step began."""
    samples, gradient = energy.samples_and_gradient(end.activities)
    last = Progress(samples, sample_norms(gradient))
    result = jnp.where(end.active, _classify(last, last.residual <= tolerance), end.result)
    rose = last.energy > (1 + _RISE) * end.initial.energy
    converged = result == InferenceResult.CONVERGED
    result = jnp.where(rose & ~converged, InferenceResult.DIVERGED, result)
    return Solution(end.activities, *last, steps=end.steps, result=result, initial=end.initial)
