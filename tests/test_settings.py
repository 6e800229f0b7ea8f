"""Every setting does something, and every wrong one gets a sentence."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from mupc.commands.main import main
from mupc.records import Regime
from mupc.runs import load_run, train
from mupc.settings import ConfigError, Configuration
from mupc.settings.configuration import KINDS, known_names
from mupc.settings.files import PRESETS, on_top, preset, read_config, stored, to_toml
from mupc.settings.setting import Kept

# Without reports of the regime, whose program takes as long to compile as a training step's.
BASE = {"validation": 0.1, "steps": 4, "log_every": 1, "evaluate_every": 2, "report_every": 0}
SIZES = {
    "residual-mlp": {"depth": 3, "width": 8},
    "conv-resnet": {"blocks": 1, "channels": 2, "stages": 2},
    "vgg": {"layers": "2p 3p"},
    "transformer": {"pairs": 1, "width": 8, "context": 4},
    "vision-transformer": {"pairs": 1, "width": 8},
    "residual-hopfield": {"depth": 3, "width": 8},
    "layered-hopfield": {"couplings": "d8"},
    "decoder": {"latents": 3, "depth": 2, "width": 8},
    "class-decoder": {"latents": 3, "depth": 2, "width": 8},
    "conv-decoder": {"latents": 2, "doublings": 1, "channels": 2},
}
CONVOLUTIONS = {"network": "conv-resnet"}
TOKENS = {"network": "transformer", "dataset": "text", "likelihood": "categorical"}
SETTLING = {"rule": "equilibrium-propagation"}
SAMPLED = {"rule": "monte-carlo"}
MULTIPLIED = {"rule": "augmented-lagrangian"}
SGD = {"optimiser": "sgd", "learning_rate": 0.3}
DESCENT = {"solver": "gradient-descent"}
FIXED = {"regime": "fixed"}
BY_STEPS = {"network": "conv-decoder", "solver": "gradient-descent", "max_steps": 3}
BY_STEPS |= {"coordinates": "activities"}

# For every setting: what else must be set, and another value than the one it then has.
FIELDS = {
    "network": ({}, "conv-resnet"),
    "dataset": ({}, "npz"),
    "validation": ({}, 0.3),
    "scale": ({}, "unit"),
    "augment": (CONVOLUTIONS, "flip-crop"),
    "depth": ({}, 4),
    "width": ({}, 9),
    "activation": ({}, "tanh"),
    "blocks": (CONVOLUTIONS, 2),
    "channels": (CONVOLUTIONS, 3),
    "stages": (CONVOLUTIONS, 1),
    "convolutions": (CONVOLUTIONS, 2),
    "layers": ({"network": "vgg"}, "2p 2"),
    "pool": ({"network": "vgg"}, "average"),
    "couplings": ({"network": "layered-hopfield"}, "d9"),
    "latents": ({"network": "decoder"}, 4),
    "doublings": ({"network": "conv-decoder"}, 2),
    "error_kernels": (BY_STEPS, "learned"),
    "pairs": (TOKENS, 2),
    "learned_norms": (TOKENS, True),
    "tied": (TOKENS, True),
    "patch": ({"network": "vision-transformer"}, 2),
    "head_width": (TOKENS, 4),
    "context": (TOKENS, 5),
    "exponent": ({}, 1.0),
    "skips": ({}, False),
    "biases": ({}, True),
    "parameterisation": ({}, "ntk"),
    "gamma": ({}, 2.0),
    "initialisation": ({}, "orthogonal"),
    "rule": ({}, "backpropagation"),
    "likelihood": ({}, "categorical"),
    "regime": ({"steps": 40, "width": 16, "activation": "tanh"}, "initial"),
    "rho": ({}, 0.2),
    "nudge": ({}, "positive"),
    "beta": (SETTLING, 0.5),  # else from `rho`
    "phases": (SETTLING, "one-sided"),
    "nudged_steps": (SETTLING, 1),
    "precision": (FIXED, 0.5),
    "hidden_precision": (FIXED, 2.0),
    "updates": ({"rule": "incremental"}, 2),
    "strength": ({"rule": "bidirectional"}, 0.1),
    "down_precision": ({"rule": "bidirectional"}, 0.5),
    "rounds": (MULTIPLIED, 3),
    "multiplier_rate": (MULTIPLIED, 0.5),
    "temperature": (SAMPLED, 0.5),
    "samples": (SAMPLED, 2),
    "thinning": (SAMPLED, 2),
    "solver": ({}, "l-bfgs"),
    "coordinates": ({"solver": "l-bfgs"}, "activities"),
    "cg_steps": ({}, 2),
    "history": (
        {"solver": "l-bfgs", "rho": 2.0, "nudge": "positive", "max_steps": 6, "rtol": 0.0},
        1,
    ),
    "step_size": (DESCENT, "stable"),
    "momentum": (DESCENT, 0.5),
    "relaxation": ({"network": "layered-hopfield"}, 1.5),
    "max_steps": (DESCENT, 5),
    "rtol": ({**DESCENT, "max_steps": 20}, 0.5),
    "atol": ({**DESCENT, **FIXED, "max_steps": 20}, 0.05),
    "patience": ({**DESCENT, "step_size": 2.0, "max_steps": 12}, 1),
    "start": ({**DESCENT, "nudge": "positive"}, "zeros"),
    "start_std": ({**DESCENT, "nudge": "positive", "start": "normal"}, 0.1),
    "weight_decay": ({}, 0.1),
    "weight_decay_roles": ({"weight_decay": 0.1}, ("hidden",)),
    "activity_decay": (DESCENT, 0.1),
    "activity_decay_roles": ({**DESCENT, "activity_decay": 0.1}, ("input",)),
    "spectral_penalty": ({}, 0.1),
    "spectral_penalty_roles": ({"spectral_penalty": 0.1}, ("input",)),
    "optimiser": ({}, "sgd"),
    "learning_rate": ({}, 0.01),
    "learning_rate_rule": ({}, "raw"),
    "weight_bound": ({}, 0.5),
    "eps": ({}, 1e-3),
    "adamw_decay": ({"optimiser": "adamw"}, 0.3),
    "sgd_momentum": (SGD, 0.1),
    "schedule": ({}, "constant"),
    "warmup": ({}, 2),
    "floor": ({}, 0.5),
    "epochs": ({"steps": 0, "epochs": 0.2}, 0.3),
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
KEPT = {"out", "data_dir", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints"}
KEPT |= {
    "tensorboard",
    "compilation_cache",
    "layout",
    "path",
    "init_from",
}  # of which tests of runs say more


def configured(**settings):
    return Configuration().changed(settings)


@functools.cache
def _npz(folder):
    generator = np.random.default_rng(0)
    path = folder / "own.npz"
    np.savez(path, x=generator.normal(size=(200, 5)), y=generator.integers(0, 3, 200))
    return str(path)


def _text(folder):
    path = folder / "own.txt"
    path.write_text("".join(np.random.default_rng(0).choice(list("abcde "), 3000)))
    return str(path)


def outcome(folder, **settings):
    """All that a run computes: records except for times, and the weights."""
    if settings.get("dataset") == "text":
        settings = settings | {"path": _text(folder)}
    count = len(list(folder.iterdir()))
    sizes = SIZES[settings.get("network", "residual-mlp")]
    run = train(configured(**{**BASE, **sizes, **settings, "out": str(folder / f"run{count}")}))
    timed = {"seconds", "samples_per_second"}
    records = [
        {k: v for k, v in dataclasses.asdict(r).items() if k not in timed}
        for r in run.result.records
    ]
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(run.result.network)]
    return records, leaves, run.test


def test_the_table_has_every_setting():
    assert set(FIELDS) | KEPT == set(known_names())
    kept = {name for config in (configured(), preset("paper")) for name in config.carrying(Kept)}
    assert kept | {"path", "init_from"} == KEPT


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in FIELDS if FIELDS[name]])
def test_every_setting_changes_the_outcome(name, tmp_path):
    settings, value = FIELDS[name]
    if value == "npz":
        value = _npz(tmp_path)
    one = outcome(tmp_path, **settings)
    assert outcome(tmp_path, **{**settings, name: value}) != one
    assert outcome(tmp_path, **settings) == one


@pytest.mark.parametrize("slot", KINDS)
def test_every_kind_is_built_from_its_own_file_of_settings(slot):
    """Every name of a setting belongs to one thing that is chosen, so that flat names suffice."""
    names = [set(kind.own_fields()) for kind in KINDS[slot].values()]
    others = {
        name
        for other, kinds in KINDS.items()
        if other not in (slot, "regime", "rule")  # of which one has a precision, or the other
        for kind in kinds.values()
        for name in kind.own_fields()
    }
    assert not set.union(*names) & others


WRONG = [
    ({"depth": 0}, "depth must be at least 1, not 0"),
    ({"width": -3}, "width must be at least 1, not -3"),
    ({"width": 2.5}, "width must be a whole number, not 2.5"),
    ({"biases": 1}, "biases must be true or false, not 1"),
    ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ({"learning_rate": 0.0}, "learning_rate must be above 0, not 0.0"),
    ({"learning_rate": float("nan")}, "learning_rate must be a finite number, not nan"),
    ({**FIXED, "precision": -1.0}, "precision must be above 0"),
    ({**DESCENT, "step_size": float("inf")}, "step_size must be a finite number or stable, not"),
    ({**DESCENT, "step_size": "stabel"}, "step_size must be a number or stable, not stabel"),
    ({**DESCENT, "momentum": 1.0}, "momentum must be below 1, not 1.0"),
    ({"validation": 1.0}, "validation must be below 1, not 1.0"),
    ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
    ({"max_steps": 0}, "max_steps must be at least 1 or depth, not 0"),
    ({"seed": -1}, "seed must be at least 0"),
    ({"seed": 2**32}, "seed must be below 4294967296, not 4294967296"),
    ({"rule": "backpropagation", "step_size": 0.1}, "the rule backpropagation has no solver"),
    (
        {"rule": "backpropagation", "solver": "adam"},
        "solver is a setting of the rules predictive-coding, incremental, augmented-lagrangian",
    ),
    ({"parameterisation": "ntk", "gamma": 2.0}, "choose parameterisation mupc, or leave it out"),
    ({"optimiser": "sgd", "eps": 1e-3}, "eps is a setting of the optimisers adam, adamw, and the"),
    ({"sgd_momentum": 0.5}, "sgd_momentum is a setting of the optimiser sgd"),
    ({"schedule": "constant", "warmup": 5}, "warmup is a setting of the schedule cosine"),
    ({"weight_decay_roles": ("hidden",)}, "weight_decay_roles would have no effect"),
    ({"solver": "adam", "momentum": 0.5}, "momentum is a setting of the solver gradient-descent"),
    ({"solver": "adam", "step_size": "stable"}, "step_size must be a number, not stable"),
    ({"depth": 1, "skips": False}, "skips would have no effect"),
    ({"parameterisation": "ntk", "learning_rate_rule": "mup"}, "rule mup would have no effect"),
    ({"rule": "equilibrium-propagation", "rho": 5.0}, "rho 5.0 samples .* would have no equil"),
    (
        {"rule": "equilibrium-propagation", "activation": "linear", "solver": "linear-solve"},
        "linear-solve solves for one precision of all samples",
    ),
    ({"rho": -0.1}, "rho must be above 0, not -0.1"),
    ({"precision": 1.0}, "precision is a setting of the regime fixed, and the regime is held"),
    ({**FIXED, "rho": 0.1}, "rho is a setting of the regimes held, initial"),
    ({"step_size": 0.1}, "choose solver gradient-descent, or leave it out"),
    ({"rtol": 0.1}, "rtol would have no effect, since max_steps is 1: leave it out"),
    ({"cg_steps": 0}, "cg_steps must be at least 1, not 0"),
    ({"activity_decay": 0.1}, "gauss-newton takes no activity_decay: use l-bfgs"),
    ({"solver": "linear-solve"}, "linear-solve is for activation linear: use l-bfgs"),
    ({"activation": "foo"}, "activation must be one of relu, tanh.*, not foo"),
    ({"weight_decay": 0.1, "weight_decay_roles": ["all"]}, "must be some of input, hidden or"),
    ({"weight_decay": 0.1, "weight_decay_roles": []}, "must be at least one word"),
    ({"solver": "lbfgs"}, "solver must be one of .* not lbfgs: did you mean l-bfgs?"),
    ({"colour": "red"}, "there is no setting colour"),
    ({"dataset": "npz"}, "path must be given"),
]


@pytest.mark.parametrize(("settings", "sentence"), WRONG)
def test_wrong_settings_get_a_sentence(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        configured(**settings)


def test_a_setting_without_a_validation_split_would_have_no_effect(tmp_path, capsys):
    words = ["train", "--early-stopping", "2", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "--early-stopping would have no effect, since there is" in capsys.readouterr().err


def test_another_kind_begins_from_its_own_defaults():
    config = preset("paper").changed({"solver": "gauss-newton", "regime": "held"})
    assert config.rule == Configuration().rule
    assert config.optimiser == preset("paper").optimiser
    assert configured(solver="l-bfgs").changed({"solver": "l-bfgs", "history": 3}).flat() == {
        **configured(solver="l-bfgs").flat(),
        "history": 3,
    }


def test_epochs_take_the_place_of_steps():
    config = configured(steps=7)
    assert config.training.length(1000) == 7
    assert config.changed({"epochs": 2}).training.length(640) == 20


def test_epochs_and_steps_are_not_typed_both(capsys):
    assert main(["train", "--epochs", "2", "--steps", "7"]) == 2
    assert "give either --epochs or --steps, and not both" in capsys.readouterr().err


def test_numpys_numbers_are_numbers():
    config = configured(depth=np.int64(3), rho=np.float32(0.5), biases=np.bool_(True))
    assert (config.flat()["depth"], config.flat()["rho"], config.flat()["biases"]) == (3, 0.5, True)


OF_EVERY_KIND = {
    name: kind for kinds in KINDS.values() for kind in kinds.values() for name in kind.own_fields()
}


def of_a_wrong_type(field):
    """A value that a setting cannot hold, though another could."""
    return {bool: "yes", str: 2.5}.get(field.annotation, {"a": 1})


@pytest.mark.parametrize("name", known_names())
def test_every_setting_has_a_sentence_for_what_it_cannot_be(name, tmp_path, capsys):
    """Wrong type, impossible value and misspelt name, in a file, as the command reads it."""
    having = [
        (slot, kind)
        for slot, kinds in KINDS.items()
        for kind, group in kinds.items()
        if name in group.own_fields() and kind != "backpropagation"
    ]
    needed = dict(having[:1])
    wrong = [{name + "s": 1}]
    if name not in KINDS:
        wrong.append({**needed, name: {"a": 1}})
    if name in KINDS or name in ("activation", "scale", "learning_rate_rule", "coordinates"):
        wrong.append({**needed, name: "nonsense"})
    elif name not in ("out", "path", "data_dir", "init_from"):
        wrong += [{**needed, name: value} for value in (-1, float("nan"), "nonsense")]
    for settings in wrong:
        path = tmp_path / "run.json"
        path.write_text(json.dumps(settings))
        assert main(["train", "--file", str(path), "--print-config"]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("mupc: in ")
        assert told.err.count("\n") == 1
        assert name in told.err


def test_a_file_of_settings_and_the_command_line_over_it(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text(
        'learning-rate = 0.5\nweight_decay_roles = ["input"]\n[rule]\nweight_decay = 1\n'
        "[rule.regime]\nrho = 0.3\n"
    )
    assert main(["train", "--file", str(path), "--learning-rate", "0.25", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "\nrho = 0.3\n" in printed
    assert '[rule.solver]\nkind = "gauss-newton"\n' in printed
    (tmp_path / "printed.toml").write_text(printed)
    expected = configured(
        rho=0.3, learning_rate=0.25, weight_decay=1.0, weight_decay_roles=("input",)
    )
    assert read_config(tmp_path / "printed.toml", Configuration()) == expected
    assert main(["train", "--file", str(tmp_path / "printed.toml"), "--print-config"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_other_shells_are_read(encoding, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("depth = 7\n", encoding=encoding)
    assert read_config(path, Configuration()) == configured(depth=7)


def test_a_setting_in_a_table_of_others_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"rho stands in \[training\], and belongs in \[regime\]"):
        on_top(Configuration(), {"training": {"rho": 0.3}})
    with pytest.raises(ConfigError, match="depth is given twice"):
        on_top(Configuration(), {"depth": 3, "network": {"depth": 4}})


def test_the_configuration_of_a_run_begins_an_equal_run(tmp_path):
    first = outcome(tmp_path, weight_decay=0.1, weight_decay_roles=("hidden",))
    (found,) = tmp_path.glob("run*/config.json")
    again = ["train", "--file", str(found), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    ours, theirs = (load_run(place)[0] for place in (tmp_path / "again", found.parent))
    assert ours == theirs.changed({"out": str(tmp_path / "again")})
    weights = [
        np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(load_run(tmp_path / "again")[2])
    ]
    assert weights == first[1]


def test_inputs_that_are_all_zero_have_no_regime(tmp_path, capsys):
    np.savez(tmp_path / "zeros.npz", x=np.zeros((80, 4), np.float32), y=np.arange(80) % 2)
    words = ["train", "--dataset", str(tmp_path / "zeros.npz"), "--depth", "3", "--width", "8"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "no precision gives this --rho, since the output does not" in capsys.readouterr().err
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
    path = tmp_path / "config.json"
    path.write_text('{"depth": 3, "out": "runs/mine"}')
    assert read_config(path, Configuration()).run.out == "runs/mine"
    (tmp_path / "environment.json").touch()  # as in the folder of a run, wherever it was copied to
    assert read_config(path, Configuration()).run.out == "runs/{label}"


def test_a_runs_configuration_can_be_changed_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(configured(epochs=3).tables()))
    given = ["train", "--file", str(path), "--print-config"]
    assert main([*given, "--solver", "l-bfgs", "--steps", "5"]) == 0
    printed = capsys.readouterr().out
    assert "max_steps = 30\n" in printed
    assert "\nsteps = 5\n" in printed


def test_names_of_any_script_are_written_and_read(tmp_path):
    config = configured(out="результат-𝕏")
    (tmp_path / "run.toml").write_text(to_toml(config), encoding="utf-8")
    assert read_config(tmp_path / "run.toml", Configuration()) == config


def test_none_is_a_word_or_nothing_at_all():
    config = Configuration().changed({"weight_bound": 0.5, "scale": "unit", "init_from": "run"})
    config = config.changed({"weight_bound": "none", "scale": "none", "init_from": "none"})
    assert (config.optimiser.weight_bound, config.training.init_from) == (None, None)
    assert config.dataset.scale == "none"
    with pytest.raises(ConfigError, match="depth must be a whole number"):
        config.changed({"depth": "none"})


def test_the_paper_preset_is_the_papers_setting():
    config = preset("paper").changed({"depth": 30})
    values = config.flat()
    expected = {
        "dataset": "mnist",
        "width": 512,
        "batch_size": 64,
        "optimiser": "adam",
        "learning_rate": 0.1,
        "eps": 1e-8,
        "learning_rate_rule": "raw",
        "precision": 1.0,
        # 0.5 on a batch-mean energy of 64 samples; T = H steps, none cut short.
        "step_size": 0.5 / 64,
        "rtol": 0,
        "atol": 0,
        "patience": 0,
        "activation": "relu",
        "skips": True,
        "biases": False,
        "solver": "gradient-descent",
        "coordinates": "activities",
        "schedule": "constant",
        "validation": 0,
        "epochs": 1,
    }
    assert {name: values[name] for name in expected} == expected
    assert config.rule.solver.steps(config.network.hidden) == 30


@pytest.mark.parametrize("name", PRESETS)
def test_a_stored_configuration_is_the_same_again(name):
    config = preset(name).changed({"weight_decay": 0.1, "weight_decay_roles": ("input",)})
    tables = json.loads(json.dumps(config.tables()))
    assert stored(tables) == config
    with pytest.raises(
        ConfigError, match="in the stored configuration: there is no setting colour"
    ):
        stored({**tables, "colour": "blue"})


INITIAL = {"regime": "initial"}
FAR = {"nudge": "positive"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rho": 0.6}, None),
        ({**INITIAL, "rho": 0.6}, "one Gauss–Newton iteration is not enough"),
        ({**INITIAL, "rho": 0.6, "max_steps": 3, "cg_steps": 4}, None),
        ({**FAR, "rho": 2.0}, "not enough: use --solver l-bfgs or --max-steps 3 --cg-steps 4"),
        ({**FAR, "rho": 2.0, "max_steps": 3, "cg_steps": 4}, None),
        ({**FAR, "rho": 4.0, "max_steps": 3}, "3 Gauss–Newton iterations are not enough"),
        ({**INITIAL, "rho": 2.0, "max_steps": 3}, "3 Gauss–Newton iterations are not"),
        ({**FAR, "rho": 2.0, "solver": "l-bfgs"}, None),
        (DESCENT, "8 steps on activities do not carry the error through 128 layers"),
        ({**DESCENT, "depth": 2}, None),
        ({"solver": "gradient-flow"}, "the gradient flow follows every kink of relu"),
        ({"solver": "gradient-flow", "activation": "tanh"}, None),
    ],
)
def test_a_solver_that_is_not_enough_for_the_regime_is_named(settings, sentence):
    config = configured(**settings)
    rho = config.flat().get("rho", 0.1)
    said = config.rule.warning(Regime(1.0, rho), config)
    assert said is None if sentence is None else sentence in said


def test_a_kind_brings_defaults_for_others(tmp_path):
    """Text is of classes; what is given, whenever, counts more."""
    text = {"dataset": str(tmp_path / "book.txt")}
    assert configured(**text).rule.likelihood.kind == "categorical"
    assert configured(**text, rule="backpropagation").rule.likelihood.kind == "categorical"
    assert configured(**text, likelihood="gaussian").rule.likelihood.kind == "gaussian"
    later = configured(**text).changed({"likelihood": "gaussian"})
    assert stored(later.tables()).rule.likelihood.kind == "gaussian"
    other = configured(likelihood="gaussian", rho=0.2).changed(text)
    assert (other.flat()["rho"], other.flat()["likelihood"]) == (0.2, "categorical")
    again = configured(**text, likelihood="gaussian").changed({"dataset": "other.txt"})
    assert again.flat()["likelihood"] == "gaussian"


@pytest.mark.parametrize("length", [{"steps": 30}, {"epochs": 2.0}, {"steps": 0}])
def test_what_a_run_keeps_of_its_settings_makes_the_same_run(length):
    """Epochs of a preset, in whose place steps were given, have no effect, and are not kept."""
    config = preset("paper").changed(length)
    assert stored(config.tables()).identity() == config.identity()
