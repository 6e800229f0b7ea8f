"""What is taken from data or added to them, drawn for each sample from (seed, index)."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from mupc.data.split import DataError

Part = Literal["upper", "lower", "left", "right", "random"]
"""Which part of an image is hidden; `random`: pixels here and there."""


def hidden_part(
    shape: tuple[int, ...], part: Part, share: float = 0.5, *, count: int, seed: int = 0
) -> Bool[np.ndarray, "count ..."]:
    """Return which numbers of samples are hidden.

    Args:
        shape: of a sample: an image (height, width, channels), whose pixels are hidden in all
            channels, or a row, of which numbers are hidden at random alone.
        part: of the image.
        share: how much of it, between 0 and 1; rows and columns of pixels are rounded.
        count: how many samples.
        seed: random pixels of sample i are drawn from (seed, i).

    Raises:
        DataError: if there is no such part or share, or nothing would be hidden, or all.
    """
    if part not in get_args(Part):
        raise DataError(f"part must be one of {', '.join(get_args(Part))}, not {part!r}")
    if not 0 < share < 1:
        raise DataError(f"share must be between 0 and 1, not {share}")
    pixels = shape[:-1] if len(shape) == 3 else shape
    if part == "random":
        drawn = [_generator(seed, i).random(pixels) < share for i in range(count)]
        hidden = np.array(drawn).reshape(count, *pixels)
    else:
        if len(shape) != 3:
            raise DataError(f"samples of shape {shape} have no {part} part: hide numbers at random")
        height, width = (round(share * size) for size in pixels)
        where = {
            "upper": np.s_[:, :height],
            "lower": np.s_[:, pixels[0] - height :],
            "left": np.s_[:, :, :width],
            "right": np.s_[:, :, pixels[1] - width :],
        }
        hidden = np.zeros((count, *pixels), bool)
        hidden[where[part]] = True
    if not count or hidden.all() or not hidden.any():
        what = "all" if hidden.any() else "none"
        raise DataError(
            f"a share of {share} ({part}) hides {what} of {count} samples of shape {shape}: choose "
            "another share"
        )
    if len(shape) == 3:
        hidden = hidden[..., None]
    return np.broadcast_to(hidden, (count, *shape))


def with_noise(
    x: Float[np.ndarray, "n ..."], std: float, *, seed: int = 0
) -> Float[np.ndarray, "n ..."]:
    """Return samples with Gaussian noise of a standard deviation, sample i's from (seed, i).

    Raises:
        DataError: if the standard deviation is negative.
    """
    if not std >= 0:
        raise DataError(f"the standard deviation of noise must not be negative, as {std} is")
    noise = [_generator(seed, i).normal(size=x.shape[1:]) for i in range(len(x))]
    return (x + std * np.array(noise).reshape(x.shape)).astype(x.dtype)


def _generator(seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng((seed, index))
