"""Runs that begin from the network of another, and runs that are trained longer."""

import os
import shutil
import signal
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest

from mupc.commands.main import main
from mupc.records import RunFolder
from mupc.runs import load_run

SMALL = ["--depth", "3", "--width", "8", "--report-every", "0", "--schedule", "constant"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", *SMALL, "--steps", "5", "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("place", ["", "network.safetensors"])
def test_training_begins_from_the_network_of_another_run(place, run, tmp_path):
    """At a learning rate that changes no digit, the network is that of the other run."""
    out, words = tmp_path / "run", ["--init-from", str(run / place), "--learning-rate", "1e-30"]
    assert main(["train", *SMALL, "--steps", "2", "--seed", "7", *words, "--out", str(out)]) == 0
    config, _, network = load_run(out)
    assert eqx.tree_equal(network, load_run(run)[2])
    assert config.training.init_from == str(run / place)


def test_a_run_is_trained_longer_as_it_was_configured(run, tmp_path):
    """As from a run of so many steps that begins from its network."""
    longer, same = tmp_path / "longer", tmp_path / "same"
    assert main(["train", "--extend", str(run), "--steps", "3", "--out", str(longer)]) == 0
    words = ["--init-from", str(run), "--steps", "3", "--out", str(same)]
    assert main(["train", *SMALL, *words]) == 0
    ours, theirs = load_run(longer), load_run(same)
    assert eqx.tree_equal(ours[2], theirs[2])
    assert not eqx.tree_equal(ours[2], load_run(run)[2])
    assert ours[0] == theirs[0].changed({"out": str(longer)})


def test_what_cannot_be_begun_from_gets_a_sentence(run, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run"), "--steps", "2"]
    for words, sentence in [
        (["--init-from", str(tmp_path / "none")], "is no file"),
        (["--init-from", str(run), "--width", "9"], "is of another network: it differs in"),
        (["--extend", str(tmp_path / "none")], "there is no run at"),
        (["--extend", str(run), "--preset", "paper"], "--init-from, --preset and --resume"),
        (["--extend", str(run), "--resume", str(run)], "--init-from, --preset and --resume"),
    ]:
        small = [] if "--extend" in words else SMALL
        assert main(["train", *small, *words, *out]) == 2
        assert sentence in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_run_goes_on_after_its_source_has_gone(run, tmp_path, monkeypatch):
    source, out = tmp_path / "source", tmp_path / "run"
    shutil.copytree(run, source)
    words = [*SMALL, "--init-from", str(source), "--steps", "9", "--log-every", "1"]
    assert main(["train", *words, "--out", str(tmp_path / "whole")]) == 0
    append = RunFolder.append

    def stopping(self, record):
        append(self, record)
        if record["kind"] == "train" and record["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stopping)
        assert main(["train", *words, "--out", str(out)]) == 130
    shutil.rmtree(source)
    assert main(["train", "--resume", str(out)]) == 0
    assert eqx.tree_equal(load_run(out)[2], load_run(tmp_path / "whole")[2])


def test_a_run_that_has_not_ended_is_not_extended(run, tmp_path, capsys):
    shutil.copytree(run, copy := tmp_path / "copy")
    (copy / "result.json").unlink()
    assert main(["train", "--extend", str(copy), "--steps", "1"]) == 2
    assert f"continue it with mupc train --resume {copy}" in capsys.readouterr().err


def test_settings_of_ones_own_data_are_read_with_their_path(tmp_path, monkeypatch, capsys):
    """From options, from a run's configuration, and from what --print-config prints."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("mine", "other"):
        np.savez(f"{name}.npz", x=rng.normal(size=(64, 6)), y=rng.integers(0, 3, 64))
    train = ["train", *SMALL, "--steps", "1"]
    assert main([*train, "--dataset", "npz", "--path", "mine.npz", "--out", "first"]) == 0
    longer = ["train", "--extend", "first", "--steps", "1", "--report-every", "0"]
    assert main([*longer, "--out", "longer"]) == 0
    again = ["train", "--file", "first/config.json", "--steps", "1"]
    assert main([*again, "--path", "other.npz", "--out", "other"]) == 0
    capsys.readouterr()
    assert main([*train, "--dataset", "mine.npz", "--print-config"]) == 0
    Path("mine.toml").write_text(capsys.readouterr().out)
    assert main(["train", "--file", "mine.toml", "--out", "from-file"]) == 0
    read = {name: load_run(name)[0].dataset for name in ("first", "longer", "other", "from-file")}
    assert {name: data.kind for name, data in read.items()} == dict.fromkeys(read, "npz")
    assert {name: data.label for name, data in read.items()} == {
        **dict.fromkeys(read, "mine"), "other": "other"
    }  # fmt: skip
    assert main(["train", "--file", "mine.toml", "--dataset", "digits", "--out", "digits"]) == 0
    assert load_run("digits")[0].dataset.kind == "digits"
    capsys.readouterr()
    assert main([*train, "--path", "mine.npz"]) == 2
    assert "choose --dataset npz" in capsys.readouterr().err
    assert main([*train, "--dataset", "npz"]) == 2
    assert "--path must be given" in capsys.readouterr().err
