"""Convolutional neural generative coding beside an autoencoder: images restored, known and unknown.

Trains on Color-MNIST (in a border of 2 black pixels, so that it has the size of the other) or on
CIFAR-10: the preset `conv-ngc`; the same with the exact gradient in place of learned error kernels,
with which inference takes smaller steps; the default `conv-decoder`; and an autoencoder of that
decoder, by backpropagation. All take as many batches with the optimiser of `mupc train`. Then each
restores the first test images of both data sets, as they are and with noise: mean squared error,
PSNR and SSIM.

    python experiments/natural_images.py color-mnist --cifar10 FILE.npz --set steps=2000
    python experiments/natural_images.py cifar10 --cifar10 FILE.npz --models conv-ngc autoencoder
    python experiments/natural_images.py digits --set steps=20 --samples 20      (seconds)

`--set` gives settings of `mupc train` to all models that have them.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _tables import header, line
from decoders import autoencoder, unbounded
from jaxtyping import Float

import mupc
from mupc.data import Dataset, Split, with_noise
from mupc.runs.restore import psnr_and_ssim
from mupc.runs.setup import load_data, member_of
from mupc.settings import Configuration
from mupc.settings.files import preset, value_of

_COLUMNS = ("trained on", "model", "seed", "restored", "noise", "mse", "PSNR, dB", "SSIM", "s")
MODELS: dict[str, dict[str, Any]] = {
    "conv-ngc": {},
    "conv-ngc-exact": {"error_kernels": "tied", "step_size": 0.03},
    "conv-decoder": {},
    "autoencoder": {},
}
Images = Float[np.ndarray, "n height width channels"]


class Row(NamedTuple):
    """How one model restored one data set."""

    trained: str
    model: str
    seed: int
    restored: str
    noise: float
    error: float
    psnr: float | None
    ssim: float | None
    seconds: float

    def __str__(self) -> str:
        scores = ("" if v is None else f"{v:.3g}" for v in (self.psnr, self.ssim))
        names = self.trained, self.model, str(self.seed), self.restored, f"{self.noise:g}"
        return line((*names, f"{1000 * self.error:.3g}e-3", *scores, f"{self.seconds:.0f}"))


def _settings(model: str) -> Configuration:
    own = model.startswith("conv-ngc")
    config = preset("conv-ngc") if own else Configuration().changed({"network": "conv-decoder"})
    return config.changed(MODELS[model])


def configuration(model: str, name: str, options: argparse.Namespace, seed: int) -> Configuration:
    """Return the settings of a model and a data set."""
    data: dict[str, Any] = {"dataset": name, "scale": "unit", "seed": seed}
    if name == "cifar10" and options.cifar10:
        data |= {"dataset": "npz", "path": options.cifar10}
    config = _settings(model).changed(data)
    known = config.flat()
    given = {key: value for key, value in options.changes.items() if key in known}
    return config.changed(given)


def images(config: Configuration, name: str) -> Dataset:
    """Return a data set of images as their own targets, padded to those of CIFAR-10."""
    data = load_data(config)
    if name != "color-mnist":
        return data

    def padded(split: Split) -> Split:
        wide = np.pad(split.x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        return Split(wide, wide)

    test = None if data.test is None else padded(data.test)
    return dataclasses.replace(data, train=padded(data.train), test=test)


def train(
    model: str, config: Configuration, data: Dataset
) -> tuple[Callable[[Images], Images], float]:
    """Train a model, and return how it restores images, and the seconds that training took."""
    draw, key = jax.random.split(jax.random.key(config.training.seed))
    network = config.network.build(data.shape, data.outputs, draw)
    steps = config.training.plan(data).over(data).steps
    member = member_of(config, network, steps, key)
    rule, optimiser = member.rule, member.optimiser
    if model == "autoencoder":
        assert isinstance(network, mupc.Chain)
        network, rule = autoencoder(config, network, data), mupc.Backpropagation()
        optimiser = unbounded(config).optimiser.build(network, steps)
    begin = time.perf_counter()
    size = config.training.batch_size
    result = mupc.fit(network, data, rule, optimiser, steps=steps, batch_size=size, key=key)
    seconds = time.perf_counter() - begin

    def restore(x: Images) -> Images:
        if model == "autoencoder":
            forward = eqx.filter_jit(lambda network, x: network.feedforward(x).output)
            return np.asarray(forward(result.network, jnp.asarray(x)))
        seen = mupc.recall(result, x, batch_size=200)
        return seen.predicted if model.startswith("conv-ngc") else seen.generated

    return restore, seconds


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Train every model on every data set, and restore all of them."""
    options = _options(words)
    rows: list[Row] = []
    print(header(_COLUMNS), flush=True)
    for name in options.datasets:
        others = {name, *(("color-mnist", "cifar10") if options.both else ())}
        seen = {
            other: images(configuration("conv-ngc", other, options, 0), other)
            for other in sorted(others)
        }
        for model in options.models:
            for seed in options.seeds:
                config = configuration(model, name, options, seed)
                restore, seconds = train(model, config, seen[name])
                for other, data in seen.items():
                    x = (data.test or data.train).x[: options.samples]
                    for noise in (0.0, 0.1, 0.25):
                        made = restore(with_noise(x, noise, seed=0) if noise else x)
                        own = float(np.mean((made - x) ** 2)), *psnr_and_ssim(x, made, 1.0)
                        rows.append(Row(name, model, seed, other, noise, *own, seconds))
                        print(rows[-1], flush=True)
    return rows


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", nargs="+", choices=("color-mnist", "cifar10", "digits"))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, default=1000, help="test images, the first ones")
    parser.add_argument("--cifar10", help="an .npz file in place of the published files")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    options = parser.parse_args(words)
    if wrong := [text for text in options.set if "=" not in text]:
        parser.error(f"--set takes NAME=VALUE, not {wrong[0]}")
    pairs = (text.split("=", 1) for text in options.set)
    options.changes = {key.replace("-", "_"): value_of(value) for key, value in pairs}
    known = {name for model in options.models for name in _settings(model).flat()}
    if unknown := sorted(options.changes.keys() - known):
        parser.error(f"none of these models has a setting {unknown[0]}")
    options.both = "digits" not in options.datasets
    return options


if __name__ == "__main__":
    main()
