"""One run in training: where it stands, what it has seen, and what it does between its steps."""

import dataclasses
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from mupc.data import Dataset, Split, batch_indices
from mupc.learning import Batch, LearningRule
from mupc.networks import Network
from mupc.training.look import Model, look, look_inside
from mupc.training.metrics import evaluate, is_one_hot
from mupc.training.results import (
    Ended,
    FitResult,
    Record,
    TrainRecord,
    ValidationRecord,
    counted,
)
from mupc.training.step import MEASURED, Inputs, Metrics, State, begin, copy_arrays


class Member(NamedTuple):
    """One of several runs that are trained side by side; see `fit`."""

    network: Network
    rule: LearningRule
    optimiser: optax.GradientTransformation
    key: PRNGKeyArray
    callback: Callable[[Record], None] | None = None


class Intervals(NamedTuple):
    """Steps between what is done now and then, as `fit` was told."""

    evaluate_every: int
    early_stopping: int | None
    log_every: int
    report_every: int | None


class Request(NamedTuple):
    """A step that a run asks for; the state is consumed."""

    inputs: Inputs
    state: State


Run = Generator[Request, tuple[State, Metrics], FitResult]
"""A run asks for its steps one by one, is sent what each gave, and returns its result."""


class Trainer:
    """The mutable part of a run: where it stands, and what it has seen.

    Args:
        member: what to train, and how.
        data: on what.
        batch_size: samples a batch.
    """

    def __init__(self, member: Member, data: Dataset, batch_size: int) -> None:
        network, rule, optimiser, key, callback = member
        order_key, self.key = jax.random.split(key)
        self.seed = int(jax.random.randint(order_key, (), 0, np.iinfo(np.int32).max))
        self.first, self.data, self.rule, self.optimiser = network, data, rule, optimiser
        self.batch_size, self.callback = batch_size, callback
        self.state = begin(network, rule, optimiser, self.key)
        self.classes = is_one_hot(data.train.y)
        self.records: list[Record] = []
        self.best, self.best_step, self.best_score = (network, None), 0, (-np.inf, -np.inf)
        self.pending: list[Metrics] = []
        self.began = self.logged = time.perf_counter()
        self.steps = self.timed = 0

    def train(self, total: int, intervals: Intervals, interrupted: threading.Event) -> Run:
        """Ask for the steps; stop for divergence, for an interruption, or early."""
        ended = Ended.FINISHED
        evaluate_every, early_stopping, log_every, report_every = intervals
        validation, evaluations_since_best = self.data.validation, 0
        while self.steps < total:
            if report_every is not None and self.steps % report_every == 0:
                self._look(self.state.network, self.state.rule, self.steps)
            due = self.steps + 1
            measure = due == total or due % log_every == 0
            self._made(*(yield Request(self._inputs(self.steps, measure=measure), self.state)))
            last = self.steps == total or interrupted.is_set()
            log = last or self.steps % log_every == 0
            validate = validation is not None and (last or self.steps % evaluate_every == 0)
            if (log or validate) and int(self.state.failed) >= 0:
                break
            if log:
                self._log()
            if validation is not None and validate:
                evaluations_since_best = (
                    0 if self._validate(validation) else evaluations_since_best + 1
                )
            if interrupted.is_set():
                ended = Ended.INTERRUPTED
                break
            stale = early_stopping is not None and evaluations_since_best >= early_stopping
            if stale and self.steps < total:
                ended = Ended.STOPPED_EARLY
                break
        result = self._result(ended)
        if report_every is not None:
            self._look(result.network, result.state, result.step, final=True)
        return dataclasses.replace(result, records=tuple(self.records))

    def _look(
        self, network: Network, state: PyTree[Any], step: int, *, final: bool = False
    ) -> None:
        """Report the regime, on the batch that comes after `step` steps."""
        begun = time.perf_counter()
        model = Model(self.first, network, self.rule, state)
        key = jax.random.fold_in(self.key, step)
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
        x, y = self.data.train
        chosen = batch_indices(self.seed, step, len(x), self.batch_size)
        return jnp.asarray(x[chosen], float), jnp.asarray(y[chosen], float)

    def _inputs(self, step: int, *, measure: bool = False) -> Inputs:
        batch, count = self._batch(step), jnp.asarray(step)
        return Inputs(self.rule, self.optimiser, batch, count, jnp.asarray(measure), self.key)

    def _made(self, state: State, metrics: Metrics) -> None:
        """Note that a step was made."""
        self.state = state
        self.pending.append(metrics)
        self.steps, self.timed = self.steps + 1, self.timed + 1
        if self.steps == 1:  # it compiled: that is no measure of speed
            jax.block_until_ready(metrics)
            self.logged, self.timed = time.perf_counter(), 0

    def _log(self) -> None:
        """Record the batches since the last record."""
        means = {name: _mean(name, self.pending) for name in Metrics._fields}
        accuracy = means["accuracy"] if self.classes else None
        now = time.perf_counter()
        # A first record of one step has nothing but the step that compiled.
        timed, since = (self.timed, self.logged) if self.timed else (1, self.began)
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

    def _validate(self, validation: Split) -> bool:
        """Evaluate the validation part; say whether it is the best so far, and keep that."""
        begun = time.perf_counter()
        likelihood = self.rule.likelihood
        seen = evaluate(self.state.network, validation, likelihood=likelihood)
        # On a small part many networks have the same accuracy: the lower loss decides.
        score = (0.0 if seen.accuracy is None else seen.accuracy, -seen.loss)
        best = score > self.best_score
        if best:
            self.best = copy_arrays((self.state.network, self.state.rule))
            self.best_step, self.best_score = self.steps, score
        now = time.perf_counter()
        self.logged += now - begun  # not a part of the time of training steps
        self._report(ValidationRecord(self.steps, seen.loss, seen.accuracy, best, now - self.began))
        return best

    def _report(self, record: Record) -> None:
        self.records.append(record)
        if self.callback is not None:
            self.callback(record)

    def _sound(self) -> bool:
        """Say whether the last step left a network whose loss is finite: no later step looks."""
        x, y = self._batch(self.steps - 1)
        seen = evaluate(self.state.network, Split(np.asarray(x), np.asarray(y)))
        return bool(np.isfinite(seen.loss))

    def _result(self, ended: Ended) -> FitResult:
        failed = int(self.state.failed)
        steps = self.steps if failed < 0 else failed
        if failed < 0 and not self._sound():
            ended = Ended.DIVERGED
        message = f"training ended after {counted(steps, 'step')}: {ended.value}"
        if failed >= 0:
            ended = Ended.DIVERGED
            inputs = self._inputs(failed)
            key = jax.random.fold_in(self.key, failed)
            where = self.rule.explain(self.state.network, inputs.batch, self.state.rule, key)
            message = (
                f"training diverged at step {failed + 1}: it began {where}. Try a smaller "
                "learning rate, a smaller inference step size (or the stable one), a smaller "
                "precision, or the parameterisation mupc"
            )
        (network, state), step = (self.state.network, self.state.rule), steps
        if self.best_step:
            (network, state), step = self.best, self.best_step
        return FitResult(network, state, step, steps, ended, message, tuple(self.records))


def _mean(name: str, steps: list[Metrics]) -> float | None:
    """Average a figure over the steps that measured it."""
    values = np.array([float(getattr(metrics, name)) for metrics in steps])
    if name not in MEASURED:
        return float(np.mean(values))
    measured = values[~np.isnan(values)]
    return float(np.mean(measured)) if measured.size else None
