"""Networks that generate: predictive coding beside an autoencoder of the same decoder.

Trains each case by predictive coding, which infers latent variables, and by backpropagation, which
has an encoder of the mirrored form compute them, both for as many batches, with the optimiser of
`mupc train`. Prints the mean squared error of a pixel, from 0 to 1, over all test images, beside
that of as many principal components.

    python experiments/decoders.py mnist fashion-mnist --seeds 0 1 2
    python experiments/decoders.py cifar10 --cifar10 FILE.npz --set epochs=1
    python experiments/decoders.py deep-4 deep-64 --set steps=600
    python experiments/decoders.py digits --set steps=100       (seconds)

`--set` gives settings of `mupc train` in place of the case's own.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _tables import header, line

import mupc
from mupc.networks import Network
from mupc.networks.convolutional import Convolution
from mupc.runs.setup import load_data, member_of
from mupc.settings import Configuration
from mupc.settings.files import value_of
from mupc.settings.network import ACTIVATIONS

_COLUMNS = ("case", "network", "rule", "mse, each seed", "seconds", "principal components")

_EPOCHS = {"batch_size": 200, "epochs": 30}
CASES: dict[str, dict[str, Any]] = {
    "digits": {"network": "decoder", "latents": 8, "width": 32, "batch_size": 50},
    "mnist": {"network": "decoder", "dataset": "mnist", **_EPOCHS},
    "fashion-mnist": {"network": "decoder", "dataset": "fashion-mnist", **_EPOCHS},
    "deep-4": {"network": "decoder", "dataset": "mnist", "depth": 4, **_EPOCHS},
    "deep-64": {"network": "decoder", "dataset": "mnist", "depth": 64, **_EPOCHS},
    "cifar10": {"network": "conv-decoder", "dataset": "cifar10", "doublings": 3, "epochs": 1},
}


class Row(NamedTuple):
    """A case with one rule: the error of each seed."""

    case: str
    config: Configuration
    rule: str
    errors: list[float]
    seconds: float
    components: float

    def __str__(self) -> str:
        each = ", ".join(f"{1000 * error:.2f}e-3" for error in self.errors)
        cells = (self.case, self.config.network.describes, self.rule, each)
        return line((*cells, f"{self.seconds:.0f}", f"{1000 * self.components:.2f}e-3"))


def principal(data: mupc.data.Dataset, count: int) -> float:
    """Return the error that so many principal components of the training images leave."""
    train, test = (
        split.x.reshape(len(split.x), -1) for split in (data.train, data.test or data.train)
    )
    mean = train.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((train - mean).T))
    kept = vectors[:, -count:]
    rest = (test - mean) - (test - mean) @ kept @ kept.T
    return float(np.mean(rest**2))


def autoencoder(config: Configuration, decoder: mupc.Chain, data: mupc.data.Dataset) -> mupc.Chain:
    """Return the decoder with an encoder of the mirrored form before it, in place of its prior."""
    own: Any = config.network
    laws, key = own.parameterisation.build(), jax.random.key(config.training.seed + 1)
    phi = ACTIVATIONS[own.activation]
    if own.kind == "decoder":
        encoder = mupc.residual_mlp(
            data.outputs, own.latents, width=own.width, depth=own.depth, activation=phi,
            biases=own.biases, parameterisation=laws, key=key,
        )  # fmt: skip
        last = encoder.readout
    else:
        height, width, channels = data.shape
        encoder = mupc.conv_resnet(
            (height, width, channels), 1, blocks=(own.blocks,) * (own.doublings + 1),
            channels=own.channels, activation=phi, parameterisation=laws, key=key,
        )  # fmt: skip
        above = own.channels * 2**own.doublings
        shape = mupc.Shape(above, own.hidden + 1)
        last = Convolution.initialise(
            (above, own.latents), "hidden", phi, laws, shape, key=jax.random.key(2)
        )
    stages = (*encoder.stages, mupc.Stage(last), *decoder.stages[1:])
    return mupc.Chain(stages, decoder.readout)


def unbounded(config: Configuration) -> Configuration:
    """Return it without a bound on weights, which an encoder is worse with."""
    return config.changed({"weight_bound": "none"})


def errors_of(rule: str, config: Configuration, data: mupc.data.Dataset) -> float:
    """Train by a rule, and return the error over the test images."""
    key = jax.random.key(config.training.seed)
    draw, key = jax.random.split(key)
    network: Network = config.network.build(data.shape, data.outputs, draw)
    steps = config.training.plan(data).over(data).steps
    how: dict[str, Any] = {"steps": steps, "batch_size": config.training.batch_size, "key": key}
    member = member_of(config, network, steps, key)
    chosen, optimiser = member.rule, member.optimiser
    if rule == "autoencoder":
        assert isinstance(network, mupc.Chain)
        network, chosen = autoencoder(config, network, data), mupc.Backpropagation()
        optimiser = unbounded(config).optimiser.build(network, steps)
    result = mupc.fit(network, data, chosen, optimiser, **how)
    error = mupc.evaluate(result, data.test or data.train).error
    assert error is not None  # targets are numbers
    return error


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Train every case with both rules and every seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--rules", nargs="+", default=["predictive coding", "autoencoder"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cifar10", help="an .npz file in place of the published files")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    options = parser.parse_args(words)
    changes = dict(text.split("=", 1) for text in options.set)
    rows: list[Row] = []
    print(header(_COLUMNS), flush=True)
    for name in options.cases:
        given = {**CASES[name], **{key: value_of(value) for key, value in changes.items()}}
        if "steps" in given:
            given.pop("epochs", None)
        if given.get("dataset") == "cifar10" and options.cifar10:
            given |= {"dataset": "npz", "path": options.cifar10}
        config = Configuration().changed(given)
        data = load_data(config)
        latents = config.network.build(data.shape, data.outputs, jax.random.key(0)).layers[0]
        size = int(np.prod(jax.eval_shape(latents.block, jnp.zeros(1)).shape))
        left = principal(data, size)
        for rule in options.rules:
            begin = time.perf_counter()
            errors = [
                errors_of(rule, config.changed({"seed": seed}), data) for seed in options.seeds
            ]
            seconds = (time.perf_counter() - begin) / len(errors)
            rows.append(Row(name, config, rule, errors, seconds, left))
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
