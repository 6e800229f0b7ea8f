"""A new kind is one file and one line of registration: every surface takes it from there."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mupc
from mupc.commands.main import main
from mupc.data import Dataset
from mupc.records import RunFolder
from mupc.runs import load_run
from mupc.settings import ConfigError, Configuration
from mupc.settings.configuration import KINDS
from mupc.settings.datasets import DatasetKind
from mupc.settings.network import NetworkKind
from mupc.settings.rule import RuleKind
from mupc.settings.setting import Count, Positive
from mupc.settings.solvers import SolverKind
from mupc.sklearn import PCClassifier


class Bottleneck(NetworkKind):
    """Two layers, the second of which may be narrow."""

    kind = "bottleneck"
    sizes = ("first", "neck")

    first: Count = 6
    """Width of the first layer."""
    neck: Count = 3
    """Width of the bottleneck."""

    def view(self, data):
        return data.flattened()

    @property
    def hidden(self):
        return 2

    def build(self, shape, outputs, key):
        keys = jax.random.split(key, 3)
        widths = (int(np.prod(shape)), self.first, self.neck, outputs)
        layers = [
            eqx.nn.Linear(*pair, use_bias=False, key=k)
            for pair, k in zip(itertools.pairwise(widths), keys, strict=True)
        ]
        return mupc.chain_from_modules(layers, np.zeros(shape))


class Doubled(RuleKind):
    """Backpropagation of a loss that is multiplied."""

    kind = "doubled"

    factor: Positive = 2.0
    """What multiplies the loss."""

    def build(self, depth):
        return mupc.Backpropagation(self.likelihood.build(self.factor), self.regularisers())


class Halving(SolverKind):
    """Gradient descent whose step is halved."""

    kind = "halving"

    first_step: Positive = 0.2
    """The step before it is halved."""

    def build(self):
        return mupc.GradientDescent(self.first_step / 2)


class Noise(DatasetKind):
    """Two clouds."""

    kind = "noise"

    apart: Positive = 4.0
    """Distance between the clouds."""

    def load(self):
        generator = np.random.default_rng(0)
        y = np.arange(120) % 2
        x = generator.normal(size=(120, 5)) + self.apart * y[:, None]
        return Dataset.from_arrays(x[:80], y[:80], x[80:], y[80:], validation=self.validation)


NEW = {"network": Bottleneck, "rule": Doubled, "solver": Halving, "dataset": Noise}
OWN = {"network": ("neck", 2), "rule": ("factor", 3.0), "solver": ("first_step", 0.1)}
OWN["dataset"] = ("apart", 3.0)
SMALL = [
    "--dataset",
    "noise",
    "--steps",
    "3",
    "--report-every",
    "0",
    "--batch-size",
    "16",
]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for slot, kind in NEW.items():
        monkeypatch.setitem(KINDS[slot], kind.kind, kind)


def options(slot):
    name, value = OWN[slot]
    return [f"--{slot}", NEW[slot].kind, f"--{name.replace('_', '-')}", str(value)]


@pytest.mark.few(2)
@pytest.mark.parametrize("slot", NEW)
def test_it_is_trained_by_the_command_and_by_a_file(slot, tmp_path, capsys):
    name, value = OWN[slot]
    small = [word for word in SMALL if slot != "dataset" or word not in ("--dataset", "noise")]
    out = tmp_path / "run"
    assert main(["train", *options(slot), *small, "--out", str(out)]) == 0
    config, _, network = load_run(out)
    assert config.flat()[name] == value
    capsys.readouterr()
    assert main(["train", *options(slot), *small, "--print-config"]) == 0
    (tmp_path / "run.toml").write_text(capsys.readouterr().out)
    again = tmp_path / "again"
    assert main(["train", "--file", str(tmp_path / "run.toml"), "--out", str(again)]) == 0
    assert eqx.tree_equal(load_run(again)[2], network)
    assert main(["evaluate", str(again)]) == 0


def test_it_is_swept_over(tmp_path):
    words = ["sweep", str(tmp_path / "sweep"), "--grid", "network=bottleneck", "neck=2,3", *SMALL]
    assert main([*words, "--validation", "0.2"]) == 0
    runs = sorted((tmp_path / "sweep" / "runs").iterdir())
    assert [RunFolder.open(run).config()["network"]["neck"] for run in runs] == [2, 3]


@pytest.mark.few(1)
@pytest.mark.parametrize("slot", ["network", "rule", "solver"])
def test_it_is_a_parameter_of_the_estimators(slot):
    name, value = OWN[slot]
    own = {slot: NEW[slot].kind, name: value}
    x, y = (np.asarray(part) for part in Noise().load().train)
    estimator = PCClassifier(**own, epochs=3, batch_size=16, random_state=0)
    assert getattr(estimator.fit(x, np.argmax(y, axis=1)), name) == value


@pytest.mark.parametrize("slot", NEW)
def test_its_help_and_its_errors_are_those_of_any_other(slot, capsys):
    name, _ = OWN[slot]
    with pytest.raises(SystemExit):
        main(["train", f"--{slot}", NEW[slot].kind, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    field = NEW[slot].model_fields[name]
    assert f"{field.description} (default: {field.default})" in printed
    with pytest.raises(ConfigError, match=f"^{name} must be"):
        Configuration().changed({slot: NEW[slot].kind, name: -1})
    with pytest.raises(ConfigError, match=f"^{name} is a setting of the {slot} {NEW[slot].kind}"):
        Configuration().changed({name: 1})


def test_the_network_that_is_built_is_the_one_that_is_named():
    network = Bottleneck(neck=2).build((4,), 2, jax.random.key(0))
    assert [w.shape for w in jax.tree.leaves(network) if jnp.ndim(w) == 2][-1] == (2, 2)
