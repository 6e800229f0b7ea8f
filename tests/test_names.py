"""A setting is declared once: its name is in the settings, in what builds from it, nowhere else."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import mupc
from mupc.settings.configuration import KINDS, TABLES, known_names

SOURCE = Path(mupc.__file__).parent
FIELDS = sorted(set(known_names()) - set(KINDS))

# What is built from a setting outside the room of settings, and what else goes by the same name.
BUILT = {
    "batch_size": {"runs/setup.py", "runs/run.py", "runs/survey.py", "commands/train.py"},
    # --extend is a way to say it; a run keeps what it began with; `mupc theory` refuses it.
    "init_from": {"runs/setup.py", "runs/run.py", "runs/survey.py", "commands/train.py"},
    "layout": {"runs/run.py", "runs/survey.py", "commands/train.py"},
    "out": {"runs/run.py", "runs/survey.py", "commands/sweep.py", "sweeps/folder.py"},
    "seed": {"runs/setup.py", "runs/survey.py", "records/sweep.py"},  # repetitions are averaged
    "steps": {"runs/survey.py"},
    "tensorboard": {"runs/run.py", "runs/setup.py"},
}
# Parameters of scikit-learn's own.
_ESTIMATOR, _PARAMETERS = "sklearn/estimator.py", "sklearn/parameters.py"
ESTIMATORS = {
    "batch_size": {_ESTIMATOR, _PARAMETERS},
    "early_stopping": {_ESTIMATOR},
    "epochs": {_ESTIMATOR, _PARAMETERS},
    "seed": {_ESTIMATOR},
}
ALIKE = {
    # Fields of records, splits of data, and arguments of the library.
    "coordinates": {"plots/report.py"},
    "depth": {"networks/mesh.py", "plots/theory.py"},
    "epochs": {"training/plan.py"},
    "error_kernels": {"networks/decoder.py"},
    "layout": {"training/fit.py", "training/step.py"},
    "precision": {"training/report.py"},
    "rho": {
        "learning/predictive_coding.py",
        "plots/sweep.py",
        "runs/survey.py",
        "training/report.py",
    },
    "samples": {"runs/survey.py"},
    "scale": {"plots/layers.py", "plots/report.py", "training/report.py"},
    "temperature": {"commands/generate.py"},
    "validation": {
        *("commands/evaluate.py", "commands/pictures.py"),
        "data/arrays.py",
        "data/requirements.py",
        "data/text.py",
        "plots/outcome.py",
        "plots/runs.py",
        "records/folder.py",
        "records/types.py",
        "runs/run.py",
        "runs/stored.py",
        "sweeps/points.py",
        "training/session.py",
    },
    "width": {"plots/theory.py"},
}


def named(tree):
    """Fields that a module reads from a table of settings, or calls by their names."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Attribute(value=owner, attr=table), attr=field):
                config = owner.attr if isinstance(owner, ast.Attribute) else ast.unparse(owner)
                if table in TABLES and config.endswith("config"):
                    yield field
            case ast.Constant(value=str(text)):
                yield text
            case _:
                pass


@pytest.fixture(scope="module")
def places():
    found = defaultdict(set)
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE)
        if place.parts[0] != "settings":
            for name in named(ast.parse(path.read_text("utf-8"))):
                found[name].add(place.as_posix())
    return found


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_is_named_where_it_is_built_from_alone(field, places):
    allowed = BUILT.get(field, set()) | ALIKE.get(field, set())
    if field in ESTIMATORS:
        allowed = allowed | ESTIMATORS[field]
    assert places[field] == allowed


def test_scripts_that_are_imported_by_name_have_names_of_their_own():
    root = Path(__file__).parent.parent
    names = [
        path.stem for room in ("benchmarks", "experiments") for path in (root / room).glob("*.py")
    ]
    assert len(names) == len(set(names)) > 20
