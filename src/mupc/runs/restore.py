"""Data given in part, or with noise, as the network of a run restores them, and how well."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from mupc.data import Dataset, Part, hidden_part, with_noise
from mupc.networks import Bidirectional
from mupc.records import RunError
from mupc.runs.stored import load_run, split_of
from mupc.training import Recall, recall, sample

Images = Float[np.ndarray, "n height width channels"]


class Scores(NamedTuple):
    """How near data were restored: means over samples.

    Attributes:
        samples: how many there are.
        error: mean squared error of the numbers that were to be restored.
        before: that of the data as they were given; None where nothing was added to them.
        psnr: peak signal-to-noise ratio in decibels, of whole images, the peak being the range of
            the training split.
        ssim: structural similarity of these; both None without images, or without scikit-image.
        residual: median relative residual of inference.
        sweeps: median cost of inference; None where it is not known.
    """

    samples: int
    error: float
    before: float | None
    psnr: float | None
    ssim: float | None
    residual: float
    sweeps: float | None

    @property
    def words(self) -> str:
        """What they say, in one line."""
        before = "" if self.before is None else f" (as given {self.before:.3g})"
        parts = [f"mean squared error {self.error:.3g}{before}"]
        if self.psnr is not None and self.ssim is not None:
            parts.append(f"PSNR {self.psnr:.1f} dB, SSIM {self.ssim:.3f}")
        price = "" if self.sweeps is None else f" after {self.sweeps:.0f} sweeps"
        parts.append(f"inference: residual {self.residual:.2g}{price}")
        return "; ".join(parts)


class Restored(NamedTuple):
    """Samples as they are, as they were given, and as they were restored, with the scores.

    Images where data are such: (n, height, width, channels); else as the network takes them. The
    limits are the least and the largest number of the training split.
    """

    original: Float[np.ndarray, "n ..."]
    given: Float[np.ndarray, "n ..."]
    restored: Float[np.ndarray, "n ..."]
    limits: tuple[float, float]
    scores: Scores

    @property
    def images(self) -> bool:
        """Whether they are images."""
        return is_image(self.original.shape[1:])


class _Given(NamedTuple):
    values: Float[np.ndarray, "n ..."]
    known: Bool[np.ndarray, "n ..."] | None = None


class Which(NamedTuple):
    """Which data are restored, and by what.

    Attributes:
        folder: of a run.
        split: of its data.
        samples: how many, the first of the split.
        data: where they lie now, if they were moved.
        precision: of the output, in inference; that of training unless given.
    """

    folder: str
    split: str
    samples: int
    data: str | None = None
    precision: float | None = None


Source = Literal["generated", "predicted"]
"""What restored data are: what the inferred latent variables generate by themselves, or what all
inferred activities predict."""


def reconstruct(which: Which, source: Source = "generated") -> Restored:
    """Infer the activities of data, and read the data from them."""
    return _restore(which, _Given, _READ[source])


def complete(which: Which, part: Part, share: float, seed: int) -> Restored:
    """Hide a part of each sample, and infer it from the rest."""

    def hide(x: Float[np.ndarray, "n ..."]) -> _Given:
        hidden = hidden_part(x.shape[1:], part, share, count=len(x), seed=seed)
        return _Given(np.where(hidden, np.min(x), x), ~hidden)

    return _restore(which, hide, lambda seen: seen.completed)


def denoise(which: Which, noise: float, seed: int, source: Source = "generated") -> Restored:
    """Add noise, infer activities, and read the data from them."""
    add = lambda x: _Given(with_noise(x, noise, seed=seed))  # noqa: E731
    return _restore(which, add, _READ[source])


class Drawn(NamedTuple):
    """Images that a network made, with the least and the largest number of its training split.

    Attributes:
        images: (n, height, width, channels).
        limits: the two numbers.
        classes: of how many classes they are in turn; 0 if of none.
        correlations: of a network of two directions, which makes an image of each class that has
            training images, those with the mean of these; else None.
    """

    images: Images
    limits: tuple[float, float]
    classes: int = 0
    correlations: Float[np.ndarray, " classes"] | None = None


def draw(folder: str, count: int | None, key: PRNGKeyArray, place: str | None = None) -> Drawn:
    """Draw images from the network of a run, as `mupc.sample` does, or one of each of its classes.

    Args:
        folder: of the run.
        count: how many are drawn; 64 unless given, or six of each class.
        key: draws them.
        place: where the data lie now, if they were moved.

    Raises:
        RunError: if its data are no images, or have no classes where pictures are of these.
    """
    config, data, network = load_run(folder, place)
    shape = image_shape(config, data.shape)
    if not is_image(shape):
        raise RunError(f"{data.name} is no set of images, but of samples of shape {shape}")
    if isinstance(network, Bidirectional):
        return _of_classes(network, data, shape)
    rule = config.rule.build(config.network.hidden)
    count = count or 6 * network.classes or 64
    images = sample(network, count, rule=rule, key=key).reshape(count, *shape)
    return Drawn(images, _limits(data.train.y), network.classes)


def _of_classes(network: Bidirectional, data: Dataset, shape: tuple[int, ...]) -> Drawn:
    if data.classes is None:
        raise RunError(f"{data.name} has no classes, of which pictures could be made")
    counts = np.sum(data.train.y, axis=0)
    labels = np.eye(data.outputs)[counts > 0]
    images = np.asarray(network.down.feedforward(jnp.asarray(labels)).output)
    means = labels @ (data.train.y.T @ data.train.x) / counts[counts > 0, None]
    each = [np.corrcoef(*pair)[0, 1] for pair in zip(images, means, strict=True)]
    return Drawn(images.reshape(-1, *shape), _limits(data.train.x), len(images), np.array(each))


_READ: dict[Source, Callable[[Recall], Float[np.ndarray, "n ..."]]] = {
    "generated": lambda seen: seen.generated,
    "predicted": lambda seen: seen.predicted,
}


def is_image(shape: tuple[int, ...]) -> bool:
    """Return whether a sample is one of grey or of three colours."""
    return len(shape) == 3 and shape[2] in (1, 3)


def image_shape(config: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that samples had before the network's view of them."""
    return shape if is_image(shape) else config.dataset.load().shape


def _restore(
    which: Which,
    give: Callable[[Float[np.ndarray, "n ..."]], _Given],
    read: Callable[[Recall], Float[np.ndarray, "n ..."]],
) -> Restored:
    """Restore the first samples of a split.

    Raises:
        RunError: if there is no run, or its network generates nothing.
    """
    config, data, network = load_run(which.folder, which.data)
    if not network.generates:
        raise RunError(
            f"the network of {which.folder} is a {config.network.kind}, which generates nothing: "
            "train one that does, such as with --network decoder"
        )
    shape = image_shape(config, data.shape)
    seen = split_of(data, which.split).y[: which.samples]  # what it generates are its targets
    original = seen.reshape(-1, *shape)
    given = give(original)
    rule = config.rule.build(config.network.hidden)
    if which.precision is not None:
        where = lambda rule: rule.likelihood.precision  # noqa: E731
        rule = eqx.tree_at(where, rule, jnp.asarray(which.precision, float))
    known = None if given.known is None else given.known.reshape(seen.shape)
    found = recall(network, given.values.reshape(seen.shape), known, rule=rule)
    restored = read(found).reshape(original.shape)
    hidden = np.ones(original.shape, bool) if given.known is None else ~given.known
    limits = _limits(data.train.y)
    noisy = given.known is None and given.values is not original
    before = float(np.mean((given.values - original) ** 2)) if noisy else None
    scores = _scores(original, restored, hidden, found, limits[1] - limits[0])
    scores = scores._replace(before=before)
    return Restored(original, given.values, restored, limits, scores)


def _limits(images: Float[np.ndarray, "n ..."]) -> tuple[float, float]:
    """Return the least and the largest number."""
    return float(np.min(images)), float(np.max(images))


def _scores(
    original: Float[np.ndarray, "n ..."],
    restored: Float[np.ndarray, "n ..."],
    hidden: Bool[np.ndarray, "n ..."],
    found: Recall,
    span: float,
) -> Scores:
    psnr = ssim = None
    if is_image(original.shape[1:]):
        psnr, ssim = psnr_and_ssim(original, restored, span)
    return Scores(
        samples=len(original),
        error=float(np.mean((original - restored)[hidden] ** 2)),
        before=None,
        psnr=psnr,
        ssim=ssim,
        residual=float(np.median(found.relative_residual)),
        sweeps=None if found.sweeps is None else float(np.median(found.sweeps)),
    )


def psnr_and_ssim(
    original: Images, restored: Images, span: float
) -> tuple[float | None, float | None]:
    """Return the mean PSNR and SSIM of images, by scikit-image where it is installed."""
    try:
        from skimage import metrics
    except ImportError:
        return None, None
    window = min(7, (min(original.shape[1:3]) + 1) // 2 * 2 - 1)  # an odd number of pixels
    if window < 3 or not span:
        return None, None
    pairs = list(zip(original, np.asarray(restored, original.dtype), strict=True))
    peaks = [metrics.peak_signal_noise_ratio(a, b, data_range=span) for a, b in pairs]
    alike = [
        metrics.structural_similarity(a, b, data_range=span, channel_axis=-1, win_size=window)
        for a, b in pairs
    ]
    return float(np.mean(peaks)), float(np.mean(alike))
