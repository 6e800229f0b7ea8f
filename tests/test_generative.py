"""Networks whose input is free: latent variables, what they are inferred to be, and the command."""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.image import imread
from programs import step_equations

import mupc
from mupc.commands.main import main
from mupc.data import DataError, Dataset
from mupc.energies import ErrorView, HopfieldEnergy, latent_units
from mupc.networks import Prior
from mupc.runs import load_run, train
from mupc.settings import ConfigError, Configuration

KEY = jax.random.key(0)
LATENTS, DATA, PRECISION = 3, 7, 4.0

SOLVERS = {
    "gauss-newton": (lambda: mupc.GaussNewton(DATA), 3),
    "l-bfgs of errors": (lambda: mupc.InErrors(mupc.LBFGS(8)), 300),
    "l-bfgs, whitened": (lambda: mupc.InErrors(mupc.LBFGS(8), whitened=True), 300),
    "l-bfgs": (lambda: mupc.LBFGS(8), 600),
    "descent": (lambda: mupc.GradientDescent(mupc.StableStep()), 60_000),
}


def linear(depth=3):
    network = mupc.decoder(
        LATENTS, DATA, width=5, depth=depth, activation=mupc.identity,
        parameterisation=mupc.standard(), key=KEY,
    )  # fmt: skip
    shifted = lambda v: v + 0.3 if v.ndim <= 2 and v.shape[-1] == 5 else v
    return jax.tree.map(lambda v: shifted(v) if eqx.is_array(v) else v, network)


def decoder_of_rows():
    network = mupc.decoder(LATENTS, DATA, width=5, depth=2, activation=mupc.identity, key=KEY)
    return network, jax.random.normal(jax.random.key(1), (4, DATA))


def _rows(arrays, count):
    leaves, form = jax.tree.flatten(arrays)
    return [jax.tree.unflatten(form, [leaf[i] for leaf in leaves]) for i in range(count)]


def maps(network):
    """Every layer as a matrix and a vector, from the latent variables to the output."""
    _, stage = network.stages
    arrays, rest = eqx.partition(stage.blocks[0], eqx.is_array)
    rows = [eqx.combine(row, rest) for row in _rows(arrays, stage.repetitions)]
    blocks = [stage.entry, *rows]
    found = []
    for block in (*blocks, network.readout):
        size = LATENTS if block is blocks[0] else 5
        zero = block(jnp.zeros(size))
        found.append((np.stack([block(row) - zero for row in jnp.eye(size)], 1), np.asarray(zero)))
    return found


def posterior_mean(network, y, observed=slice(None)):
    """Of z ~ N(0, I), each layer and y Gaussian about what is predicted: by dense matrices."""
    *hidden, (last, shift) = maps(network)
    mean, onto, noise = np.zeros(LATENTS), np.eye(LATENTS), np.zeros((LATENTS, LATENTS))
    for matrix, offset in hidden:
        mean, onto = matrix @ mean + offset, matrix @ onto
        noise = matrix @ noise @ matrix.T + np.eye(len(matrix))
    mean, onto = last @ mean + shift, last @ onto
    noise = last @ noise @ last.T + np.eye(DATA) / PRECISION
    mean, onto, noise = mean[observed], onto[observed], noise[observed][:, observed]
    weighed = onto.T @ np.linalg.inv(noise)
    inner = np.eye(LATENTS) + weighed @ onto
    return np.linalg.solve(inner, weighed @ (np.asarray(y)[:, observed] - mean).T).T


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SOLVERS)
def test_inferred_latents_are_the_mean_of_the_posterior(name):
    network = linear()
    y = jax.random.normal(jax.random.key(1), (6, DATA))
    energy = mupc.FreeEnergy(network, y, y, mupc.Gaussian(PRECISION))
    make, steps = SOLVERS[name]
    found = mupc.infer(energy, make(), energy.run(), max_steps=steps,
                       stopping=mupc.Tolerance(1e-12, patience=100))  # fmt: skip
    wanted = posterior_mean(network, y)
    np.testing.assert_allclose(found.point.activities[0][0], wanted, atol=1e-8)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", SOLVERS)
def test_latents_of_partly_known_data_are_the_mean_of_their_posterior(name):
    network = linear()
    y = np.array(jax.random.normal(jax.random.key(1), (6, DATA)))
    known = np.array([1, 0, 0, 1, 1, 0, 1])
    make, steps = SOLVERS[name]
    rule = mupc.PredictiveCoding(make(), steps, mupc.Gaussian(PRECISION),
                                 stopping=mupc.Tolerance(1e-12, patience=1000))  # fmt: skip
    seen = mupc.recall(network, np.where(known, y, np.nan), known, rule=rule)
    wanted = posterior_mean(network, y, np.flatnonzero(known))
    np.testing.assert_allclose(seen.latents, wanted, atol=1e-8)
    np.testing.assert_array_equal(seen.completed[:, known > 0], y[:, known > 0])
    for matrix, offset in maps(network):
        wanted = wanted @ matrix.T + offset
    np.testing.assert_allclose(seen.generated, wanted, atol=1e-8)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [mupc.decoder, mupc.conv_decoder])
def test_whitened_latents_have_the_units_of_the_outputs_curvature(make):
    """P = (I + Jᵀ B Bᵀ J)^(−1/2) at zero, J by automatic differentiation; and gradients in them."""
    pixels = (4, 4, 2) if make is mupc.conv_decoder else 12
    more = (
        {"doublings": 1, "channels": 3} if make is mupc.conv_decoder else {"width": 9, "depth": 2}
    )
    network = make(3, pixels, activation=jnp.tanh, key=KEY, **more)
    y = jax.random.normal(jax.random.key(1), (4, *np.atleast_1d(pixels)))
    known = jax.random.bernoulli(jax.random.key(2), 0.5, y.shape)
    energy = mupc.FreeEnergy(network, y, y, mupc.Gaussian(PRECISION), precisions=7.0,
                             observed=known)  # fmt: skip
    units = latent_units(energy)
    zero = energy.run().errors
    size = zero[0][0, 0].size

    def output(z):
        first = jnp.zeros_like(zero[0]).at[0, 0].set(z.reshape(zero[0].shape[2:]))
        return network.feedforward(y, (first, *zero[1:])).output[0].ravel()

    J = jax.jacobian(output)(jnp.zeros(size))
    shares = np.mean(known, axis=0).ravel()
    inverse = np.eye(size) + PRECISION * np.asarray(J.T * shares) @ np.asarray(J)
    each = jnp.eye(size).reshape(1, size, *zero[0].shape[2:])
    P = np.asarray(units.apply(each)).reshape(size, size)
    np.testing.assert_allclose(P @ inverse @ P, np.eye(size), atol=1e-9)
    np.testing.assert_allclose(units.undo(units.apply(each)), each, atol=1e-10)

    view = ErrorView(energy, units)
    keys = jax.random.split(KEY, len(zero))
    w = tuple(jax.random.normal(k, e.shape, e.dtype) for k, e in zip(keys, zero, strict=True))
    samples, gradient = view.samples_and_gradient(w)
    total = lambda w: jnp.sum(energy.samples(view.run(w)))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    close(jnp.sum(samples), total(w))
    jax.tree.map(close, gradient, jax.grad(total)(w))
    jax.tree.map(close, view.enter(view.run(w)), w)


@pytest.mark.usefixtures("float64")
def test_whitened_latents_settle_in_a_few_steps():
    """Of data in which some latent variables matter a thousand times as much as others."""
    network = linear(depth=1)
    uneven = jnp.diag(jnp.array([30.0, 1.0, 0.03]))
    weights = lambda n: n.stages[1].entry.weights
    network = eqx.tree_at(weights, network, weights(network) @ uneven)
    y = jax.random.normal(jax.random.key(1), (6, DATA))
    energy = mupc.FreeEnergy(network, y, y, mupc.Gaussian(100.0), precisions=1e6)
    left = {
        whitened: mupc.infer(
            energy, mupc.InErrors(mupc.LBFGS(2), whitened=whitened), energy.run(), max_steps=4
        ).relative_residual
        for whitened in (True, False)
    }
    assert np.max(left[True]) < 1e-3
    assert np.median(left[False]) > 1e-2


@pytest.mark.parametrize("whitened", [True, False])
def test_a_report_compares_in_the_units_of_the_rule(whitened):
    network = mupc.decoder(LATENTS, DATA, width=4, depth=1, key=KEY)
    solver = mupc.InErrors(mupc.LBFGS(), whitened=whitened)
    assert mupc.PredictiveCoding(solver, 5).exact(network).solver.whitened is whitened


def test_whitened_is_for_inputs_that_are_free():
    network, y = decoder_of_rows()
    given = mupc.residual_mlp(DATA, DATA, width=4, depth=2, key=KEY)
    classes = mupc.class_decoder(2, DATA, latents=2, width=4, depth=1, key=KEY)
    solver = mupc.InErrors(mupc.LBFGS(), whitened=True)
    for network, x in ((given, y), (classes, jnp.eye(2)[jnp.array([0, 1, 1, 0])])):
        energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian())
        with pytest.raises(ValueError, match="for networks whose input is free"):
            mupc.infer(energy, solver, energy.run(), max_steps=2)
    chain = mupc.residual_hopfield(DATA, DATA, width=4, depth=2, key=KEY)
    hopfield = HopfieldEnergy(chain, y, y, mupc.Gaussian())
    with pytest.raises(ValueError, match=r"is for a mupc\.FreeEnergy"):
        mupc.infer(hopfield, solver, hopfield.run(), max_steps=2)
    for kind in ("class-decoder", "residual-mlp"):
        with pytest.raises(ConfigError, match=f"which network {kind} is not: choose errors"):
            Configuration().changed({"network": kind, "solver": "l-bfgs",
                                     "coordinates": "whitened"})  # fmt: skip


@pytest.mark.usefixtures("float64")
def test_what_is_completed_is_what_is_likeliest_given_the_rest():
    """Of a Gaussian: the mean of unknown numbers on condition of those that are known."""
    network = linear()
    y = np.array(jax.random.normal(jax.random.key(1), (6, DATA)))
    known = np.array([1, 0, 0, 1, 1, 0, 1], bool)
    rule = mupc.PredictiveCoding(mupc.GaussNewton(DATA), 3, mupc.Gaussian(PRECISION))
    *hidden, (last, shift) = maps(network)
    mean, spread = np.zeros(LATENTS), np.eye(LATENTS)
    for matrix, offset in hidden:
        mean, spread = matrix @ mean + offset, matrix @ spread @ matrix.T + np.eye(len(matrix))
    mean, spread = last @ mean + shift, last @ spread @ last.T + np.eye(DATA) / PRECISION
    gain = spread[~known][:, known] @ np.linalg.inv(spread[known][:, known])
    wanted = mean[~known] + (y[:, known] - mean[known]) @ gain.T
    seen = mupc.recall(network, y, known, rule=rule)
    np.testing.assert_allclose(seen.completed[:, ~known], wanted, atol=1e-8)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [name for name in SOLVERS if "whitened" not in name])
def test_an_input_known_in_part_is_inferred_where_it_is_not(name):
    """The rest of x on condition of what is known of it and of y, by one dense solve."""
    inner = mupc.Chain(linear().stages[1:], linear().readout)
    network = mupc.with_prior(inner, (LATENTS,), about_input=True)
    x, y = (jax.random.normal(jax.random.key(i), (6, n)) for i, n in ((1, LATENTS), (2, DATA)))
    given, known = np.array([1, 0, 0]), np.array([1, 1, 0, 1, 1, 0, 1])
    every = lambda one, like: np.broadcast_to(one, like.shape)
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(PRECISION),
                             observed=every(known, y), given=every(given, x))  # fmt: skip
    make, steps = SOLVERS[name]
    found = mupc.infer(energy, make(), energy.run(), max_steps=steps,
                       stopping=mupc.Tolerance(1e-12, patience=1000))  # fmt: skip
    onto, mean, noise = np.eye(LATENTS), np.zeros(LATENTS), np.zeros((LATENTS, LATENTS))
    *hidden, (last, shift) = maps(network)
    for matrix, offset in hidden:
        onto, mean = matrix @ onto, matrix @ mean + offset
        noise = matrix @ noise @ matrix.T + np.eye(len(matrix))
    seen, free = np.flatnonzero(known), np.flatnonzero(given == 0)
    onto, mean = (last @ onto)[seen], (last @ mean + shift)[seen]
    noise = (last @ noise @ last.T + np.eye(DATA) / PRECISION)[seen][:, seen]
    weighed = onto[:, free].T @ np.linalg.inv(noise)
    wanted = np.array(x)
    rest = np.asarray(y)[:, seen] - mean - wanted @ onto.T
    wanted[:, free] += np.linalg.solve(
        np.eye(len(free)) + weighed @ onto[:, free], weighed @ rest.T
    ).T
    latents = found.point.activities[0][0]
    np.testing.assert_allclose(latents, wanted, atol=1e-8)
    np.testing.assert_array_equal(latents[:, 0], x[:, 0])
    # Whatever it starts from, what is known stays.
    drawn = energy.at(jax.tree.map(jnp.ones_like, found.point.activities))
    np.testing.assert_array_equal(drawn.activities[0][0][:, 0], x[:, 0])
    assert np.all(energy.activity_gradient(drawn)[0][..., 0] == 0)
    for other in (inner, mupc.with_prior(inner, (LATENTS,))):
        with pytest.raises(ValueError, match="given must have the shape of x"):
            mupc.FreeEnergy(other, x, y, mupc.Gaussian(), given=every(given, x))
    with pytest.raises(ValueError, match="that are 0 or 1"):
        mupc.FreeEnergy(network, x, y, mupc.Gaussian(), given=2 * every(given, x))


def test_another_part_of_the_data_needs_no_other_program():
    traced = []

    class Counting(mupc.Gaussian):
        def terms(self, y, output):
            traced.append(1)
            return super().terms(y, output)

    network, y = linear(), np.ones((4, DATA), np.float32)
    rule = mupc.PredictiveCoding(mupc.GaussNewton(2), 2, Counting(PRECISION))
    first = mupc.recall(network, y, np.arange(DATA) < 3, rule=rule)
    count = len(traced)
    second = mupc.recall(network, y, np.arange(DATA) % 2, rule=rule)
    assert len(traced) == count > 0
    assert not np.allclose(first.latents, second.latents)


@pytest.mark.usefixtures("float64")
def test_a_batch_is_recalled_in_parts():
    network = linear()
    y = np.array(jax.random.normal(jax.random.key(1), (7, DATA)))
    known = np.random.default_rng(0).random((7, DATA)) < 0.5
    rule = mupc.PredictiveCoding(mupc.InErrors(mupc.LBFGS(8)), 200, mupc.Gaussian(PRECISION))
    whole, parts = (mupc.recall(network, y, known, rule=rule, batch_size=n) for n in (7, 3))
    for a, b in zip(whole[:3], parts[:3], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert parts.sweeps.shape == parts.relative_residual.shape == (7,)


def test_what_cannot_be_recalled_is_refused():
    network, y = linear(), np.zeros((4, DATA))
    rule = mupc.PredictiveCoding(mupc.GaussNewton(), 1, mupc.Gaussian(PRECISION))
    with pytest.raises(ValueError, match="network's input is given"):
        mupc.recall(mupc.residual_mlp(3, 2, width=4, depth=1, key=KEY), y, rule=rule)
    with pytest.raises(TypeError, match=r"rule must be a mupc\.PredictiveCoding.*not Backprop"):
        mupc.recall(network, y, rule=mupc.Backpropagation())
    with pytest.raises(ValueError, match=r"observed must have the shape of the data, \(4, 7\)"):
        mupc.recall(network, y, np.ones(3), rule=rule)
    with pytest.raises(ValueError, match="holds no samples"):
        mupc.recall(network, y[:0], rule=rule)
    with pytest.raises(ValueError, match="batch_size"):
        mupc.recall(network, y, rule=rule, batch_size=0)
    with pytest.raises(ValueError, match="that are 0 or 1"):
        mupc.recall(network, y, np.full(DATA, -1.0), rule=rule)
    inner = mupc.Chain(network.stages[1:], network.readout)
    for read in (mupc.recall, lambda n, y, rule: mupc.sample(n, 3, rule=rule, key=KEY)):
        with pytest.raises(ValueError, match="network's input is given"):
            read(mupc.with_prior(inner, (LATENTS,), about_input=True), y, rule=rule)


def test_classes_are_recalled_whole():
    network = linear()
    y = np.eye(DATA)[:4]
    rule = mupc.PredictiveCoding(mupc.GaussNewton(DATA), 20, mupc.Categorical(4.0))
    seen = mupc.recall(network, y, rule=rule)
    np.testing.assert_allclose(seen.generated.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(seen.completed, y)


def test_precisions_are_given_in_one_place():
    network, y = linear(), jnp.zeros((4, DATA))
    own = lambda *terms: mupc.FreeEnergy(*terms, precisions=[1.0, 2, 2, 2])
    rule = mupc.PredictiveCoding(
        mupc.GaussNewton(), 1, mupc.Gaussian(4.0), hidden_precision=7.0, energy=own
    )
    with pytest.raises(ValueError, match="without precisions of its own"):
        rule.predict(network, y)


def test_the_closed_form_refuses_what_it_does_not_know():
    network, y = decoder_of_rows()
    solve = lambda energy: mupc.infer(energy, mupc.LinearSolve(), energy.run(), max_steps=1)
    for energy in (
        mupc.FreeEnergy(network, y, y, mupc.Gaussian(), observed=jnp.ones_like(y)),
        mupc.FreeEnergy(network, y, y, mupc.Gaussian(precisions=jnp.ones(DATA))),
    ):
        with pytest.raises(ValueError, match="closed form is for"):
            solve(energy)


@pytest.mark.usefixtures("float64")
def test_precise_hidden_layers_leave_all_to_the_latents():
    """As many steps as without: errors are moved in units of their own."""
    network = linear()
    y = jax.random.normal(jax.random.key(1), (6, DATA))
    rule = mupc.PredictiveCoding(
        mupc.InErrors(mupc.LBFGS(8)), 40, mupc.Gaussian(PRECISION), hidden_precision=1e8,
        stopping=mupc.Tolerance(1e-10),
    )  # fmt: skip
    onto, mean = np.eye(LATENTS), np.zeros(LATENTS)
    for matrix, offset in maps(network):
        onto, mean = matrix @ onto, matrix @ mean + offset
    inner = np.eye(LATENTS) + PRECISION * onto.T @ onto
    wanted = np.linalg.solve(inner, PRECISION * onto.T @ (np.asarray(y) - mean).T).T
    np.testing.assert_allclose(mupc.recall(network, y, rule=rule).latents, wanted, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_a_free_input_is_one_more_layer_with_a_gaussian_prior():
    inner = mupc.residual_mlp(LATENTS, DATA, width=5, depth=2, key=KEY)
    network = mupc.with_prior(inner, (LATENTS,))
    assert network.generates
    assert not inner.generates
    assert network.depth == 3
    y = jax.random.normal(jax.random.key(1), (4, DATA))
    latents = jax.random.normal(jax.random.key(2), (4, LATENTS))
    clamped = mupc.FreeEnergy(inner, latents, y, mupc.Gaussian(PRECISION))
    free = mupc.FreeEnergy(network, y, y, mupc.Gaussian(PRECISION))
    activities = tuple(0.5 * z for z in clamped.run().activities)
    whole = free.samples(free.at((latents[None], *activities)))
    prior = 0.5 * jnp.sum(latents**2, axis=1)
    np.testing.assert_allclose(whole, clamped.samples(clamped.at(activities)) + prior, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_prediction_is_what_the_inferred_latents_alone_generate():
    network = linear()
    y = jax.random.normal(jax.random.key(1), (6, DATA))
    rule = mupc.PredictiveCoding(mupc.GaussNewton(DATA), 3, mupc.Gaussian(PRECISION))
    wanted = posterior_mean(network, y)
    for matrix, offset in maps(network):
        wanted = wanted @ matrix.T + offset
    np.testing.assert_allclose(rule.predict(network, y), wanted, atol=1e-8)


@pytest.mark.usefixtures("float64")
def test_labels_are_inferred_from_what_they_generate():
    """Of a linear network the largest latent variable is that of the label that made a datum."""
    inner = mupc.residual_mlp(4, 12, width=16, depth=2, activation=mupc.identity, key=KEY)
    network = mupc.with_prior(inner, (4,))
    labels = jnp.eye(4)[jnp.array([2, 0, 3, 1, 1])]
    y = inner.feedforward(labels).output
    energy = mupc.FreeEnergy(network, y, y, mupc.Gaussian(1e4))
    found = mupc.infer(energy, mupc.GaussNewton(12), energy.run(), max_steps=3)
    np.testing.assert_array_equal(
        jnp.argmax(found.point.activities[0][0], axis=-1), jnp.argmax(labels, axis=-1)
    )


@pytest.mark.usefixtures("float64")
def test_a_linear_decoder_learns_the_principal_subspace():
    """As probabilistic PCA does (Tipping & Bishop, 1999)."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(DATA, DATA)))[0]
    y = rng.normal(size=(400, DATA)) * [3, 2.5, 2, 0.3, 0.3, 0.3, 0.3] @ basis.T
    readout = mupc.residual_mlp(
        DATA, DATA, width=LATENTS, depth=1, activation=mupc.identity,
        parameterisation=mupc.standard(), key=KEY,
    ).readout  # fmt: skip
    network = mupc.Chain((mupc.Stage(Prior((LATENTS,))),), readout)
    data = Dataset.from_arrays(y, y)
    rule = mupc.PredictiveCoding(mupc.LinearSolve(), 1, mupc.Gaussian(10.0))
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, 400))
    result = mupc.fit(network, data, rule, optimiser, steps=400, batch_size=100, key=KEY)
    learned = np.linalg.qr(np.asarray(result.network.readout.weights))[0]
    angles = np.linalg.svd(learned.T @ basis[:, :LATENTS])[1]
    assert np.all(angles > 0.999)
    assert np.min(np.linalg.svd(learned.T @ basis[:, 1 : 1 + LATENTS])[1]) < 0.5  # not of any three


@pytest.mark.usefixtures("float64")
def test_upsampling_is_a_convolution_whose_channels_become_pixels():
    network = mupc.conv_decoder(2, (6, 4, 3), doublings=1, blocks=1, channels=2, key=KEY)
    block = network.stages[2].entry
    z = np.asarray(jax.random.normal(KEY, (3, 2, 4)))
    padded = np.pad(np.tanh(z), ((1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(block.kernels[0] * block.multipliers[0])
    wanted = np.zeros((6, 4, 2))
    for i, k, a, b, out in np.ndindex(3, 2, 2, 2, 2):
        window = padded[i : i + 3, k : k + 3]
        wanted[2 * i + a, 2 * k + b, out] = np.sum(window * kernel[..., (2 * a + b) * 2 + out])
    np.testing.assert_allclose(block(jnp.asarray(z)), wanted, atol=1e-12)
    assert network.feedforward(jnp.zeros((5, 6, 4, 3))).output.shape == (5, 6, 4, 3)
    assert network.stages[0].entry.shape == (3, 2, 2)


def test_sides_of_images_must_halve():
    with pytest.raises(ValueError, match=r"28 × 28 pixels .* 3 times.*multiples of 8"):
        mupc.conv_decoder(2, (28, 28, 1), doublings=3, key=KEY)
    with pytest.raises(ConfigError, match="takes images"):
        train(Configuration().changed({"network": "conv-decoder", "dataset": "digits"}),
              data=Dataset.from_arrays(np.ones((8, 3)), np.ones((8, 1))))  # fmt: skip


@pytest.mark.full
def test_the_program_does_not_grow_with_blocks():
    rule = mupc.PredictiveCoding(
        mupc.InErrors(mupc.LBFGS()), 5, mupc.Gaussian(), hidden_precision=9
    )
    images = np.zeros((2, 4, 4, 1), np.float32)
    make = lambda n: mupc.conv_decoder(2, (4, 4, 1), doublings=1, blocks=n, channels=2, key=KEY)
    few, many = (len(step_equations(rule, make(n), (images, images))) for n in (2, 16))
    assert few == many


def test_a_datum_is_a_target_of_itself():
    data = mupc.data.load("digits").flattened().reconstructed()
    assert data.classes is None
    np.testing.assert_array_equal(data.test.x, data.test.y)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": "backpropagation"}, "latent variables, which rule backpropagation does not"),
        ({"rule": "equilibrium-propagation"}, "which rule equilibrium-propagation does not infer"),
        ({"regime": "held"}, "takes no regime held, which is for networks near backpropagation"),
        ({"regime": "initial"}, "takes no regime initial, which is for networks near"),
        ({"augment": "crop"}, "changes inputs and not targets"),
        ({"activation": "relu"}, "no derivative at zero, where latent variables begin"),
    ],
)
def test_what_does_not_infer_latents_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        Configuration().changed({"network": "decoder", **changes})


def test_an_activation_that_lets_latents_begin_is_taken():
    """Where the class is not zero, errors go back without φ', or noise moves latent variables."""
    kernels = {
        "error_kernels": "learned",
        "solver": "gradient-descent",
        "coordinates": "activities",
        "step_size": 0.1,
    }
    for changes in (
        {"network": "class-decoder"},
        {"network": "conv-decoder", "dataset": "mnist", **kernels},
        {"network": "decoder", "rule": "monte-carlo"},
    ):
        Configuration().changed({**changes, "activation": "relu"})


def test_rules_that_do_not_infer_an_input_refuse_it():
    network = mupc.decoder(LATENTS, DATA, width=5, depth=1, key=KEY)
    y = jnp.zeros((4, DATA))
    for rule in (mupc.Backpropagation(), mupc.EquilibriumPropagation(),
                 mupc.IncrementalPredictiveCoding(), mupc.PredictiveCoding()):  # fmt: skip
        with pytest.raises(ValueError, match="input of this network is to be inferred"):
            rule.predict(network, y)
        with pytest.raises(ValueError, match="input of this network is to be inferred"):
            rule.init(network, KEY)


def test_an_estimator_predicts():
    sklearn = pytest.importorskip("mupc.sklearn")
    with pytest.raises(ConfigError, match="an estimator predicts y from X"):
        sklearn.PCRegressor(network="decoder", epochs=1).fit(np.ones((8, 3)), np.ones(8))


@pytest.mark.usefixtures("unchecked")
def test_a_network_has_one_free_input():
    network = mupc.decoder(LATENTS, DATA, width=5, depth=1, key=KEY)
    with pytest.raises(ValueError, match="free already"):
        mupc.with_prior(network, (3,))
    with pytest.raises(ValueError, match="input of shape"):
        mupc.with_prior(mupc.residual_mlp(3, 2, width=4, depth=1, key=KEY), (4,))
    with pytest.raises(TypeError, match=r"network must be a mupc\.Chain"):
        mupc.with_prior(mupc.bidirectional_mlp(3, 2, width=4, depth=1, key=KEY), (3,))


@pytest.mark.full
def test_the_command_trains_a_decoder_and_says_how_far_off_its_pictures_are(tmp_path, capsys):
    out = str(tmp_path / "run")
    words = "--network decoder --latents 8 --width 16 --batch-size 50 --epochs 6 --report-every 50"
    assert main(["train", *words.split(), "--out", out]) == 0
    said = capsys.readouterr().out
    error = float(said.split("test mean squared error ")[1].split(",")[0])
    pixels = mupc.data.load("digits", scale="unit").flattened().test.x
    # Better than the mean picture by half.
    assert error < 0.5 * np.mean((pixels - pixels.mean(axis=0)) ** 2)
    assert "cosine with the exact gradient" in said
    assert main(["evaluate", out]) == 0
    assert f"mean squared error {error}" in capsys.readouterr().out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = str(tmp_path_factory.mktemp("decoder") / "run")
    words = (
        "--network conv-decoder --latents 4 --doublings 1 --channels 2 --batch-size 50 --epochs 1"
    )
    assert main(["train", *words.split(), "--report-every", "0", "--out", out]) == 0
    return Path(out)


def said(capsys, *words):
    assert main([*map(str, words)]) == 0
    return capsys.readouterr().out


def test_commands_restore_data_and_draw_them(folder, tmp_path, capsys):
    capsys.readouterr()
    first = said(capsys, "reconstruct", folder, "--samples", "50")
    scores = json.loads((folder / "reconstruct.scores.json").read_text())
    assert f"(50 samples of test): mean squared error {scores['error']:.3g}; PSNR" in first
    pixels = mupc.data.load("digits", scale="unit").test.x[:50]
    assert scores["error"] < 0.5 * np.mean((pixels - pixels.mean(axis=0)) ** 2)
    assert scores["ssim"] > 0.5
    assert said(capsys, "reconstruct", folder, "--samples", "50") == first
    assert "50% hidden (lower) and completed (50 samples" in said(
        capsys, "complete", folder, "--samples", "50"
    )
    noisy = said(capsys, "denoise", folder, "--samples", "50")
    given = json.loads((folder / "denoise.scores.json").read_text())["before"]
    assert given == pytest.approx(0.25**2, rel=0.1)
    assert "noise of 0.25 removed (50" in noisy
    assert f"(as given {given:.3g})" in noisy
    kept = (folder / "denoise.scores.json").read_bytes()
    elsewhere = tmp_path / "noisier.png"
    said(capsys, "denoise", folder, "--noise", "2", "--picture", str(elsewhere))
    assert (folder / "denoise.scores.json").read_bytes() == kept  # which is of denoise.png
    assert json.loads((tmp_path / "noisier.scores.json").read_text())["before"] > 2 * given
    assert "picture: " in said(capsys, "generate", folder, "--pictures", "20")
    height, width = 64 + 2, 16 * 66 - 2
    for name, rows in (("reconstruct", 2), ("complete", 3), ("denoise", 3), ("generate", 2)):
        picture = imread(folder / f"{name}.png")
        assert picture.shape[:2] == (rows * height - 2, width)
        assert 0.05 < np.mean(picture[..., :3]) < 0.9


def test_less_precision_relies_on_what_was_learned(folder, capsys):
    """With little of it nothing is inferred, and what is generated is the network's mean."""
    capsys.readouterr()
    said(capsys, "reconstruct", folder, "--samples", "50", "--precision", "1e-9")
    config, data, network = load_run(folder)
    mean = network.feedforward(data.test.x[:50]).output
    error = float(np.mean((data.test.x[:50] - mean) ** 2))
    found = json.loads((folder / "reconstruct.scores.json").read_text())["error"]
    assert found == pytest.approx(error, rel=1e-3)
    assert config.network.generates


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("complete {} --mask top", "--mask must be one of upper, lower, left, right or random"),
        ("complete {} --share 1", "--share must be below 1"),
        (
            "complete {} --share 0.01",
            "a share of 0.01 (lower) hides none of 360 samples of shape (8",
        ),
        ("complete {} --mask-seed 3", "--mask-seed would have no effect, since --mask is lower"),
        ("generate {} --prompt a", "--prompt would have no effect, since the network of"),
        ("reconstruct {} --picture /dev/null/a.png", "--picture: cannot write /dev/null/a.png"),
        ("denoise {} --noise -1", "--noise must be at least 0"),
        ("reconstruct {} --picture a.jpg", "--picture must be a file that ends in .png, not a.jpg"),
        ("reconstruct {}/config.json", "config.json"),
        ("reconstruct {} --split validation", "has no validation split"),
    ],
)
def test_what_cannot_be_restored_is_said_in_a_sentence(folder, capsys, words, sentence):
    assert main(words.format(folder).split()) == 2
    assert sentence in capsys.readouterr().err


def test_nothing_is_left_where_there_is_no_run(tmp_path, capsys):
    assert main(["reconstruct", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_pictures_are_for_networks_that_make_them(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "--depth", "1", "--width", "4", "--steps", "2", "--report-every", "0",
                 "--out", out]) == 0  # fmt: skip
    for words, sentence in (
        (["generate", out, "--pictures", "3"], "makes no pictures"),
        (["generate", out], "is no text, and the network makes no pictures"),
        (["denoise", out], "is a residual-mlp, which generates nothing"),
    ):
        capsys.readouterr()
        assert main(words) == 2
        assert sentence in capsys.readouterr().err


def test_a_network_of_two_directions_makes_a_picture_of_each_class(tmp_path, capsys):
    out = str(tmp_path / "run")
    words = "--rule bidirectional --depth 2 --width 32 --steps 200 --report-every 0 --out"
    assert main(["train", *words.split(), out]) == 0
    capsys.readouterr()
    printed = said(capsys, "generate", out)
    _, data, network = load_run(out)
    made = np.asarray(network.down.feedforward(jnp.eye(10)).output)
    labels = data.train.y.argmax(axis=1)
    means = [data.train.x[labels == one].mean(axis=0) for one in range(10)]
    wanted = [np.corrcoef(a, b)[0, 1] for a, b in zip(made, means, strict=True)]
    assert f"mean {np.mean(wanted):.3f}, minimum {np.min(wanted):.3f}" in printed
    assert np.min(wanted) > 0.95
    others = [np.corrcoef(made[i], means[i - 1])[0, 1] for i in range(10)]
    assert np.mean(others) < 0.7
    assert imread(tmp_path / "run/generate.png").shape[:2] == (64, 10 * 66 - 2)
    for more in (["--pictures", "3"], ["--draw-seed", "0"]):
        assert main(["generate", out, *more]) == 2
        assert "makes one of each class" in capsys.readouterr().err


def test_parts_and_noise_belong_to_a_sample_and_a_seed():
    shape = (4, 6, 3)
    lower = mupc.data.hidden_part(shape, "lower", count=2)
    assert lower.shape == (2, *shape)
    assert lower[:, 2:].all()
    assert not lower[:, :2].any()
    right = mupc.data.hidden_part(shape, "right", 1 / 3, count=1)
    np.testing.assert_array_equal(np.flatnonzero(right[0, 0, :, 0]), [4, 5])
    few, many = (mupc.data.hidden_part((40, 50, 3), "random", 0.3, count=n) for n in (1, 3))
    np.testing.assert_array_equal(few[0], many[0])
    assert np.all(few == few[..., :1])  # whole pixels
    assert abs(few.mean() - 0.3) < 0.04
    assert not np.array_equal(many[0], many[1])
    x = np.zeros((3, 50, 40), np.float32)
    noisy = mupc.data.with_noise(x, 0.2, seed=5)
    np.testing.assert_array_equal(noisy[:1], mupc.data.with_noise(x[:1], 0.2, seed=5))
    assert noisy.dtype == np.float32
    assert abs(noisy.std() - 0.2) < 0.01
    assert not np.array_equal(noisy, mupc.data.with_noise(x, 0.2, seed=6))
    for call in (lambda: mupc.data.hidden_part((9,), "lower", count=1),
                 lambda: mupc.data.hidden_part(shape, "lower", 1.0, count=1),
                 lambda: mupc.data.with_noise(x, -1.0)):  # fmt: skip
        with pytest.raises(DataError):
            call()


@pytest.mark.usefixtures("float64")
def test_drawn_data_have_the_covariance_of_the_network():
    network = linear()
    rule = mupc.PredictiveCoding(mupc.GaussNewton(), 1, mupc.Gaussian(4.0), hidden_precision=2.0)
    drawn = mupc.sample(network, 40_000, rule=rule, key=KEY)
    *hidden, (last, shift) = maps(network)
    mean, spread = np.zeros(LATENTS), np.eye(LATENTS)
    for matrix, offset in hidden:
        mean = matrix @ mean + offset
        spread = matrix @ spread @ matrix.T + np.eye(len(matrix)) / 2
    mean, spread = last @ mean + shift, last @ spread @ last.T
    # Standard errors of a mean and of a covariance over so many draws.
    each = np.sqrt(np.diag(spread))
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 5 * each / 200)
    assert np.all(np.abs(np.cov(drawn.T) - spread) < 5 * 2**0.5 * np.outer(each, each) / 200)
