"""The training loop."""

import functools
import signal
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from types import FrameType, NoneType
from typing import Any, TypedDict, Unpack

import jax
import optax
from jaxtyping import PRNGKeyArray

from mupc.data import Dataset, check_dataset, steps_per_epoch
from mupc.kinds import check_kind
from mupc.learning import LearningRule
from mupc.likelihoods import Categorical
from mupc.networks import Network, check_network
from mupc.training.checkpoint import Checkpoints
from mupc.training.metrics import is_distribution
from mupc.training.results import FitResult, Record
from mupc.training.step import A_RULE, AN_OPTIMISER, entry, stack, train_step, train_steps
from mupc.training.trainer import Interruption, Intervals, Member, Run, Trainer


class Options(TypedDict):
    """Arguments of `fit`, by name."""

    steps: int | None
    batch_size: int
    evaluate_every: int | None
    early_stopping: int | None
    log_every: int
    report_every: int | None


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
    key: PRNGKeyArray,
) -> FitResult:
    """Train a network.

    The batch at step t depends on the key and t alone. The validation part is evaluated every
    `evaluate_every` steps and at the end; the network that did best there is the result. Learning
    rates are the optimiser's: `fit` adds no scaling of its own. Ctrl-C and SIGTERM end training
    after the current step, and what was done is returned.

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
        checkpoints: are written, one more at an interruption; if there is one already, of the same
            call, training goes on from there, to the result that it would have had without a stop.
            The callback is not called again for records that were made before it.
        key: draws the order of the data, and whatever the rule draws.

    Raises:
        ValueError: if an argument is impossible, or would have no effect.
        TypeError: if one is not what it should be.
        RunError: if a checkpoint is damaged, or of another call.
    """
    _check_kinds(rule, optimiser, callback, checkpoints, key)
    saved = None if checkpoints is None else checkpoints.load()
    member = Member(network, rule, optimiser, key, callback, checkpoints, saved)
    (result,) = fit_together(
        [member],
        data,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        evaluate_every=evaluate_every,
        early_stopping=early_stopping,
        log_every=log_every,
        report_every=report_every,
    )
    return result


def _check_kinds(rule: Any, optimiser: Any, callback: Any, checkpoints: Any, key: Any) -> None:
    """Name what is not what it should be, before it fails somewhere else.

    Raises:
        TypeError: if something is.
    """
    check_kind("rule", rule, LearningRule, A_RULE)
    check_kind("optimiser", optimiser, optax.GradientTransformation, AN_OPTIMISER)
    check_kind("callback", callback, (Callable, NoneType), "a function of a record")
    check_kind("checkpoints", checkpoints, (Checkpoints, NoneType), "mupc.Checkpoints(…)")
    check_kind("key", key, jax.Array, "a random key, e.g. jax.random.key(0)")


def _check_numbers(numbers: Mapping[str, Any]) -> None:
    """Name what is not a whole number of at least 1, where one is given.

    Raises:
        TypeError: if one is of another type.
        ValueError: if one is too small.
    """
    for name, value in numbers.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")


def fit_together(
    members: Sequence[Member],
    data: Dataset,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    evaluate_every: int | None = None,
    early_stopping: int | None = None,
    log_every: int = 20,
    report_every: int | None = None,
) -> list[FitResult]:
    """Train several networks, each step of all of them at once, in one compiled program.

    The results are those of `fit`, called for one after the other, but for the rounding of
    products. It pays on an accelerator that one small network leaves idle; on a CPU it does not.
    Members may differ in numbers alone: weights, learning rates, precision, step size, key. All
    other arguments are those of `fit`, the same for every member.

    Raises:
        ValueError: if an argument is impossible, or would have no effect, or if members differ in
            more than numbers.
    """
    if not members:
        raise ValueError("there is nothing to train: give at least one member")
    for member in members:
        check_network(member.network)
        if isinstance(member.rule.likelihood, Categorical) and not is_distribution(data.train.y):
            raise ValueError(
                "the likelihood mupc.Categorical needs targets that are distributions over "
                f"classes, and those of {data.name} are not: take mupc.Gaussian"
            )
    total, intervals = _plan(
        data,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        evaluate_every=evaluate_every,
        early_stopping=early_stopping,
        log_every=log_every,
        report_every=report_every,
    )
    trainers = [Trainer(member, data, batch_size) for member in members]
    with _interruptible() as interruption:
        runs = [trainer.train(total, intervals, interruption) for trainer in trainers]
        if len(runs) == 1:
            return [_alone(trainers[0], runs[0])]
        return _in_step(trainers, runs)


def check_saved(member: Member, data: Dataset, **options: Unpack[Options]) -> None:
    """Check that what a member has saved is of the run that `fit_together` would go on with.

    Raises:
        RunError: if not.
    """
    if member.saved is None:
        return
    total, intervals = _plan(data, epochs=None, **options)
    Trainer(member, data, options["batch_size"]).check(member.saved, total, intervals)


def _plan(
    data: Dataset, *, epochs: float | None, **options: Unpack[Options]
) -> tuple[int, Intervals]:
    """Check the arguments of `fit`; give the number of steps, and the steps between its moves."""
    evaluate_every, early_stopping = options["evaluate_every"], options["early_stopping"]
    check_dataset(data)
    _check_numbers(options)
    epoch = steps_per_epoch(len(data.train.x), options["batch_size"])
    total = _total_steps(epochs, options["steps"], epoch)
    if data.validation is None and (evaluate_every, early_stopping) != (None, None):
        raise ValueError(
            "evaluate_every and early_stopping have no effect without a validation part: "
            "leave them out, or give the data a validation part"
        )
    given = Intervals(
        evaluate_every or epoch, early_stopping, options["log_every"], options["report_every"]
    )
    check_evaluations(total, epoch, evaluate_every, early_stopping)
    return total, given


def _alone(trainer: Trainer, run: Run) -> FitResult:
    """Make every step that a run asks for."""
    try:
        inputs = next(run)
        while True:
            trainer.state, metrics = train_step(inputs, trainer.state)
            inputs = run.send(metrics)
    except StopIteration as end:
        return end.value


def _in_step(trainers: Sequence[Trainer], runs: Sequence[Run]) -> list[FitResult]:
    """Make the steps of several runs, each of all of them at once, until every run has ended."""
    results: list[FitResult | None] = [None] * len(runs)
    inputs = [next(run) for run in runs]
    states = stack([trainer.state for trainer in trainers])
    while any(result is None for result in results):
        states, metrics = train_steps(tuple(inputs), states)
        for i, (trainer, run) in enumerate(zip(trainers, runs, strict=True)):
            if results[i] is not None:  # it takes part in the others' steps
                continue
            trainer.follow(functools.partial(entry, states, i))
            try:
                inputs[i] = run.send(entry(metrics, i))
            except StopIteration as end:
                results[i] = end.value
        # All are at the same step: those that have ended measure what the others do.
        going = [i for i, result in enumerate(results) if result is None]
        if going:
            inputs = [(*own[:-1], inputs[going[0]][-1]) for own in inputs]
    return [result for result in results if result is not None]


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
    if epochs is not None and not (isinstance(epochs, Real) and 0 < epochs < float("inf")):
        raise ValueError(f"epochs must be a number above 0, not {epochs!r}")
    total = steps if epochs is None else round(epochs * epoch)
    if total is None or total < 1:
        raise ValueError(f"training must make at least one step, not {total}")
    return total


@contextmanager
def _interruptible() -> Generator[Interruption]:
    """Turn the first Ctrl-C or SIGTERM into a note of it, so that no step is cut in half.

    The second one does what it did before.
    """
    noted = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield noted  # only the main thread may set handlers
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    found = {number: signal.getsignal(number) for number in numbers}
    # A handler that is not Python's could not be put back.
    previous = {number: handler for number, handler in found.items() if handler is not None}

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        noted.number = number
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, handle)
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
