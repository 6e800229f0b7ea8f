"""Digits, the validation split, what data sets are, and the order of batches."""

import hashlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets

import mupc
from mupc.data import (
    DataError,
    Dataset,
    Split,
    Weights,
    available,
    batch_indices,
    check_dataset,
    check_split,
    evaluation_batches,
    load,
    one_hot,
    steps_per_epoch,
)


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("MUPC_DATA", raising=False)
    monkeypatch.setenv("MUPC_CACHE", str(tmp_path / "cache"))


def save(tmp_path, **arrays):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    return str(path)


def rows(x, labels):
    """The samples as a sorted list of tuples, to compare sets of samples with repetitions."""
    return sorted((*map(float, image), int(label)) for image, label in zip(x, labels, strict=True))


# Names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("fashion_mnist", "fashion-mnist"), ("CIFAR-10", "cifar10"), ("digit", "digits")],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all_known(name, nearest):
    with pytest.raises(DataError, match=f"'{name}': did you mean {nearest}\\? .*mnist, .*npz"):
        load(name)


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(DataError, match=r"'qqq': Known are digits, .*, shakespeare, and"):
        load("qqq")


@pytest.mark.parametrize("name", ["digits", "mine.npz"])
def test_a_data_folder_that_would_not_be_read_is_refused(name, tmp_path):
    with pytest.raises(DataError, match=f"{name} is not read from a data folder"):
        load(name, data_dir=tmp_path)


def test_importing_data_loads_neither_jax_nor_the_download_nor_scikit_learn():
    script = (
        "import sys, types, importlib.util as u\n"
        "package = types.ModuleType('mupc')\n"  # without what mupc/__init__ itself imports
        "package.__path__ = u.find_spec('mupc').submodule_search_locations\n"
        "sys.modules['mupc'] = package\n"
        "import mupc.data\n"
        "print({'jax', 'pooch', 'requests', 'sklearn'} & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "set()\n", run.stderr


# Digits


def test_digits_are_scikit_learns_standardised_and_split_once():
    data = load("digits", validation=0.1)
    assert (data.name, data.inputs, data.outputs) == ("digits", 64, 10)
    assert [len(split.x) for split in (data.train, data.validation, data.test)] == [1293, 144, 360]
    x = np.concatenate([data.train.x, data.validation.x, data.test.x])
    y = np.concatenate([data.train.y, data.validation.y, data.test.y])
    assert x.dtype == y.dtype == np.float32
    assert set(np.unique(y)) == {0, 1}
    np.testing.assert_array_equal(y.sum(1), 1)
    images, labels = datasets.load_digits(return_X_y=True)
    assert x.shape == (1797, 8, 8, 1)
    pixels = np.round(x * 6.0179 + 4.8861).reshape(-1, 64)
    assert rows(pixels, y.argmax(1)) == rows(images, labels)
    assert data.classes == tuple(range(10))
    np.testing.assert_allclose(x * 6.0179 + 4.8861, np.round(x * 6.0179 + 4.8861), atol=1e-5)
    # Stratified: a fifth of each class, up to rounding.
    assert np.abs(data.test.y.sum(0) - np.bincount(labels) / 5).max() < 1
    assert "4.8861" in data.normalisation
    assert "6.0179" in data.normalisation


def test_the_constants_of_digits_are_those_of_the_training_split():
    x = load("digits", validation=0).train.x
    assert abs(x.mean(dtype=float)) < 1e-5
    assert abs(x.std(dtype=float) - 1) < 1e-5


# The validation split


@given(n=st.integers(2, 200), fraction=st.floats(0.01, 0.5))
def test_training_and_validation_splits_make_up_the_data(n, fraction, tmp_path_factory):
    path = save(tmp_path_factory.mktemp("v"), x=np.arange(n)[:, None], y=np.arange(n))
    data = load(path, validation=fraction)
    train, held = data.train.x[:, 0], data.validation.x[:, 0]
    assert len(held) == max(1, round(fraction * n))
    assert not set(train) & set(held)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held])), np.arange(n))
    np.testing.assert_array_equal(data.train.y.argmax(1), train)  # the targets moved along
    np.testing.assert_array_equal(data.validation.y.argmax(1), held)
    np.testing.assert_array_equal(load(path, validation=fraction).validation.x[:, 0], held)


def test_the_validation_split_is_no_stretch_of_the_file(tmp_path):
    path = save(tmp_path, x=np.arange(1000)[:, None], y=np.zeros(1000, int))
    held = load(path, validation=0.1).validation.x
    assert abs(held.mean() - 499.5) < 100  # 3.5 standard errors of a uniform sample of 100
    other = load(path, validation=0.1, seed=1).validation.x
    assert len(np.intersect1d(held, other)) < 30  # 10 expected of two independent hundreds
    for loaded in (load(path, validation=0), load(path)):  # as nothing is held out unless asked for
        np.testing.assert_array_equal(loaded.train.x[:, 0], np.arange(1000))
        assert loaded.validation is None


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_validation_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(DataError, match=r"validation is .*at least 0, below 1"):
        load("digits", validation=fraction)


def test_a_validation_split_that_takes_everything_is_refused(tmp_path):
    path = save(tmp_path, x=np.ones((3, 2)), y=np.arange(3))
    with pytest.raises(DataError, match=r"of the 3 training samples of mine.npz leaves none"):
        load(path, validation=0.9)


def test_available_knows_digits_and_finds_nothing_else_here():
    states = available()
    assert states.pop("digits") == "built in"
    assert set(states) == {
        "mnist",
        "color-mnist",
        "fashion-mnist",
        "cifar10",
        "cifar100",
        "shakespeare",
    }
    assert set(states.values()) == {"not on this machine; fetched when first used"}


# Whoever makes a data set of their own


TWO = np.ones((2, 3))


def sound(n=4, **parts):
    arrays = {
        "x": np.ones((n, 2, 3), np.float32),
        "y": np.eye(2, dtype=np.float32)[np.arange(n) % 2],
    }
    return Split(**{**arrays, **parts})


@pytest.mark.parametrize(
    ("split", "error", "words"),
    [
        ((TWO, TWO), TypeError, r"^it: expected a Split such as data\.test, got tuple"),
        (sound(x=[[1.0]] * 4), TypeError, "^x of it must be an array of real numbers, not of list"),
        (sound(x=TWO * 1j), TypeError, "^x of it must be an array .*, not of complex128"),
        (sound(y=np.arange(4)), ValueError, r"^y of it has shape \(4,\): .*mupc\.data\.one_hot"),
        (sound(0, y=np.ones((0, 2))), ValueError, r"^x of it is empty: .*\(0, 2, 3\)"),
        (sound(x=np.ones((3, 2))), ValueError, "^it has 3 samples in x and 4 in y"),
        (sound(x=np.array([[1], [np.nan], [np.inf], [0]])), ValueError, "in 2 of 4 .*number 1:"),
        (sound(y=np.array([[1], [0], [np.inf], [-np.inf]])), ValueError, "in 2 of 4 .*number 2:"),
    ],
)
def test_a_split_that_cannot_be_trained_on_is_named(split, error, words):
    with pytest.raises(error, match=words):
        check_split(split, "it")


def test_sound_data_of_any_kind_are_taken():
    tokens = Split(np.arange(6).reshape(3, 2), np.eye(4)[np.ones((3, 2), int)])
    check_dataset(Dataset("own", tokens, None, tokens, "None."))
    check_dataset(Dataset("own", sound(), sound(2), None, "None."))
    # Their sum is beyond what a number can be, and each of them is finite.
    check_split(sound(x=np.full((4, 2), 1.7e308)), "it")
    check_dataset(load("digits"))


def test_a_data_set_names_the_split_that_is_wrong():
    with pytest.raises(TypeError, match=r"data must be a mupc\.data\.Dataset, got Split: "):
        check_dataset(sound())
    with pytest.raises(ValueError, match="x of the test split is not finite in 4 of 4 samples"):
        check_dataset(Dataset("own", sound(), None, sound(x=np.full((4, 6), np.nan)), "None."))
    words = r"^x of the validation split has samples of shape \(6,\), and .* shape \(2, 3\)$"
    with pytest.raises(ValueError, match=words):
        check_dataset(Dataset("own", sound(), sound(x=np.ones((4, 6))), None, "None."))


def test_labels_become_rows():
    targets = one_hot(np.array([2, 0]), 3)
    np.testing.assert_array_equal(targets, [[0, 0, 1], [1, 0, 0]])
    check_split(sound(2, y=targets), "it")


def test_images_have_a_shape_and_rows_are_made_of_them():
    """A pixel after the other, row by row, with the channels of each together."""
    x = np.zeros((5, 2, 3, 4), np.float32)
    x[1, 1, 2, 3], x[2, 0, 1, 2], x[3, 1, 0, 0] = 1, 2, 3
    y = np.eye(5, dtype=np.float32)
    data = Dataset("own", Split(x, y), Split(x[:2], y[:2]), None, "None.", tuple("abcde"))
    assert (data.shape, data.inputs) == ((2, 3, 4), 24)
    flat = data.flattened()
    assert (flat.shape, flat.inputs, flat.classes) == ((24,), 24, data.classes)
    assert [np.flatnonzero(row).tolist() for row in flat.train.x] == [[], [23], [6], [12], []]
    assert flat.validation.x.shape == (2, 24)
    assert flat.test is None
    np.testing.assert_array_equal(flat.train.y, y)
    again = flat.flattened()
    np.testing.assert_array_equal(again.train.x, flat.train.x)


def test_an_mlp_asks_for_rows():
    data = Dataset.from_arrays(np.ones((8, 2, 3, 1)), np.arange(8) % 2)
    network = mupc.residual_mlp(6, 2, width=4, depth=2, key=jax.random.key(0))
    train = lambda data: mupc.fit(
        network,
        data,
        mupc.Backpropagation(),
        optax.sgd(0.1),
        steps=1,
        batch_size=4,
        key=jax.random.key(1),
    )
    with pytest.raises(
        ValueError, match=r"of shape \(6,\) .*not \(2, 3, 1\): .*data\.flattened\(\)"
    ):
        train(data)
    with pytest.raises(ValueError, match=r"data\.flattened\(\)"):
        mupc.evaluate(network, data.train)
    assert train(data.flattened()).steps == 1
    assert mupc.evaluate(network, data.flattened().train).samples == 8


def test_a_data_set_is_shown_by_its_shapes():
    x = np.arange(60_000, dtype=np.float32).reshape(-1, 2)
    split = Split(x, np.ones((30_000, 3)))
    assert repr(split) == "Split(x=(30000, 2) float32, y=(30000, 3) float64)"
    shown = repr(Dataset("own", split, None, Split(x[:3], [[1]]), "None.", ("a", 2)))
    assert shown == (
        "Dataset('own', train=Split(x=(30000, 2) float32, y=(30000, 3) float64), validation=None, "
        "test=Split(x=(3, 2) float32, y=list), classes=2)"
    )
    assert f"{shown}".isascii()


def test_a_fingerprint_is_of_the_contents(tmp_path):
    x, y = np.arange(8.0).reshape(4, 2), [0, 1, 0, 1]
    data = lambda x=x, y=y, *test, **more: Dataset.from_arrays(x, y, *test, **more)
    here = data().fingerprint
    # By hand: names, types and shapes, then the bytes.
    said = b"train Split(x=(4, 2) float32, y=(4, 2) float32)\n"
    said += x.astype("f4").tobytes() + np.eye(2, dtype="f4")[y].tobytes()
    said += b"validation None\ntest None\n"
    assert here == hashlib.sha256(said).hexdigest()[:16]
    (tmp_path / "a").mkdir()
    for folder in (tmp_path, tmp_path / "a"):  # wherever it lies, whatever it is called
        assert load(save(folder, x=x, y=y)).fingerprint == here
    assert data(name="other").fingerprint == here
    others = [
        data(x + np.eye(4, 2)),
        data(y=[0, 1, 1, 0]),
        data(x.reshape(4, 1, 2)),
        data(x.astype(int)),
        data(x, y, x, y),
        data(validation=(x, y)),
        data(validation=0.5),
        data(validation=0.5, seed=1),
        data(scale="unit"),
    ]
    prints = {here, *(other.fingerprint for other in others)}
    assert len(prints) == 1 + len(others)


def test_a_seed_that_is_none_is_refused():
    with pytest.raises(DataError, match="seed is -1: it must not be negative"):
        load("digits", validation=0.1, seed=-1)


# The order of batches


@given(seed=st.integers(0, 2**40), size=st.integers(1, 60), data=st.data())
def test_an_epoch_takes_each_sample_at_most_once_and_drops_less_than_a_batch(seed, size, data):
    batch_size = data.draw(st.integers(1, size))
    steps = steps_per_epoch(size, batch_size)
    assert steps * batch_size <= size < (steps + 1) * batch_size
    epoch = data.draw(st.integers(0, 5))
    batches = [batch_indices(seed, epoch * steps + k, size, batch_size) for k in range(steps)]
    assert all(len(batch) == batch_size for batch in batches)
    taken = np.concatenate(batches)
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(range(size))


def test_epochs_and_seeds_differ_in_their_order():
    orders = [batch_indices(seed, epoch, 100, 100) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(100))


def test_a_step_is_the_same_alone_as_in_sequence():
    # Backwards over ten epochs: each permutation is made anew, none is met in the cache.
    forward = [batch_indices(3, step, 10, 3).tolist() for step in range(30)]
    backward = [batch_indices(3, step, 10, 3).tolist() for step in reversed(range(30))]
    assert forward == backward[::-1]
    fresh = (
        "from mupc.data import batch_indices as batch\n"
        "print(*(batch(3, step, 10, 3).tolist() for step in (17, 4)))"
    )
    run = subprocess.run([sys.executable, "-c", fresh], capture_output=True, text=True)
    assert run.stdout.strip() == f"{forward[17]} {forward[4]}", run.stderr


def test_a_batch_cannot_be_written_to():
    with pytest.raises(ValueError, match=r"read-only"):
        batch_indices(0, 0, 4, 2)[0] = 1


@pytest.mark.parametrize("batch_size", [0, -1, 5])
def test_a_batch_size_out_of_range_is_refused(batch_size):
    for call in (
        lambda: batch_indices(0, 0, 4, batch_size),
        lambda: steps_per_epoch(4, batch_size),
    ):
        with pytest.raises(ValueError, match=f"batch_size is {batch_size}: choose one from 1 to 4"):
            call()


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (0, -1)])
def test_a_negative_seed_or_step_is_refused(seed, step):
    with pytest.raises(ValueError, match=f"seed is {seed} and step is {step}"):
        batch_indices(seed, step, 4, 2)


@given(shares=st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any), data=st.data())
def test_samples_are_drawn_as_often_as_their_weights_say(shares, data):
    size, weights = len(shares), Weights(0.3 * np.array(shares))
    orders = [batch_indices(7, epoch, size, size, weights) for epoch in range(2)]
    for order in orders:
        counts, expected = np.bincount(order, minlength=size), size * np.array(shares) / sum(shares)
        assert np.all(np.abs(counts - expected) < 1 + 1e-9)
    seed, step = data.draw(st.integers(0, 99)), data.draw(st.integers(0, 9))
    again = batch_indices(seed, step, size, 1, Weights(np.array(shares)))
    assert batch_indices(seed, step, size, 1, weights) == again


def test_weights_belong_to_the_samples_that_are_trained_on():
    x, y = np.arange(20.0)[:, None] / 20, np.arange(20) % 2
    data = Dataset.from_arrays(x, y, weights=np.arange(20), validation=0.25)
    shares = data.weights.values / data.weights.values.sum()
    expected = data.train.x[:, 0] / data.train.x.sum()
    np.testing.assert_allclose(shares, expected, rtol=1e-6)
    assert data.flattened().weights is data.weights
    other = Dataset.from_arrays(x, y, weights=np.ones(20), validation=0.25)
    assert data.fingerprint != other.fingerprint


@pytest.mark.parametrize("wrong", [np.ones(19), np.zeros(20), -np.ones(20), np.full(20, np.nan)])
def test_impossible_weights_are_refused(wrong):
    with pytest.raises(DataError, match=r"weights.*one for each sample"):
        Dataset.from_arrays(np.ones((20, 1)), np.arange(20) % 2, weights=wrong)


@given(size=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_evaluation_covers_every_sample_once_in_order(size, batch_size):
    split = Split(np.arange(size, dtype=np.float32)[:, None], -np.arange(size)[:, None])
    batches = list(evaluation_batches(split, batch_size))
    assert len(batches) == -(-size // batch_size)
    assert all(len(batch.x) == batch_size for batch in batches[:-1])
    np.testing.assert_array_equal(np.concatenate([batch.x for batch in batches]), split.x)
    np.testing.assert_array_equal(np.concatenate([batch.y for batch in batches]), split.y)


def test_an_evaluation_batch_size_below_one_is_refused_at_once():
    with pytest.raises(ValueError, match=r"batch_size is 0: choose at least 1"):
        evaluation_batches(Split(np.ones((2, 1)), np.ones((2, 1))), 0)
