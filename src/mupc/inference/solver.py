"""What a method of inference is, and what inference reports."""

import enum
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, PyTree

from mupc.arrays import Readable, as_count
from mupc.energies import Energy, Point
from mupc.kinds import check_kind


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
                "large; use a smaller one, or mupc.StableStep()"
            ),
        }[self]


class Progress(NamedTuple):
    """What a solver saw at the position it was given: each sample's energy and residual norm."""

    energy: Float[Array, " batch"]
    residual: Float[Array, " batch"]


Position = PyTree[Float[Array, "_layer batch ..."]]
"""Where a solver stands, in its own coordinates: arrays with the batch on axis 1. Those of
`mupc.InErrors` may come with their units."""

Move = Callable[[Bool[Array, " batch"]], Any]
"""Returns the next position, for the samples that are to move; the others stay where they are."""

Keys = Key[Array, " batch"]
"""A random key for each sample, another one at every step."""


class Solver(Readable):
    """A method of inference. Samples are independent: what it keeps, it keeps per sample.

    A solver moves a position. That is the activities themselves, unless `enter` and `leave` say
    otherwise; points come in, and points go out.
    """

    takes: ClassVar[type[Energy]] = Energy
    """The energies that it can minimise."""

    in_activities: ClassVar[bool] = True
    """Whether positions are activities, and the residuals of its `Progress` those of `infer`."""

    @property
    def follows(self) -> bool:
        """Whether it makes steps of its own size along whatever stands for the activity gradient.

        Others rely on an energy that falls, or on a curvature: see `mupc.Energy.descends`.
        """
        return False

    @property
    def projects(self) -> bool:
        """Whether it is for energies of activities on a box: see `mupc.Energy.bounded`."""
        return False

    @abstractmethod
    def init(self, energy: Any, position: Any) -> PyTree[Any]:
        """Return the state before the first step."""

    @abstractmethod
    def step(
        self, energy: Any, position: Any, state: PyTree[Any], keys: Keys
    ) -> tuple[Move, PyTree[Any], Progress]:
        """Prepare one step; `Progress` is of the position given, in the solver's coordinates.

        Whether a sample is to move is decided by its progress, so the step is returned as a
        function of that. Most solvers make it with `mupc.arrays.choose`.
        """

    def cost(self, steps: Int[Array, " batch"]) -> Float[Array, " batch"] | None:
        """Return what so many steps cost in sweeps; None for a solver without a fixed price.

        A sweep is one pass over all layers with one matrix product per layer. Steps that had to be
        made smaller, and measuring residuals, come on top.
        """
        del steps
        return None

    def enter(self, energy: Any, point: Point) -> Position:
        """Return the position of a point."""
        del energy
        return point.activities

    def leave(self, energy: Any, position: Any) -> Point:
        """Return the point of a position."""
        return energy.at(position)


class Schedule(Readable):
    """Solvers one after the other: a fast one first, say, and an exact one after.

    A sample that has converged moves no more; one that has stalled goes on with the next solver.

    Args:
        stages: pairs of a solver and the largest number of its steps.
    """

    stages: tuple[tuple[Solver, Int[Array, ""]], ...]

    def __init__(self, stages: Iterable[tuple[Solver, Int[ArrayLike, ""]]]) -> None:
        self.stages = tuple((solver, as_count(steps, least=1)) for solver, steps in stages)
        if not self.stages:
            raise ValueError("a schedule needs at least one pair of a solver and a number of steps")

    @property
    def limit(self) -> Int[Array, ""]:
        """The largest number of steps of all solvers together."""
        return jnp.sum(jnp.stack([steps for _, steps in self.stages]))

    def cost(self, steps: Int[Array, " batch"]) -> None:
        """Return None: how many steps each solver made is not recorded."""


def step_limit(solver: Solver | Schedule, max_steps: Int[ArrayLike, ""] | None) -> Int[Array, ""]:
    """Return the largest number of steps; a schedule has its own, unless there is a smaller one.

    Raises:
        ValueError: if it is not given, or not a whole number of at least 1.
        TypeError: if the solver is none.
    """
    check_kind("solver", solver, (Solver, Schedule), "a mupc.Solver, e.g. mupc.GaussNewton()")
    if max_steps is not None:
        return as_count(max_steps, least=1)
    if not isinstance(solver, Schedule):
        raise ValueError(
            "max_steps is missing, the largest number of steps: only a schedule has its own"
        )
    return solver.limit


class Solution(NamedTuple):
    """The outcome of inference; all but point and trace have shape (batch,).

    Attributes:
        point: where the samples came to rest: activities and errors.
        energy: F there.
        residual: ‖∂F/∂z‖₂ over all layers there (infinite if `infer` was not to measure it, as
            nothing is known of it).
        steps: how many steps the sample made.
        result: how it ended, an `InferenceResult`.
        initial: energy and residual at the point that inference was given.
        trace: energy and residual before each step, (steps, batch), if asked for; a sample that
            is done repeats its last figures, as do steps that nobody made.
    """

    point: Point
    energy: Float[Array, " batch"]
    residual: Float[Array, " batch"]
    steps: Int[Array, " batch"]
    result: Int[Array, " batch"]
    initial: Progress
    trace: Progress | None

    def __repr__(self) -> str:
        """Return the shapes of what it holds."""
        return eqx.tree_pformat(self)

    @property
    def relative_residual(self) -> Float[Array, " batch"]:
        """The residual as a fraction of the initial one (as it is, if that was zero)."""
        began = self.initial.residual
        known = jnp.isfinite(self.residual) & jnp.isfinite(began)
        share = jnp.where(known, self.residual, 0) / jnp.where(known & (began > 0), began, 1)
        return jnp.where(known, share, jnp.inf)
