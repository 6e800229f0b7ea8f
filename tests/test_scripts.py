"""Benchmarks at toy size: what they print is what they measured."""

import importlib
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mupc
from mupc.learning import first_gradients

pytestmark = pytest.mark.full

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


def table(text):
    """Read the last Markdown table, a dictionary for each row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    first = max(i for i, line in enumerate(lines) if set(line) <= set("| -"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[first - 1], row, strict=True)) for row in cells[first + 1 :]]


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


def test_a_plain_gradient_of_equilibrium_propagation_is_the_rules(script, tmp_path, capsys):
    module, path = script("benchmarks/equilibrium_step"), tmp_path / "report.json"
    arguments = words("--sizes 4x8 --rounds 1 --batch 3 --json")
    report = module.main([*arguments, str(path)])
    check_report(report, path, capsys.readouterr().out, "plain")
    network = mupc.residual_hopfield(6, 3, width=8, depth=4, key=jax.random.key(0))
    data = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6))), jnp.eye(3)[jnp.arange(5) % 3]
    plain, left = module.plain(network, data, 60)()
    rule = mupc.EquilibriumPropagation(max_steps=60, nudged_steps=60, beta=0.3,
                                       stopping=mupc.Tolerance(1e-6))  # fmt: skip
    ours, _ = first_gradients(rule, network, data, None, jax.random.key(0))
    assert left < 1e-5
    pairs = zip(plain[:2], jax.tree.leaves(ours)[:2], strict=True)
    for theirs, own in pairs:
        np.testing.assert_allclose(own, theirs, atol=1e-4)


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


def test_the_regime_report_is_compared_with_the_steps_between(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = words("--sizes 4x8 --interval 50 --rounds 1 --batch 2 --json")
    (found,) = script("benchmarks/regime_report").main([*arguments, str(path)])["results"]
    seconds, (ratio,) = found["seconds"], found["ratios"]
    assert ratio["ratio"] == seconds["regime report"] / (50 * seconds["training step"])
    assert printed_ratios(capsys.readouterr().out) == [round(ratio["ratio"], 3)]


@pytest.mark.full
@pytest.mark.skipif(len(jax.devices()) < 2, reason="there is one device")
def test_what_devices_hold_is_compared_with_their_share(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = [*words("--size 64x32 --devices 2 --batch 4 --json"), str(path), "--methods"]
    benchmark = script("benchmarks/layouts")
    (found,) = benchmark.main([*arguments, "predictive coding, default"])["results"]
    (ratio,), told = found["ratios"], capsys.readouterr().out
    rows = [line.split(" | ") for line in told.splitlines() if line.startswith("| predictive")]
    one, two = (float(row[2]) for row in rows)  # MB, to one digit
    assert ratio["ratio"] == pytest.approx(2 * two / one, rel=0.2)
    assert printed_ratios(told) == [round(ratio["ratio"], 3)]
    assert [int(row[3]) > 0 for row in rows] == [False, True]


@pytest.mark.skipif(len(jax.devices()) < 8, reason="there are no 8 devices")
def test_scaling_on_paper_follows_from_what_was_measured_and_counted(script, capsys):
    benchmark = script("benchmarks/weak_scaling")
    arguments = words("--size 4x8 --batch 8 --rounds 1 --devices 1 2 16 --faster 1 1000")
    parallel, pipelined = benchmark.main(arguments)["results"]
    assert (parallel["sweeps"], pipelined["sweeps"]) == (1, 5)  # whole numbers, as they must be
    fast, slow = benchmark.LINKS[0].name, benchmark.LINKS[-1].name
    for found in (parallel["efficiency"], pipelined["efficiency"]):
        assert found[f"1, 1, {fast}"] == found[f"1000, 1, {slow}"] == 1
        assert (
            found[f"1000, 16, {slow}"] < found[f"1000, 2, {slow}"] < found[f"1000, 2, {fast}"] < 1
        )
    assert benchmark._turns(8, 64) == 16 + 7
    assert benchmark._turns(1024, 64) == 64 + 1023
    assert capsys.readouterr().out.count("| 1000 × | 16 |") == 2


@pytest.mark.skipif(len(jax.devices()) < 2, reason="there is one device")
def test_messages_are_counted_with_the_loops_that_they_are_in(script):
    mesh = jax.sharding.Mesh(jax.devices()[:2], "parts")
    parts = jax.sharding.PartitionSpec("parts")

    def step(_, x):
        return jax.lax.ppermute(x, "parts", [(0, 1)])

    def program(x):
        return jax.lax.psum(jax.lax.fori_loop(0, 5, step, x), "parts")

    shared = jax.shard_map(
        program, mesh=mesh, in_specs=parts, out_specs=jax.sharding.PartitionSpec()
    )
    whole = jnp.ones(6, jnp.float32)
    compiled = jax.jit(shared).lower(whole).compile().as_text()
    sent = script("benchmarks/_messages").messages(compiled)
    assert sent == {"collective-permute": (5, 5 * 12), "all-reduce": (1, 12)}


def test_a_checkpoint_is_compared_with_the_minutes_between(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = words("--sizes 4x8 --minutes 2 --rounds 1 --batch 2 --json")
    (found,) = script("benchmarks/checkpoints").main([*arguments, str(path)])["results"]
    seconds, ratios = found["seconds"], found["ratios"]
    assert ratios[0]["ratio"] == seconds["checkpoint"] / 120
    assert len(printed_ratios(capsys.readouterr().out)) == 2


def test_training_step_reports_its_own_medians(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = words("--sizes 4x8 --steps 2 --rounds 1 --batch 2 --json")
    report = script("benchmarks/training_step").main([*arguments, str(path)])
    *rules, honest = [name for result in report["results"] for name in ratio_names(result)]
    assert rules[0] == "Gauss–Newton 1 x 1 (default) / backpropagation"
    assert honest == "backpropagation / plain jax and optax"
    report["results"][1]["seconds"] = report["results"][0]["seconds"]
    text = capsys.readouterr().out
    seconds = report["results"][0]["seconds"]
    for result in report["results"]:
        for ratio in result["ratios"]:
            ours, yardstick = ratio["name"].split(" / ")
            assert ratio["ratio"] == seconds[ours] / seconds[yardstick]
            assert round(ratio["ratio"], 3) in printed_ratios(text)


def ratio_names(result):
    return [ratio["name"] for ratio in result["ratios"]]


def test_the_plain_training_step_is_our_backpropagation(script):
    module = script("benchmarks/training_step")
    network = module.relu_network(12, module.Size(3, 8), 0)
    batch = module.random_batch(12, 4, 0)
    ours, plain = (
        module.Training(mupc.Backpropagation(), network, batch),
        module.PlainTraining(network, batch),
    )
    for _ in range(3):  # both made one step when they were built, or make it now
        loss = plain()
    np.testing.assert_allclose(loss, ours().loss, rtol=1e-5)
    (blocks,) = ours.state.network.stages[0].blocks
    np.testing.assert_allclose(plain.weights[1], blocks.weights, atol=1e-5)


def test_an_ensemble_of_one_is_compared_with_a_single_run(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = words("--sizes 4x8 --rounds 1 --batch 2 --json")
    report = script("benchmarks/ensemble").main([*arguments, str(path)])
    check_report(report, path, capsys.readouterr().out, "single run")
    (result,) = report["results"]
    assert [ratio["limit"] for ratio in result["ratios"]] == [1.1]


def test_an_ensemble_of_one_is_the_single_run(script):
    module, problems = script("benchmarks/ensemble"), script("benchmarks/_problems")
    network = module.relu_network(12, module.Size(3, 8), 0)
    batch = module.random_batch(12, 4, 0)
    ensemble, single = (
        case(*problems.step_arguments(module.default_rule(), network, batch, learning_rate=0.01))
        for case in (module.Ensemble, module.Single)
    )
    pairs = np.array([(ensemble().loss[0], single().loss) for _ in range(3)])
    np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], rtol=1e-5)
    assert pairs[2, 1] < pairs[0, 1]  # the steps changed the network


def test_the_default_step_is_judged_at_each_size_by_its_own_limit(script):
    module = script("benchmarks/training_step")
    assert module._LIMITS.keys() == {(size.depth, size.width) for size in module._SIZES}


def test_solvers_are_compared_by_what_they_reach(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = words("--depths 3 --width 16 --rounds 1 --batch 4 --json")
    report = script("benchmarks/solvers").main([*arguments, str(path)])
    text = capsys.readouterr().out
    check_report(report, path, text, "one bare product per layer")
    (result,) = report["results"]
    seen = result["solvers"]
    # The longer run begins like the shorter one, and no step raises a sample's energy.
    more, fewer = (seen[f"L-BFGS in errors, {steps}"]["energy"] for steps in (30, 10))
    assert more <= fewer < 1
    assert seen["Gauss–Newton 1 x 1"]["energy"] < 1
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| 3 |")]
    assert {row[1]: float(row[4]) for row in rows} == {
        name: round(figures["energy"], 4) for name, figures in seen.items()
    }


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


def test_architectures_are_compared_with_a_plain_step(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = [*words("transformer-1x8 --rounds 2 --json"), str(path)]
    report = script("benchmarks/architectures_step").main(arguments)
    (result,) = report["results"]
    seconds = result["seconds"]
    ours, plain = (seconds[name] for name in ("backpropagation", "plain jax and optax"))
    assert result["ratios"][1]["ratio"] == ours / plain
    assert round(ours / plain, 3) in printed_ratios(capsys.readouterr().out)


@pytest.mark.parametrize("case", ["conv-1", "2p 3p", "transformer-2x8"])
def test_the_plain_step_is_our_backpropagation(case, script):
    module = script("benchmarks/architectures_step")
    problem = module.problem_of(case, SimpleNamespace(batch=3, seed=0))
    plain = module.PlainTraining(problem)
    rule = mupc.Backpropagation(likelihood=problem.likelihood)
    ours = module.Training(rule, problem.network, problem.batch)
    positions = problem.batch[1].size // problem.batch[1].shape[-1] / len(problem.batch[1])
    for _ in range(2):  # the second after an update
        assert float(plain()) == pytest.approx(float(ours().loss) * positions, rel=1e-4)


def test_programs_of_any_depth_are_compared(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = [*words("transformer-2x8 transformer-3x8 --rounds 1 --json"), str(path)]
    report = script("benchmarks/architectures_program").main(arguments)
    (result,) = report["results"]
    assert result["equations"][0] == result["equations"][1]
    assert len(result["ratios"]) == 3
    assert all(ratio["ratio"] > 0 for ratio in result["ratios"])
    assert "equations (equal): met" in capsys.readouterr().out


def test_a_case_is_trained_with_both_rules_and_judged(script, tmp_path, monkeypatch, capsys):
    module = script("experiments/architectures")
    images = np.random.default_rng(0).integers(0, 255, (80, 8, 8, 3), np.uint8)
    labels = np.arange(80) % 4
    path = tmp_path / "cifar.npz"
    np.savez(path, x=images, y=labels, x_test=images, y_test=labels)
    small = {**module.CASES["cifar10-13"].settings, "blocks": 1, "channels": 2, "steps": 2}
    monkeypatch.setitem(module.CASES, "cifar10-13", module.Case(small, 100.0, least=101.0))
    text = tmp_path / "tinyshakespeare" / "input.txt"
    text.parent.mkdir()
    text.write_text("It was the best of times, it was the worst of times. " * 40)
    monkeypatch.setenv("MUPC_DATA", str(tmp_path))
    small = {**module.CASES["shakespeare"].settings, "pairs": 1, "width": 8, "steps": 2}
    monkeypatch.setitem(module.CASES, "shakespeare", module.Case(small, 1.0))
    out = ["--out", str(tmp_path / "runs"), "--seeds", "0", "--cifar10", str(path)]
    rows = module.main(["cifar10-13", "shakespeare", *out, "--set", "batch-size=4", "rho=0.1"])
    assert [row.rule for row in rows] == 2 * ["backpropagation", "predictive-coding"]
    assert rows[1].runs[0].config.flat()["rho"] == 0.1
    told = capsys.readouterr().out
    assert re.search(r"cifar10-13: [+-][\d.]+ points behind .* \(at least 101\): missed", told)
    assert re.search(r"shakespeare: [+-][\d.]+% of backpropagation's nats .*: met", told)
    assert 1 < rows[2].seen[0].perplexity < 100


def test_every_script_is_tested():
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for folder in ("benchmarks", "experiments"):
        for path in (ROOT / folder).glob("*.py"):
            assert f"{folder}/{path.stem}" in text, f"{os.path.relpath(path, ROOT)} has no test"
