"""Augmentation: every image is a shift of itself, and all is drawn from seed and step."""

import numpy as np
import pytest

from mupc.data import DataError, Dataset, augmented


def shifted(image, rows, columns):
    """The image as seen through a window that lies so far down and to the right."""
    found = np.zeros_like(image)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            if 0 <= i + rows < image.shape[0] and 0 <= j + columns < image.shape[1]:
                found[i, j] = image[i + rows, j + columns]
    return found


@pytest.mark.parametrize("how", ["crop", "flip-crop"])
def test_images_are_shifted_and_mirrored(how):
    x = np.random.default_rng(0).normal(size=(64, 6, 5, 2)).astype(np.float32)
    seen, moves = augmented(x, how, seed=3, step=7), []
    for image, other in zip(x, seen, strict=True):
        ways = [
            (rows, columns, mirrored)
            for rows in range(-4, 5)
            for columns in range(-4, 5)
            for mirrored in (False, True)
            if np.array_equal(shifted(image, rows, columns)[:, :: -1 if mirrored else 1], other)
        ]
        assert ways
        moves += ways if len(ways) == 1 else []
    assert len({move[:2] for move in moves}) > 20
    assert {move[2] for move in moves} == ({False, True} if how == "flip-crop" else {False})


def test_draws_depend_on_seed_and_step_alone():
    x = np.random.default_rng(0).normal(size=(8, 6, 5, 1))
    draw = lambda seed, step: augmented(x, "flip-crop", seed, step)
    np.testing.assert_array_equal(draw(1, 2), draw(1, 2))
    assert not np.array_equal(draw(1, 2), draw(1, 3))
    assert not np.array_equal(draw(1, 2), draw(2, 2))
    assert augmented(x, "none", 1, 2) is x


def test_rows_cannot_be_augmented():
    data = Dataset.from_arrays(np.ones((4, 6, 5, 1)), np.arange(4) % 2)
    assert data.augmented("crop").augment == "crop"
    with pytest.raises(DataError, match=r"is for images .*not for samples of shape \(30,\)"):
        data.augmented("crop").flattened()
