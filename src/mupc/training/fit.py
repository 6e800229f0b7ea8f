"""The training loop, over the public step, for one network or for several at once."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import NoneType

import jax
import optax
from jaxtyping import PRNGKeyArray

from mupc.data import Dataset
from mupc.kinds import check_kind
from mupc.learning import LearningRule
from mupc.networks import Network
from mupc.records import Ended, Record
from mupc.training.checkpoint import Checkpoints
from mupc.training.layout import Layout, processes_of, within
from mupc.training.observers import Keep, Log, Observer, Report, Validate
from mupc.training.plan import Plan, Schedule
from mupc.training.progress import Progress
from mupc.training.results import FitResult
from mupc.training.session import Member, Session
from mupc.training.signals import Passed, Signals
from mupc.training.step import State, entry, stack, train_step, train_steps


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
    checkpoints: Checkpoints | None = None,
    verbose: bool = False,
    layout: Layout | None = None,
    key: PRNGKeyArray,
) -> FitResult:
    """Train a network.

    The batch at step t depends on the key and t alone. The validation split is evaluated every
    `evaluate_every` steps and at the end; the network that did best there is the result. Learning
    rates are the optimiser's: `fit` adds no scaling of its own. Ctrl-C and SIGTERM act when the
    current step is finished and, if there are `checkpoints`, saved.

    Args:
        network: what to train; it is not changed.
        data: its training split is used in shuffled batches, the last partial one dropped.
        rule: gives the weight gradients.
        optimiser: from optax; build it with `mupc.traced` to change numbers without recompiling.
        epochs: how often to go through the training split; give this or `steps`.
        steps: how many batches to train on.
        batch_size: samples in a batch.
        evaluate_every: steps between evaluations of the validation split; an epoch unless given.
        early_stopping: end after this many evaluations without a better one.
        log_every: steps between training records.
        report_every: steps between regime records, which say what inference and learning do in
            each layer, from step 0 on and of the resulting network; none unless given. One costs
            about three training steps.
        callback: is called with every record (of several processes, in each).
        checkpoints: are written, one more at an interruption; if there is one already, of the same
            call, training goes on from there, to the result that it would have had without a stop.
            The callback is not called again for records that were made before it.
        verbose: whether to show the progress.
        layout: how it is parted over devices; on one unless given. The result is on one device. A
            run may go on from its checkpoint in another layout.
        key: draws the order of the data, and whatever the rule draws.

    Raises:
        ValueError: if an argument is impossible, or would have no effect.
        TypeError: if one is not what it should be.
        RunError: if a checkpoint is damaged, or of another call.
    """
    check_kind("callback", callback, (Callable, NoneType), "a function of a record")
    check_kind("checkpoints", checkpoints, (Checkpoints, NoneType), "mupc.Checkpoints(…)")
    check_kind("verbose", verbose, bool, "true or false")
    check_kind("layout", layout, (Layout, NoneType), "mupc.Layout(…)")
    schedule = Plan(
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        evaluate_every=evaluate_every,
        early_stopping=early_stopping,
        log_every=log_every,
        report_every=report_every,
    ).over(data)
    progress = Progress(schedule.steps, batch_size) if verbose else None
    saved = None if checkpoints is None else checkpoints.load()
    report = _each(progress, callback)
    member = Member(network, rule, optimiser, key, report, checkpoints, saved)
    (result,) = train(prepare([member], data, schedule, layout), Passed)
    if progress is not None:
        progress.close(result.message)
    return result


def _each(*callbacks: Callable[[Record], None] | None) -> Callable[[Record], None]:
    """Return a callback that calls those that there are."""
    given = [callback for callback in callbacks if callback is not None]

    def report(record: Record) -> None:
        for callback in given:
            callback(record)

    return report


def fit_together(
    members: Sequence[Member], data: Dataset, plan: Plan, *, layout: Layout | None = None
) -> list[FitResult]:
    """Train several networks, each step of all of them at once, in one compiled program.

    The results are those of `fit`, called for one after the other, except for the rounding of
    products. It pays on an accelerator that one small network leaves idle; on a CPU it does not.
    Members may differ in numbers alone: weights, learning rates, precision, step size, key.

    Raises:
        ValueError: if an argument is impossible, or would have no effect, or if members differ in
            more than numbers.
    """
    return train(prepare(members, data, plan.over(data), layout), Passed)


def prepare(
    members: Sequence[Member], data: Dataset, schedule: Schedule, layout: Layout | None = None
) -> list[Session]:
    """Return where training begins, or goes on from what was saved.

    Raises:
        ValueError, TypeError: as `fit`.
        RunError: if what a member has saved is of another run.
    """
    if not members:
        raise ValueError("there is nothing to train: give at least one member")
    if layout is not None:
        layout.check_members(len(members))
        layout.check_batch(schedule.batch_size)
        for member in members:
            layout.check(member.network)
    kept = any(member.checkpoints is not None for member in members)
    if kept and processes_of(layout) < jax.process_count():
        raise ValueError(
            f"there are {jax.process_count()} processes: checkpoints need a layout over the "
            "devices of all of them"
        )
    sessions = [Session(member, data, schedule, layout) for member in members]
    for member in members:
        likelihood = member.rule.likelihood
        if not likelihood.takes(data.train.y):
            raise ValueError(
                f"the likelihood mupc.{type(likelihood).__name__} needs targets that are "
                f"{likelihood.needs}, and those of {data.name} are not: use mupc.Gaussian"
            )
    return sessions


def train(sessions: Sequence[Session], signals: type[Signals]) -> list[FitResult]:
    """Make the steps of sessions, each of all of them at once, until all have ended.

    What becomes of Ctrl-C and SIGTERM, the signals say.
    """
    layout = sessions[0].layout
    with within(layout):
        return _train(sessions, signals(processes_of(layout), sessions[0].steps))


def _train(sessions: Sequence[Session], signals: Signals) -> list[FitResult]:
    watched = {session: _observers(session, signals) for session in sessions}
    states = None if len(sessions) == 1 else _stacked(sessions)
    results = _results(sessions, watched)  # what was saved may be of the last step
    with signals:
        while running := [session for session in sessions if session.ended is None]:
            for session in running:
                for observer in watched[session]:
                    observer.before(session)
            states = _step(sessions, running, states)
            for session in running:
                session.ended = _observed(session, watched[session])
            # Nothing that training without a stop would not do comes before a checkpoint.
            if signals.asked(running[0].steps) and (ended := signals.heed()) is not None:
                for session in running:
                    session.ended = session.ended or ended
            results |= _results(running, watched)
    return [results[session] for session in sessions]


def _stacked(sessions: Sequence[Session]) -> State:
    """Return the states of sessions as one."""
    states, layout = stack([session.state for session in sessions]), sessions[0].layout
    return states if layout is None else layout.placed(states, runs=True)


def _step(
    sessions: Sequence[Session], running: Sequence[Session], states: State | None
) -> State | None:
    """Make a step; several sessions have one stacked state, and take part in it to the end."""
    schedule, following = running[0].schedule, running[0].steps + 1
    measure = schedule.due(following, schedule.log_every)
    inputs = tuple(session.inputs(measure=measure) for session in sessions)
    if states is None:
        sessions[0].advance(*train_step(inputs[0], sessions[0].state))
        return None
    states, metrics = train_steps(inputs, states)
    for i, session in enumerate(sessions):
        if session.ended is None:
            session.advance(functools.partial(entry, states, i), entry(metrics, i))
    return states


def _observers(session: Session, signals: Signals) -> list[Observer]:
    """Return those that look at a session, in their order."""
    schedule, data, checkpoints = session.schedule, session.data, session.member.checkpoints
    observers: list[Observer] = [Log(schedule.log_every, data)]
    if data.validation is not None:
        every, patience = schedule.evaluate_every, schedule.early_stopping
        observers.append(Validate(data.validation, every, patience))
    if checkpoints is not None:
        observers.append(Keep(checkpoints, signals))
    if schedule.report_every is not None:
        observers.append(Report(schedule.report_every))
    return observers


def _observed(session: Session, observers: Sequence[Observer]) -> Ended | None:
    """Let a step be looked at; return how training ends, or None if it goes on."""
    for observer in observers:
        if (ended := observer.after(session)) is not None:
            return ended
    return Ended.FINISHED if session.last else None


def _results(
    sessions: Sequence[Session], watched: Mapping[Session, Sequence[Observer]]
) -> dict[Session, FitResult]:
    """Return the results of those that have ended."""
    results: dict[Session, FitResult] = {}
    for session in sessions:
        if session.ended is not None:
            for observer in watched[session]:
                observer.end(session)
            results[session] = session.result(session.ended)
    return results
