"""One network in training: where it stands, its records, and what a checkpoint keeps of it."""

import dataclasses
import time
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from mupc.data import Dataset, Split, augmented, batch_indices
from mupc.hyperparameters import as_module
from mupc.learning import Batch, LearningRule, explain
from mupc.networks import Network
from mupc.records import Ended, Record, record_from
from mupc.training.checkpoint import Checkpoints, Saved, Snapshot, check_identity
from mupc.training.evaluate import as_input, evaluate
from mupc.training.layout import Layout, on_one
from mupc.training.metrics import Metrics
from mupc.training.plan import Schedule
from mupc.training.results import FitResult
from mupc.training.step import Inputs, State, check_arguments, init
from mupc.training.trees import described, fill

_Tree = TypeVar("_Tree")


class Member(NamedTuple):
    """One of several networks that are trained side by side; see `fit`.

    It goes on from what was `saved`, if that is given, and keeps checkpoints if it has any.
    """

    network: Network
    rule: LearningRule
    optimiser: optax.GradientTransformation
    key: PRNGKeyArray
    callback: Callable[[Record], None] | None = None
    checkpoints: Checkpoints | None = None
    saved: Saved | None = None


class Trained(NamedTuple):
    """A network with the state of its rule, after so many steps."""

    network: Network
    state: PyTree[Any]
    step: int


class _Arrays(NamedTuple):
    """The arrays of a checkpoint: of the last step, and of the best network so far if any."""

    state: State
    best: tuple[Network, PyTree[Any]] | None


class Session:
    """One network in training; it goes on from what its member has saved.

    Raises:
        TypeError: if something is not what it should be.
        RunError: if what was saved is of another run.
    """

    def __init__(
        self, member: Member, data: Dataset, schedule: Schedule, layout: Layout | None = None
    ) -> None:
        network, rule, optimiser, key, *_, saved = member
        check_arguments(network, rule, optimiser, key)
        self.member, self.data, self.schedule, self.layout = member, data, schedule, layout
        self._seed, step_key = _keys(key)
        self._optimiser = as_module(optimiser)
        self._state: State | Callable[[], State] = self._placed(
            init(network, rule, optimiser, step_key)
        )
        self._identity: dict[str, Any] | None = None
        self.steps, self.kept = 0, 0
        self.best: Trained | None = None
        self.best_score, self.stale = (-np.inf, -np.inf), 0
        self.pending: list[Metrics] = []
        self.records: list[Record] = []
        self._began, self.idle = time.perf_counter(), 0.0
        if saved is not None:
            self._restore(saved)
        self.ended = Ended.FINISHED if self.last else None

    @property
    def state(self) -> State:
        """Where training stands."""
        if callable(self._state):
            self._state = self._state()
        return self._state

    @property
    def last(self) -> bool:
        """Whether all steps have been made."""
        return self.steps == self.schedule.steps

    @property
    def failed(self) -> bool:
        """Whether a step was refused, because it diverged."""
        return int(self.state.failed) >= 0

    @property
    def cut_short(self) -> bool:
        """Whether it was interrupted, and has time to tell what no checkpoint has kept."""
        kept = self.ended is Ended.TERMINATED and self.kept == self.steps
        return self.ended in (Ended.INTERRUPTED, Ended.TERMINATED) and not (kept or self.failed)

    @property
    def seconds(self) -> float:
        """Since it began, the time before a stop included."""
        return time.perf_counter() - self._began

    @property
    def outcome(self) -> Trained:
        """What it has given so far: the best network, or else the last sound one."""
        state = self.state
        steps = int(state.failed) if self.failed else self.steps
        return self.best or Trained(state.network, state.rule, steps)

    @contextmanager
    def paused(self) -> Generator[None]:
        """Count what is done meanwhile as no part of training steps."""
        begun = time.perf_counter()
        yield
        self.idle += time.perf_counter() - begun

    def batch(self, step: int) -> Batch:
        """Return the batch that step number `step` is made on."""
        return _batch(self.data, self.schedule.batch_size, self._seed, step)

    def inputs(self, *, measure: bool) -> Inputs:
        """Return what the next step is given besides the state."""
        batch = self.batch(self.steps)
        batch = batch if self.layout is None else self.layout.parted(batch)
        return batch, self.member.rule, self._optimiser, jnp.asarray(measure)

    def advance(self, state: State | Callable[[], State], metrics: Metrics) -> None:
        """Note that a step was made; the state may be one that is found when it is asked for."""
        self._state, self.steps = state, self.steps + 1
        self.pending.append(metrics)

    def report(self, record: Record) -> None:
        """Keep a record, and hand it on."""
        self.records.append(record)
        if self.member.callback is not None:
            self.member.callback(record)

    def result(self, ended: Ended) -> FitResult:
        """Return the result, now that training has ended."""
        failed = int(self.state.failed)
        steps = self.steps if failed < 0 else failed
        message = ended.sentence(steps, self.schedule.steps)
        if failed >= 0:
            ended, message = Ended.DIVERGED, self._explained(failed)
        elif not self._sound():
            ended = Ended.DIVERGED
            message = f"diverged at step {steps}: the loss after it is not finite"
        network, state, step = self.outcome
        if self.layout is not None:
            network, state = on_one((network, state))
        rule, records = self.member.rule, tuple(self.records)
        return FitResult(network, rule, state, step, steps, ended, message, records)

    def snapshot(self) -> Snapshot:
        """Return all that training needs to go on from here."""
        progress = {
            "best_step": 0 if self.best is None else self.best.step,
            "best_score": self.best_score,
            "stale": self.stale,
            "seconds": self.seconds,
            "pending": [[float(value) for value in metrics] for metrics in self.pending],
            "records": [dataclasses.asdict(record) for record in self.records],
        }
        arrays = _Arrays(self.state, None if self.best is None else self.best[:2])
        self._identity = self._identity or self._identified()
        return Snapshot(self.steps, arrays, progress, self._identity)

    def _restore(self, saved: Saved) -> None:
        """Go on from a checkpoint."""
        progress = saved.progress
        best = (self.state.network, self.state.rule) if progress["best_step"] else None
        filled = fill(_Arrays(self.state, best), saved.arrays, saved.refusal)
        self._identity = self._identified()
        check_identity(saved, self._identity)
        filled = self._placed(filled)
        self._state, self.steps, self.stale = filled.state, saved.step, progress["stale"]
        if filled.best is not None:
            self.best = Trained(*filled.best, progress["best_step"])
            self.best_score = tuple(progress["best_score"])
        self.pending = [Metrics(*values) for values in progress["pending"]]
        self.records = [record_from(values) for values in progress["records"]]
        self._began -= progress["seconds"]

    def _identified(self) -> dict[str, Any]:
        """Return what makes this run; `Checkpoints(settings=…)` says the rest."""
        steps, batch_size, *intervals = self.schedule
        splits = {"training": self.data.train, "validation": self.data.validation}
        weights = self.data.weights
        return {
            "the number of steps": steps,
            "the batch size": batch_size,
            "the intervals": ", ".join(map(str, intervals)),
            "the order of the data": self._seed,
            "the augmentation": None if self.data.augment == "none" else self.data.augment,
            "the weights of samples": weights and zlib.crc32(weights.values.data),
            **{f"the {name} data": split and _checksums(split) for name, split in splits.items()},
            **described(self.member.network, "the initial network"),
            **described(self.member.rule, "the rule"),
            **described(self.member.optimiser, "the optimiser"),
        }

    def _placed(self, tree: _Tree) -> _Tree:
        return tree if self.layout is None else self.layout.placed(tree)

    def _sound(self) -> bool:
        """Return whether the last step left a network whose loss is finite: no later one looks."""
        x, y = (np.asarray(part) for part in self.batch(self.steps - 1))
        seen = evaluate(self.state.network, Split(x, y), rule=self.member.rule)
        return bool(np.isfinite(seen.loss))

    def _explained(self, failed: int) -> str:
        key = jax.random.fold_in(self.state.key, failed)
        rule, state = self.member.rule, self.state
        where = explain(rule, state.network, self.batch(failed), state.rule, key)
        return (
            f"diverged at step {failed + 1}: it began {where}. Try a smaller learning rate, a "
            "smaller inference step size (or the stable one), a smaller precision, or the "
            "parameterisation mupc"
        )


def first_batch(data: Dataset, batch_size: int, key: PRNGKeyArray) -> Batch:
    """Return the first batch that `fit` trains on, with this key."""
    return _batch(data, batch_size, _keys(key)[0], 0)


def _keys(key: PRNGKeyArray) -> tuple[int, PRNGKeyArray]:
    """Return the seed of the order of the data, and the key of the steps."""
    order, steps = jax.random.split(key)
    return int(jax.random.randint(order, (), 0, np.iinfo(np.int32).max)), steps


def _batch(data: Dataset, batch_size: int, seed: int, step: int) -> Batch:
    x, y = data.train
    chosen = batch_indices(seed, step, len(x), batch_size, data.weights)
    seen = augmented(x[chosen], data.augment, seed, step)
    return as_input(seen), jnp.asarray(y[chosen], float)


def _checksums(split: Split) -> str:
    sums = [zlib.crc32(np.ascontiguousarray(part).data) for part in split]
    return f"{len(split.x)} samples, checksums {sums[0]:08x} {sums[1]:08x}"
