"""What is published works: examples, README's commands and its code."""

import importlib.metadata
import importlib.util
import json
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import pytest

from mupc.commands.options import Base, parse
from mupc.commands.sweep import SweepOptions
from mupc.commands.train import TrainOptions
from mupc.settings import Configuration
from mupc.sweeps.points import read_file, read_grid

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.full  # .ci/run runs the examples themselves
def test_a_users_own_block_learns():
    assert load(ROOT / "examples" / "own_block.py").main() > 0.9


@pytest.mark.parametrize("depth", [16, 1024])
def test_the_gate_of_a_users_own_block_sees_as_much_at_any_depth(depth):
    """U z has the scale of z, whose entries have that of x: the depth multiplier is no part of it.

    Entries of U are N(0, 1) and its multiplier is 1/√N, so E[(a U z)²] = ‖z‖²/N. With the depth
    multiplier on the matrix, as on the branch, it would be √1025 = 32 times less at depth 1,024.
    """
    network = load(ROOT / "examples" / "own_block.py").build(64, 10, jax.random.key(0), depth=depth)
    x = jax.random.normal(jax.random.key(1), (32, 64))
    *_, z = network.feedforward(x).activities
    (stage,) = network.stages
    (block,) = stage.blocks
    gate, value = block.parameters
    assert block.branch == (depth + 1) ** -0.5
    assert gate.multiplier == value.multiplier == 64**-0.5
    # The last block's gate, as it sees the activity below it.
    seen = gate.multiplier * z[-2] @ gate.array[-1].T
    ratio = jnp.sqrt(jnp.mean(seen**2) / jnp.mean(z[-2] ** 2))
    assert abs(ratio - 1) < 0.1
    # The branches together add up to an activity of the same order at any depth.
    assert 0.8 < jnp.sqrt(jnp.mean(z[-1] ** 2)) < 2


@pytest.mark.full
def test_a_network_of_several_kinds_of_layers_learns():
    assert load(ROOT / "examples" / "hybrid.py").main() > 0.9


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "learned"),
    [
        ("images", lambda found: found["accuracy"] > 0.9 and found["reports"][-1].learning > 7),
        ("both_directions", lambda found: found["accuracy"] > 0.9 and min(found["alike"]) > 0.9),
        ("text", lambda found: found["seen"].perplexity < 0.5 * found["data"].outputs),
    ],
)
def test_a_notebook_runs_and_what_it_trains_learns(name, learned):
    cells = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text("utf-8"))["cells"]
    found = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), found)
            assert not cell["outputs"]  # what is printed depends on the machine
    assert learned(found)


@pytest.mark.full
def test_the_training_example_learns():
    assert load(ROOT / "examples" / "train.py").main(depth=16, width=64) > 0.9


@pytest.mark.parametrize("index", range(README.count("```python")))
def test_the_code_of_the_readme_runs(index, monkeypatch, tmp_path):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[index]
    monkeypatch.chdir(tmp_path)
    # The page's depth, at a size for a test.
    small = code.replace("depth=128, width=128", "depth=8, width=64")
    scope = {}
    exec(compile(small, "README.md", "exec"), scope)
    if index == 0:
        assert scope["test"].accuracy > 0.9
    else:
        assert scope["solution"].relative_residual.max() <= 1e-2


def test_the_commands_and_the_file_of_the_page_on_sweeps_are_understood(tmp_path):
    page = (ROOT / "docs" / "sweeps.md").read_text().replace("\\\n", "")
    lines = re.findall(r"^(mupc \w+ [^#\n]*)", page, re.MULTILINE)
    sweep = parse("sweep", shlex.split(lines[0])[2:], SweepOptions, Base())
    assert list(read_grid(sweep.own.grid)) == ["learning_rate", "rho", "seed"]
    (tmp_path / "sweep.toml").write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    base, space = read_file(tmp_path / "sweep.toml")
    assert base == {"dataset": "mnist", "steps": 300}
    assert len(space.over(Configuration())) == 2 * 3 * 10


def test_the_first_command_is_the_default():
    (line,) = re.findall(r"^pip install .* && (mupc.*)$", README, re.MULTILINE)
    assert parse("train", shlex.split(line)[2:], TrainOptions, Base()).config == Configuration()


def test_the_version_is_told_once():
    version = importlib.metadata.version("mupc")
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
