"""Changed images: what training sees anew in every epoch, drawn from seed and step alone."""

from typing import Literal

import numpy as np
from jaxtyping import Num

from mupc.data.split import DataError

Augmentation = Literal["none", "crop", "flip-crop"]
"""What is done to images in training: nothing, shifts of up to four pixels, or mirroring too."""

_PIXELS = 4


def check_augmentation(how: Augmentation, shape: tuple[int, ...]) -> None:
    """Check that samples of a shape can be augmented.

    Raises:
        DataError: if they are no images.
    """
    if how != "none" and len(shape) != 3:
        raise DataError(
            f"augment={how} is for images (height, width, channels), not for samples of shape "
            f"{shape}: choose none, or a network of images."
        )


def augmented(
    x: Num[np.ndarray, "batch ..."], how: Augmentation, seed: int, step: int
) -> Num[np.ndarray, "batch ..."]:
    """Return a batch with every image shifted and, for `flip-crop`, mirrored as often as not.

    Shifts are uniform, up to four pixels up, down, left and right; what comes in from outside is 0,
    the mean of standardised images. The draws depend on the seed and the step alone, so that a run
    that goes on sees what it would have seen.
    """
    if how == "none":
        return x
    size, height, width = x.shape[:3]
    generator = np.random.default_rng((seed, step, 1))
    rows, columns = generator.integers(0, 2 * _PIXELS + 1, (2, size))
    margin = (_PIXELS, _PIXELS)
    around = np.pad(x, [(0, 0), margin, margin, (0, 0)])
    i = np.arange(size)[:, None, None]
    found = around[
        i,
        rows[:, None, None] + np.arange(height)[None, :, None],
        columns[:, None, None] + np.arange(width)[None, None, :],
    ]
    if how == "flip-crop":
        mirrored = generator.integers(0, 2, size).astype(bool)
        found[mirrored] = found[mirrored, :, ::-1]
    return found
