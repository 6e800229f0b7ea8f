"""Benchmarks and experiments at toy size: what they print is what they measured."""

import importlib
import json
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mupc.training import Ended

ROOT = Path(__file__).parent.parent


@pytest.fixture
def script(monkeypatch):
    """Import a script by its path, as running it would."""

    def load(path):
        folder, name = path.split("/")
        monkeypatch.syspath_prepend(str(ROOT / folder))
        return importlib.import_module(name)

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    return load


def words(text):
    return text.split()


def printed_ratios(text):
    return [float(ratio) for ratio in re.findall(r": (-?[\d.]+)(?: \(target.*\))?$", text, re.M)]


def check_report(report, path, text, yardstick):
    """The file is the report, and its ratios are those of its own medians, and are printed."""
    assert json.loads(path.read_text()) == json.loads(json.dumps(report))
    assert report["environment"]["jax"] == jax.__version__
    shown = printed_ratios(text)
    for result in report["results"]:
        for ratio in result["ratios"]:
            ours = result["seconds"][ratio["name"].split(" / ")[0]]
            assert ratio["ratio"] == ours / result["seconds"][yardstick]
            assert round(ratio["ratio"], 3) in shown


# What benchmarks share


def test_a_ratio_is_judged_by_its_limit(script):
    ratio = script("benchmarks/_timing").Ratio
    assert ratio("at the limit", 3.0, 2.0, 1.5).verdict == "met"
    assert ratio("above it", 3.1, 2.0, 1.5).verdict == "missed"
    assert ratio("no limit", 3.1, 2.0).verdict is None
    assert "noise" in ratio("a difference below zero", -1.0, 2.0, 1.5).verdict


def test_cases_take_turns(script):
    order = []
    cases = {name: lambda name=name: order.append(name) for name in "abc"}
    times = script("benchmarks/_timing").interleave(cases, rounds=2)
    assert "".join(order) == "abc" + "abc" + "cba"  # the first three are the warm-up
    assert {name: len(seconds) for name, seconds in times.items()} == dict.fromkeys("abc", 2)


# Benchmarks


def test_inference_step_reports_its_own_medians(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = words("--sizes 3x16 --steps 1 5 --rounds 1 --batch 2 --json")
    report = script("benchmarks/inference_step").main([*arguments, str(path)])
    check_report(report, path, capsys.readouterr().out, "two bare products")
    (result,) = report["results"]
    assert (result["depth"], result["width"]) == (3, 16)


def test_bare_products_are_the_two_products_of_a_step(script):
    size = script("benchmarks/_problems").Size(4, 8)
    loop = script("benchmarks/inference_step").products(size, 2, 0)
    z, once = np.asarray(loop(0), np.float64), np.asarray(loop(1))
    z_key, w_key = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(z, jax.random.normal(z_key, (3, 2, 8)))
    W = np.asarray(jax.random.normal(w_key, (3, 8, 8)), np.float64) / (2 * 8**0.5)
    expected = [row @ w.T @ w for row, w in zip(z, W, strict=True)]
    np.testing.assert_allclose(once, expected, rtol=1e-5, atol=1e-6)


def test_inference_that_ends_early_is_not_timed(script):
    arguments = words("--sizes 4x8 --steps 1 200 --rounds 1 --batch 2 --step-size 9")
    with pytest.raises(SystemExit, match="lower --step-size"):
        script("benchmarks/inference_step").main(arguments)


def test_equations_count_a_loops_body_once(script):
    @jax.jit
    def program(x):  # a jit with a loop in it, whose body is two equations
        return jax.lax.scan(lambda c, _: (jnp.sin(c) * 2, None), x, length=5)[0]

    jaxpr = jax.make_jaxpr(program)(1.0).jaxpr
    assert script("benchmarks/compile_time").equations(jaxpr) == 1 + 1 + 2


def test_the_training_step_has_as_many_equations_at_any_depth(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = words("--depths 4 9 --equations 4 64 --width 8 --rounds 1 --batch 2 --json")
    report = script("benchmarks/compile_time").main([*arguments, str(path)])
    counted, timed = report["results"]
    assert counted["equations"][4] == counted["equations"][64] > 100
    assert counted["verdict"] == "met"
    ratios = {ratio["name"]: ratio["ratio"] for ratio in timed["ratios"]}
    for name, ratio in ratios.items():
        assert ratio == timed["seconds"][9][name] / timed["seconds"][4][name]
    assert printed_ratios(capsys.readouterr().out) == [round(r, 3) for r in ratios.values()]
    assert json.loads(path.read_text())["results"][1]["ratios"] == timed["ratios"]


def test_training_step_reports_its_own_medians(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = words("--sizes 4x8 --steps 2 --rounds 1 --batch 2 --json")
    report = script("benchmarks/training_step").main([*arguments, str(path)])
    check_report(report, path, capsys.readouterr().out, "backpropagation")
    names = [ratio["name"] for ratio in report["results"][0]["ratios"]]
    assert [name.split(" / ")[0][-5:] for name in names] == ["T = 2", "T = 4"]


def test_memory_does_not_depend_on_the_number_of_inference_steps(script, capsys):
    arguments = words("--depth 4 --width 8 --batch 3 --steps 8 512")
    few, many, program = script("benchmarks/memory").main(arguments)["results"]
    assert few["bytes"] == many["bytes"]
    assert program["one_program"]
    weights = 4 * (8 * 64 + 3 * 8 * 8 + 10 * 8)
    assert few["yardstick"] == {
        "weights": weights,
        "gradients": weights,
        "optimiser": 2 * weights + 4,  # Adam's two moments, and its count of steps
        "activities": 4 * 4 * (4 * 3 * 8),
    }
    # Weights, their moments and the batch must come in, whatever the program does with them.
    assert few["bytes"]["arguments"] >= 3 * weights + 4 * 3 * (64 + 10)
    ratio = sum(few["bytes"].values()) / sum(few["yardstick"].values())
    assert printed_ratios(capsys.readouterr().out) == [round(ratio, 3)] * 2


# Experiments


def test_mnist_paper_learns_the_digits(script, tmp_path, capsys):
    (row,) = script("experiments/mnist_paper").main(["--quick", "--out", str(tmp_path)])
    assert row.accuracy > 0.7  # chance is 0.1
    config = json.loads(next(tmp_path.glob("*/config.json")).read_text())
    assert (config["preset"], config["max_steps"], config["step_size"]) == ("paper", 6, 0.5 / 64)
    header, _, line = capsys.readouterr().out.splitlines()
    shown = dict(zip(header.split("|"), line.split("|"), strict=True))
    assert shown[" test accuracy "].strip() == f"{row.accuracy:.2%}"
    assert shown[" verdict "].strip() == "met: at least 60%"


def test_mnist_paper_tells_what_became_of_the_standard_network(script):
    module = script("experiments/mnist_paper")
    case = next(case for case in module.CASES if case.parameterisation == "standard")
    outcomes = {(0.1, Ended.DIVERGED): "met: diverged", (0.1, Ended.FINISHED): "met: near chance"}
    outcomes[0.9, Ended.FINISHED] = "missed: it learned"
    for (accuracy, ended), verdict in outcomes.items():
        assert module.Row(case, module.PAPER, accuracy, ended, 1.0).verdict == verdict


def test_mnist_paper_refuses_an_empty_selection(script, capsys):
    with pytest.raises(SystemExit):
        script("experiments/mnist_paper").main(words("--depths 128 --steps 900"))
    assert "no case is left" in capsys.readouterr().err


def test_depth_1024_reports_a_falling_loss(script, tmp_path, capsys):
    arguments = words("--depth 8 --width 32 --epochs 1 --learning-rate 0.03 --seeds 4 --out")
    (outcome,) = script("experiments/depth_1024").main([*arguments, str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    losses = [
        record["loss"]
        for record in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        if record["kind"] == "train"
    ]
    assert len(losses) == outcome.steps == 20  # 1,293 samples in batches of 64
    assert (outcome.first_loss, outcome.last_loss) == (losses[0], np.mean(losses[-2:]))
    assert outcome.verdict == "met"
    assert outcome.accuracy > 0.3
    assert 100 < outcome.megabytes < 50_000
    assert f"loss {losses[0]:.4f} → {np.mean(losses[-2:]):.4f}" in capsys.readouterr().out


def test_default_command_reads_what_the_processes_left(script, tmp_path, capsys):
    settings = words("-- --depth 4 --width 8 --steps 3")
    arguments = ["--seeds", "5", "--out", str(tmp_path), *settings]
    outcomes = script("experiments/default_command").main(arguments)
    text = capsys.readouterr().out
    for rule, (timed,) in outcomes.items():
        folder = tmp_path / f"{rule}-seed5"
        config, result = (
            json.loads((folder / f"{name}.json").read_text()) for name in ("config", "result")
        )
        assert (config["rule"], config["seed"], config["steps"]) == (rule, 5, 3)
        assert config["learning_rate"] == 0.02  # the same rule for both
        assert timed.accuracy == result["test"]["accuracy"]
        assert f"{rule}: test accuracy {timed.accuracy:.2%} over 1 seeds" in text
    assert "target: at least 97.5%; missed" in text  # three steps teach nothing


def test_default_command_passes_on_the_commands_own_words(script, tmp_path):
    arguments = ["--seeds", "0", "--out", str(tmp_path), "--", "--depth", "0"]
    with pytest.raises(SystemExit, match="--depth must be at least 1"):
        script("experiments/default_command").main(arguments)


def test_every_script_is_tested():
    text = Path(__file__).read_text()
    for folder in ("benchmarks", "experiments"):
        for path in (ROOT / folder).glob("*.py"):
            assert f"{folder}/{path.stem}" in text, f"{os.path.relpath(path, ROOT)} has no test"
