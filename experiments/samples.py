"""Images drawn from generative networks: Monte Carlo predictive coding beside an autoencoder.

Trains the decoder of `mupc train --network decoder` by Monte Carlo predictive coding, which samples
latent variables, by predictive coding, which infers the likeliest, and as the decoder of a
variational autoencoder (arXiv 1312.6114), whose encoder has the mirrored form, at the same output
precision. All take as many batches with the optimiser of `mupc train`. From each, images are drawn
with latent variables from the prior, and judged by a classifier of the data: how many classes there
are, as the exponential of the entropy of its mean prediction, how sure it is of an image, and how
far what its last layer makes of them is from what it makes of test images: the Fréchet distance of
two Gaussians (arXiv 1706.08500), which tells where a classifier is sure of what is no image. The
same is printed of training images, and the error with which models reconstruct the test split.

    python experiments/samples.py mnist --set steps=3000
    python experiments/samples.py digits --set latents=8 width=32 steps=300    (seconds)

`--set` gives settings of `mupc train` to all models that have them.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _tables import header, line
from decoders import unbounded
from jaxtyping import Array, Float, PRNGKeyArray

import mupc
from mupc.data import Dataset
from mupc.runs.setup import load_data, member_of
from mupc.settings import Configuration
from mupc.settings.files import value_of
from mupc.settings.network import ACTIVATIONS

_COLUMNS = (
    *("data", "images of", "seed", "classes", "confidence", "Fréchet distance"),
    *("mse of reconstruction", "s"),
)
MODELS: dict[str, dict[str, Any]] = {
    "monte-carlo": {"rule": "monte-carlo", "max_steps": 30, "samples": 5, "thinning": 4},
    "predictive-coding": {},
    "autoencoder": {},
}
Rows = Float[np.ndarray, "n pixels"]


class Row(NamedTuple):
    """What was drawn from one model, as the classifier sees it."""

    data: str
    model: str
    seed: int
    classes: float
    confidence: float
    distance: float
    error: float | None
    seconds: float

    def __str__(self) -> str:
        numbers = f"{self.classes:.2f}", f"{self.confidence:.3f}", f"{self.distance:.3g}"
        error = "" if self.error is None else f"{1000 * self.error:.2f}e-3"
        return line((self.data, self.model, str(self.seed), *numbers, error, f"{self.seconds:.0f}"))


class Drawn(NamedTuple):
    """Images of a model, and the error with which it reconstructs those of the test split."""

    images: Rows
    error: float


class VariationalAutoencoder(eqx.Module):
    """An encoder that gives mean and logarithm of the deviation of latents, and a decoder."""

    encoder: mupc.Chain
    decoder: mupc.Chain

    def loss(self, x: Array, precision: float, key: PRNGKeyArray) -> Float[Array, ""]:
        """Return minus the evidence lower bound of a batch, but for a constant."""
        mean, spread = self.latents(x)
        z = mean + jnp.exp(spread) * jax.random.normal(key, mean.shape)
        wrong = 0.5 * precision * jnp.sum((x - self.decoder.feedforward(z).output) ** 2, axis=1)
        apart = 0.5 * jnp.sum(mean**2 + jnp.exp(2 * spread) - 1 - 2 * spread, axis=1)
        return jnp.mean(wrong + apart)

    def latents(self, x: Array) -> tuple[Array, Array]:
        """Return the mean and the logarithm of the standard deviation of every latent variable."""
        mean, spread = jnp.split(self.encoder.feedforward(x).output, 2, axis=1)
        return mean, spread


def by_rule(config: Configuration, data: Dataset, count: int) -> Drawn:
    """Train the decoder by a rule, and draw from it."""
    key = jax.random.key(config.training.seed)
    draw, train, sample = jax.random.split(key, 3)
    network = config.network.build(data.shape, data.outputs, draw)
    steps = config.training.plan(data).over(data).steps
    member = member_of(config, network, steps, key)
    result = mupc.fit(
        network,
        data,
        member.rule,
        member.optimiser,
        steps=steps,
        batch_size=config.training.batch_size,
        key=train,
    )
    error = mupc.evaluate(result, data.test or data.train).error
    assert error is not None  # targets are numbers
    return Drawn(mupc.sample(result, count, key=sample), error)


def autoencoder(config: Configuration, data: Dataset, count: int) -> Drawn:
    """Train a variational autoencoder with the decoder, and draw from it."""
    own: Any = config.network
    key, encoder_key, sample = jax.random.split(jax.random.key(config.training.seed), 3)
    decoder = own.build(data.shape, data.outputs, key)
    encoder = mupc.residual_mlp(
        data.outputs, 2 * own.latents, width=own.width, depth=own.depth,
        activation=ACTIVATIONS[own.activation], biases=own.biases,
        parameterisation=own.parameterisation.build(), key=encoder_key,
    )  # fmt: skip
    model = VariationalAutoencoder(encoder, mupc.Chain(decoder.stages[1:], decoder.readout))
    rule: Any = config.rule
    precision, steps = rule.regime.precision, config.training.plan(data).over(data).steps
    network: Any = model  # an optimiser takes any tree of scaled blocks
    optimiser = unbounded(config).optimiser.build(network, steps)

    @eqx.filter_jit
    def step(model: Any, state: Any, x: Array, key: PRNGKeyArray) -> tuple[Any, Any]:
        gradient = eqx.filter_grad(lambda m: m.loss(x, precision, key))(model)
        updates, state = optimiser.update(gradient, state, model)
        return eqx.apply_updates(model, updates), state

    state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))
    size, rng = config.training.batch_size, np.random.default_rng(config.training.seed)
    for i in range(steps):
        chosen = rng.integers(0, len(data.train.x), size)
        model, state = step(
            model, state, jnp.asarray(data.train.x[chosen]), jax.random.fold_in(key, i)
        )
    test = jnp.asarray((data.test or data.train).x)
    restored = model.decoder.feedforward(model.latents(test)[0]).output
    latents = jax.random.normal(sample, (count, own.latents))
    images = np.asarray(model.decoder.feedforward(latents).output)
    return Drawn(images, float(jnp.mean((restored - test) ** 2)))


class Judgement(NamedTuple):
    """What the classifier makes of images: probabilities, and its last hidden activities."""

    probabilities: Float[np.ndarray, "n classes"]
    features: Float[np.ndarray, "n width"]


def classifier(data: Dataset) -> Callable[[Rows], Judgement]:
    """Train a network to classify the data, and return what it makes of images."""
    network = mupc.residual_mlp(
        data.inputs, data.outputs, width=128, depth=8, key=jax.random.key(0)
    )
    rule = mupc.Backpropagation(mupc.Categorical())
    optimiser = optax.chain(optax.adam(0.02, eps=1e-12), mupc.scale_uniform(network))
    result = mupc.fit(network, data, rule, optimiser, epochs=3, key=jax.random.key(1))
    seen = mupc.evaluate(result, data.test or data.train)
    print(f"the classifier: {seen.words} over {seen.samples} images\n", flush=True)

    def judge(images: Rows) -> Judgement:
        activities, logits = result.network.feedforward(jnp.asarray(images))
        features = np.asarray(activities[-1][-1], np.float64)
        return Judgement(np.asarray(jax.nn.softmax(logits, axis=1)), features)

    return judge


def scores(found: Judgement, real: Judgement) -> tuple[float, float, float]:
    """Return how many classes there are, how sure the classifier is, and the distance from real."""
    mean = found.probabilities.mean(axis=0)
    entropy = -np.sum(mean * np.log(np.maximum(mean, 1e-12)))
    sure = np.mean(found.probabilities.max(axis=1))
    return float(np.exp(entropy)), float(sure), frechet(found.features, real.features)


def frechet(a: Float[np.ndarray, "n width"], b: Float[np.ndarray, "m width"]) -> float:
    r"""Return $\|m_a - m_b\|^2 + \text{tr}(C_a + C_b - 2 (C_a C_b)^{1/2})$."""
    ours, theirs = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(ours @ theirs).real, 0))
    apart = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    return float(apart + np.trace(ours) + np.trace(theirs) - 2 * np.sum(roots))


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Train every model with every seed, and judge what is drawn from it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="mnist, fashion-mnist or digits")
    parser.add_argument("--models", nargs="+", default=[*MODELS], choices=MODELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", type=int, default=2000, help="how many are drawn")
    parser.add_argument("--pictures", help="folder for a PNG of each model's first images")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    options = parser.parse_args(words)
    given = {name: value_of(value) for name, value in (text.split("=", 1) for text in options.set)}
    base = Configuration().changed(
        {"network": "decoder", "dataset": options.dataset, "batch_size": 200}
    )
    models = {model: base.changed(MODELS[model]) for model in options.models}
    known = {name for config in models.values() for name in config.flat()}
    if unknown := sorted(given.keys() - known):
        parser.error(f"none of these models has a setting {unknown[0]}")
    for model, config in models.items():
        models[model] = config.changed({n: v for n, v in given.items() if n in config.flat()})
    first = models[options.models[0]]  # all have one data set
    data = load_data(first)
    judge = classifier(first.dataset.load().flattened())
    print(header(_COLUMNS), flush=True)
    real = judge((data.test or data.train).x)
    known = scores(judge(data.train.x[: options.images]), real)
    rows = [Row(options.dataset, "the training split", 0, *known, None, 0.0)]
    print(rows[0], flush=True)
    for model, config in models.items():
        for seed in options.seeds:
            begin = time.perf_counter()
            draw = autoencoder if model == "autoencoder" else by_rule
            drawn = draw(config.changed({"seed": seed}), data, options.images)
            seconds = time.perf_counter() - begin
            found = scores(judge(drawn.images), real)
            rows.append(Row(options.dataset, model, seed, *found, drawn.error, seconds))
            print(rows[-1], flush=True)
            if options.pictures and seed == options.seeds[0]:
                _draw(options.pictures, model, drawn.images, first.dataset.load().shape)
    return rows


def _draw(folder: str, model: str, images: Rows, shape: tuple[int, ...]) -> None:
    from pathlib import Path

    from mupc.plots.pictures import write_grid

    Path(folder).mkdir(parents=True, exist_ok=True)
    grid = images[:64].reshape(-1, *shape)
    write_grid(Path(folder) / f"{model}.png", [grid[i : i + 16] for i in range(0, 64, 16)], (0, 1))


if __name__ == "__main__":
    main()
