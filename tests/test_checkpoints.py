"""Runs that are stopped, killed or damaged: what goes on is what would have been, or a sentence."""

import contextlib
import dataclasses
import errno
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_training import KEY, network, toy

import mupc
from mupc.records import Regime, RunError, RunFolder
from mupc.training import checkpoint
from mupc.training.checkpoint import Snapshot
from mupc.training.fit import prepare
from mupc.training.fit import train as train_sessions
from mupc.training.plan import Plan
from mupc.training.session import Member
from mupc.training.signals import Ending
from mupc.training.trees import fill, named_settings

TIMES = ("seconds", "samples_per_second")  # what a stop may change
HELD = mupc.PredictiveCoding()
OTHER = mupc.residual_mlp(4, 2, width=8, depth=3, key=jax.random.key(9))
LAMBDA = mupc.residual_mlp(4, 2, width=8, depth=3, activation=lambda z: jnp.tanh(2 * z), key=KEY)
RANDOM = mupc.PredictiveCoding(
    mupc.GradientDescent(0.25), 4, mupc.Gaussian(), start=mupc.NormalStart(0.1)
)


def train(path, *, rule=HELD, every=None, net=None, settings=None, signals=None, **options):
    """Train a toy network with checkpoints, by `fit` unless what becomes of signals is given."""
    given = {"steps": 30, "batch_size": 8, "log_every": 1, "report_every": 10, **options}
    given = {"data": toy(), "evaluate_every": 3, "optimiser": optax.adam(0.03), **given}
    net, kept = net or network(), None
    if path is not None:
        kept = mupc.Checkpoints(path, every=every, minutes=float("inf"), settings=settings)
    if signals is None:
        return mupc.fit(net, rule=rule, checkpoints=kept, key=KEY, **given)
    data, optimiser, callback = (given.pop(name) for name in ("data", "optimiser", "callback"))
    member = Member(net, rule, optimiser, KEY, callback, kept, kept.load())
    (result,) = train_sessions(prepare([member], data, Plan(**given).over(data)), signals)
    return result


def at_step(stop, number=signal.SIGINT):
    """A callback that asks for an end at a step."""

    def callback(record):
        if record.kind == "train" and record.step == stop:
            os.kill(os.getpid(), number)

    return callback


def stopped(path, step, **options):
    """Train as far as a step, where Ctrl-C comes."""
    with pytest.raises(KeyboardInterrupt):
        train(path, callback=at_step(step), **options)


def timeless(records):
    return [{k: v for k, v in one.items() if k not in TIMES} for one in records]


def same(a, b):
    assert repr(timeless(map(dataclasses.asdict, a.records))) == repr(
        timeless(map(dataclasses.asdict, b.records))
    )
    assert (a.ended, a.step, a.steps, a.message) == (b.ended, b.step, b.steps, b.message)
    leaves = [jax.tree.leaves((one.network, one.state)) for one in (a, b)]
    for ours, theirs in zip(*leaves, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (HELD, {}),
        (
            RANDOM,
            {"log_every": 4},
        ),  # a stop between two records, and a random key at every step
        (mupc.Backpropagation(), {"early_stopping": 2, "optimiser": optax.sgd(3.0)}),
        (mupc.Backpropagation(), {"data": toy(validation=0), "evaluate_every": None}),
    ],
)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(rule, options, tmp_path):
    whole = train(None, rule=rule, **options)
    step = options.get("log_every", 1)
    for stop in (step, 2 * step):  # twice: what goes on can be stopped again
        stopped(tmp_path / "fit", stop, rule=rule, **options)
    same(train(tmp_path / "fit", rule=rule, **options), whole)
    # The command looks at what was done by then, which what goes on must not notice.
    for name, number in {"INTERRUPTED": signal.SIGINT, "TERMINATED": signal.SIGTERM}.items():
        path, callback = tmp_path / name, at_step(step, number)
        cut = train(path, rule=rule, signals=Ending, callback=callback, **options)
        assert (cut.ended.name, cut.steps) == (name, step)
        same(train(path, rule=rule, **options), whole)


def test_a_run_that_was_stopped_at_its_last_step_has_its_result(tmp_path):
    stopped(tmp_path, 30)
    same(train(tmp_path), train(None))


SCRIPT = """
import sys, jax, optax
sys.path.insert(0, {tests!r})
import mupc
from test_training import PC, network, toy

def train(seed, callback, checkpoints=None):
    key, adam = jax.random.key(seed), optax.adam(0.03)
    options = dict(steps=400, batch_size=8, log_every=1, callback=callback, checkpoints=checkpoints)
    return mupc.fit(network(), toy(), PC, adam, key=key, **options).network.readout.weights.tolist()

for seed in range(3):
    kept = mupc.Checkpoints(f"{path}/{{seed}}", minutes=float("inf"))
    weights = train(seed, lambda record: print(seed, record.step, flush=True), kept)
    print("like a whole run" if weights == train(seed, None) else "another run", flush=True)
"""


def script(path):
    code, pipe = SCRIPT.format(tests=os.path.dirname(__file__), path=path), subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)


@pytest.mark.few(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_script_once_its_step_is_saved(number, tmp_path):
    """As Ctrl-C and `timeout` send it; run again, the script goes on to the last bit."""
    with script(tmp_path) as process:
        for line in process.stdout:
            if line.startswith("1 20"):  # of the second seed
                process.send_signal(number)
                break
        printed, complaint = process.communicate(timeout=300)
    assert process.returncode == -number
    assert "run" not in printed
    assert complaint.endswith("KeyboardInterrupt\n") == (number == signal.SIGINT)
    (step,) = map(int, os.listdir(tmp_path / "1"))
    assert 20 <= step < 400
    assert not (tmp_path / "2").exists()
    if number == signal.SIGINT:
        with script(tmp_path) as process:
            printed, _ = process.communicate(timeout=300)
        assert "1 20\n" not in printed  # it went on, and did not begin again
        assert printed.count("like a whole run") == 3


def test_a_stop_between_two_records_keeps_what_they_will_tell(tmp_path):
    """The means of a record reach back beyond the checkpoint."""
    whole = train(None, log_every=10)
    stopped(tmp_path, 10, every=4, log_every=10)
    shutil.rmtree(tmp_path / "10")  # of the interruption: the one before lies between two records
    assert sorted(path.name for path in tmp_path.iterdir()) == ["8"]
    same(train(tmp_path, log_every=10), whole)


def test_so_many_checkpoints_are_kept_at_so_many_steps_or_minutes(tmp_path, monkeypatch):
    train(tmp_path, every=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "20"]
    clock = iter(np.arange(0, 1000, 20.0))
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(clock))
    kept = mupc.Checkpoints(tmp_path, minutes=1)
    assert [kept.due(step) for step in range(4)] == [False, False, True, True]
    assert [mupc.Checkpoints(tmp_path, every=3).due(step) for step in (1, 2, 3)] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": 0}, "every must be a whole number, at least 1, not 0"),
        ({"every": 2.5}, "every must be a whole number, at least 1, not 2.5"),
        ({"keep": 0}, "keep must be a whole number, at least 1, not 0"),
        ({"minutes": 0}, "minutes must be above 0, not 0"),
    ],
)
def test_impossible_intervals_are_named(options, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        mupc.Checkpoints(tmp_path, **options)


def test_a_file_is_no_folder_for_checkpoints(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file is a file: name a folder for the checkpoints"):
        mupc.Checkpoints(tmp_path / "file")


def test_functions_are_known_by_their_names_alone():
    """What is made inside another function may be called otherwise by its next version."""

    def old(count):
        return 2 * count

    def new(number):
        return 2 * number

    tell = lambda function: named_settings((function, {"a": 1}))
    assert tell(old) == tell(new) != tell(jnp.tanh) != tell(jax.jit(jnp.sin))
    assert tell(jax.jit(lambda z: 2 * z)) == tell(lambda z: 3 * z) != tell(old)
    assert tell(functools.partial(jnp.clip, min=0)) != tell(functools.partial(jnp.clip, min=1))
    optimisers = [optax.GradientTransformation(one, one) for one in (old, new)]
    assert named_settings(optimisers[0]) == named_settings(optimisers[1])


def test_numbers_that_can_be_seen_tell_optimisers_apart(tmp_path):
    adam = lambda rate: mupc.traced(optax.adam, learning_rate=rate)
    stopped(tmp_path / "seen", 4, optimiser=adam(0.03))
    with pytest.raises(RunError, match=r"the optimiser.*learning_rate.* \(0\.02.* there, 0\.00"):
        train(tmp_path / "seen", optimiser=adam(0.01))
    stopped(tmp_path / "said", 4, settings={"rate": 0.03})
    with pytest.raises(RunError, match=r"differs in rate \(0\.03 there, 0\.01 here"):
        train(tmp_path / "said", settings={"rate": 0.01}, optimiser=optax.adam(0.01))


# What is not this run's


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 31}, r"the number of steps \(30 there, 31 here\)"),
        ({"batch_size": 4}, r"the batch size \(8 there, 4 here\)"),
        ({"log_every": 2}, r"the intervals \(3, None, 1, 10 there, 3, None, 2, 10 here\)"),
        ({"data": toy(seed=1)}, "the training data"),
        ({"net": OTHER}, "the initial network"),
        ({"rule": mupc.PredictiveCoding(mupc.LBFGS(), 1)}, r"the rule\.solver \(Gau"),
        ({"rule": mupc.PredictiveCoding(rho=0.1)}, r"the rule\.regime\.rho \(0\.05.* there, 0\.1"),
        ({"rule": mupc.PredictiveCoding(hold=False)}, r"the rule\.regime\.hold \(True there, Fal"),
        ({"rule": mupc.PredictiveCoding(stopping=mupc.Tolerance())}, r"the rule\.stopping \(Fixed"),
        ({"optimiser": mupc.traced(optax.adam, learning_rate=0.01)}, "the optimiser"),
        ({"settings": {"rate": 0.1}}, r"rate \(none there, 0\.1 here"),
        ({"net": LAMBDA}, "the initial network"),
        ({"net": network(width=9)}, r"\.entry.* \(float32 8x4 there, float32 9x4 here\)"),
        ({"optimiser": optax.sgd(0.1)}, r"optimiser.*there, none here\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(options, sentence, tmp_path):
    stopped(tmp_path, 4)
    before = (tmp_path / "4" / "_CHECKPOINT_METADATA").stat().st_mtime_ns
    with pytest.raises(RunError, match=f"is of another run: it differs in .*{sentence}"):
        train(tmp_path, **options)
    assert (tmp_path / "4" / "_CHECKPOINT_METADATA").stat().st_mtime_ns == before


def snapshot(step=3):
    arrays = {"weights": jnp.arange(600.0), "key": jax.random.key(5), "none": jnp.zeros((0, 2))}
    arrays["half"] = jnp.ones(3, jnp.bfloat16)
    return Snapshot(step, arrays, {"best": 0.5, "pending": [float("nan")]}, {"size": 3})


def test_all_that_is_kept_comes_back(tmp_path):
    kept = mupc.Checkpoints(tmp_path, settings={"roles": ("a", "b")})
    assert kept.load() is None
    assert kept.save(snapshot())
    saved = mupc.Checkpoints(tmp_path, settings={"roles": ("a", "b")}).load()
    assert (saved.step, saved.identity, saved.progress["best"]) == (3, {"size": 3}, 0.5)
    filled = fill(jax.tree.map(jnp.zeros_like, snapshot().arrays), saved.arrays, "no")
    np.testing.assert_array_equal(filled["weights"], np.arange(600.0))
    np.testing.assert_array_equal(
        jax.random.bits(filled["key"]), jax.random.bits(jax.random.key(5))
    )
    with pytest.raises(RunError, match=r"differs in roles \(\['a', 'b'\] there, \['a'\] here\)"):
        mupc.Checkpoints(tmp_path, settings={"roles": ("a",)}).load()


def test_a_newer_format_and_other_versions_are_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_FORMAT", 5)
        mupc.Checkpoints(tmp_path / "new").save(snapshot())
        patch.setattr(checkpoint, "_FORMAT", 4)
        patch.setattr(checkpoint, "environment", lambda: {"jax": "0.0.1"})
        mupc.Checkpoints(tmp_path / "old").save(snapshot())
    with pytest.raises(RunError, match=r"is of format 5, .* mupc reads 4: .*, or a newer one"):
        mupc.Checkpoints(tmp_path / "new").load()
    with pytest.warns(UserWarning, match=r"was written with .*jax 0\.0\.1 \(now "):
        assert mupc.Checkpoints(tmp_path / "old").load().step == 3


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_damage_at_random_places_is_never_loaded_silently(damage, tmp_path):
    """Twenty places, of all files together; some are in bytes that nobody needs."""
    mupc.Checkpoints(tmp_path / "whole").save(snapshot())
    files = sorted(path for path in (tmp_path / "whole" / "3").rglob("*") if path.is_file())
    sizes = np.cumsum([path.stat().st_size for path in files])
    refused, generator = 0, np.random.default_rng(0)
    for i, place in enumerate(generator.integers(0, sizes[-1], 20)):
        copy = tmp_path / str(i)
        shutil.copytree(tmp_path / "whole", copy)
        which = int(np.searchsorted(sizes, place, side="right"))
        path = copy / files[which].relative_to(tmp_path / "whole")
        content = bytearray(path.read_bytes())
        at = int(place - sizes[which])  # from the end
        if damage == "flipped":
            content[at] ^= 0xFF
        path.write_bytes(content if damage == "flipped" else content[:at])
        saved = None
        with contextlib.suppress(RunError):
            saved = mupc.Checkpoints(copy).load()
        if saved is None:
            sentence = f"the checkpoint {copy / '3'} is damaged .*: remove that folder to begin"
            with pytest.raises(RunError, match=sentence):
                mupc.Checkpoints(copy).load()
            refused += 1
        else:
            np.testing.assert_array_equal(saved.arrays["['weights']"], np.arange(600.0))
            assert saved.progress["best"] == 0.5
    assert refused >= 5


def test_a_checkpoint_is_of_the_step_that_it_says(tmp_path):
    mupc.Checkpoints(tmp_path).save(snapshot(3))
    (tmp_path / "3").rename(tmp_path / "5")
    with pytest.raises(RunError, match=r"is damaged \(it is of step 3\)"):
        mupc.Checkpoints(tmp_path).load()


def test_of_a_damaged_checkpoint_the_one_before_is_named(tmp_path):
    kept = mupc.Checkpoints(tmp_path)
    for step in (3, 4):
        kept.save(snapshot(step))
    for path in (tmp_path / "4").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(RunError, match="remove that folder to continue from step 3"):
        mupc.Checkpoints(tmp_path).load()
    shutil.rmtree(tmp_path / "4")
    assert mupc.Checkpoints(tmp_path).load().step == 3


@contextlib.contextmanager
def full_disk(size):
    """Let no file grow beyond so many bytes: a disk that is full, as far as a program can tell."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def gone(*_):
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_a_full_disk_leaves_the_checkpoint_before_and_training_goes_on(
    tmp_path, capfd, monkeypatch
):
    kept = mupc.Checkpoints(tmp_path)
    assert kept.save(snapshot(3))
    with (
        full_disk(300),
        pytest.warns(UserWarning, match=r"step 4 .*; that of step 3 is whole"),
    ):
        assert not kept.save(snapshot(4))
    assert (
        "Traceback" not in capfd.readouterr().err
    )  # what libraries below print of it is held back
    assert mupc.Checkpoints(tmp_path).load().step == 3
    assert kept.save(snapshot(5))  # there is room again
    assert mupc.Checkpoints(tmp_path).load().step == 5
    with monkeypatch.context() as patch:  # a disk that has gone cannot be listed either
        patch.setattr(os, "listdir", gone)
        patch.setattr(kept, "_open", gone)
        with pytest.warns(UserWarning, match=r"no checkpoint of step 6 .*\(Stale file handle\)$"):
            assert not kept.save(snapshot(6))
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match=r"no checkpoint of step 6 could .*\)$"):
        assert not mupc.Checkpoints(tmp_path / "file" / "folder").save(snapshot(6))


def test_a_record_that_cannot_be_written_whole_is_not_written(tmp_path):
    folder = RunFolder.create(tmp_path / "run", {}, {}, Regime(1.0, None))
    folder.append({"a": 1})
    with full_disk(15), pytest.raises(RunError, match=r"cannot write .*continue with mupc train"):
        folder.append({"b": 2})
    assert list(folder.records()) == [{"a": 1}]
    folder.append({"c": 3})
    assert list(folder.records()) == [{"a": 1}, {"c": 3}]
