"""Experiments at toy size: what they print is what they measured."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_scripts import script, table, words

import mupc
from mupc.training import Ended

__all__ = ["script"]
pytestmark = pytest.mark.full


def test_coordinates_judges_the_spread_over_all_sizes(script, capsys):
    cases = "mupc standard hopfield"
    found = script("experiments/coordinates").main(words(f"{cases} --widths 16 64 --depths 2 16"))
    printed = [text for text in capsys.readouterr().out.splitlines() if "over smallest" in text]
    for rows, said in zip(found.values(), printed, strict=True):
        spread = ", ".join(f"{v:.3g}" for v in rows.max(axis=0) / rows.min(axis=0))
        assert said.startswith(f"largest over smallest: {spread}")
    assert ["(target: below 2.5; " in said for said in printed] == [True, False, True]


def test_mnist_paper_learns_the_digits(script, tmp_path, capsys):
    (row,) = script("experiments/mnist_paper").main(["--quick", "--out", str(tmp_path)])
    assert row.accuracy > 0.7  # chance is 0.1
    config = json.loads(next(tmp_path.glob("*/config.json")).read_text())
    solver = config["rule"]["solver"]
    assert (solver["max_steps"], solver["step_size"]) == ("depth", 0.5 / 64)
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


def test_default_rule_prints_what_its_runs_left(script, tmp_path, capsys):
    arguments = words("--sizes 3x32 --steps 20 --seeds 0 1 --out")
    ours, yardstick = script("experiments/default_rule").main([*arguments, str(tmp_path)])
    shown = table(capsys.readouterr().out)
    assert [row["rule"] for row in shown] == ["predictive-coding", "backpropagation"]
    for row, seen in zip((ours, yardstick), shown, strict=True):
        assert len(row.runs) == len(row.seconds) == 2
        results = [run.folder.result() for run in row.runs]
        accuracies = [result.test.accuracy for result in results]
        assert seen["each seed"] == ", ".join(f"{100 * a:.2f}" for a in accuracies)
        assert min(accuracies) > 0.5  # chance is 0.1
        assert [run.config.training.steps for run in row.runs] == [20, 20]
        assert [run.config.dataset.validation for run in row.runs] == [0, 0]
    assert float(shown[0]["ρ"]) == ours.runs[0].config.rule.regime.rho
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
        assert run.folder.regime().rho == rho
        assert residuals[solver, f"{rho:g}"] == float(f"{run.regime.residual:.2g}")
    assert residuals["gauss-newton-1x1", "2"] > 5 * residuals["gauss-newton-1x1", "0.06"]
    assert residuals["l-bfgs-30", "2"] < 2e-3 < residuals["gauss-newton-1x1", "2"]


def test_regimes_may_keep_the_precision(script, tmp_path):
    arguments = words(
        "--depths 2 --width 8 --activations tanh --regimes 2 --steps 2 --fixed-precision "
        "--solvers gauss-newton-1x1 --out"
    )
    (run,) = next(iter(script("experiments/regimes").main([*arguments, str(tmp_path)]).values()))
    assert run.config.flat()["regime"] == "initial"


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


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        ("--depth 6 --width 16", 7),
        ("--network network=conv-resnet activation=tanh blocks=2 stages=2 channels=4", 7),
    ],
)
def test_every_layer_is_compared_with_an_accurate_minimum(
    network, layers, script, tmp_path, capsys
):
    settings = f"cosines {network} --dataset digits --train 3 --batches 2 --out"
    arguments = [*words(settings), str(tmp_path)]
    (cosines,) = script("experiments/every_layer").main(arguments).values()
    assert cosines.shape == (2, layers)
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
        training = config["training"]
        assert (config["rule"]["kind"], training["seed"], training["steps"]) == (rule, 5, 3)
        assert config["optimiser"]["learning_rate"] == 0.02  # the same for both
        assert timed.accuracy == result["test"]["accuracy"]
        assert f"{rule}: test accuracy {timed.accuracy:.2%} over 1 seeds" in text
    assert "target: at least 97.5%; missed" in text  # three steps teach nothing


def test_default_command_passes_on_the_commands_own_words(script, tmp_path):
    arguments = ["--seeds", "0", "--out", str(tmp_path), "--", "--depth", "0"]
    with pytest.raises(SystemExit, match="--depth must be at least 1"):
        script("experiments/default_command").main(arguments)


def test_equilibrium_propagation_measures_states(script, capsys):
    module = script("experiments/equilibrium_propagation")
    found = module.main(words("--sizes 4x8 16x8 --exponents 1.5 0.5"))
    rows = table(capsys.readouterr().out)
    assert [float(row["largest rms"]) for row in rows] == [
        pytest.approx(np.max(scales), rel=5e-3) for scales in found.values()
    ]


def test_rules_are_trained_side_by_side(script, tmp_path, capsys):
    module = script("experiments/rules")
    found = module.main(
        [
            *words("backpropagation hopfield incremental --sizes 3x16 --seeds 0 1 --epochs 3"),
            *words("--settings rho=0.1 updates=2 --out"),
            str(tmp_path),
        ]
    )
    rows = table(capsys.readouterr().out)
    assert [row["case"] for row in rows] == [case for case, _ in found]
    for row, runs in zip(rows, found.values(), strict=True):
        mean = np.mean([100 * run.test.accuracy for run in runs])
        assert row["test accuracy %"].startswith(f"{mean:.1f}")
        assert mean > 75  # chance is 10
        assert row["layers learning"] == "2/2, 2/2"
    own = [run.config.flat() for run in found["incremental", "3x16"]]
    assert [(each["rho"], each["updates"], each["seed"]) for each in own] == [
        (0.1, 2, 0),
        (0.1, 2, 1),
    ]
    with pytest.raises(SystemExit):
        module.main(["backprop"])


def test_a_chains_solvers_are_compared(script, capsys):
    found = script("experiments/chain_solvers").main(
        words("--size 4x8 --batches 0 3 --gradients 5 40")
    )
    for (_, _, gradients), left in found.items():
        assert np.median(left) < (0.5 if gradients == 5 else 1e-5)
    assert [row["solver"] for row in table(capsys.readouterr().out)] == [
        *("descent", "l-bfgs", "anderson", "newton-cg")
    ] * 2


def test_rules_are_trained_on_images(script, tmp_path, capsys):
    options = words("backpropagation nudge-negative --seeds 0 --steps 2 --out")
    found = script("experiments/rules").main([*options, str(tmp_path), "--vgg", "2p 2p"])
    assert [row["size"] for row in table(capsys.readouterr().out)] == ["2p 2p"] * 2
    (run,) = found["nudge-negative", "2p 2p"]
    assert (run.config.network.kind, run.config.rule.regime.nudge) == ("vgg", "negative")


def test_memory_recalls_what_it_stored(script, capsys):
    found = script("experiments/associative_memory").main(["--quick"])
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("| 8 ")]
    assert len(rows) == len(found) == 8
    pixels = 2 * mupc.data.load("digits", scale="unit").train.x[:8].reshape(8, -1) - 1
    blank = np.mean((pixels - pixels.mean(axis=0))[:, 32:] ** 2)
    quick, *slow = found[:4]
    # In a seventh of the sweeps of descent, whose best is no nearer; the mean picture is far off.
    assert quick.error < min(0.3 * blank, *(one.error for one in slow))
    assert quick.sweeps < 60
    assert {one.sweeps for one in slow} == {400.0}


def test_decoders_compares_with_an_autoencoder_and_principal_components(script, capsys):
    rows = script("experiments/decoders").main(["digits", "--set", "steps=100"])
    printed = capsys.readouterr().out.splitlines()[2:]
    assert [row.rule for row in rows] == ["predictive coding", "autoencoder"]
    data = mupc.data.load("digits", scale="unit").flattened()
    mean = np.mean((data.test.x - data.train.x.mean(axis=0)) ** 2)
    singular = np.linalg.svd(data.train.x - data.train.x.mean(axis=0), full_matrices=False)[2][:8]
    rest = data.test.x - data.train.x.mean(axis=0)
    left = np.mean((rest - rest @ singular.T @ singular) ** 2)
    for row, text in zip(rows, printed, strict=True):
        assert row.components == pytest.approx(left, rel=1e-3)
        assert left < row.errors[0] < mean
        assert f"{1000 * row.errors[0]:.2f}e-3" in text


def test_natural_images_are_restored_by_models_side_by_side(script, capsys):
    module = script("experiments/natural_images")
    given = (
        "digits --models conv-ngc autoencoder --samples 20 --set steps=150 channels=2 doublings=1"
    )
    rows = module.main(words(given))
    printed = table(capsys.readouterr().out)
    assert [row["model"] for row in printed] == [row.model for row in rows]
    assert [(row.model, row.noise) for row in rows] == [
        (model, noise) for model in ("conv-ngc", "autoencoder") for noise in (0.0, 0.1, 0.25)
    ]
    pixels = mupc.data.load("digits", scale="unit").test.x[:20]
    mean = np.mean((pixels - pixels.mean(axis=0)) ** 2)
    for clean, *noisy in (rows[:3], rows[3:]):
        assert clean.error < min(mean, *(row.error for row in noisy))
    with pytest.raises(SystemExit):
        module.main(["digits", "--set", "chanels=2"])
    assert "none of these models has a setting chanels" in capsys.readouterr().err


def test_samples_are_judged_by_a_classifier(script, capsys):
    module = script("experiments/samples")
    given = "digits --images 300 --set latents=8 width=32 steps=150 batch_size=50"
    rows = module.main(words(given))
    printed = table(capsys.readouterr().out)
    assert [row["images of"] for row in printed] == [row.model for row in rows]
    known, sampled, likeliest, encoded = rows
    assert [row.model for row in rows[1:]] == ["monte-carlo", "predictive-coding", "autoencoder"]
    assert known.distance < min(sampled.distance, encoded.distance)
    assert sampled.distance < 0.3 * likeliest.distance
    assert known.classes > 9.5
    pixels = mupc.data.load("digits", scale="unit").flattened().test.x
    blank = np.mean((pixels - pixels.mean(axis=0)) ** 2)
    assert all(row.error < blank for row in rows[1:])


def test_the_frechet_distance_is_that_of_gaussians(script):
    frechet = script("experiments/samples").frechet
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50_000, 2)), rng.normal(size=(50_000, 2)) * [1, 3] + [2, 0]
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, b) == pytest.approx(4 + (3 - 1) ** 2, rel=0.03)
