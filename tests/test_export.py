"""Networks in files: what was written is read, anything else gets a sentence."""

import contextlib
import dataclasses
import hashlib
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from test_checkpoints import full_disk

import mupc
from mupc import runs
from mupc.records import RunError
from mupc.settings import Configuration

KEY = jax.random.key(3)


def network(width=8, depth=3, **options):
    return mupc.residual_mlp(4, 2, width=width, depth=depth, biases=True, key=KEY, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps on the digits."""
    out = str(tmp_path_factory.mktemp("run") / "run")
    settings = {"depth": 3, "width": 8, "steps": 2, "report_every": 0, "out": out}
    return runs.train(Configuration().changed(settings))


def test_what_is_saved_is_loaded(tmp_path):
    path, saved = tmp_path / "network.safetensors", network()
    mupc.save_network(path, saved)
    loaded = mupc.load_network(path, jax.tree.map(jnp.zeros_like, saved))
    assert eqx.tree_equal(loaded, saved)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_any_program_can_read_the_arrays(tmp_path):
    path, saved = tmp_path / "network.safetensors", network()
    mupc.save_network(path, saved)
    arrays = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(arrays[".readout.weights"], saved.readout.weights)
    assert arrays[".stages[0].blocks[0].weights"].shape == (2, 8, 8)


def test_a_runs_network_is_built_from_its_file_alone(trained):
    path = trained.folder.path / "network.safetensors"
    loaded, x = mupc.load_network(path), trained.data.test.x[:5]
    np.testing.assert_array_equal(
        loaded.feedforward(x).output, trained.result.network.feedforward(x).output
    )
    with safetensors.safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["mupc"].partition(" ")[2])
    assert about["data"].startswith("digits: Pixels from 0 to 16, then (x − ")
    assert (about["inputs"], about["outputs"]) == ([64], 10)


def test_a_network_that_the_file_cannot_build_is_asked_for(tmp_path):
    mupc.save_network(tmp_path / "a.safetensors", network())
    with pytest.raises(RunError, match="does not say how to build its network: give load_network"):
        mupc.load_network(tmp_path / "a.safetensors")


@pytest.mark.usefixtures("unchecked")
def test_another_network_is_refused_by_what_differs(tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    mupc.save_network(whole, network())
    mupc.save_network(cut, dataclasses.replace(network(), readout=None))
    sentence = r"of another network: it differs in .*weights \(float32 8x4 there, float32 9x4 here"
    with pytest.raises(RunError, match=sentence):
        mupc.load_network(whole, network(width=9))
    with pytest.raises(RunError, match=r"differs in .*biases \(none there, float32 2 here"):
        mupc.load_network(cut, network())


def test_files_that_are_no_networks_get_a_sentence(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(RunError, match="is no file"):
        mupc.load_network(path)
    path.write_bytes(b"no network")
    with pytest.raises(RunError, match="is damaged"):
        mupc.load_network(path)
    safetensors.numpy.save_file({"a": np.zeros(3)}, path)
    with pytest.raises(RunError, match="was not written by mupc"):
        mupc.load_network(path)
    newer = '{"format": 7}'
    about = {"mupc": f"{hashlib.sha256(newer.encode()).hexdigest()} {newer}"}
    safetensors.numpy.save_file({"a": np.zeros(3)}, path, about)
    with pytest.raises(RunError, match="is of format 7, and this version of mupc reads 1"):
        mupc.load_network(path)


def test_other_settings_are_another_network(tmp_path):
    """The shapes are the same, and what the network computes is not."""
    mupc.save_network(tmp_path / "a.safetensors", network(activation=jax.nn.relu))
    for other, differs in [
        (network(activation=jnp.tanh), r"\.blocks\[0\]\.activation \(relu there, tanh here\)"),
        (network(activation=jax.nn.relu, parameterisation=mupc.mupc(2.0)), r"\.scales\[0\]\."),
        (network(activation=jax.nn.relu, parameterisation=mupc.ntk()), r"\.scales\[0\]\."),
    ]:
        with pytest.raises(RunError, match=f"is of another network: it differs in .*{differs}"):
            mupc.load_network(tmp_path / "a.safetensors", other)


def test_what_an_older_version_told_of_functions_does_not_refuse_its_file(tmp_path):
    """It read their code: names, constants, and what they held."""

    def local(z):
        return jnp.tanh(2 * z)

    path, place = tmp_path / "a.safetensors", ".stages[0].blocks[0].activation"
    for activation in (local, lambda z: jnp.tanh(2 * z)):
        saved = network(activation=activation)
        mupc.save_network(path, saved)
        with safetensors.safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["mupc"].partition(" ")[2])
        old = {place: activation.__name__, f"{place}.holds": "dict", f"{place}.constants[1]": 2}
        text = json.dumps(about | {"settings": about["settings"] | old})
        metadata = {"mupc": f"{hashlib.sha256(text.encode()).hexdigest()} {text}"}
        safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, metadata)
        assert eqx.tree_equal(mupc.load_network(path, saved), saved)
    with pytest.raises(RunError, match=r"activation \(<lambda> there, tanh here\)"):
        mupc.load_network(path, network(activation=jnp.tanh))


def test_one_function_more_is_another_network(tmp_path):
    layers = [eqx.nn.Linear(4, 3, key=KEY), eqx.nn.Linear(3, 2, key=KEY), jax.nn.softmax]
    shorter, longer = (
        mupc.chain_from_modules(all_, jnp.zeros(4)) for all_ in (layers, [*layers, jnp.exp])
    )
    mupc.save_network(tmp_path / "a.safetensors", shorter)
    with pytest.raises(RunError, match=r"\(tuple of 2 there, tuple of 3 here\)"):
        mupc.load_network(tmp_path / "a.safetensors", longer)


def test_the_folder_of_a_run_names_the_file_in_it(trained):
    with pytest.raises(RunError, match=r"is a folder: the network of that run is .*safetensors"):
        mupc.load_network(trained.folder.path)


def test_what_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"give a network such as mupc\.Chain, not dict"):
        mupc.save_network(tmp_path / "a.safetensors", {"weights": np.ones(3)})
    with pytest.raises(FileNotFoundError) as told:
        mupc.save_network(tmp_path / "none" / "a.safetensors", network())
    assert told.value.filename == str(tmp_path / "none" / "a.safetensors")


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_damage_at_random_places_is_never_loaded_silently(damage, tmp_path, trained):
    """Of a run's network; half of the places in the description that it is built from."""
    path, refused = tmp_path / "a.safetensors", 0
    whole = (trained.folder.path / "network.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    generator = np.random.default_rng(0)
    places = [*generator.integers(0, header, 20), *generator.integers(header, len(whole), 20)]
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(content if damage == "flipped" else whole[:place])
        loaded = None
        with contextlib.suppress(RunError):
            loaded = mupc.load_network(path)
        refused += loaded is None
        assert loaded is None or eqx.tree_equal(loaded, trained.result.network)
    assert refused >= 38


def test_a_full_disk_leaves_the_network_before(tmp_path):
    path = tmp_path / "a.safetensors"
    mupc.save_network(path, network())
    with full_disk(300), pytest.raises(OSError, match="File too large"):
        mupc.save_network(path, network())
    assert eqx.tree_equal(mupc.load_network(path, network()), network())
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_disk_that_is_full_at_the_end_of_a_run_loses_nothing(tmp_path, trained):
    config = trained.config.changed({"out": str(tmp_path / "run")})
    with pytest.raises(RunError, match=r"\(File too large\): when .* --resume "), full_disk(2500):
        runs.train(config)
    runs.resume(tmp_path / "run")
    again = (tmp_path / "run" / "network.safetensors").read_bytes()
    assert again == (trained.folder.path / "network.safetensors").read_bytes()
