"""The pages of docs/: their code runs, commands run, every public name is there."""

import importlib
import importlib.util
import inspect
import os
import pathlib
import re
import shlex
import shutil
import sys
import types

import numpy as np
import pytest

import mupc
from mupc.cli import TrainCommand, _parse, main
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
        assert len(accuracies) == 7
        assert min(accuracies) > 0.85
        residuals = [float(found) for found in re.findall(r"residual (\S+)$", told, re.MULTILINE)]
        assert residuals[0] < 0.5 * residuals[1]  # momentum pays
    if page.stem == "logging":
        assert wandb[-1] == "end"
        assert any("train/loss" in values for _, values in wandb[:-1])
    if page.stem == "index":
        assert float(re.search(r"accuracy (0\.\d+)", told)[1]) > 0.9


# Sizes at which the commands of the pages take a moment: what stands there is for the reader.
USUAL = {
    "train": "--depth 2 --width 8 --steps 2 --report-every 2",
    "sweep": "--depth 2 --width 8 --steps 2 --report-every 0",
    "transfer": "--depth 2 --width 8 --steps 2 --sizes 3x8 --learning-rates 0.01 --rhos 0.05 "
    "--seeds 0",
    "theory": "--depths 2 --widths 8 --samples 4 --hessians 1",
}


def commands(code):
    """The calls of mupc in a block for the shell, its variables put in, and where output goes."""
    lines = code.replace("\\\n", " ").splitlines()
    values = dict(re.findall(r'^(\w+)="(.*)"$', "\n".join(lines), re.MULTILINE))
    for line in lines:
        for name, value in values.items():
            line = line.replace(f"${name}", value)
        if line.startswith("mupc "):
            call, *file = line.partition(" #")[0].split(" > ")
            yield shlex.split(call)[1:], [name.strip() for name in file]


def options(words):
    """The values of each option, by name; of none, what stands before the first."""
    found = {None: []}
    for word in words:
        values = found.setdefault(word, []) if word.startswith("--") else [*found.values()][-1]
        if not word.startswith("--"):
            values.append(word)
    return found


def smaller(words):
    """The same call at such sizes; a run that goes on has its own."""
    given = options(words)
    if "--resume" in given:
        return words
    given.pop("--epochs", None)  # steps take their place
    if "--train" in given:
        given["--train"] = ["0", "2"]
    if given.get("--dataset") == ["mnist"] or "--preset" in given:
        given["--dataset"] = ["digits"]  # there without a download
    usual = options(shlex.split(USUAL.get(words[0], "")))
    given |= {name: values for name, values in usual.items() if name}
    return [word for name, values in given.items() for word in [*([name] if name else []), *values]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that is as if it had been killed before it ended."""
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main(smaller(["train", "--out", str(out)])) == 0
    (out / "result.json").unlink()
    return out


CALLS = {
    page.stem: calls
    for page in (ROOT / "README.md", *PAGES)
    if (calls := [call for code in blocks(page, "bash") for call in commands(code)])
}


def test_there_are_commands_to_run():
    assert {"README", "index", "runs", "sweeps", "regimes", "logging"} <= CALLS.keys()


@pytest.fixture
def folder(trained, monkeypatch, tmp_path):
    """Where the files are that the commands of the pages read."""
    monkeypatch.chdir(tmp_path)
    for name in ("NAME", "A", "B", "C"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    (tmp_path / "run.toml").write_text("depth = 2\n")
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=generator.normal(size=(80, 4)), y=np.arange(80) % 2)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", CALLS)
def test_the_commands_of_a_page_are_understood(page):
    """As they are written."""
    for words, _ in CALLS[page]:
        config = _parse(words)
        if isinstance(config, TrainCommand) and config.resume is None:
            resolve(config.config)
        if isinstance(config, TransferConfig):
            assert _plan(config).sizes


@pytest.mark.parametrize("page", CALLS if "MUPC_FULL" in os.environ else ["README"])
def test_the_commands_of_a_page_run(page, folder, capsys):
    for words, file in CALLS[page]:
        assert main(smaller(words)) == 0, words
        told = capsys.readouterr().out
        assert told
        for name in file:
            (folder / name).write_text(told)


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
