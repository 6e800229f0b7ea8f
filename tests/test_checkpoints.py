"""Runs that are stopped, killed or damaged: what goes on is what would have been, or a sentence."""

import contextlib
import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_training import KEY, network, toy

import mupc
from mupc.cli import main
from mupc.records import RunError, RunFolder
from mupc.training import checkpoint
from mupc.training.checkpoint import Snapshot
from mupc.training.named import fill

TIMES = ("seconds", "samples_per_second")  # what a stop may change
HELD = mupc.PredictiveCoding(mupc.GaussNewton(1), 1, hold_regime=True)
OTHER = mupc.residual_mlp(4, 2, width=8, depth=3, key=jax.random.key(9))
RANDOM = mupc.PredictiveCoding(mupc.GradientDescent(0.25), 4, start=mupc.NormalStart(0.1))


def train(path, *, rule=HELD, stop=None, number=signal.SIGINT, every=None, net=None, **options):
    """Train a toy network with checkpoints; ask it to stop at a step."""

    def callback(record):
        if record.kind == "train" and record.step == stop:
            os.kill(os.getpid(), number)

    given = {"steps": 30, "batch_size": 8, "log_every": 1, "report_every": 10, **options}
    given = {"data": toy(), "evaluate_every": 3, "optimiser": optax.adam(0.03), **given}
    checkpoints = path and mupc.Checkpoints(path, every=every, minutes=float("inf"))
    return mupc.fit(
        net or network(), rule=rule, callback=callback, checkpoints=checkpoints, key=KEY, **given
    )


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


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (HELD, {}),
        (RANDOM, {"log_every": 4}),  # a stop between two records, and a random key at every step
        (mupc.Backpropagation(), {"early_stopping": 2, "optimiser": optax.sgd(3.0)}),
        (mupc.Backpropagation(), {"data": toy(validation=0), "evaluate_every": None}),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(rule, options, number, tmp_path):
    whole = train(None, rule=rule, **options)
    ended = {signal.SIGINT: mupc.Ended.INTERRUPTED, signal.SIGTERM: mupc.Ended.TERMINATED}
    step = options.get("log_every", 1)
    for stop in (step, 2 * step):  # twice: what goes on can be stopped again
        cut = train(tmp_path, rule=rule, stop=stop, number=number, **options)
        assert (cut.ended, cut.steps) == (ended[number], stop)
    same(train(tmp_path, rule=rule, **options), whole)


def test_a_stop_between_two_records_keeps_what_they_will_tell(tmp_path):
    """The means of a record reach back beyond the checkpoint."""
    whole = train(None, log_every=10)
    train(tmp_path, every=4, log_every=10, stop=10)
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
        ({"every": 0}, "every must be at least 1, not 0"),
        ({"keep": 0}, "keep must be at least 1, not 0"),
        ({"minutes": 0}, "minutes must be above 0, not 0"),
    ],
)
def test_impossible_intervals_are_named(options, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        mupc.Checkpoints(tmp_path, **options)


# What is not this run's


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 31}, r"the number of steps \(30 there, 31 here\)"),
        ({"batch_size": 4}, r"the batch size \(8 there, 4 here\)"),
        ({"log_every": 2}, r"the intervals \(3, None, 1, 10 there, 3, None, 2, 10 here\)"),
        ({"data": toy(seed=1)}, "the training data"),
        ({"net": OTHER}, "the network at first"),
        ({"rule": mupc.PredictiveCoding(mupc.LBFGS(), 1, hold_regime=True)}, "the rule"),
        ({"optimiser": mupc.traced(optax.adam, learning_rate=0.01)}, "the optimiser"),
        ({"net": network(width=9)}, r"\.entry.* \(float32 8x4 there, float32 9x4 here\)"),
        ({"optimiser": optax.sgd(0.1)}, r"optimiser.*there, none here\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(options, sentence, tmp_path):
    train(tmp_path, stop=4)
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
        patch.setattr(checkpoint, "_FORMAT", 2)
        mupc.Checkpoints(tmp_path / "new").save(snapshot())
        patch.setattr(checkpoint, "_FORMAT", 1)
        patch.setattr(checkpoint, "environment", lambda: {"jax": "0.0.1"})
        mupc.Checkpoints(tmp_path / "old").save(snapshot())
    with pytest.raises(RunError, match="is of format 2, and this version of mupc reads 1"):
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


def test_a_full_disk_leaves_the_checkpoint_before_and_training_goes_on(tmp_path, capfd):
    kept = mupc.Checkpoints(tmp_path)
    assert kept.save(snapshot(3))
    with full_disk(300), pytest.warns(UserWarning, match="no checkpoint of step 4 could be writ"):
        assert not kept.save(snapshot(4))
    assert (
        "Traceback" not in capfd.readouterr().err
    )  # what libraries below print of it is held back
    assert mupc.Checkpoints(tmp_path).load().step == 3
    assert kept.save(snapshot(5))  # there is room again
    assert mupc.Checkpoints(tmp_path).load().step == 5
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="no checkpoint of step 6"):
        assert not mupc.Checkpoints(tmp_path / "file" / "folder").save(snapshot(6))


def test_a_record_that_cannot_be_written_whole_is_not_written(tmp_path):
    folder = RunFolder.create(tmp_path / "run", {}, {}, {})
    folder.append({"a": 1})
    with full_disk(15), pytest.raises(RunError, match=r"cannot write .*continue with mupc train"):
        folder.append({"b": 2})
    assert list(folder.records()) == [{"a": 1}]
    folder.append({"c": 3})
    assert list(folder.records()) == [{"a": 1}, {"c": 3}]


# The command

RUN = "train --depth 3 --width 8 --steps 40 --validation 0.1 --evaluate-every 7 --log-every 1"
RUN = [*RUN.split(), "--report-every", "10"]


def figures(path):
    """All that a run leaves but times: weights, records, result."""
    records = timeless(
        json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()
    )
    return (path / "network.safetensors").read_bytes(), records, (path / "result.json").read_text()


def start(*arguments):
    code = "import sys, jax; jax.config.update('jax_disable_most_optimizations', True); "
    code += "from mupc.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-u", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def seen(process, words):
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"it ended without {words}")


def test_sigterm_keeps_a_checkpoint_and_has_its_own_exit_code(tmp_path, capsys):
    out = tmp_path / "run"
    with start(*RUN, "--steps", 4000, "--out", out) as process:
        seen(process, "step 5/4000")
        process.terminate()
        told = process.stdout.read()
        assert process.wait(timeout=60) == 143
    assert "it was asked to end (SIGTERM)" in told
    assert f"to continue: mupc train --resume {out}" in told
    assert not (out / "result.json").exists()
    (kept,) = (out / "checkpoints").iterdir()
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "steps": 40}))
    capsys.readouterr()
    assert main(["train", "--resume", str(out)]) == 2
    told = capsys.readouterr().err
    why = "is of another run: it differs in steps (4000 there, 40 here)"
    assert told == f"mupc: the checkpoint {kept} {why}\n"


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path, capsys):
    out = tmp_path / "run"
    with start(*RUN, "--steps", 4000, "--out", out) as process:
        seen(process, "step 1/4000")
        assert main(["train", "--resume", str(out)]) == 2
        process.kill()
    assert f"another process is training the run {out}" in capsys.readouterr().err
    with RunFolder.open(out).held():  # killed, it holds nothing
        pass


def test_where_nothing_can_be_written_a_sentence_says_so(capsys):
    assert main([*RUN, "--out", "/proc/mupc/run"]) == 2
    assert "cannot write the run folder /proc/mupc/run: " in capsys.readouterr().err
    with pytest.warns(UserWarning, match="no checkpoint of step 3 could be written to /proc/mupc"):
        assert not mupc.Checkpoints("/proc/mupc").save(snapshot())


KILLS = int(os.environ.get("MUPC_KILLS", "5"))


def test_kills_at_random_moments_change_nothing(tmp_path):
    """Weights, records and result are those of a run that nobody disturbed, to the last bit."""
    run = [*RUN, "--steps", str(30 * KILLS), "--checkpoint-every", "2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with start(*run, "--out", whole) as process:
        process.communicate(timeout=600)
        assert process.returncode == 0
    generator, made = np.random.default_rng(0), []
    for _ in range(KILLS):
        again = ["train", "--resume", killed] if killed.exists() else [*run, "--out", killed]
        with start(*again) as process:
            for _ in range(generator.integers(1, 12)):  # a slow machine comes as far
                seen(process, ": loss")
            time.sleep(generator.uniform(0, 0.1))
            process.kill()
            assert process.wait() == -signal.SIGKILL
        names = [path.name for path in killed.glob("checkpoints/*")]
        made.append(max([0, *map(int, filter(str.isdecimal, names))]))
        # What a kill in the middle of a write leaves, which takes too little time to be hit.
        with (killed / "metrics.jsonl").open("ab") as file:
            file.write(b'{"kind": "train", "st')
        half = killed / "checkpoints" / f"{10**6}.orbax-checkpoint-tmp" / "arrays"
        half.mkdir(parents=True, exist_ok=True)
    assert sorted(made) == made  # nothing that was kept is ever lost
    assert made[-1] > 0
    with start("train", "--resume", killed) as process:
        process.communicate(timeout=600)
        assert process.returncode == 0
    assert figures(killed) == figures(whole)
    assert not (killed / "checkpoints").exists()


def test_a_refused_resume_leaves_the_run_as_it_was(tmp_path, monkeypatch, capsys):
    x, y = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 2
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    out = tmp_path / "run"
    words = ["train", "--dataset", str(tmp_path / "mine.npz"), "--depth", "3", "--width", "8"]
    words += ["--steps", "40", "--batch-size", "8", "--log-every", "1", "--out", str(out)]
    append = RunFolder.append

    def stopping(self, record):
        append(self, record)
        if record["kind"] == "train" and record["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stopping)
        assert main(words) == 130
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    np.savez(tmp_path / "mine.npz", x=x + 1, y=y)
    regime = (out / "regime.json").read_text()
    for damage, sentence in [
        (regime, "it differs in the training data"),
        (regime.replace("precision", "decision"), "regime.json is damaged"),
        (json.dumps({**json.loads(regime), "precision": 7.0}), "the precision at first"),
    ]:
        (out / "regime.json").write_text(damage)
        assert main(["train", "--resume", str(out)]) == 2
        assert sentence in capsys.readouterr().err
    (out / "regime.json").write_text(regime)
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_what_cannot_be_resumed_is_a_sentence(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*RUN, "--steps", "7", "--out", str(out)]) == 0
    before = figures(out)
    for arguments, sentence in [
        ([str(out)], "is left to continue: training ended after 7 steps: all steps were made"),
        ([str(tmp_path)], "there is no run at"),
        ([str(out), "--depth", "3", "--seed", "1"], "leave out --depth, --seed"),
        ([str(out), "--preset", "paper"], "leave out --preset"),
    ]:
        capsys.readouterr()
        assert main(["train", "--resume", *arguments]) == 2
        told = capsys.readouterr().err
        assert told.startswith("mupc: ")
        assert told.count("\n") == 1
        assert sentence in told
    assert figures(out) == before
    # Killed before its first checkpoint: it begins again.
    (out / "result.json").unlink()
    assert main(["train", "--resume", str(out)]) == 0
    assert figures(out) == before
