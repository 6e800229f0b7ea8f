"""The scale of x: what is warned of, and by whose statistics it is scaled."""

import os
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mupc.data import DataError, Dataset, DataWarning, load


def images(dtype, shape=(40, 6, 5, 3)):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def warned(function):
    """What a function warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    assert all(issubclass(warning.category, DataWarning) for warning in caught)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    "x",
    [
        images("u1"),
        images("u1", (40, 90)),  # flat images
        images("i8"),
        images("f4"),
        1e-6 * images("f8"),
        2020 + images("f4") / 256,
    ],
)
def test_numbers_far_from_one_are_warned_of_once_with_the_remedy(x):
    (said,) = warned(lambda: Dataset.from_arrays(x, np.arange(40) % 2).flattened())
    assert f"x of arrays ranges from {x.min():.6g} to {x.max():.6g}" in said
    assert 'scale="standardise"' in said
    for scale in ("standardise", "unit"):
        scaled = lambda scale=scale: Dataset.from_arrays(x, np.arange(40) % 2, scale=scale)
        assert warned(scaled) == []


@pytest.mark.skipif("MUPC_CHECKED" in os.environ, reason="a checker stands between")
def test_a_warning_is_of_the_line_that_called():
    with pytest.warns(DataWarning) as caught:
        Dataset.from_arrays(images("u1"), np.arange(40) % 2)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "x",
    [
        np.random.default_rng(0).normal(size=(40, 5)),
        images("f8") / 255,
        images("u1") // 128,  # black and white
        np.eye(400)[:40],  # sparse
        np.zeros((40, 3)),
    ],
)
def test_numbers_of_about_one_are_not_warned_of(x):
    assert warned(lambda: Dataset.from_arrays(x, np.arange(40) % 2).flattened()) == []


def test_tokens_are_no_images_until_they_are_given_to_an_mlp():
    text = np.random.default_rng(0).integers(0, 50_000, (40, 7))
    data = Dataset.from_arrays(text, np.arange(40) % 2)
    assert data.train.x.dtype.kind == "i"
    np.testing.assert_array_equal(data.train.x, text)
    (said,) = warned(data.flattened)
    assert "x of arrays ranges from" in said
    # Bytes are tokens where each has a target.
    letters = images("u1", (40, 7))
    targets = np.eye(256, dtype="f4")[letters]
    assert warned(lambda: Dataset.from_arrays(letters, targets)) == []
    (said,) = warned(lambda: Dataset.from_arrays(letters, np.arange(40) % 2))
    assert "tokens need whole numbers of more than 8 bits" in said


@given(
    shape=st.sampled_from([(6,), (3, 4), (3, 4, 2), (2, 2, 2, 2)]),
    dtype=st.sampled_from(["u1", "i4", "f4", "f8"]),
    seed=st.integers(0, 99),
)
def test_the_scale_is_that_of_the_training_split(shape, dtype, seed):
    """Written out: each feature of rows, each channel of images, all numbers otherwise."""
    draw = np.random.default_rng(seed)
    x = draw.integers(0, 200, (30, *shape)).astype(dtype)
    other = draw.integers(0, 250, (9, *shape)).astype(dtype)
    y = draw.integers(0, 2, 30).astype(float)[:, None]
    if len(shape) == 1 and dtype != "u1":
        axes = 0
    elif len(shape) == 3:
        axes = (0, 1, 2)
    else:
        axes = None
    for scale, offset, factor in (
        ("standardise", x.mean(axes, dtype="f8"), x.std(axes, dtype="f8")),
        ("unit", x.min(axes).astype("f8"), np.ptp(x.astype("f8"), axes)),
    ):
        data = Dataset.from_arrays(
            x, y, other, y[:9], validation=(other[:3], y[:3]), scale=scale, name="own"
        )
        for split, raw in ((data.train, x), (data.validation, other[:3]), (data.test, other)):
            np.testing.assert_allclose(split.x, (raw - offset) / factor, rtol=1e-5, atol=1e-5)
            assert split.x.dtype == np.float32
        word = {"standardise": "mean 0 and standard deviation 1", "unit": "0 to 1"}[scale]
        assert f"scaled to {word} by the " in data.normalisation
        assert "the training split" in data.normalisation


def test_statistics_are_taken_after_samples_are_held_out(tmp_path):
    x = np.zeros((10, 1))
    held = Dataset.from_arrays(np.arange(10)[:, None], np.arange(10) % 2, validation=0.2)
    x[held.train.x[:, 0]] = np.arange(8.0)[:, None]
    x[held.validation.x[:, 0]] = 1e6
    np.savez(tmp_path / "mine.npz", x=x, y=np.arange(10) % 2)
    data = load(tmp_path / "mine.npz", validation=0.2, scale="unit")
    np.testing.assert_allclose(data.train.x[:, 0], np.arange(8) / 7, rtol=1e-6)
    np.testing.assert_allclose(data.validation.x, 1e6 / 7, rtol=1e-6)


def test_a_feature_that_never_changes_becomes_zero():
    x = np.stack([np.full(6, 0.1), np.arange(6.0)], axis=1)
    for scale in ("standardise", "unit"):
        data = Dataset.from_arrays(x, np.arange(6) % 2, scale=scale)
        np.testing.assert_allclose(data.train.x[:, 0], 0, atol=1e-12)


def test_a_time_in_seconds_keeps_its_digits():
    """Single precision knows the seconds since 1970 to two minutes; the scale is taken before."""
    seconds = 1.7e9 + np.arange(10.0)
    data = Dataset.from_arrays(seconds[:, None], np.arange(10) % 2, scale="unit")
    np.testing.assert_allclose(data.train.x[:, 0], np.arange(10) / 9, atol=1e-6)


def test_published_images_can_be_scaled_too():
    data = load("digits", scale="unit")
    assert (data.train.x.min(), data.train.x.max()) == (0, 1)
    assert data.normalisation.startswith("Pixels from 0 to 16")
    np.testing.assert_allclose(16 * data.train.x, np.round(16 * data.train.x), atol=1e-4)


@pytest.mark.usefixtures("unchecked")
def test_a_scale_that_is_none_of_the_choices_gets_the_nearest():
    with pytest.raises(
        DataError, match=r"'standardize': did you mean standardise. The choices are"
    ):
        load("digits", scale="standardize")
