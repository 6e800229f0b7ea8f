"""Color-MNIST: the digits of MNIST, each in a colour of its own."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from mupc.data.dataset import Dataset
from mupc.data.mnist import MNIST, mnist_images
from mupc.data.sources import Known
from mupc.data.split import Split

# Of the hues: those of image i of a split are draw i of the generator of (seed, split).
_SEED = 0


def load_color_mnist(data_dir: str | Path | None) -> Dataset:
    r"""Return MNIST in colours: grey values from 0 to 1, times a colour of a hue drawn for each.

    Of the hue h, from 0 to 1, the colour has saturation and value 1: its red, green and blue are
    $\max(0, \min(1, |6 ((h + s) \bmod 1) - 3| - 1))$ with s = 0, 2/3 and 1/3.
    """
    splits = [
        Split(grey * coloured(len(grey), i)[:, None, None, :], y)
        for i, (grey, y) in enumerate(mnist_images(data_dir))
    ]
    return Dataset(
        "color-mnist",
        train=splits[0],
        validation=None,
        test=splits[1],
        normalisation="Pixels were divided by 255, and multiplied by a colour of a drawn hue.",
        classes=tuple(range(10)),
    )


def coloured(count: int, split: int) -> Float[np.ndarray, "count 3"]:
    """Return a colour for each image of a split: red, green and blue."""
    hue = np.random.default_rng((_SEED, split)).random(count)
    shifted = (hue[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1
    return np.clip(np.abs(6 * shifted - 3) - 1, 0, 1).astype(np.float32)


COLOR_MNIST = Known("color-mnist", load_color_mnist, MNIST.source)
