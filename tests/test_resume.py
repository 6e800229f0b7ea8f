"""`mupc train --resume`: what goes on is what would have been, or a sentence says why not."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import FULL
from test_checkpoints import snapshot, timeless

import mupc
from mupc.commands.main import main
from mupc.records import RunFolder
from mupc.runs import resume, train
from mupc.settings import Configuration
from mupc.settings.configuration import KINDS

RUN = "train --depth 3 --width 8 --steps 40 --validation 0.1 --evaluate-every 7 --log-every 1"
RUN = [*RUN.split(), "--report-every", "10"]


def figures(path):
    """All that a run leaves but times: weights, records, result."""
    records = timeless(
        json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()
    )
    return (path / "network.safetensors").read_bytes(), records, (path / "result.json").read_text()


def start(*arguments, **environment):
    """Start the command, whose programs are compiled in a hurry unless the environment differs."""
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | environment
    command = [sys.executable, "-u", "-m", "mupc", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


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
    assert "ended by SIGTERM after " in told
    assert f"to continue: mupc train --resume {out}" in told
    assert not (out / "result.json").exists()
    (kept,) = (out / "checkpoints").iterdir()
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(
        json.dumps({**config, "training": {**config["training"], "steps": 40}})
    )
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


KILLS = 50 if FULL else 1


def test_kills_at_random_moments_change_nothing(tmp_path):
    """Weights, records and result are those of a run that nobody disturbed, to the last bit.

    In the full set its programs are compiled as they are for users.
    """
    as_users = {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"} if FULL else {}
    run = [*RUN, "--steps", str(30 * KILLS), "--checkpoint-every", "2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with start(*run, "--out", whole, **as_users) as process:
        process.communicate(timeout=600)
        assert process.returncode == 0
    generator, made = np.random.default_rng(0), []
    for _ in range(KILLS):
        again = ["train", "--resume", killed] if killed.exists() else [*run, "--out", killed]
        with start(*again, **as_users) as process:
            for _ in range(generator.integers(1, 12)):  # a slow machine comes as far
                seen(process, " left, step")
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
    with start("train", "--resume", killed, **as_users) as process:
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
    assert main(["train", "--resume", str(out)]) == 2
    assert "the data are others than those of the run" in capsys.readouterr().err
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    for damage, sentence in [
        (regime.replace("precision", "decision"), "regime.json is damaged"),
        (json.dumps({**json.loads(regime), "rho": "a"}), "regime.json is damaged"),
        (json.dumps({**json.loads(regime), "precision": 7.0}), "the initial precision"),
    ]:
        (out / "regime.json").write_text(damage)
        assert main(["train", "--resume", str(out)]) == 2
        assert sentence in capsys.readouterr().err
    (out / "regime.json").write_text(regime)
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    # The data that it began with, in another place.
    (tmp_path / "mine.npz").unlink()
    assert main(["train", "--resume", str(out)]) == 2
    assert "mine.npz does not exist" in capsys.readouterr().err
    (tmp_path / "there").mkdir()
    np.savez(place := tmp_path / "there" / "mine.npz", x=x, y=y)
    assert main(["train", "--resume", str(out), "--data", str(place)]) == 0
    assert "finished: 40 of 40 steps" in capsys.readouterr().out
    assert main(["evaluate", str(out), "--split", "train"]) == 0  # the run knows where they lie
    place.rename(again := tmp_path / "again.npz")
    assert main(["evaluate", str(out), "--split", "train"]) == 2
    assert main(["evaluate", str(out), "--split", "train", "--data", str(again)]) == 0
    for words, sentence in [
        (["--data", str(again)], "name it by --dataset"),
        (["--resume", str(out), "--depth", "3"], "leave out --depth"),
        (["--resume", str(out), "--data", str(tmp_path)], "is no place of the data set npz"),
    ]:
        assert main(["train", *words]) == 2
        assert sentence in capsys.readouterr().err
    np.savez(again, x=x + 1, y=y)
    assert main(["evaluate", str(out), "--split", "train", "--data", str(again)]) == 2
    assert "the data are others than those of the run" in capsys.readouterr().err


def test_numbers_of_another_width_name_the_switch(tmp_path, float64, capsys):
    """A run in float64 is that in float64 only."""
    out = tmp_path / "run"
    assert main([*RUN, "--steps", "7", "--out", str(out)]) == 0
    jax.config.update("jax_enable_x64", False)
    assert main(["evaluate", str(out)]) == 2
    assert "was computed in float64: set JAX_ENABLE_X64=1" in capsys.readouterr().err


def test_what_cannot_be_resumed_is_a_sentence(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*RUN, "--steps", "7", "--out", str(out)]) == 0
    before = figures(out)
    for arguments, sentence in [
        ([str(out)], "has already finished (finished: 7 of 7 steps)"),
        ([str(tmp_path)], "there is no run at"),
        ([str(out), "--depth", "3", "--seed", "1"], "leave out --depth, --seed"),
        ([str(out), "--preset", "paper"], "leave out --preset"),
        ([str(out), "--seed=0", "--depth", "128"], "leave out --seed, --depth"),  # as by default
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


SMALL = {"depth": 3, "width": 8}
RULES = {
    **{rule: {"rule": rule, **SMALL} for rule in KINDS["rule"]},
    "residual Hopfield": {"network": "residual-hopfield", **SMALL},
    "layered Hopfield": {"network": "layered-hopfield", "couplings": "d8"},
}


@pytest.mark.few(6)
@pytest.mark.parametrize("case", RULES.values(), ids=RULES)
def test_every_rule_goes_on_as_if_nothing_had_stopped_it(case, tmp_path, monkeypatch):
    """Also what it keeps from step to step, as a chain of samples."""
    small = {"steps": 5, "log_every": 1, "report_every": 2, **case}
    of = lambda name: Configuration().changed({**small, "out": str(tmp_path / name)})
    append = RunFolder.append

    def stopping(self, record):
        append(self, record)
        if record["kind"] == "train" and record["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(of("stopped"))
    assert resume(tmp_path / "stopped").result.steps == 5
    train(of("whole"))
    assert figures(tmp_path / "stopped") == figures(tmp_path / "whole")


def test_ctrl_c_acts_in_a_script_once_the_run_is_saved(tmp_path, monkeypatch):
    """A script that trains one run after another ends, and what it was training is resumed."""
    small = {"depth": 2, "width": 8, "steps": 8, "log_every": 1, "report_every": 0}
    of = lambda name: Configuration().changed({**small, "out": str(tmp_path / name)})
    append = RunFolder.append

    def stopping(self, record):
        append(self, record)
        if record["kind"] == "train" and record["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    def script():
        for name in ("first", "second"):
            train(of(name))

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            script()
    assert not (tmp_path / "second").exists()
    resumed, whole = resume(tmp_path / "first"), train(of("whole"))
    assert resumed.result.steps == 8
    assert resumed.test == whole.test
