"""One run in training: where it stands, what it has seen, and what it does between its steps."""

import dataclasses
import functools
import signal
import time
import zlib
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from mupc.data import Dataset, Split, batch_indices
from mupc.hyperparameters import as_module
from mupc.learning import Batch, LearningRule, explain
from mupc.networks import Network
from mupc.training.checkpoint import Checkpoints, Saved, Snapshot, check_identity
from mupc.training.look import Model, look, look_inside
from mupc.training.metrics import as_input, evaluate, is_one_hot
from mupc.training.named import described, fill
from mupc.training.results import (
    Ended,
    FitResult,
    Record,
    TrainRecord,
    ValidationRecord,
    counted,
    record_from,
)
from mupc.training.step import MEASURED, Inputs, Metrics, State, copy_arrays, init


class Member(NamedTuple):
    """One of several runs that are trained side by side; see `fit`.

    It goes on from what was `saved`, if that is given, and keeps checkpoints if it has any.
    """

    network: Network
    rule: LearningRule
    optimiser: optax.GradientTransformation
    key: PRNGKeyArray
    callback: Callable[[Record], None] | None = None
    checkpoints: Checkpoints | None = None
    saved: Saved | None = None


class Interruption:
    """Whether training was asked to end, and by which signal."""

    number: int | None = None

    @property
    def ended(self) -> Ended:
        """How a run that heeds it ends."""
        return Ended.TERMINATED if self.number == signal.SIGTERM else Ended.INTERRUPTED


class Intervals(NamedTuple):
    """Steps between what is done now and then, as `fit` was told."""

    evaluate_every: int
    early_stopping: int | None
    log_every: int
    report_every: int | None


Run = Generator[Inputs, Metrics, FitResult]
"""A run asks for its steps one by one, is sent what each gave, and returns its result."""


class _Arrays(NamedTuple):
    """The arrays of a checkpoint: of the last step, and of the best network so far if any."""

    state: State
    best: tuple[Network, PyTree[Any]] | None


class Trainer:
    """The mutable part of a run: where it stands, and what it has seen.

    Args:
        member: what to train, and how.
        data: on what.
        batch_size: samples a batch.
    """

    def __init__(self, member: Member, data: Dataset, batch_size: int) -> None:
        network, rule, optimiser, key, callback, self.checkpoints, self.saved = member
        self.seed, own_key = _parted(key)
        self.first, self.data, self.rule = network, data, rule
        self.optimiser, self.opened = optimiser, as_module(optimiser)
        self.batch_size, self.callback = batch_size, callback
        self.state = init(network, rule, optimiser, own_key)
        self.classes = is_one_hot(data.train.y)
        self.records: list[Record] = []
        self.best, self.best_step, self.best_score = (network, None), 0, (-np.inf, -np.inf)
        self.pending: list[Metrics] = []
        self.began = self.logged = self.started = time.perf_counter()
        self.steps = self.timed = self.stale = 0
        self.compiled = False
        self.plan: tuple[int, Intervals] | None = None

    def train(self, total: int, intervals: Intervals, interruption: Interruption) -> Run:
        """Ask for the steps; stop for divergence, for an interruption, or early."""
        ended = Ended.FINISHED
        evaluate_every, early_stopping, log_every, report_every = intervals
        validation = self.data.validation
        self.plan = total, intervals
        if self.saved is not None:
            self._restore(self.saved, total, intervals)
        while self.steps < total:
            if report_every is not None and self.steps % report_every == 0:
                self._look(self.state.network, self.state.rule, self.steps)
            due = self.steps + 1
            measure = due == total or due % log_every == 0
            self._made((yield self._inputs(self.steps, measure=measure)))
            last = self.steps == total
            log = last or self.steps % log_every == 0
            validate = validation is not None and (last or self.steps % evaluate_every == 0)
            if (log or validate) and self._failed():
                break
            if log:
                self._log()
            if validation is not None and validate:
                self._validate(validation)
            if last:
                break
            if early_stopping is not None and self.stale >= early_stopping:
                ended = Ended.STOPPED_EARLY
                break
            # Nothing that an uninterrupted run would not do comes before the checkpoint.
            interrupted = interruption.number is not None
            kept = self._keep(now=interrupted)
            if interrupted:
                ended = interruption.ended
                if not (ended is Ended.TERMINATED and kept) and not self._failed():
                    self._take_stock(validation, log=not log, validate=not validate)
                break
        result = self._result(ended)
        if report_every is not None and ended is not Ended.TERMINATED:
            self._look(result.network, result.state, result.step, final=True)
        if self.checkpoints is not None:
            self.checkpoints.close()
        return dataclasses.replace(result, records=tuple(self.records))

    @property
    def state(self) -> State:
        """Where the run stands."""
        if callable(self._state):
            self._state = self._state()
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state: State | Callable[[], State] = state

    def follow(self, find: Callable[[], State]) -> None:
        """Find the state when it is asked for: as part of an ensemble's it is rarely needed."""
        self._state = find

    def _failed(self) -> bool:
        return int(self.state.failed) >= 0

    def _take_stock(self, validation: Split | None, *, log: bool, validate: bool) -> None:
        """Record what an interrupted run would otherwise not tell of."""
        if log and self.pending:
            self._log()
        if validate and validation is not None:
            self._validate(validation)

    def _keep(self, *, now: bool) -> bool:
        """Write a checkpoint if it is time for one, or now; say whether one was written."""
        checkpoints = self.checkpoints
        if checkpoints is None or not (now or checkpoints.due(self.steps)) or self._failed():
            return False
        begun = time.perf_counter()
        kept = checkpoints.save(self._snapshot())
        self.logged += time.perf_counter() - begun  # not a part of the time of training steps
        return kept

    def _snapshot(self) -> Snapshot:
        best = self.best if self.best_step else None
        progress = {
            "best_step": self.best_step,
            "best_score": self.best_score,
            "stale": self.stale,
            "seconds": time.perf_counter() - self.began,
            "pending": [[float(value) for value in metrics] for metrics in self.pending],
            "records": [dataclasses.asdict(record) for record in self.records],
        }
        return Snapshot(self.steps, _Arrays(self.state, best), progress, self.identity)

    def check(self, saved: Saved, total: int, intervals: Intervals) -> "_Arrays":
        """Check that a checkpoint is of this run; give its arrays.

        Raises:
            RunError: if it is of another one.
        """
        self.plan = total, intervals
        best = (self.state.network, self.state.rule) if saved.progress["best_step"] else None
        filled = fill(_Arrays(self.state, best), saved.arrays, saved.refusal)
        check_identity(saved, self.identity)
        return filled

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What makes this run, as far as `named_settings` can see it."""
        total, intervals = cast(tuple[int, Intervals], self.plan)
        train, validation = self.data.train, self.data.validation
        return {
            "the number of steps": total,
            "the batch size": self.batch_size,
            "the intervals": ", ".join(map(str, intervals)),
            "the order of the data": self.seed,
            "the training data": _checksums(train),
            "the validation data": None if validation is None else _checksums(validation),
            **described(self.first, "the network at first"),
            **described(self.rule, "the rule"),
            **described(self.optimiser, "the optimiser"),
        }

    def _restore(self, saved: Saved, total: int, intervals: Intervals) -> None:
        """Go on from a checkpoint."""
        filled = self.check(saved, total, intervals)
        told, now = saved.progress, time.perf_counter()
        self.state, self.steps, self.stale = filled.state, saved.step, told["stale"]
        if filled.best is not None:
            self.best, self.best_step = filled.best, told["best_step"]
            self.best_score = tuple(told["best_score"])
        self.pending = [Metrics(*values) for values in told["pending"]]
        self.records = [record_from(values) for values in told["records"]]
        self.began, self.started, self.logged = now - told["seconds"], now, now

    def _look(
        self, network: Network, state: PyTree[Any], step: int, *, final: bool = False
    ) -> None:
        """Report the regime, on the batch that comes after `step` steps."""
        begun = time.perf_counter()
        model = Model(self.first, network, self.rule, state)
        key = jax.random.fold_in(self.state.key, step)
        seconds = begun - self.began
        batch = self._batch(step)
        self._report(seen := look(model, batch, key, step=step, seconds=seconds))
        # Of one step there is nothing to be seen that the report has not.
        if (
            final
            and seen.inference_steps > 1
            and (trace := look_inside(model, batch, key, step=step))
        ):
            self._report(trace)
        self.logged += time.perf_counter() - begun  # not a part of the time of training steps

    def _batch(self, step: int) -> Batch:
        return _batch(self.data, self.batch_size, self.seed, step)

    def _inputs(self, step: int, *, measure: bool = False) -> Inputs:
        return self._batch(step), self.rule, self.opened, jnp.asarray(measure)

    def _made(self, metrics: Metrics) -> None:
        """Note that a step was made."""
        self.pending.append(metrics)
        self.steps, self.timed = self.steps + 1, self.timed + 1
        if not self.compiled:  # the first step compiled: that is no measure of speed
            self.compiled = True
            jax.block_until_ready(metrics)
            self.logged, self.timed = time.perf_counter(), 0

    def _log(self) -> None:
        """Record the batches since the last record."""
        means = {name: _mean(name, self.pending) for name in Metrics._fields if name != "measured"}
        accuracy = means["accuracy"] if self.classes else None
        now = time.perf_counter()
        # A first record of one step has nothing but the step that compiled.
        timed, since = (self.timed, self.logged) if self.timed else (1, self.started)
        self._report(
            TrainRecord(
                step=self.steps,
                epoch=self.steps * self.batch_size / len(self.data.train.x),
                samples_per_second=timed * self.batch_size / (now - since),
                seconds=now - self.began,
                **cast(dict[str, Any], means | {"accuracy": accuracy}),
            )
        )
        self.pending, self.logged, self.timed = [], now, 0

    def _validate(self, validation: Split) -> None:
        """Evaluate the validation part, and keep the network if it is the best so far."""
        begun = time.perf_counter()
        seen = evaluate(self.state.network, validation, rule=self.rule)
        # On a small part many networks have the same accuracy: the lower loss decides.
        score = (0.0 if seen.accuracy is None else seen.accuracy, -seen.loss)
        best = score > self.best_score
        self.stale = 0 if best else self.stale + 1
        if best:
            self.best = copy_arrays((self.state.network, self.state.rule))
            self.best_step, self.best_score = self.steps, score
        now = time.perf_counter()
        self.logged += now - begun  # not a part of the time of training steps
        self._report(ValidationRecord(self.steps, seen.loss, seen.accuracy, best, now - self.began))

    def _report(self, record: Record) -> None:
        self.records.append(record)
        if self.callback is not None:
            self.callback(record)

    def _sound(self) -> bool:
        """Say whether the last step left a network whose loss is finite: no later step looks."""
        x, y = self._batch(self.steps - 1)
        seen = evaluate(self.state.network, Split(np.asarray(x), np.asarray(y)), rule=self.rule)
        return bool(np.isfinite(seen.loss))

    def _result(self, ended: Ended) -> FitResult:
        failed = int(self.state.failed)
        steps = self.steps if failed < 0 else failed
        if failed < 0 and not self._sound():
            ended = Ended.DIVERGED
        message = f"training ended after {counted(steps, 'step')}: {ended.value}"
        if failed >= 0:
            ended = Ended.DIVERGED
            key = jax.random.fold_in(self.state.key, failed)
            where = explain(
                self.rule, self.state.network, self._batch(failed), self.state.rule, key
            )
            message = (
                f"training diverged at step {failed + 1}: it began {where}. Try a smaller "
                "learning rate, a smaller inference step size (or the stable one), a smaller "
                "precision, or the parameterisation mupc"
            )
        (network, state), step = (self.state.network, self.state.rule), steps
        if self.best_step:
            (network, state), step = self.best, self.best_step
        records = tuple(self.records)
        return FitResult(network, self.rule, state, step, steps, ended, message, records)


def first_batch(data: Dataset, batch_size: int, key: PRNGKeyArray) -> Batch:
    """Return the first batch that `fit` trains on, with this key."""
    return _batch(data, batch_size, _parted(key)[0], 0)


def _parted(key: PRNGKeyArray) -> tuple[int, PRNGKeyArray]:
    """Return the seed of the order of the data, and the key of the steps."""
    order, own = jax.random.split(key)
    return int(jax.random.randint(order, (), 0, np.iinfo(np.int32).max)), own


def _batch(data: Dataset, batch_size: int, seed: int, step: int) -> Batch:
    x, y = data.train
    chosen = batch_indices(seed, step, len(x), batch_size)
    return as_input(x[chosen]), jnp.asarray(y[chosen], float)


def _checksums(split: Split) -> str:
    sums = [zlib.crc32(np.ascontiguousarray(part).data) for part in split]
    return f"{len(split.x)} samples, checksums {sums[0]:08x} {sums[1]:08x}"


def _mean(name: str, steps: list[Metrics]) -> float | None:
    """Average a figure over the steps that measured it."""
    known = [metrics for metrics in steps if name not in MEASURED or bool(metrics.measured)]
    values = [float(getattr(metrics, name)) for metrics in known]
    return float(np.mean(values)) if values else None
