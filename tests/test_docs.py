"""The pages of docs/: their code runs, commands run, every public name is there."""

import importlib
import importlib.util
import inspect
import itertools
import pathlib
import re
import shlex
import shutil
import sys
import types

import numpy as np
import pytest

import mupc
from mupc.commands import main as program
from mupc.commands.main import main
from mupc.settings import Configuration
from mupc.settings.configuration import KINDS
from mupc.settings.files import preset
from mupc.settings.setting import option

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
    "page",
    [
        # The pages that a reader begins with are in the fast set.
        pytest.param(page, marks=[] if page.stem in ("index", "data") else pytest.mark.full)
        for page in PAGES
        if blocks(page, "python")
    ],
    ids=lambda page: page.stem,
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
    "train": "--depth 2 --width 8 --steps 2 --report-every 0",
    "sweep": "--depth 2 --width 8 --steps 2 --report-every 0",
    "theory": "--depths 2 --widths 8 --samples 4 --hessians 1",
}

NETWORKS = {
    "conv-resnet": "--blocks 1 --channels 2 --steps 2 --report-every 0",
    "vgg": "--layers 2p --steps 2 --report-every 0",
    "vision-transformer": "--pairs 1 --width 8 --patch 4 --steps 2 --report-every 0",
    "class-decoder": "--latents 3 --depth 2 --width 8 --steps 2 --report-every 0",
    "conv-decoder": "--latents 2 --doublings 1 --channels 2 --steps 2 --report-every 0",
    "decoder": "--latents 3 --depth 2 --width 8 --steps 2 --report-every 0",
    "layered-hopfield": "--couplings d8 --steps 2 --report-every 0",
    "residual-hopfield": "--depth 2 --width 8 --steps 2 --report-every 0",
    "transformer": "--pairs 1 --width 8 --context 8 --batch-size 4 --steps 2 --report-every 0",
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
    if given.get("--dataset") in (["mnist"], ["cifar10"]) or "--preset" in given:
        given["--dataset"] = ["digits"]  # there without a download
    usual = options(shlex.split(USUAL.get(words[0], "")))
    of_preset = preset(given["--preset"][0]).network.kind if "--preset" in given else ""
    if (own := NETWORKS.get(" ".join(given.get("--network", [of_preset])))) is not None:
        usual = options(shlex.split(own))
    if "--layout" in given:
        usual["--depth"] = ["9"]  # an entry, and layers that its devices divide
    given |= {name: values for name, values in usual.items() if name}
    return [word for name, values in given.items() for word in [*([name] if name else []), *values]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has ended."""
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main([*smaller(["train", "--out", str(out)])[:-1], "2"]) == 0  # with reports
    return out


def stopped(words):
    """Let a run that the call resumes be as if it had been killed before it ended; others ended."""
    if "--resume" in words:
        pathlib.Path(words[words.index("--resume") + 1], "result.json").unlink(missing_ok=True)
    if "--extend" in words:
        run = pathlib.Path(words[words.index("--extend") + 1])
        shutil.copy(run.parent / "C" / "result.json", run / "result.json")


CALLS = {
    page.stem: calls
    for page in (ROOT / "README.md", *PAGES)
    if (calls := [call for code in blocks(page, "bash") for call in commands(code)])
}


def test_there_are_commands_to_run():
    assert {"README", "index", "runs", "sweeps", "regimes", "logging"} <= CALLS.keys()
    assert {"troubleshooting", "choosing"} <= CALLS.keys()


@pytest.fixture
def folder(trained, monkeypatch, tmp_path):
    """Where the files are that the commands of the pages read."""
    monkeypatch.chdir(tmp_path)
    for name in ("NAME", "A", "B", "C"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    (tmp_path / "run.toml").write_text("depth = 2\n")
    generator = np.random.default_rng(0)
    (tmp_path / "book.txt").write_text("It was the best of times. " * 40)
    np.savez(tmp_path / "mine.npz", x=generator.normal(size=(80, 4)), y=np.arange(80) % 2)
    return tmp_path


class UnderstoodError(Exception):
    """What was typed has a meaning."""


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", CALLS)
def test_the_commands_of_a_page_are_understood(page, monkeypatch):
    """As they are written: every option is one of its command, with a value that it takes."""
    for words, _ in CALLS[page]:
        if words[0].startswith("-"):
            assert main(words) == 0
            continue
        module = importlib.import_module(f"mupc.commands.{words[0]}")
        stopped(words)

        def parse(*arguments, real=module.parse):
            raise UnderstoodError(real(*arguments))

        with monkeypatch.context() as patched:
            patched.setattr(module, "parse", parse)
            with pytest.raises(UnderstoodError):
                program._run(words)


SWEEP = "sweep runs/rates --depth 2 --width 8 --steps 2 --report-every 0 --grid seed=0,1"


def one_of_each(calls):
    """A call of every command, and of every way to begin a run."""
    seen = set()
    for words, file in calls:
        ways = {words[0], *{"--resume", "--extend", "--init-from", "--file"}.intersection(words)}
        if ways - seen:
            yield words, file
        seen |= ways


def test_a_command_of_each_kind_in_the_readme_runs(folder, capsys):
    run(one_of_each(CALLS["README"]), folder, capsys)


@pytest.mark.full
@pytest.mark.parametrize("page", CALLS)
def test_the_commands_of_a_page_run(page, folder, capsys):
    named = [words[0] for words, _ in CALLS[page] if "runs/rates" in words]
    if named and named[0] != "sweep":  # the page speaks of one that another page made
        assert main(SWEEP.split()) == 0
    run(CALLS[page], folder, capsys)


def run(calls, folder, capsys):
    for words, file in calls:
        stopped(words)
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


def reference():
    """All pages of the reference of names, as they are built."""
    build = hooks().on_page_markdown
    return "".join(build(page.read_text()) for page in PAGES if page.stem.startswith("api"))


def test_every_public_name_is_documented_once():
    names = hooks().public_names("mupc")
    assert {"fit", "FreeEnergy", "GaussNewton", "Checkpoints", "load_network"} <= set(names)
    listed = {n for n in vars(mupc) if not n.startswith("_")} - {"Any", "TYPE_CHECKING"}
    assert {n for n in listed if not inspect.ismodule(getattr(mupc, n))} <= set(names)
    assert [name for name in names if not inspect.getdoc(getattr(mupc, name))] == []
    documented = re.findall(r"^::: (.+)$", reference(), re.MULTILINE)
    assert sorted(documented) == sorted(set(documented))
    assert {f"mupc.{name}" for name in names} <= set(documented)
    for module in ("data", "theory", "plots", "sklearn", "runs"):
        assert {f"mupc.{module}.{n}" for n in hooks().public_names(f"mupc.{module}")} <= set(
            documented
        )


def test_all_that_is_documented_is_there():
    for path in re.findall(r"^::: (.+)$", reference(), re.MULTILINE):
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path


def every_kind():
    return [kind for kinds in KINDS.values() for kind in kinds.values()]


def test_the_configuration_reference_has_every_field_of_every_kind():
    text = hooks().configuration()
    sections = dict(re.findall(r"^##+ (.+)\n((?:(?!#).*\n?)*)", text, re.MULTILINE))
    groups = [(f"`{option(kind.slot)} {kind.kind}`", kind) for kind in every_kind()]
    config = Configuration()
    groups += [("training", type(config.training)), ("run", type(config.run))]
    for title, group in groups:
        rows = re.findall(r"^\| `--([a-z-]+)` \| (.+)$", sections[title], re.MULTILINE)
        assert [name.replace("-", "_") for name, _ in rows] == list(group.own_fields())
        for (name, row), field in zip(rows, group.own_fields().values(), strict=True):
            takes, default, text = row.removesuffix(" |").split(" | ")
            assert takes
            assert " ".join(field.description.split()) == text, name
            if not field.is_required() and isinstance(field.default, int | float | str):
                shown = field.default
                shown = str(shown).lower() if isinstance(shown, bool) else shown
                assert default == f"`{shown}`"


def test_the_configuration_reference_says_what_values_a_field_takes():
    text = hooks().configuration()
    assert "| `--depth` | whole number from 1 | `128` |" in text
    assert "| `--step-size` | number above 0, or `stable` | `0.25` |" in text
    assert "| `--momentum` | number from 0 and below 1 | `0.0` |" in text
    assert "| `--path` | path | must be given |" in text


def test_the_configuration_reference_names_the_table_of_every_setting():
    """Where a file has it: a file of the tables that the page names is a configuration."""
    places = set(re.findall(r"^In a file: `\[(.+)\]`", hooks().configuration(), re.MULTILINE))
    config = Configuration()
    tables = {name for name, _ in tables_of(config.tables())}
    assert places == tables
    assert len(places) == len(KINDS) + 2


def tables_of(table, place=""):
    for name, value in table.items():
        if isinstance(value, dict):
            inner = f"{place}.{name}" if place else name
            yield from itertools.chain([(inner, value)], tables_of(value, inner))


def test_formulas_become_mathml():
    page = (
        r'<p><span class="arithmatex">\(a &lt; b\)</span></p><div class="arithmatex">\[\rho\]</div>'
    )
    html = hooks().on_page_content(page)
    assert "arithmatex" not in html
    assert html.count("<math") == 2
    assert "<mo>&lt;</mo>" in html or "&#x0003C;" in html
