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

import mupc
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


def test_coordinates_judges_the_spread_over_all_sizes(script, capsys):
    found = script("experiments/coordinates").main(words("--widths 16 64 --depths 2 16"))
    printed = [text for text in capsys.readouterr().out.splitlines() if "over smallest" in text]
    for rows, said in zip((found["mupc"], found["standard"]), printed, strict=True):
        spread = ", ".join(f"{v:.3g}" for v in rows.max(axis=0) / rows.min(axis=0))
        assert said.startswith(f"largest over smallest: {spread}")
    assert "(target: below 2.5; " in printed[0]


def test_the_regime_report_is_compared_with_the_steps_between(script, tmp_path, capsys):
    path = tmp_path / "report.json"
    arguments = words("--sizes 4x8 --interval 50 --rounds 1 --batch 2 --json")
    (found,) = script("benchmarks/regime_report").main([*arguments, str(path)])["results"]
    seconds, (ratio,) = found["seconds"], found["ratios"]
    assert ratio["ratio"] == seconds["regime report"] / (50 * seconds["training step"])
    assert printed_ratios(capsys.readouterr().out) == [round(ratio["ratio"], 3)]


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


def test_experiments_share_their_tables(script):
    tables = script("experiments/_tables")
    assert tables.header(["a", "b"]) == "| a | b |\n| --- | --- |"
    assert tables.percent([0.5, 0.6]) == "55.0 ± 7.1"
    assert tables.percent([0.5]) == "50.0"
    with tables.floats(bits=64):
        assert jnp.zeros(()).dtype == jnp.float64
    assert jnp.zeros(()).dtype == jnp.float32


def table(text):
    """Read the last Markdown table, a dictionary for each row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    first = max(i for i, line in enumerate(lines) if set(line) <= set("| -"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[first - 1], row, strict=True)) for row in cells[first + 1 :]]


def test_default_rule_prints_what_its_runs_left(script, tmp_path, capsys):
    arguments = words("--sizes 3x32 --steps 20 --seeds 0 1 --out")
    ours, yardstick = script("experiments/default_rule").main([*arguments, str(tmp_path)])
    shown = table(capsys.readouterr().out)
    assert [row["rule"] for row in shown] == ["predictive-coding", "backpropagation"]
    for row, seen in zip((ours, yardstick), shown, strict=True):
        assert len(row.runs) == len(row.seconds) == 2
        results = [run.folder.result() for run in row.runs]
        accuracies = [result["test"]["accuracy"] for result in results]
        assert seen["each seed"] == ", ".join(f"{100 * a:.2f}" for a in accuracies)
        assert min(accuracies) > 0.5  # chance is 0.1
        assert [run.config.steps for run in row.runs] == [20, 20]
        assert [run.config.validation for run in row.runs] == [0, 0]
    assert float(shown[0]["ρ"]) == ours.runs[0].config.rho
    assert shown[1]["ρ"] == ""
    assert 100 < ours.megabytes < 50_000


def test_regimes_train_each_solver_in_each_regime(script, tmp_path, capsys):
    arguments = words(
        "--depths 3 --width 16 --activations tanh --regimes 0.06 2 --steps 8 "
        "--solvers gauss-newton-1x1 l-bfgs-30 --out"
    )
    outcomes = script("experiments/regimes").main([*arguments, str(tmp_path)])
    shown = table(capsys.readouterr().out)
    assert len(shown) == len(outcomes) == 4
    residuals = {(row["solver"], row["ρ"]): float(row["residual"]) for row in shown}
    for (_, _, rho, solver), (run,) in outcomes.items():
        assert run.folder.regime()["rho"] == rho
        assert residuals[solver, f"{rho:g}"] == float(f"{run.regime.residual:.2g}")
    assert residuals["gauss-newton-1x1", "2"] > 5 * residuals["gauss-newton-1x1", "0.06"]
    assert residuals["l-bfgs-30", "2"] < 2e-3 < residuals["gauss-newton-1x1", "2"]


def test_held_compares_precisions_of_samples_with_those_of_batches(script, capsys):
    held = script("experiments/held")
    arguments = words("--depth 3 --width 16 --regimes 0.2 --steps 12 --seeds 0 --batches 2")
    found = held.main(arguments)
    shown = table(capsys.readouterr().out)
    assert [row["held"] for row in shown] == ["both", "per sample", "per batch"]
    for row in shown:
        (seen,) = found[0.2, row["held"]]
        assert row["test accuracy %"] == f"{100 * seen.accuracy:.1f}"
        assert row["least layer's cosine"] == f"{seen.least:.3f}"
        assert 0.5 < seen.least <= seen.median <= 1 + 1e-6
    # What is held below λ₀, of three samples where the mean is 3.
    each, mean = jnp.array([1.0, 2.0, 9.0]), jnp.asarray(3.0)
    levels = {
        name: way(jnp.asarray(0.2), hold=True).level(each, mean).tolist()
        for name, way in held.WAYS.items()
    }
    assert levels == {"both": [3, 3, 9], "per sample": [1, 2, 9], "per batch": [3, 3, 3]}


EQUILIBRIUM = "--depth 6 --width 16 --batch 4 --dataset digits"


def test_equilibrium_of_a_linear_network_is_the_closed_forms(script, capsys):
    arguments = words(f"linear {EQUILIBRIUM}")
    differences = script("experiments/equilibrium").main(arguments)
    shown = {row["solver"]: row for row in table(capsys.readouterr().out)}
    for name, difference in differences.items():
        assert difference < (1e-4 if "flow" in name else 1e-8)
        assert shown[name]["largest difference from the closed form"] == f"{difference:.1e}"
    assert jnp.zeros(()).dtype == jnp.float32  # it puts back what it changed


def test_equilibrium_of_tanh_networks_before_and_after_training(script, tmp_path, capsys):
    for more in ("", f"--train 3 --out {tmp_path}"):
        arguments = words(f"tanh {EQUILIBRIUM} --budgets 12 60 {more}")
        (_, few), (sweeps, many) = script("experiments/equilibrium").main(arguments)
        assert sweeps == 60
        assert few.shape == many.shape == (4,)
        assert np.max(many) < 1e-6 < np.max(few)
        assert table(capsys.readouterr().out)[1]["residual: largest"] == f"{np.max(many):.2g}"
    assert (tmp_path / "tanh-6x16-seed0" / "result.json").exists()


def test_equilibrium_compares_energies_by_sweeps(script, capsys):
    arguments = words(f"relu {EQUILIBRIUM} --budgets 4 20 60")
    energies = script("experiments/equilibrium").main(arguments)
    shown = table(capsys.readouterr().out)
    assert len(shown) == len(energies) == 8
    least = min(min(values) for values in energies.values())
    for row in shown:
        name, *values = row.values()
        assert values == [f"{value:.3f}" for value in energies[name]]
        assert all(value <= 1 + 1e-9 for value in energies[name])
        if "newton" in name or "l-bfgs" in name:
            assert energies[name][-1] < 1.001 * least


def test_every_layer_is_compared_with_an_accurate_minimum(script, tmp_path, capsys):
    settings = "cosines --depth 6 --width 16 --dataset digits --train 3 --batches 2 --out"
    arguments = [*words(settings), str(tmp_path)]
    (cosines,) = script("experiments/every_layer").main(arguments).values()
    assert cosines.shape == (2, 7)
    assert 0.9 < np.min(cosines) < 1 - 1e-9
    (row,) = table(capsys.readouterr().out)
    assert row["least layer's cosine: worst batch"] == f"{np.min(cosines):.3f}"
    assert float(row["accurate residual"]) <= 1e-6


def test_frozen_layers_stay_as_they_were_drawn(script, capsys):
    module = script("experiments/every_layer")
    arguments = words("frozen --depth 8 --width 16 --steps 3 --seeds 0")
    accuracies = module.main(arguments)
    assert list(accuracies) == ["default", "backpropagation", "paper preset"]
    assert len(table(capsys.readouterr().out)) == 3
    network = mupc.residual_mlp(3, 2, width=4, depth=8, key=jax.random.key(0))
    factors = module.mask(network)
    (blocks,) = factors.stages[0].blocks
    assert not np.any(factors.stages[0].entry.weights)
    np.testing.assert_array_equal(np.ravel(blocks.weights), [0, 0, 0, 0, 0, 1, 1])
    assert np.all(factors.readout.weights == 1)


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
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*scripts.py"))
    for folder in ("benchmarks", "experiments"):
        for path in (ROOT / folder).glob("*.py"):
            assert f"{folder}/{path.stem}" in text, f"{os.path.relpath(path, ROOT)} has no test"
