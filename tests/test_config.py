"""Every configuration field does something, and every wrong one gets a sentence."""

import dataclasses
import functools
import json
import typing

import jax
import numpy as np
import pytest

from mupc.cli import main
from mupc.training.config import KEEPING, PRESETS, ConfigError, TrainConfig, option
from mupc.training.files import read_config, to_toml
from mupc.training.regime import Regime, enough
from mupc.training.resolution import from_dict, resolve, unresolved
from mupc.training.run import train
from mupc.training.stored import load_run

# Without reports of the regime, whose program takes as long to compile as a training step's.
BASE = {"validation": 0.1, "depth": 3, "width": 8, "steps": 4, "log_every": 1, "evaluate_every": 2}
BASE["report_every"] = 0
SGD = {"optimiser": "sgd", "learning_rate": 0.3}
DESCENT = {"solver": "gradient-descent"}

# For every field: what else must be set, and another value than the one it then has.
FIELDS = {
    "preset": ({**DESCENT, "dataset": "digits", "max_steps": 8, "precision": 1.0}, "paper"),
    "dataset": ({}, "npz"),
    "validation": ({}, 0.3),
    "depth": ({}, 4),
    "width": ({}, 9),
    "activation": ({}, "tanh"),
    "skips": ({}, False),
    "biases": ({}, True),
    "parameterisation": ({}, "ntk"),
    "gamma": ({}, 2.0),
    "initialisation": ({}, "orthogonal"),
    "rule": ({}, "backpropagation"),
    "likelihood": ({}, "categorical"),
    "rho": ({}, 0.2),
    "hold_regime": ({"steps": 40, "width": 16, "activation": "tanh"}, False),
    "precision": ({}, 0.5),
    "solver": ({}, "l-bfgs"),
    "coordinates": ({"solver": "l-bfgs"}, "activities"),
    "cg_steps": ({}, 2),
    "history": ({"solver": "l-bfgs", "rho": 2.0, "max_steps": 6, "rtol": 0.0}, 1),
    "step_size": (DESCENT, "stable"),
    "momentum": (DESCENT, 0.5),
    "max_steps": (DESCENT, 5),
    "rtol": ({**DESCENT, "max_steps": 20}, 0.5),
    "atol": ({**DESCENT, "max_steps": 20, "precision": 1.0}, 0.05),
    "patience": ({**DESCENT, "step_size": 2.0, "max_steps": 12}, 1),
    "start": (DESCENT, "zeros"),
    "start_std": ({**DESCENT, "start": "normal"}, 0.1),
    "weight_decay": ({}, 0.1),
    "weight_decay_roles": ({"weight_decay": 0.1}, ("hidden",)),
    "activity_decay": (DESCENT, 0.1),
    "activity_decay_roles": ({**DESCENT, "activity_decay": 0.1}, ("input",)),
    "spectral_penalty": ({}, 0.1),
    "spectral_penalty_roles": ({"spectral_penalty": 0.1}, ("input",)),
    "optimiser": ({}, "sgd"),
    "learning_rate": ({}, 0.01),
    "learning_rate_rule": ({}, "raw"),
    "eps": ({}, 1e-3),
    "adamw_decay": ({"optimiser": "adamw"}, 0.3),
    "sgd_momentum": (SGD, 0.1),
    "schedule": ({}, "constant"),
    "warmup": ({}, 2),
    "epochs": ({"steps": None, "epochs": 0.2}, 0.3),
    "steps": ({}, 5),
    "batch_size": ({}, 32),
    "evaluate_every": ({}, 1),
    "early_stopping": ({"optimiser": "sgd", "learning_rate": 1e-9, "evaluate_every": 1}, 1),
    "log_every": ({}, 2),
    "report_every": ({}, 2),
    "seed": ({}, 1),
}
# How and where a run is kept changes no figure; tests of the data, of the command and of
# checkpoints see to these.


@functools.cache
def _npz(folder):
    generator = np.random.default_rng(0)
    path = folder / "own.npz"
    np.savez(path, x=generator.normal(size=(200, 5)), y=generator.integers(0, 3, 200))
    return str(path)


def outcome(folder, **settings):
    """All that a run computes: records but for times, and the weights."""
    count = len(list(folder.iterdir()))
    run = train(TrainConfig(**{**BASE, **settings, "out": str(folder / f"run{count}")}))
    timed = {"seconds", "samples_per_second"}
    records = [
        {k: v for k, v in dataclasses.asdict(r).items() if k not in timed}
        for r in run.result.records
    ]
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(run.result.network)]
    return records, leaves, run.test


def test_the_table_has_every_field():
    assert set(FIELDS) | set(KEEPING) == {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_changes_the_outcome(name, tmp_path):
    settings, value = FIELDS[name]
    if value == "npz":
        value = _npz(tmp_path)
    one = outcome(tmp_path, **settings)
    assert outcome(tmp_path, **{**settings, name: value}) != one
    assert outcome(tmp_path, **settings) == one


WRONG = [
    ({"depth": 0}, "--depth must be at least 1, not 0"),
    ({"width": -3}, "--width must be at least 1, not -3"),
    ({"batch_size": 0}, "--batch-size must be at least 1, not 0"),
    ({"learning_rate": 0.0}, "--learning-rate must be above 0, not 0.0"),
    ({"learning_rate": float("nan")}, "--learning-rate must be above 0, not nan"),
    ({"precision": -1.0}, "--precision must be above 0"),
    ({**DESCENT, "step_size": float("inf")}, "--step-size must be above 0, not inf"),
    ({**DESCENT, "momentum": 1.0}, "--momentum must be at least 0 and below 1, not 1.0"),
    ({"validation": 1.0}, "--validation must be at least 0 and below 1"),
    ({"weight_decay": -0.1}, "--weight-decay must be at least 0"),
    ({"max_steps": 0}, "--max-steps must be at least 1"),
    ({"seed": -1}, "--seed must be at least 0"),
    ({"seed": 2**32}, "--seed must be at least 0 and below 2 to the 32nd, not 4294967296"),
    ({"rule": "backpropagation", "step_size": 0.1}, "--step-size would have no effect, since only"),
    ({"rule": "backpropagation", "max_steps": 3}, "--max-steps would have no effect"),
    ({"parameterisation": "ntk", "gamma": 2.0}, "--gamma would have no effect.*ntk has no γ"),
    ({"optimiser": "sgd", "eps": 1e-3}, "--eps would have no effect.*sgd has no ε"),
    ({"sgd_momentum": 0.5}, "--sgd-momentum would have no effect.*optimiser is adam"),
    ({"schedule": "constant", "warmup": 5}, "--warmup would have no effect.*schedule is constant"),
    ({"weight_decay_roles": ("hidden",)}, "--weight-decay-roles would have no effect"),
    ({"steps": 3, "epochs": 1.0}, "--epochs would have no effect, since steps is given"),
    ({"validation": 0.0, "early_stopping": 2}, "--early-stopping would have no effect"),
    ({"solver": "adam", "momentum": 0.5}, "--momentum would have no effect"),
    ({"solver": "adam", "step_size": "stable"}, "--step-size stable is for the solver gradient"),
    ({"depth": 1, "skips": False}, "--no-skips would have no effect"),
    ({"parameterisation": "ntk", "learning_rate_rule": "mup"}, "rule mup would have no effect"),
    ({"rho": -0.1}, "--rho must be above 0, not -0.1"),
    ({"rho": 0.1, "precision": 1.0}, "--precision would have no effect, since rho sets it"),
    ({"rule": "backpropagation", "rho": 0.1}, "--rho would have no effect.*no inference"),
    ({"step_size": 0.1}, "--step-size would have no effect, since only the solvers gradient"),
    ({"coordinates": "errors"}, "--coordinates would have no effect, since the solver gauss"),
    ({"solver": "l-bfgs", "cg_steps": 2}, "--cg-steps would have no effect"),
    ({"precision": 1.0, "hold_regime": True}, "since no regime number ρ is given: leave it out"),
    ({"history": 2}, "--history would have no effect, since only the solver l-bfgs"),
    ({"cg_steps": 0}, "--cg-steps must be at least 1, not 0"),
    ({"activity_decay": 0.1}, "gauss-newton takes no --activity-decay: take l-bfgs"),
    ({"solver": "linear-solve"}, "linear-solve is for --activation linear: take l-bfgs"),
    ({"activation": "foo"}, "--activation must be one of relu, tanh.*, not foo"),
]


@pytest.mark.parametrize(("settings", "sentence"), WRONG)
def test_wrong_settings_get_a_sentence(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        resolve(TrainConfig(**settings))


HINTS = typing.get_type_hints(TrainConfig)


def of_a_wrong_type(name):
    """A value that a field cannot hold, though another field could."""
    return {bool: "yes", str: 2.5}.get(HINTS[name], {"a": 1})


def impossible(name, folder):
    """Values of the right type that cannot be."""
    (folder / "file").touch()
    paths = {"dataset": "mnst", "data_dir": str(folder / "none"), "out": str(folder / "file")}
    if name in paths:
        return [paths[name]]
    hint = str(HINTS[name])
    if "Literal" in hint:
        return [["nonsense"], [], [1], [["a"]]] if "tuple" in hint else ["nonsense"]
    if HINTS[name] is bool or name == "hold_regime":
        return []
    return [-1, 2**32, 2**63] if name == "seed" else [-1]


@pytest.mark.parametrize("name", HINTS)
def test_every_field_has_a_sentence_for_what_it_cannot_be(name, tmp_path, capsys):
    """Wrong type, impossible value and misspelt name, in a file, as the command reads it."""
    wrong = [{name: of_a_wrong_type(name)}, {name + "s": 1}]
    for value in impossible(name, tmp_path):
        strength = {name.removesuffix("_roles"): 0.1} if name.endswith("_roles") else {}
        needed = {"dataset": "mnist"} if name == "data_dir" else strength
        wrong.append({**needed, name: value})
    for settings in wrong:
        path = tmp_path / "run.json"
        path.write_text(json.dumps(settings))
        assert main(["train", "--file", str(path)]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("mupc: ")
        assert told.err.count("\n") == 1
        words = (f"{name} is the nearest",)
        if name in settings:
            words = (name, option(name), str(settings[name]))
        assert any(word in told.err for word in words)


def test_a_file_of_settings_and_the_command_line_over_it(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text('rho = 0.3\nlearning-rate = 0.5\nweight_decay_roles = ["input"]\n')
    given = ["train", "--file", str(path), "--weight-decay", "1", "--learning-rate", "0.25"]
    assert main([*given, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "\nrho = 0.3\n" in printed
    assert "\nlearning_rate = 0.25\n" in printed
    assert '\n# solver = "gauss-newton"\n' in printed
    # What was printed is the same configuration, and so is what follows from it.
    (tmp_path / "printed.toml").write_text(printed)
    expected = resolve(
        TrainConfig(rho=0.3, learning_rate=0.25, weight_decay=1.0, weight_decay_roles=("input",))
    )
    assert resolve(read_config(tmp_path / "printed.toml")) == expected
    (tmp_path / "all.toml").write_text(printed.replace("# ", ""))
    assert resolve(read_config(tmp_path / "all.toml")) == expected
    assert main(["train", "--file", str(tmp_path / "all.toml"), "--print-config"]) == 0
    assert capsys.readouterr().out == printed.replace("# ", "")
    (tmp_path / "paper.toml").write_text('preset = "paper"\n')
    assert resolve(read_config(tmp_path / "paper.toml")) == resolve(PRESETS["paper"])


def test_the_configuration_of_a_run_begins_an_equal_run(tmp_path):
    first = outcome(tmp_path, weight_decay=0.1, weight_decay_roles=("hidden",))
    (stored,) = tmp_path.glob("run*/config.json")
    again = ["train", "--file", str(stored), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    assert load_run(tmp_path / "again")[0] == dataclasses.replace(
        load_run(stored.parent)[0], out=str(tmp_path / "again")
    )
    weights = [
        np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(load_run(tmp_path / "again")[2])
    ]
    assert weights == first[1]


def test_inputs_that_are_all_zero_have_no_regime(tmp_path, capsys):
    np.savez(tmp_path / "zeros.npz", x=np.zeros((80, 4), np.float32), y=np.arange(80) % 2)
    words = ["train", "--dataset", str(tmp_path / "zeros.npz"), "--depth", "3", "--width", "8"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "no precision gives this --rho, since no hidden activity" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("always")
def test_a_network_that_is_not_of_the_configuration_is_not_evaluated(tmp_path, capsys):
    one, other = tmp_path / "one", tmp_path / "other"
    for width, out in ((8, one), (9, other)):
        words = f"train --depth 2 --width {width} --steps 2 --report-every 0 --out {out}"
        assert main(words.split()) == 0
    (one / "network.safetensors").write_bytes((other / "network.safetensors").read_bytes())
    capsys.readouterr()
    assert main(["evaluate", str(one)]) == 2
    assert "is of another network: it differs in" in capsys.readouterr().err
    (other / "result.json").unlink()  # as if it had been resumed, and killed
    assert main(["evaluate", str(other)]) == 0
    assert "warning: the run" in capsys.readouterr().err


def test_the_folder_that_a_configuration_lies_in_is_not_where_an_equal_run_goes(tmp_path):
    stored = tmp_path / "config.json"
    stored.write_text('{"depth": 3, "out": "runs/mine"}')
    assert read_config(stored).out == "runs/mine"
    (tmp_path / "environment.json").touch()  # as in the folder of a run, wherever it was copied to
    assert read_config(stored).out is None


CONFIGURED = [
    TrainConfig(),
    TrainConfig(solver="l-bfgs", depth=8),
    TrainConfig(precision=2.0, steps=7, epochs=None, optimiser="sgd"),
    TrainConfig(rule="backpropagation", weight_decay=0.1),
    dataclasses.replace(PRESETS["paper"], depth=30, max_steps=12),
]


@pytest.mark.parametrize("config", CONFIGURED)
def test_what_follows_from_other_settings_follows_them_again(config):
    assert resolve(unresolved(config)) == resolve(config)
    assert unresolved(unresolved(config)) == unresolved(config)


def test_a_runs_configuration_can_be_changed_on_the_command_line(tmp_path, capsys):
    stored = tmp_path / "config.json"
    stored.write_text(json.dumps(dataclasses.asdict(resolve(TrainConfig(epochs=3)))))
    given = ["train", "--file", str(stored), "--print-config"]
    assert main([*given, "--solver", "l-bfgs", "--steps", "5"]) == 0
    printed = capsys.readouterr().out
    assert "# max_steps = 30\n" in printed
    assert "\nsteps = 5\n" in printed
    assert "epochs" not in printed
    assert main([*given, "--preset", "paper"]) == 2
    assert "the preset is default: leave out --preset paper" in capsys.readouterr().err


def test_names_of_any_script_are_written_and_read(tmp_path):
    config = TrainConfig(out="результат-𝕏")
    (tmp_path / "run.toml").write_text(to_toml(config))
    assert read_config(tmp_path / "run.toml").out == config.out


def test_the_paper_preset_is_the_papers_setting():
    config = resolve(dataclasses.replace(PRESETS["paper"], depth=30))
    assert (config.dataset, config.width, config.batch_size) == ("mnist", 512, 64)
    assert (config.optimiser, config.learning_rate, config.eps) == ("adam", 0.1, 1e-8)
    assert (config.learning_rate_rule, config.precision) == ("raw", 1.0)
    # 0.5 on a batch-mean energy of 64 samples; T = H steps, none cut short.
    assert (config.step_size, config.max_steps) == (0.5 / 64, 30)
    assert (config.rtol, config.atol, config.patience) == (0, 0, 0)
    assert (config.activation, config.skips, config.biases) == ("relu", True, False)
    assert (config.solver, config.coordinates) == ("gradient-descent", "activities")
    assert config.schedule == "constant"
    assert config.validation == 0


def test_a_stored_configuration_is_the_same_again():
    config = resolve(TrainConfig(weight_decay=0.1, weight_decay_roles=("input",)))
    stored = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(config).items()}
    assert from_dict(stored) == config
    with pytest.raises(
        ConfigError, match="in the stored configuration: there is no setting colour"
    ):
        from_dict({**stored, "colour": "blue"})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rho": 0.6}, None),
        ({"rho": 0.6, "hold_regime": False}, "1 Gauss–Newton iteration is not enough"),
        ({"rho": 0.6, "hold_regime": False, "max_steps": 3, "cg_steps": 4}, None),
        ({"rho": 2.0}, "not enough: take --solver l-bfgs or --max-steps 3 --cg-steps 4"),
        ({"rho": 2.0, "max_steps": 3, "cg_steps": 4}, None),
        ({"rho": 4.0, "max_steps": 3}, "3 Gauss–Newton iterations are not enough"),
        ({"rho": 2.0, "hold_regime": False, "max_steps": 3}, "3 Gauss–Newton iterations are not"),
        ({"rho": 2.0, "solver": "l-bfgs"}, None),
        (DESCENT, "8 steps on activities do not carry the error through 128 layers"),
        ({**DESCENT, "depth": 2}, None),
        ({"solver": "gradient-flow"}, "the gradient flow follows every kink of relu"),
        ({"solver": "gradient-flow", "activation": "tanh"}, None),
        ({"preset": "paper"}, None),
    ],
)
def test_a_solver_that_is_not_enough_for_the_regime_is_named(settings, sentence):
    config = resolve(TrainConfig(**settings))
    said = enough(config, Regime(1.0, config.rho or 0.1))
    assert said is None if sentence is None else sentence in said
