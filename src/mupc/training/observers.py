"""What is done between the steps of training: log, validate, report, keep."""

import time
from abc import ABC, abstractmethod
from typing import Any, cast, final

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from mupc.data import Dataset, Split
from mupc.learning import Batch
from mupc.records import Ended, RegimeRecord, TrainRecord, ValidationRecord
from mupc.training.checkpoint import Checkpoints
from mupc.training.evaluate import evaluate, is_one_hot, perplexity
from mupc.training.layout import processes_of
from mupc.training.metrics import MEASURED, Metrics
from mupc.training.report import Model, regime_report, trace_report
from mupc.training.session import Session, Trained
from mupc.training.signals import Signals
from mupc.training.step import copy_arrays


class Observer(ABC):
    """Sees a session before each step, after it, and when training has ended."""

    def before(self, session: Session) -> None:
        """Look at where the next step begins."""
        del session

    @abstractmethod
    def after(self, session: Session) -> Ended | None:
        """Look at what a step has left; return how training ends, or None if it goes on."""

    def end(self, session: Session) -> None:
        """Do what is left to do."""
        del session


@final
class Log(Observer):
    """Records the means over the batches since the last record."""

    def __init__(self, every: int, data: Dataset) -> None:
        self.every, self.data, self.classes = every, data, is_one_hot(data.train.y)
        self._began = self._since = time.perf_counter()
        self._compiled, self._steps = False, 0

    def after(self, session: Session) -> Ended | None:
        """Log at every so many steps."""
        self._steps += 1
        due = session.schedule.due(session.steps, self.every)
        if not self._compiled:  # the first step compiled: that is no measure of speed
            self._compiled = True
            jax.block_until_ready(session.pending)
            if not due:
                self._steps, self._since, session.idle = 0, time.perf_counter(), 0.0
        if due and session.failed:
            return Ended.DIVERGED
        if due:
            self._log(session)
        return None

    def end(self, session: Session) -> None:
        """Log what an interruption would leave out."""
        if session.pending and session.cut_short:
            self._log(session)

    def _log(self, session: Session) -> None:
        names = [name for name in Metrics._fields if name != "measured"]
        means = {name: _mean(name, session.pending) for name in names}
        accuracy, size = means["accuracy"] if self.classes else None, session.schedule.batch_size
        loss = cast(float, means["loss"])  # every step knows it
        now = time.perf_counter()
        # A first record of one step has nothing but the step that compiled.
        steps, since = (self._steps, self._since) if self._steps else (1, self._began)
        record = TrainRecord(
            step=session.steps,
            epoch=session.steps * size / len(self.data.train.x),
            samples_per_second=steps * size / (now - since - session.idle),
            seconds=session.seconds,
            perplexity=perplexity(loss, session.member.rule.likelihood, self.data.train.y),
            **cast(dict[str, Any], means | {"accuracy": accuracy}),
        )
        session.pending, session.idle, self._steps, self._since = [], 0.0, 0, now
        session.report(record)


@final
class Validate(Observer):
    """Evaluates the validation split, keeps the best network, and may stop early."""

    def __init__(self, split: Split, every: int, patience: int | None) -> None:
        self.split, self.every, self.patience, self.evaluated = split, every, patience, 0

    def after(self, session: Session) -> Ended | None:
        """Evaluate at every so many steps; stop after so many evaluations without a better one."""
        if not session.schedule.due(session.steps, self.every):
            return None
        if session.failed:
            return Ended.DIVERGED
        self._validate(session)
        stops = self.patience is not None and session.stale >= self.patience
        return Ended.STOPPED_EARLY if stops and not session.last else None

    def end(self, session: Session) -> None:
        """Evaluate what an interruption would leave unknown."""
        if self.evaluated != session.steps and session.cut_short:
            self._validate(session)

    def _validate(self, session: Session) -> None:
        step, state = session.steps, session.state
        with session.paused():
            seen = evaluate(state.network, self.split, rule=session.member.rule)
            best = seen.score > session.best_score
            session.stale = 0 if best else session.stale + 1
            if best:
                network, rule_state = copy_arrays((state.network, state.rule))
                session.best, session.best_score = Trained(network, rule_state, step), seen.score
        self.evaluated, seconds = step, session.seconds
        record = ValidationRecord(step, seen.loss, seen.accuracy, best, seconds, seen.perplexity)
        session.report(record)


@final
class Report(Observer):
    """Reports what inference and learning do, on the batch that comes next."""

    def __init__(self, every: int) -> None:
        self.every = every

    def before(self, session: Session) -> None:
        """Report at every so many steps, from step 0 on."""
        if session.steps % self.every == 0:
            state = session.state
            trained = Trained(state.network, state.rule, session.steps)
            with session.paused():
                session.report(_regime(session, trained))

    def after(self, session: Session) -> None:
        """Leave it to `before`: a checkpoint comes first."""

    def end(self, session: Session) -> None:
        """Report on the network that is the result, unless seconds count."""
        if session.ended is Ended.TERMINATED:
            return
        trained = session.outcome
        session.report(regime := _regime(session, trained))
        # Of one step there is nothing to be seen that the report has not.
        trace = None
        if regime.inference_steps > 1:
            trace = trace_report(*_looked_at(session, trained), step=trained.step)
        if trace is not None:
            session.report(trace)


@final
class Keep(Observer):
    """Writes checkpoints: when it is time for one, and when training is asked to end."""

    def __init__(self, checkpoints: Checkpoints, signals: Signals) -> None:
        self.checkpoints, self.signals = checkpoints, signals

    def after(self, session: Session) -> None:
        """Write one if it is time, unless the network has failed."""
        processes = processes_of(session.layout)
        due = not session.last and self.checkpoints.due(session.steps, processes=processes)
        if (due or self.signals.asked(session.steps)) and not session.failed:
            with session.paused():
                kept = self.checkpoints.save(session.snapshot())
            session.kept = session.steps if kept else session.kept

    def end(self, session: Session) -> None:
        """Let go of the folder."""
        self.checkpoints.close()


def _regime(session: Session, trained: Trained) -> RegimeRecord:
    seconds = session.seconds
    return regime_report(*_looked_at(session, trained), step=trained.step, seconds=seconds)


def _looked_at(session: Session, trained: Trained) -> tuple[Model, Batch, PRNGKeyArray]:
    """Return a model, the batch that comes next, and the key of its step."""
    first, rule, *_ = session.member
    model = Model(first, trained.network, rule, trained.state)
    key = jax.random.fold_in(session.state.key, trained.step)
    return model, session.batch(trained.step), key


def _mean(name: str, steps: list[Metrics]) -> float | None:
    """Return the mean of a figure over the steps that measured it."""
    known = [metrics for metrics in steps if name not in MEASURED or bool(metrics.measured)]
    values = [float(getattr(metrics, name)) for metrics in known]
    return float(np.mean(values)) if values else None
