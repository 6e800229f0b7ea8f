"""The command, as a person uses it."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import mupc
from mupc.commands.main import COMMANDS, main
from mupc.records import Ended, RunError, RunFolder

SMALL = [
    "--depth",
    "3",
    "--width",
    "16",
    "--validation",
    "0.1",
    "--steps",
    "60",
    "--log-every",
    "30",
]


def train(tmp_path, *options):
    return main(["train", *SMALL, "--out", str(tmp_path / "run"), *options])


def test_train_then_evaluate_tell_the_same_story(tmp_path, capsys):
    assert train(tmp_path) == 0
    printed = capsys.readouterr().out
    assert "3 layers of width 16, mupc, predictive-coding; digits: 1293 training" in printed
    assert "regime number ρ = 0.05 at initialisation (kept from rising in training)" in printed
    assert "step 60/60: accuracy" in printed
    assert "in 1 inference step," in printed
    assert "at step 0: gradient-weighted ρ " in printed
    assert "2 of 2 hidden weight matrices learning" in printed
    run = RunFolder.open(tmp_path / "run")
    result = run.result()
    assert result.ended is Ended.FINISHED
    assert result.test.accuracy > 0.8
    assert result.test.samples == 360
    steps = [r["step"] for r in run.records() if r["kind"] == "train"]
    assert steps == [30, 60]
    config = run.config()
    assert config["network"]["depth"] == 3
    assert config["rule"]["solver"]["max_steps"] == 1
    assert config["optimiser"]["kind"] == "adam"
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert {"python", "jax", "mupc", "devices"} <= set(environment)
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    accuracy, loss = 100 * result.test.accuracy, result.test.loss
    expected = f"test accuracy {accuracy:.2f} %, loss {loss:.4g} over 360 samples"
    assert expected in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run"), "--split", "validation"]) == 0
    assert "over 144 samples" in capsys.readouterr().out


def test_the_users_own_arrays(tmp_path, capsys):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 300)
    x = generator.normal(size=(300, 5)) + 4 * np.eye(5)[y]
    np.savez(tmp_path / "own.npz", x=x[:200], y=y[:200], x_test=x[200:], y_test=y[200:])
    assert train(tmp_path, "--dataset", str(tmp_path / "own.npz")) == 0
    assert RunFolder.open(tmp_path / "run").result().test.accuracy > 0.9


def test_images_of_whole_numbers_are_trained_on_as_they_are(tmp_path):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 300)
    x = (generator.integers(0, 2, (300, 2, 3)) + 4 * np.eye(6)[y].reshape(-1, 2, 3)).astype("u1")
    np.savez(tmp_path / "own.npz", x=x[:200], y=y[:200], x_test=x[200:], y_test=y[200:])
    assert train(tmp_path, "--dataset", str(tmp_path / "own.npz")) == 0
    assert RunFolder.open(tmp_path / "run").result().test.accuracy > 0.9


@pytest.mark.parametrize("command", ["train", "theory"])
def test_targets_with_positions_are_for_a_network_of_ones_own(command, tmp_path, capsys):
    path, out = tmp_path / "own.npz", tmp_path / "run"
    np.savez(path, x=np.ones((80, 4)), y=np.ones((80, 2, 3)))
    said = wrong(capsys, command, "--dataset", str(path), "--out", str(out))
    assert "the targets of own.npz are of shape (2, 3) per sample, and the network" in said
    assert not out.exists()


def test_own_arrays_without_a_test_part_are_evaluated_from_any_folder(
    tmp_path, capsys, monkeypatch
):
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=generator.normal(size=(200, 5)), y=np.arange(200) % 3)
    monkeypatch.chdir(tmp_path)
    assert train(tmp_path, "--dataset", "own.npz", "--steps", "2") == 0
    assert "no test split" in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["evaluate", "../run", "--split", "validation"]) == 0
    capsys.readouterr()
    assert "no test split in this run: use train or validation" in wrong(
        capsys, "evaluate", "../run"
    )


def test_doctor_passes_and_names_what_it_found(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for word in ("jax", "device", "digits        built in", "products      good", "inference"):
        assert word in printed


def test_a_run_that_diverges_says_so_and_exits_with_1(tmp_path, capsys):
    descent = ["--solver", "gradient-descent", "--regime", "fixed", "--step-size", "3"]
    assert train(tmp_path, *descent, "--max-steps", "400", "--patience", "0") == 1
    assert "diverged at step 1: it began in inference" in capsys.readouterr().out
    assert RunFolder.open(tmp_path / "run").result().ended is Ended.DIVERGED


def wrong(capsys, *arguments):
    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("mupc: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_a_folder_that_is_taken_is_refused_before_data_are_read(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    options = ["--out", str(tmp_path / "run"), "--dataset", str(tmp_path / "none.npz")]
    assert "is not empty: name a new folder with --out" in wrong(capsys, "train", *options)
    (tmp_path / "sweep" / "runs").mkdir(parents=True)
    said = wrong(capsys, "report", str(tmp_path / "sweep"))
    assert f"name a folder that lies in {tmp_path / 'sweep' / 'runs'}" in said


def test_a_reader_that_goes_away_is_no_error():
    """As `mupc train --print-config | head -1` does."""
    command = [sys.executable, "-m", "mupc", "train", "--print-config"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_wrong_input_gets_one_sentence(tmp_path, capsys):
    """What a library test cannot show: status 2, and one line on stderr."""
    say = lambda *arguments: wrong(capsys, *arguments)
    assert "did you mean mnist?" in say("train", "--dataset", "minst")
    assert "there is no preset papr: choose default or conv-ngc or conv-resnet" in say(
        "train", "--preset", "papr"
    )
    assert "smaller than the 5 steps" in say(
        "train", "--steps", "5", "--schedule", "cosine", "--warmup", "9"
    )
    assert "--epochs 0.01 is no step: an epoch has 22" in say("train", "--epochs", "0.01")
    assert "--early-stopping 9 would have no effect" in say(
        "train", "--steps", "99", "--early-stopping", "9", "--validation", "0.1"
    )
    assert "--depth must be at least 1" in say("train", "--depth", "0")
    assert "--batch-size must be at most 1437, the number of training samples" in say(
        "train", "--batch-size", "99999"
    )
    assert "the rule backpropagation has no solver" in say(
        "train", "--rule", "backpropagation", "--momentum", "0.5"
    )
    assert "there is no run at" in say("evaluate", str(tmp_path / "nowhere"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    assert "is not empty" in say("train", "--out", str(tmp_path / "full"))
    assert (tmp_path / "full" / "thesis.txt").read_text() == "precious"


def test_a_damaged_run_gets_one_sentence(tmp_path, capsys):
    train(tmp_path)
    capsys.readouterr()
    folder = tmp_path / "run"
    whole = (folder / "network.safetensors").read_bytes()
    (folder / "network.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in wrong(capsys, "evaluate", str(folder))
    (folder / "network.safetensors").unlink()
    assert "holds no trained network" in wrong(capsys, "evaluate", str(folder))
    (folder / "config.json").write_text("{")
    assert "is damaged (Expecting" in wrong(capsys, "evaluate", str(folder))
    (folder / "config.json").write_text("[]")
    assert "is damaged (it holds no table" in wrong(capsys, "evaluate", str(folder))
    (folder / "config.json").write_text('{"depth": "two"}')
    sentence = "in the stored configuration: depth must be a whole number, not two"
    assert sentence in wrong(capsys, "evaluate", str(folder))


def test_records_of_a_killed_run_are_read_up_to_the_cut(tmp_path):
    train(tmp_path)
    run = RunFolder.open(tmp_path / "run")
    whole = list(run.records())
    text = run.metrics.read_text()
    run.metrics.write_text(text[:-9])
    assert list(run.records()) == whole[:-1]
    for damaged in (b"{" + text.encode(), b"\xff" + text.encode()):
        run.metrics.write_bytes(damaged)
        with pytest.raises(RunError, match="damaged in line 1"):
            list(run.records())
    run.metrics.unlink()
    with pytest.raises(RunError, match=r"cannot read .*metrics.jsonl: No such file"):
        list(run.records())


def test_a_part_that_the_run_has_not(tmp_path, capsys):
    train(tmp_path, "--validation", "0", "--steps", "1", "--log-every", "1")
    capsys.readouterr()
    sentence = wrong(capsys, "evaluate", str(tmp_path / "run"), "--split", "validation")
    assert "digits has no validation split in this run" in sentence


def test_ctrl_c_ends_cleanly_with_what_was_done(tmp_path):
    command = [sys.executable, "-m", "mupc", "train", "--depth", "3", "--width", "16"]
    command += ["--steps", "1000000", "--log-every", "5", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted after" in printed
    result = RunFolder.open(tmp_path / "run").result()
    assert result.ended is Ended.INTERRUPTED
    assert result.test.samples == 360
    assert main(["evaluate", str(tmp_path / "run")]) == 0


@pytest.mark.few(3)
@pytest.mark.parametrize(
    "module",
    ["pydantic", "rich", "matplotlib", "sklearn", "pooch", "requests", "orbax", "mupc.commands"],
)
def test_import_is_light(module):
    code = f"import sys, mupc; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_the_version_and_the_nearest_command(capsys):
    for words in ([], ["--help"], ["help"]):
        assert main(words) == 0
        assert "mupc COMMAND --help" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mupc {mupc.__version__}\n"
    assert "there is no command trian: did you mean train?" in wrong(capsys, "trian")
    assert "there is no option --vrsion: commands: train" in wrong(capsys, "--vrsion")
    assert "there is no option --depht: did you mean --depth?" in wrong(
        capsys, "train", "--depht=3"
    )
    said = wrong(capsys, "train", "--history", "3")
    assert "--history is a setting of the solver l-bfgs, and the solver is gauss-newton" in said
    assert "choose --solver l-bfgs, or leave it out" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: mupc {command}" in capsys.readouterr().out


def test_the_help_is_of_the_kinds_that_are_chosen(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--solver", "l-bfgs", "--help"])
    printed = capsys.readouterr().out
    assert "--history" in printed
    assert "--cg-steps" not in printed
    assert printed.count("default: 30") == 1  # L-BFGS's own number of steps


def test_a_terminal_without_greek_gets_what_it_can_print(tmp_path):
    command = [sys.executable, "-m", "mupc", "train", "--help"]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"--rho" in done.stdout
