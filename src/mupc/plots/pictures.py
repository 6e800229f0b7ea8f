"""Images beside and below one another, as a PNG file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.image import imsave

_SMALLEST = 64  # pixels that an image is drawn with, at least
_GAP = 2


def grid(
    rows: Sequence[Float[np.ndarray, "_n height width channels"]],
    limits: tuple[float, float] = (0.0, 1.0),
) -> Float[np.ndarray, "rows columns 3"]:
    """Return rows of images as one, with a gap between them.

    Args:
        rows: of each the images, of one channel or three.
        limits: the values that are drawn black and white; others are cut off there.
    """
    height, width, channels = rows[0].shape[1:]
    times = max(1, -(-_SMALLEST // max(height, width)))
    across = max(len(row) for row in rows)
    tall, wide = times * height + _GAP, times * width + _GAP
    canvas = np.ones((len(rows) * tall - _GAP, across * wide - _GAP, 3))
    low, high = limits
    for i, row in enumerate(rows):
        for k, image in enumerate(row):
            shown = np.clip((image - low) / (high - low), 0, 1)
            if channels == 1:
                shown = np.repeat(shown, 3, axis=-1)
            shown = shown.repeat(times, axis=0).repeat(times, axis=1)
            canvas[i * tall :, k * wide :][: times * height, : times * width] = shown
    return canvas


def write_grid(
    path: Path,
    rows: Sequence[Float[np.ndarray, "_n height width channels"]],
    limits: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Write rows of images to a PNG file."""
    imsave(path, grid(rows, limits))
