"""Layers by name: what a network says of its structure, and what reports make of it."""

import dataclasses

import jax
import pytest
from run_records import regime_record, write_run

import mupc
from mupc import plots
from mupc.records import layer_names, record_from

KEY = jax.random.key(0)
NETWORKS = {
    "entry, 2 × block; readout": lambda: mupc.residual_mlp(4, 3, width=2, depth=3, key=KEY),
    "entry, 2 × block; entry, 1 × block; readout": lambda: mupc.conv_resnet(
        (4, 4, 1), 3, blocks=(2, 1), channels=2, key=KEY
    ),
    "entry; entry, 1 × block; entry, 1 × block; readout": lambda: mupc.conv_decoder(
        2, (4, 4, 1), doublings=1, blocks=1, channels=2, key=KEY
    ),
    "entry; entry; readout": lambda: mupc.vgg((4, 4, 1), 3, layers="2p 3", key=KEY),
    "entry, 3 × (attention, perceptron); readout": lambda: mupc.transformer(
        5, context=4, pairs=3, width=4, key=KEY
    ),
}
NAMES = {
    "": (),
    "entry; readout": ("entry", "readout"),
    "entry, 2 × block; readout": ("entry", "block 1", "block 2", "readout"),
    "entry, 2 × (attention, perceptron); entry; readout": (
        *("entry 1", "attention 1.1", "perceptron 1.1", "attention 1.2", "perceptron 1.2"),
        *("entry 2", "readout"),
    ),
}


@pytest.mark.parametrize("structure", NAMES)
def test_names_follow_from_a_line(structure):
    assert layer_names(structure) == NAMES[structure]


@pytest.mark.parametrize("structure", NETWORKS)
def test_a_network_says_how_it_is_built(structure):
    network = NETWORKS[structure]()
    assert network.structure == structure
    assert len(layer_names(structure)) == network.depth + 1


def regime(structure, change):
    layers = ("energy_before", "energy_after", "scale", "cosine", "ratio")
    parts = {name: [0.5] * len(change) for name in layers}
    return {**regime_record(10), **parts, "change": change, "diagnostics": {}, "layers": structure}


STAGES = "entry, 2 × block; entry, 2 × block; readout"


def test_the_report_names_the_layers_that_did_not_learn():
    record = record_from(regime(STAGES, [1.0, 0.5, 0.5, 0.5, 0.01, 0.5, 1.0]))
    assert record.unlearned == ["block 2.1"]
    assert record.sentence().endswith("; not learning: block 2.1")
    # Layers of one kind have numbers; where none learns, all are meant.
    plain = record_from(regime("entry, 3 × block; readout", [1.0, 0.5, 0.01, 0.5, 1.0]))
    assert plain.unlearned == ["3"]
    assert "not learning" not in plain.sentence()
    none = dataclasses.replace(record, change=(0.0,) * 7)
    assert "not learning" not in none.sentence()
    many = dataclasses.replace(
        record, change=(1.0, *[0.5 if i == 0 else 0.01 for i in range(24)], 1.0),
        layers="entry, 24 × (attention, perceptron); readout".replace("24", "12"),
    )  # fmt: skip
    assert many.sentence().endswith("perceptron 1, attention 2, perceptron 2, attention 3, "
                                    "perceptron 3, attention 4 and 17 more")  # fmt: skip


def test_profiles_have_a_line_for_each_kind_of_layer_and_a_border_for_each_stage(tmp_path):
    pairs = "entry, 2 × (attention, perceptron); readout"
    records = [regime(pairs, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])]
    run = plots.read_run(write_run(tmp_path / "text", records))
    lines = plots.layer_profiles([run], "change").axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[0.1, 0.6], [0.2, 0.4], [0.3, 0.5]]
    assert [line.get_label() for line in lines] == [
        f"text, {kind}, step 10" for kind in ("entry and readout", "attention", "perceptron")
    ]
    assert [line.get_linestyle() for line in lines] == ["None", "-", ":"]
    both = [{**regime(pairs, [0.1] * 6), "step": step} for step in (0, 10)]
    run = plots.read_run(write_run(tmp_path / "both", both))
    lines = plots.layer_profiles([run], "scale").axes[0].lines
    assert [line.get_linestyle() for line in lines] == ["None", "-", ":"] * 2
    assert [line.get_alpha() for line in lines] == [0.4] * 3 + [1.0] * 3
    records = [regime(STAGES, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])]
    run = plots.read_run(write_run(tmp_path / "images", records))
    border, profile = plots.layer_profiles([run], "change").axes[0].lines
    assert set(border.get_xdata()) == {3.5}  # before "entry 2", the fourth layer
    assert list(profile.get_ydata()) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    page = plots.write_report([tmp_path / "text"], tmp_path / "report").read_text("utf-8")
    assert "A line for each kind of layer: attention, perceptron (solid, dotted, …)." in page
