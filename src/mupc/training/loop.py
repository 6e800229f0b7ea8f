"""The training loop."""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from mupc.data import Dataset, Split, batch_indices, steps_per_epoch
from mupc.learning import Batch, LearningRule
from mupc.networks import Network
from mupc.training.look import Model, look, look_inside
from mupc.training.metrics import evaluate, is_one_hot
from mupc.training.results import Ended, FitResult, Record, TrainRecord, ValidationRecord
from mupc.training.step import MEASURED, Inputs, Metrics, begin, copy_arrays, train_step


def fit(
    network: Network,
    data: Dataset,
    rule: LearningRule,
    optimiser: optax.GradientTransformation,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    evaluate_every: int | None = None,
    early_stopping: int | None = None,
    log_every: int = 20,
    report_every: int | None = None,
    callback: Callable[[Record], None] | None = None,
    key: PRNGKeyArray,
) -> FitResult:
    """Train a network.

    The batch at step t depends on the key and t alone. The validation part is evaluated every
    `evaluate_every` steps and at the end; the network that did best there is the result. Learning
    rates are the optimiser's: `fit` adds no scaling of its own. Ctrl-C ends training after the
    current step, and what was done is returned.

    Args:
        network: what to train; it is not changed.
        data: its training part is used in shuffled batches, the last partial one dropped.
        rule: gives the weight gradients.
        optimiser: from optax; build it with `mupc.traced` to change numbers without recompiling.
        epochs: how often to go through the training part; give this or `steps`.
        steps: how many batches to train on.
        batch_size: samples a batch.
        evaluate_every: steps between evaluations of the validation part; an epoch unless given.
        early_stopping: end after this many evaluations without a better one.
        log_every: steps between training records.
        report_every: steps between regime records, which say what inference and learning do in
            each layer, from step 0 on and of the resulting network; none unless given. One costs
            about three training steps.
        callback: is called with every record.
        key: draws the order of the data, and whatever the rule draws.

    Raises:
        ValueError: if an argument is impossible, or would have no effect.
    """
    epoch = steps_per_epoch(len(data.train.x), batch_size)
    total = _total_steps(epochs, steps, epoch)
    if data.validation is None and (evaluate_every, early_stopping) != (None, None):
        raise ValueError(
            "evaluate_every and early_stopping have no effect without a validation part: "
            "leave them out, or give the data a validation part"
        )
    given = _Intervals(evaluate_every or epoch, early_stopping, log_every, report_every)
    for name, value in {**given._asdict(), "evaluate_every": evaluate_every}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    check_evaluations(total, epoch, evaluate_every, early_stopping)
    trainer = _Trainer(network, data, rule, optimiser, batch_size, callback, key)
    return trainer.train(total, given)


class _Intervals(NamedTuple):
    """Steps between what is done now and then, as `fit` was told."""

    evaluate_every: int
    early_stopping: int | None
    log_every: int
    report_every: int | None


def check_evaluations(
    total: int, epoch: int, evaluate_every: int | None, early_stopping: int | None
) -> None:
    """Refuse settings that come too late for a run of `total` steps to heed them.

    Raises:
        ValueError: if none would be made before the end, or too few to stop early.
    """
    interval = evaluate_every or epoch
    if early_stopping is not None and (early_stopping + 1) * interval >= total:
        raise ValueError(
            f"early_stopping={early_stopping} would have no effect: with an evaluation every "
            f"{interval} steps it cannot end training before step "
            f"{(early_stopping + 1) * interval}, and there are {total} steps"
        )
    if evaluate_every is not None and evaluate_every > total:
        raise ValueError(
            f"evaluate_every={evaluate_every} is more than the {total} steps of training: choose "
            "a smaller number"
        )


def _total_steps(epochs: float | None, steps: int | None, epoch: int) -> int:
    if (epochs is None) == (steps is None):
        raise ValueError("give either epochs or steps, and not both")
    total = steps if epochs is None else round(epochs * epoch)
    if total is None or total < 1:
        raise ValueError(f"training must make at least one step, not {total}")
    return total


class _Trainer:
    """The mutable part of one call of `fit`: where it stands, and what it has seen."""

    def __init__(
        self,
        network: Network,
        data: Dataset,
        rule: LearningRule,
        optimiser: optax.GradientTransformation,
        batch_size: int,
        callback: Callable[[Record], None] | None,
        key: PRNGKeyArray,
    ) -> None:
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

    def train(self, total: int, intervals: _Intervals) -> FitResult:
        """Make the steps; stop for divergence, for an interruption, or early."""
        ended = Ended.FINISHED
        evaluate_every, early_stopping, log_every, report_every = intervals
        validation, evaluations_since_best = self.data.validation, 0
        with _interruptible() as interrupted:
            while self.steps < total:
                if report_every is not None and self.steps % report_every == 0:
                    self._look(self.state.network, self.state.rule, self.steps)
                due = self.steps + 1
                self._step(measure=due == total or due % log_every == 0)
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

    def _step(self, *, measure: bool) -> None:
        inputs = self._inputs(self.steps, measure=measure)
        self.state, metrics = train_step(inputs, self.state)
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
        message = f"training ended after {steps} steps: {ended.value}"
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


@contextmanager
def _interruptible() -> Generator[threading.Event]:
    """Turn the first Ctrl-C into an event, so that no step is cut in half; the second raises."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may set handlers
        return
    previous = signal.getsignal(signal.SIGINT)
    if previous is None:  # a handler that is not Python's, and could not be put back
        yield event
        return

    def handle(number: int, frame: object) -> None:
        del number, frame
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
