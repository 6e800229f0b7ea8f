"""Data of classes, each with latent variables of its own, and classes inferred from data."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.image import imread

import mupc
from mupc.commands.main import main
from mupc.data import DataError, Dataset
from mupc.settings import ConfigError, Configuration
from mupc.training.recall import class_energies

KEY = jax.random.key(0)
CLASSES, LATENTS, WIDTH, DATA = 3, 2, 5, 7
HIDDEN, PRECISION = 50.0, 4.0

SOLVERS = {
    "gauss-newton": (lambda: mupc.GaussNewton(DATA), 3),
    "l-bfgs of errors": (lambda: mupc.InErrors(mupc.LBFGS(8)), 300),
    "l-bfgs": (lambda: mupc.LBFGS(8), 2_000),
    "descent": (lambda: mupc.InErrors(mupc.GradientDescent(mupc.StableStep())), 20_000),
}


def made(depth=2, activation=mupc.identity):
    network = mupc.class_decoder(
        CLASSES, DATA, latents=LATENTS, width=WIDTH, depth=depth, activation=activation,
        parameterisation=mupc.standard(), key=KEY,
    )  # fmt: skip
    shifted = lambda v: v + 0.3 if v.ndim <= 2 and v.shape[-1] == WIDTH else v
    return jax.tree.map(lambda v: shifted(v) if eqx.is_array(v) else v, network)


def affine(block, size):
    zero = block(jnp.zeros(size))
    return np.stack([block(row) - zero for row in jnp.eye(size)], 1), np.asarray(zero)


def gaussians(network):
    """The mean and the covariance of the data of every class, and of its latents with the data."""
    _, stage = network.stages
    inner = jax.tree.map(lambda v: v[0] if eqx.is_array(v) else v, stage.blocks[0])
    entry, shift = affine(stage.entry, CLASSES * (1 + LATENTS))
    block, offset = affine(inner, WIDTH)
    last, end = affine(network.readout, WIDTH)
    noise = last @ (np.eye(WIDTH) + block @ block.T) @ last.T / HIDDEN + np.eye(DATA) / PRECISION
    for c in range(CLASSES):
        own = [CLASSES + c * LATENTS + i for i in range(LATENTS)]
        mean = last @ (block @ (entry[:, c] + shift) + offset) + end
        onto = last @ block @ entry[:, own]
        yield mean, noise + onto @ onto.T, onto


@pytest.fixture(name="rule", params=SOLVERS)
def _rule(request):
    make, steps = SOLVERS[request.param]
    return mupc.PredictiveCoding(
        make(), steps, mupc.Gaussian(PRECISION), hidden_precision=HIDDEN,
        stopping=mupc.Tolerance(1e-12, patience=1000),
    )  # fmt: skip


@pytest.mark.usefixtures("float64")
@pytest.mark.few(1)
def test_energies_of_classes_are_those_of_their_gaussians(rule):
    r"""F of class c, its latents inferred, is ½ rᵀ S⁻¹ r with its own mean and covariance S."""
    network, y = made(), jax.random.normal(jax.random.key(1), (6, DATA))
    found, _ = class_energies(network, rule, y)
    wanted = [
        0.5 * np.einsum("bi,ij,bj->b", y - mean, np.linalg.inv(spread), y - mean)
        for mean, spread, _ in gaussians(network)
    ]
    np.testing.assert_allclose(found.T, wanted, atol=1e-8)
    assert len({*np.argmin(wanted, axis=0).tolist()}) > 1  # classes differ among the data


@pytest.mark.usefixtures("float64")
@pytest.mark.few(1)
def test_latents_of_the_inferred_class_are_the_mean_of_their_posterior(rule):
    network, y = made(), np.asarray(jax.random.normal(jax.random.key(1), (6, DATA)))
    seen = mupc.recall(network, y, rule=rule)
    energies, _ = class_energies(network, rule, jnp.asarray(y))
    np.testing.assert_array_equal(seen.classes, np.argmin(energies, axis=1))
    parts = list(gaussians(network))
    for latents, c, row in zip(seen.latents, seen.classes, y, strict=True):
        mean, spread, onto = parts[c]
        wanted = np.zeros(CLASSES * (1 + LATENTS))
        wanted[c] = 1
        own = CLASSES + c * LATENTS
        wanted[own : own + LATENTS] = onto.T @ np.linalg.solve(spread, row - mean)
        np.testing.assert_allclose(latents, wanted, atol=1e-8)


@pytest.mark.usefixtures("float64")
@pytest.mark.few(1)
def test_a_class_is_inferred_from_a_part_of_the_data(rule):
    network, y = made(), np.array(jax.random.normal(jax.random.key(1), (6, DATA)))
    known = np.array([1, 0, 0, 1, 1, 0, 1], bool)
    seen = mupc.recall(network, np.where(known, y, np.nan), known, rule=rule)
    wanted = []
    for mean, spread, _ in gaussians(network):
        r, part = (y - mean)[:, known], np.linalg.inv(spread[known][:, known])
        wanted.append(np.einsum("bi,ij,bj->b", r, part, r))
    np.testing.assert_array_equal(seen.classes, np.argmin(wanted, axis=0))
    np.testing.assert_array_equal(seen.completed[:, known], y[:, known])
    parts = list(gaussians(network))
    for completed, c, row in zip(seen.completed, seen.classes, y, strict=True):
        mean, spread, _ = parts[c]
        gain = spread[~known][:, known] @ np.linalg.inv(spread[known][:, known])
        wanted = mean[~known] + gain @ (row[known] - mean[known])
        np.testing.assert_allclose(completed[~known], wanted, atol=1e-8)


def test_what_a_class_does_not_have_stays_zero_in_training_too():
    network, labels = made(activation=jnp.tanh), jnp.eye(CLASSES)[jnp.array([0, 2, 1])]
    y = jax.random.normal(jax.random.key(1), (3, DATA))
    rule = mupc.PredictiveCoding(
        mupc.InErrors(mupc.LBFGS(4)), 20, mupc.Gaussian(PRECISION), hidden_precision=HIDDEN
    )
    solution = rule.settled(network, labels, y)
    first = solution.point.activities[0][0]
    np.testing.assert_array_equal(first[:, :CLASSES], labels)
    others = np.repeat(1 - np.asarray(labels), LATENTS, axis=1) > 0
    assert not np.any(first[:, CLASSES:][others])
    assert np.all(first[:, CLASSES:][~others])
    optimiser = optax.chain(optax.adam(0.01, eps=1e-12), mupc.scale_uniform(network))
    after, _ = mupc.step(mupc.init(network, rule, optimiser, KEY), (labels, y), rule, optimiser)
    entry = lambda net: net.stages[1].entry.weights
    changed = np.any(entry(after.network) != entry(network), axis=0)
    assert changed.all()  # of all classes, as each is in the batch


def test_an_evaluation_counts_inferred_classes():
    network = made(activation=jnp.tanh)
    rule = mupc.PredictiveCoding(
        mupc.InErrors(mupc.LBFGS(4)), 20, mupc.Gaussian(PRECISION), hidden_precision=HIDDEN
    )
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(20, DATA)), rng.integers(0, CLASSES, 20)
    data = Dataset.from_arrays(x, labels, x, labels).reversed()
    assert data.train.x.shape == (20, CLASSES)
    assert data.classes is None
    seen = mupc.evaluate(network, data.test, rule=rule)
    found = mupc.recall(network, data.test.y, rule=rule)
    assert seen.accuracy == pytest.approx(np.mean(found.classes == labels))
    y = jnp.asarray(data.test.y)
    point = rule.settled(network, jnp.asarray(data.test.x), y).point
    latents, *others = point.errors
    output = network.feedforward(data.test.x, (latents, *map(jnp.zeros_like, others))).output
    assert seen.error == pytest.approx(float(jnp.mean((output - y) ** 2)), rel=1e-5)


def test_data_are_drawn_of_classes():
    network = made(activation=jnp.tanh)
    rule = mupc.PredictiveCoding(
        mupc.InErrors(mupc.LBFGS(4)), 20, mupc.Gaussian(PRECISION), hidden_precision=1e12
    )
    drawn = mupc.sample(network, 4_000, classes=np.full(4_000, 1), rule=rule, key=KEY)
    latents = jax.random.normal(jax.random.key(5), (4_000, LATENTS))
    first = jnp.zeros((4_000, CLASSES * (1 + LATENTS))).at[:, 1].set(1)
    first = first.at[:, CLASSES + LATENTS : CLASSES + 2 * LATENTS].set(latents)
    output = mupc.Chain(network.stages[1:], network.readout).feedforward(first).output
    error = 5 * np.std(output, axis=0) / np.sqrt(4_000)
    assert np.all(np.abs(drawn.mean(axis=0) - np.mean(output, axis=0)) < error)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(output.T), atol=0.1)
    turns = mupc.sample(network, 5, rule=rule, key=KEY)
    given = mupc.sample(network, 5, classes=[0, 1, 2, 0, 1], rule=rule, key=KEY)
    np.testing.assert_array_equal(turns, given)
    for classes in ([0, 1], [0, 1, 2, 3, 0], [0.5] * 5):
        with pytest.raises(ValueError, match="5 whole numbers from 0 to 2"):
            mupc.sample(network, 5, classes=classes, rule=rule, key=KEY)
    plain = mupc.decoder(2, DATA, width=WIDTH, depth=1, key=KEY)
    with pytest.raises(ValueError, match="has no classes"):
        mupc.sample(plain, 5, classes=[0] * 5, rule=rule, key=KEY)


def test_other_inputs_are_refused():
    network, y = made(), jnp.zeros((4, DATA))
    with pytest.raises(ValueError, match=r"takes a class of 3 .*data.reversed"):
        network.feedforward(y)
    labels = jnp.eye(CLASSES)[jnp.array([0, 1, 2, 0])]
    with pytest.raises(ValueError, match="given must have the shape"):
        mupc.FreeEnergy(network, labels, y, mupc.Gaussian(), given=labels)
    numbers = Dataset.from_arrays(np.ones((4, 2)), np.linspace(0.1, 1, 4))
    with pytest.raises(DataError, match="has no classes"):
        numbers.reversed()
    with pytest.raises(ConfigError, match="latent variables, which rule backpropagation does not"):
        Configuration().changed({"network": "class-decoder", "rule": "backpropagation"})


@pytest.mark.full
def test_the_command_classifies_by_what_generates(tmp_path, capsys):
    """Where the latent variables are shared, as of a decoder, labels hardly matter: see docs."""
    out = tmp_path / "run"
    words = "--network class-decoder --latents 8 --width 64 --batch-size 50 --epochs 4"
    assert main(["train", *words.split(), "--report-every", "0", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    accuracy = float(said.split("test accuracy ")[1].split(" %")[0])
    assert accuracy > 92
    assert "8 latent variables of each class, 2 layers of width 64" in said
    assert main(["evaluate", str(out)]) == 0
    assert f"test accuracy {accuracy:.2f} %, mean squared error" in capsys.readouterr().out
    for command in (["reconstruct"], ["complete", "--precision", "1"], ["denoise"]):
        assert main([*command, str(out), "--samples", "40"]) == 0
        scores = json.loads((out / f"{command[0]}.scores.json").read_text())
        assert scores["error"] < 0.08  # the mean picture leaves .14
    capsys.readouterr()
    assert main(["generate", str(out), "--pictures", "20"]) == 0
    height, width, _ = imread(out / "generate.png").shape
    assert width > 4 * height  # two rows of ten classes


@pytest.mark.full
@pytest.mark.usefixtures("float64")
def test_what_is_known_takes_no_noise():
    """Samples in activities and in errors have one distribution, however long the chains are."""
    network, chains = made(), 2_000
    y = jax.random.normal(jax.random.key(1), (1, DATA)).repeat(chains, 0)
    labels = jnp.eye(CLASSES)[:1].repeat(chains, 0)
    energy = mupc.FreeEnergy(network, labels, y, mupc.Gaussian(PRECISION), precisions=HIDDEN)
    first = [
        np.asarray(
            mupc.infer(
                energy, solver, energy.run(), max_steps=steps, stopping=mupc.Endless(), key=KEY
            ).point.activities[0][0]
        )
        for solver, steps in (
            (mupc.Langevin(0.005), 3_000),
            (mupc.InErrors(mupc.Langevin(0.02)), 300),
        )
    ]
    own = slice(CLASSES, CLASSES + LATENTS)
    _, spread, onto = next(gaussians(network))
    exact = np.eye(LATENTS) - onto.T @ np.linalg.solve(spread, onto)
    for drawn in first:
        np.testing.assert_array_equal(drawn[:, :CLASSES], labels)
        np.testing.assert_allclose(np.cov(drawn[:, own].T), exact, atol=0.08)
