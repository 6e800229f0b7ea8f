"""What a method of inference is, and what inference reports."""

import enum
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from mupc.arrays import as_count
from mupc.energies import Energy
from mupc.networks import Activities


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
    """What a solver saw at the position it was given: each sample's energy and residual norm."""

    energy: Float[Array, " batch"]
    residual: Float[Array, " batch"]


Position = PyTree[Float[Array, "layer batch ..."]]
"""Where a solver stands, in its own coordinates: arrays with the batch on axis 1."""

Move = Callable[[Bool[Array, " batch"]], Any]
"""Gives the next position, for the samples that are to move; the others stay where they are."""


class Solver(eqx.Module):
    """A method of inference. Samples are independent: what it keeps, it keeps per sample.

    A solver moves a position. That is the activities themselves, unless `enter` and `leave` say
    otherwise; activities come in, and activities go out.
    """

    @abstractmethod
    def init(self, energy: Energy, position: Any) -> PyTree[Any]:
        """Give the state before the first step."""

    @abstractmethod
    def step(
        self, energy: Energy, position: Any, state: PyTree[Any]
    ) -> tuple[Move, PyTree[Any], Progress]:
        """Prepare one step; `Progress` is of the position given, in the solver's coordinates.

        Whether a sample is to move is decided by its progress, so the step is given as a function
        of that. Most solvers make it with `mupc.arrays.choose`.
        """

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """Give what so many steps cost in sweeps; nan for a solver without a fixed price.

        A sweep is one pass over all layers with one matrix product per layer. Steps that had to be
        made smaller, and measuring residuals, come on top.
        """
        return jnp.full(steps.shape, jnp.nan)

    def enter(self, energy: Energy, activities: Activities, errors: Activities | None) -> Position:
        """Give the position of activities; their errors z − u are given where they are known."""
        del energy, errors
        return activities

    def leave(self, energy: Energy, position: Any) -> tuple[Activities, Activities | None]:
        """Give the activities of a position, and their errors if they are known."""
        del energy
        return position, None


class Schedule(eqx.Module):
    """Solvers one after the other: a fast one first, say, and an exact one after.

    A sample that has converged moves no more; one that has stalled goes on with the next solver.

    Args:
        stages: pairs of a solver and the largest number of its steps.
    """

    stages: tuple[tuple[Solver, Int[Array, ""]], ...]

    def __init__(self, stages: Iterable[tuple[Solver, int | Int[Array, ""]]]) -> None:
        self.stages = tuple((solver, as_count(steps, least=1)) for solver, steps in stages)
        if not self.stages:
            raise ValueError("a schedule needs at least one pair of a solver and a number of steps")

    @property
    def limit(self) -> Int[Array, ""]:
        """The largest number of steps of all solvers together."""
        return jnp.sum(jnp.stack([steps for _, steps in self.stages]))

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """Give nan: how many steps each solver made is not recorded."""
        return jnp.full(steps.shape, jnp.nan)


def step_limit(solver: Solver | Schedule, max_steps: int | Int[Array, ""] | None) -> Int[Array, ""]:
    """Give the largest number of steps; a schedule has its own, unless there is a smaller one.

    Raises:
        ValueError: if it is not given, or not a whole number of at least 1.
    """
    if isinstance(solver, type):
        raise ValueError(f"give a solver, such as mupc.{solver.__name__}(), and not its class")
    if max_steps is not None:
        return as_count(max_steps, least=1)
    if not isinstance(solver, Schedule):
        raise ValueError(
            "give max_steps, the largest number of steps: a schedule alone has its own"
        )
    return solver.limit


class Solution(NamedTuple):
    """The outcome of inference; all but activities, errors and trace have shape (batch,).

    Attributes:
        activities: where the samples came to rest.
        errors: z − u there, if the solver knows them.
        energy: F there.
        residual: ‖∂F/∂z‖₂ over all layers there (nan if `infer` was not to measure it).
        steps: how many steps the sample made.
        result: how it ended, an `InferenceResult`.
        initial: energy and residual at the activities that inference was given.
        trace: energy and residual before each step, (steps, batch), if asked for; a sample that
            is done repeats its last figures, steps that were not made are nan.
    """

    activities: Activities
    errors: Activities | None
    energy: Float[Array, " batch"]
    residual: Float[Array, " batch"]
    steps: Int[Array, " batch"]
    result: Int[Array, " batch"]
    initial: Progress
    trace: Progress | None

    @property
    def relative_residual(self) -> Float[Array, " batch"]:
        """The residual as a fraction of the initial one (as it is, if that was zero)."""
        began = self.initial.residual
        return self.residual / jnp.where(began > 0, began, 1)
