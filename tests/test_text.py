"""Text: windows of a file, and characters drawn one after the other."""

import re

import jax
import numpy as np
import pytest

import mupc
from mupc.commands.main import main
from mupc.data import DataError, load, load_shakespeare, load_text
from mupc.records import RunError
from mupc.runs import generate, load_run, summary

TEXT = "to be or not to be, that is the question: ünï. " * 20


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "hamlet.txt"
    path.write_text(TEXT, "utf-8")
    return path


def read(data, numbers):
    return "".join(data.classes[i] for i in numbers)


def test_targets_are_what_follows(path):
    data = load_text(path, context=10, validation=0.25)
    assert list(data.classes) == sorted(set(TEXT))
    end = len(TEXT) - round(0.25 * len(TEXT))
    for split, text in ((data.train, TEXT[:end]), (data.validation, TEXT[end:])):
        count = (len(text) - 1) // 10
        assert split.x.shape == (count, 10)
        assert read(data, split.x.ravel()) == text[: 10 * count]
        assert read(data, split.y.argmax(-1).ravel()) == text[1 : 10 * count + 1]
        assert np.all(split.y.sum(-1) == 1)
    assert load_text(path, context=10, validation=0).validation is None


@pytest.mark.parametrize(
    ("content", "more", "sentence"),
    [
        (None, {}, "cannot be read"),
        (b"\xff\xfe\xff", {}, "not text in UTF-8"),
        (b"short", {}, "has 5 characters"),
        (b"long enough" * 9, {"validation": 1.0}, "validation is 1.0"),
        (b"long enough" * 9, {"context": 0}, "context is 0"),
    ],
)
def test_texts_that_cannot_be_used_get_a_sentence(content, more, sentence, tmp_path):
    path = tmp_path / "given.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        load_text(path, **{"context": 8, **more})


def test_the_likeliest_characters_follow(path):
    """At a temperature near zero: what a loop over ever longer texts finds."""
    data = load_text(path, context=8)
    network = mupc.transformer(data.outputs, context=8, pairs=1, width=8, key=jax.random.key(0))
    drawn = generate(
        network, summary(data), "to be", length=9, temperature=1e-6, key=jax.random.key(1)
    )
    expected = "to be"
    for _ in range(9):
        seen = np.array([[data.classes.index(c) for c in expected[-8:]]])
        expected += data.classes[int(np.argmax(network.feedforward(seen).output[0, -1]))]
    assert drawn == expected


def test_characters_are_drawn_as_often_as_they_are_likely(path):
    data = load_text(path, context=4)
    network = mupc.transformer(data.outputs, context=4, pairs=1, width=8, key=jax.random.key(0))
    seen = np.array([[data.classes.index("t")]])
    chances = jax.nn.softmax(network.feedforward(seen).output[0, 0] / 0.2)
    draws = [
        generate(network, summary(data), "t", length=1, temperature=0.2, key=jax.random.key(i))[1]
        for i in range(400)
    ]
    found = np.array([draws.count(c) / 400 for c in data.classes])
    np.testing.assert_allclose(found, chances, atol=0.09)


def test_the_command_trains_and_generates(path, tmp_path, capsys):
    out = tmp_path / "run"
    small = ["--network", "transformer", "--pairs", "1", "--width", "8", "--context", "8"]
    words = ["--dataset", str(path), "--batch-size", "8"]
    assert main(["train", *small, *words, "--epochs", "1", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^validation accuracy .* nats, perplexity .*; no test split$", told, re.M)
    assert load_run(out)[0].rule.likelihood.kind == "categorical"  # which text brings
    assert main(["evaluate", str(out), "--split", "validation"]) == 0
    capsys.readouterr()
    assert main(["generate", str(out), "--prompt", "to be", "--length", "12"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("to be")
    assert len(text) == len("to be") + 12 + 1
    path.unlink()  # the run keeps the vocabulary
    assert main(["generate", str(out), "--prompt", "to be", "--length", "12"]) == 0
    assert capsys.readouterr().out == text
    assert main(["generate", str(out), "--length", "3"]) == 0  # of a text in one line
    assert len(capsys.readouterr().out) == 1 + 3 + 1
    assert main(["generate", str(out), "--prompt", "Q"]) == 2
    assert "has no 'Q'" in capsys.readouterr().err


def test_only_text_is_generated(path):
    digits = mupc.data.load("digits").flattened()
    network = mupc.residual_mlp(64, 10, width=4, depth=2, key=jax.random.key(0))
    with pytest.raises(RunError, match="digits is no text"):
        generate(network, summary(digits), "a", length=1, key=jax.random.key(0))
    data = load_text(path, context=4)
    with pytest.raises(RunError, match="at least one character"):
        generate(network, summary(data), "", length=1, key=jax.random.key(0))


def test_shakespeare_is_read_where_its_file_is(tmp_path, monkeypatch):
    monkeypatch.setenv("MUPC_CACHE", str(tmp_path / "none"))
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text(TEXT, "utf-8")
    data = load_shakespeare(tmp_path, context=10, validation=0.25)
    same = load_text(tmp_path / "tinyshakespeare" / "input.txt", 10, 0.25)
    assert data.name == "shakespeare"
    np.testing.assert_array_equal(data.train.x, same.train.x)
    np.testing.assert_array_equal(data.validation.y, same.validation.y)
    # By its name too, and held out at its end as everywhere.
    again = load("shakespeare", data_dir=tmp_path, validation=0.25).validation
    assert len(again.x) == (round(0.25 * len(TEXT)) - 1) // 64
    assert read(data, again.x[0]) == TEXT[len(TEXT) - round(0.25 * len(TEXT)) :][:64]
    with pytest.raises(DataError, match="no scale"):
        load("shakespeare", data_dir=tmp_path, scale="unit")
    with pytest.raises(DataError, match=r"shakespeare is not complete in .*input\.txt"):
        load_shakespeare(tmp_path / "none")
