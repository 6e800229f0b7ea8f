"""The pages of docs/: their code runs, commands are understood, every public name is there."""

import importlib
import importlib.util
import inspect
import pathlib
import re
import shlex
import sys
import types

import pytest

import mupc
from mupc.cli import _parse
from mupc.sweeps.transfer_command import TransferConfig, _plan
from mupc.training.config import TrainConfig
from mupc.training.resolution import resolve

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def wandb(monkeypatch):
    """As much of Weights & Biases as the page uses."""
    logged = []

    class Run:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            logged.append("end")

        def log(self, values, step):
            logged.append((step, values))

    module = types.SimpleNamespace(init=lambda project, config: Run())
    monkeypatch.setitem(sys.modules, "wandb", module)
    return logged


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem
)
def test_the_code_of_a_page_runs(page, monkeypatch, tmp_path, capsys, wandb):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")  # where equinox looks for the annotations of a class
    monkeypatch.setitem(sys.modules, "page", module)
    scope = vars(module)
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(code, f"{page.name}, block {number}", "exec"), scope)
    told = capsys.readouterr().out
    if page.stem == "extending":
        accuracies = [float(found) for found in re.findall(r": (0\.\d+)$", told, re.MULTILINE)]
        assert len(accuracies) == 3
        assert min(accuracies) > 0.8
        residuals = [float(found) for found in re.findall(r"residual (\S+)$", told, re.MULTILINE)]
        assert residuals[0] < 0.5 * residuals[1]  # momentum pays
    if page.stem == "logging":
        assert wandb[-1] == "end"
        assert any("train/loss" in values for _, values in wandb[:-1])
    if page.stem == "index":
        assert float(re.search(r"accuracy (0\.\d+)", told)[1]) > 0.9


def commands(code):
    """The calls of mupc in a block for the shell, with its variables put in."""
    lines = code.replace("\\\n", " ").splitlines()
    values = dict(re.findall(r'^(\w+)="(.*)"$', "\n".join(lines), re.MULTILINE))
    for line in lines:
        for name, value in values.items():
            line = line.replace(f"${name}", value)
        if line.startswith("mupc "):
            yield shlex.split(line.split(" > ")[0], comments=True)[1:]


COMMANDS = [
    (page.stem, words)
    for page in (ROOT / "README.md", *PAGES)
    for code in blocks(page, "bash")
    for words in commands(code)
]


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_the_commands_of_a_page_are_understood(page, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "NAME").mkdir(parents=True)
    (tmp_path / "runs" / "NAME" / "config.json").write_text('{"depth": 8}')
    (tmp_path / "run.toml").write_text("depth = 8\n")
    config = _parse(words)
    if isinstance(config, TrainConfig):
        resolve(config.config)
    if isinstance(config, TransferConfig):
        assert _plan(config).sizes


def test_there_are_commands_to_understand():
    assert {"README", "index", "runs", "sweeps", "regimes", "logging"} <= {
        page for page, _ in COMMANDS
    }


def hooks():
    pytest.importorskip("latex2mathml", reason="needs the extra docs")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_documented():
    names = [
        n for n in vars(mupc) if not n.startswith("_") and not inspect.ismodule(getattr(mupc, n))
    ]
    assert {"fit", "FreeEnergy", "GaussNewton", "Checkpoints"} <= set(names)
    assert [name for name in names if not inspect.getdoc(getattr(mupc, name))] == []
    reference = hooks().api()
    assert [name for name in names if f"::: mupc.{name}\n" not in reference] == []
    for module in ("data", "theory", "plots"):
        for name in hooks().public_names(f"mupc.{module}"):
            assert inspect.getdoc(getattr(importlib.import_module(f"mupc.{module}"), name))


def test_the_configuration_reference_has_every_field():
    table = hooks().configuration()
    for name, field in TrainConfig.__dataclass_fields__.items():
        (row,) = re.findall(rf"^\| `--{name.replace('_', '-')}` \|.*$", table, re.MULTILINE)
        cells = row.strip("| ").split(" | ")
        assert len(cells) == 4
        assert cells[2].strip() == ("" if field.default is None else f"`{field.default}`")


def test_formulas_become_mathml():
    page = (
        r'<p><span class="arithmatex">\(a &lt; b\)</span></p><div class="arithmatex">\[\rho\]</div>'
    )
    html = hooks().on_page_content(page)
    assert "arithmatex" not in html
    assert html.count("<math") == 2
    assert "<mo>&lt;</mo>" in html or "&#x0003C;" in html
