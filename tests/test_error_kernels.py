"""Errors that go back by kernels of their own: convolutional neural generative coding."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mupc
from mupc.commands.main import main
from mupc.learning import first_gradients
from mupc.networks.convolutional import Convolution
from mupc.parameterisations import Shape
from mupc.settings import ConfigError, Configuration

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)


def kernels(network):
    stages = [block for stage in network.stages[1:] for block in (stage.entry, stage.blocks[0])]
    return [*stages, network.readout]


def network_of(activation, *, error_kernels=True):
    return mupc.conv_decoder(
        2, SHAPE, doublings=1, blocks=2, channels=3, activation=activation,
        error_kernels=error_kernels, parameterisation=mupc.ntk(), key=KEY,
    )  # fmt: skip


def with_kernels_of(network, other):
    """The other network with this one's kernels."""
    where = lambda network: [block.kernels for block in kernels(network)]
    return eqx.tree_at(where, other, where(network))


def tied(network):
    """The network whose errors go back by the kernels themselves."""
    where = lambda network: [block.error_kernels for block in kernels(network)]
    return eqx.tree_at(where, network, [block.kernels for block in kernels(network)])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("skip", [False, True])
def test_what_reaches_the_layer_before_is_the_error_by_the_error_kernel(skip):
    block = Convolution.initialise(
        (2, 2), "hidden", jnp.tanh, mupc.ntk(), Shape(2, 4), skip=skip, error_kernels=True, key=KEY
    )
    z, h = jax.random.normal(KEY, (2, 3, 4, 2))
    factor = block.multipliers[0] * block.branch
    error_kernel, padded = np.asarray(block.error_kernels[0]), np.zeros((5, 6, 2))
    padded[1:-1, 1:-1] = h
    wanted = np.array(h if skip else np.zeros_like(h))
    for row, column, a, b in np.ndindex(3, 4, 3, 3):
        wanted[row, column] += factor * error_kernel[a, b] @ padded[row + 2 - a, column + 2 - b]
    _, back = jax.vjp(lambda block, z: block(z), block, z)
    told, reached = back(h)
    np.testing.assert_allclose(reached, wanted, atol=1e-12)
    # The kernel learns as it would without, and the error kernel as the kernel does.
    plain = eqx.tree_at(lambda b: b.error_kernels, block, ())
    (exact, _) = jax.vjp(lambda block, z: block(z), plain, z)[1](h)
    for found in (told.kernels[0], told.error_kernels[0]):
        np.testing.assert_allclose(found, exact.kernels[0], atol=1e-12)
    # Forwards the derivative is the same map, and the prediction that of the kernel.
    change = jax.random.normal(jax.random.key(1), z.shape)
    forward = jax.jvp(block, (z,), (change,))[1]
    np.testing.assert_allclose(jnp.vdot(h, forward), jnp.vdot(reached, change), atol=1e-12)
    np.testing.assert_allclose(block(z), plain(z), atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_of_a_linear_network_errors_by_the_kernels_themselves_are_the_exact_gradient():
    x = jax.random.normal(KEY, (3, *SHAPE))
    gradients = {}
    networks = {
        "exact": network_of(mupc.identity, error_kernels=False),
        "learned": network_of(mupc.identity),
        "tied": tied(network_of(mupc.identity)),
    }
    for name, network in networks.items():
        same = with_kernels_of(networks["learned"], network)
        energy = mupc.FreeEnergy(same, x, x, mupc.Gaussian(2.0))
        errors = energy.run().activities
        point = energy.run(jax.tree.map(jnp.cos, errors))
        gradients[name] = energy.activity_gradient(point)
        by_layer = energy.samples_and_gradient(point.activities)[1]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), gradients[name], by_layer
        )
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10)
    jax.tree.map(close, gradients["tied"], gradients["exact"])
    differs = jax.tree.map(
        lambda a, b: float(jnp.max(jnp.abs(a - b))), *map(gradients.get, ("learned", "exact"))
    )
    assert min(jax.tree.leaves(differs)) > 0.1


@pytest.mark.full
def test_error_kernels_learn_what_kernels_do():
    """Updates are the same, so that what both began with is all that they differ in."""
    network = network_of(jnp.tanh)
    images = mupc.data.load("digits", scale="unit").reconstructed()
    images = mupc.data.Dataset.from_arrays(images.train.x[:, ::2, ::2], images.train.x[:, ::2, ::2])
    rule = mupc.PredictiveCoding(mupc.GradientDescent(0.1), 10, mupc.Gaussian())
    rate = optax.adam(0.02, eps=1e-12)
    trained = mupc.fit(network, images, rule, rate, steps=60, batch_size=20, key=KEY).network
    for before, after in zip(kernels(network), kernels(trained), strict=True):
        learned, told = (
            np.asarray(a[0] - b[0])
            for a, b in (
                (after.kernels, before.kernels),
                (after.error_kernels, before.error_kernels),
            )
        )
        assert np.sqrt(np.mean(learned**2)) > 0.02
        np.testing.assert_allclose(told, learned, atol=2e-5)


@pytest.mark.parametrize("optimiser", [optax.sgd(0.5), optax.adam(0.5)])
def test_weights_are_scaled_down_to_a_bound_layer_by_layer(optimiser):
    network = mupc.residual_mlp(6, 3, width=8, depth=4, biases=True, key=KEY)
    large = lambda v: v * jnp.arange(1.0, len(v) + 1).reshape(-1, *[1] * (v.ndim - 1))
    where = lambda network: network.stages[0].blocks[0].weights
    network = eqx.tree_at(where, network, 0.5 * large(where(network)))
    params = eqx.filter(network, eqx.is_inexact_array)
    gradients = jax.tree.map(jnp.cos, params)
    plain, _ = optimiser.update(gradients, optimiser.init(params), params)
    bounded = optax.chain(optimiser, mupc.bound_weights(network, 0.9))
    updates, _ = bounded.update(gradients, bounded.init(params), params)
    seen, free = (optax.apply_updates(params, each) for each in (updates, plain))
    for a, b in zip(where(seen), where(free), strict=True):
        rms = float(jnp.sqrt(jnp.mean(b**2)))
        np.testing.assert_allclose(a, b * min(1, 0.9 / rms), rtol=1e-5)
    scales = [float(jnp.sqrt(jnp.mean(w**2))) for w in where(free)]
    assert min(scales) < 0.9 < max(scales)  # some are within, and others not
    np.testing.assert_allclose(seen.readout.biases, free.readout.biases)
    with pytest.raises(ValueError, match=r"above 0, not 0\.0"):
        mupc.bound_weights(network, 0.0)
    with pytest.raises(ValueError, match="bounds of weights need them"):
        bounded.update(gradients, bounded.init(params))


def test_both_directions_are_bounded_layer_by_layer():
    network = mupc.bidirectional_mlp(6, 3, width=8, depth=4, key=KEY)
    where = lambda network: [one.stages[0].blocks[0].weights for one in (network.up, network.down)]
    network = eqx.tree_at(where, network, [v.at[0].multiply(9) for v in where(network)])
    params = eqx.filter(network, eqx.is_inexact_array)
    bounded = mupc.bound_weights(network, 1.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    seen = optax.apply_updates(params, bounded.update(zero, bounded.init(params), params)[0])
    for a, b in zip(where(seen), where(network), strict=True):
        np.testing.assert_allclose(a[1:], b[1:], rtol=1e-5)
        assert float(jnp.sqrt(jnp.mean(a[0] ** 2))) == pytest.approx(1.5, rel=1e-5)


@pytest.mark.full
def test_the_preset_trains_and_reads_images_from_all_activities(tmp_path, capsys):
    out = str(tmp_path / "run")
    words = "--preset conv-ngc --dataset digits --scale unit --channels 4 --steps 40 --doublings 1"
    assert main(["train", *words.split(), "--report-every", "0", "--out", out]) == 0
    errors = []
    for source in ("generated", "predicted"):
        said = main(["reconstruct", out, "--samples", "50", "--source", source])
        assert said == 0
        errors.append(json.loads((tmp_path / "run/reconstruct.scores.json").read_text())["error"])
    assert "reconstructed from all activities (50" in capsys.readouterr().out
    assert errors[1] < 0.5 * errors[0]
    assert main(["denoise", out, "--samples", "50", "--source", "predicted"]) == 0
    scores = json.loads((tmp_path / "run/denoise.scores.json").read_text())
    assert scores["error"] < scores["before"]


@pytest.mark.parametrize(
    "changes",
    [
        {"solver": "l-bfgs"},
        {"solver": "gauss-newton"},
        {"solver": "gradient-descent", "step_size": "stable"},
        {"solver": "gradient-descent", "coordinates": "errors"},
    ],
)
def test_methods_that_need_a_gradient_are_refused(changes):
    network = {"network": "conv-decoder", "error_kernels": "learned"}
    with pytest.raises(ConfigError, match="needs the gradient of an energy"):
        Configuration().changed({**network, **changes})
    images = jnp.ones((2, *SHAPE))
    solver = Configuration().changed({**changes, "regime": "fixed"}).rule.solver.build()
    rule = mupc.PredictiveCoding(solver, 3, mupc.Gaussian())
    with pytest.raises(ValueError, match=r"needs the gradient of an energy.* error kernels"):
        rule.settled(network_of(jnp.tanh), images, images)


@pytest.mark.usefixtures("float64")
def test_inference_comes_to_rest_and_is_not_called_diverged_where_the_energy_rose():
    x = 0.1 * jax.random.normal(KEY, (3, *SHAPE))
    rule = mupc.PredictiveCoding(mupc.GradientDescent(0.05), 4000, mupc.Gaussian())
    energy = rule.minimised(network_of(jnp.tanh), (x, x))
    solution = rule.settled(network_of(jnp.tanh), x, x)
    assert float(jnp.max(solution.relative_residual)) < 2e-3
    assert float(jnp.max(energy.samples(solution.point) / energy.samples(energy.run()))) > 1.01
    assert set(np.asarray(solution.result).tolist()) == {mupc.inference.InferenceResult.CONVERGED}
    assert not energy.descends


@pytest.mark.usefixtures("float64")
def test_the_regime_number_is_that_of_the_predictions():
    x = jax.random.normal(KEY, (3, *SHAPE))
    network = network_of(jnp.tanh)
    exact = with_kernels_of(network, network_of(jnp.tanh, error_kernels=False))
    seen, wanted = (
        mupc.learning.mean_regime_number(mupc.FreeEnergy(one, x, x, mupc.Gaussian()))
        for one in (network, exact)
    )
    assert float(seen) == pytest.approx(float(wanted), rel=1e-10)


@pytest.mark.usefixtures("unchecked")
def test_error_kernels_fit_their_kernels():
    block = network_of(jnp.tanh).readout
    for wrong in ((), block.error_kernels * 2, (block.error_kernels[0][:2],)):
        if wrong:
            with pytest.raises(ValueError, match="of the shapes of the kernels"):
                dataclasses.replace(block, error_kernels=wrong)
    assert dataclasses.replace(block, error_kernels=(), scales=block.scales[:1]).exact
    with pytest.raises(TypeError, match="error_kernels must be True or False"):
        network_of(jnp.tanh, error_kernels="tied")
    with pytest.raises(TypeError, match="network"):
        mupc.bound_weights("x", 1.0)


@pytest.mark.full
@pytest.mark.usefixtures("float64")
def test_gradients_are_compared_with_those_of_exact_errors():
    """Those of the readout, by hand: of its kernel and of its error kernel."""
    x = jax.random.normal(KEY, (3, *SHAPE))
    network = network_of(jnp.tanh)
    exact = with_kernels_of(network, network_of(jnp.tanh, error_kernels=False))
    rule = mupc.PredictiveCoding(mupc.GradientDescent(0.05), 5, mupc.Gaussian())
    well = rule.exact(network)
    found = [
        np.ravel(kernels(first_gradients(one, seen, (x, x), None, KEY)[0])[-1].kernels[0])
        for one, seen in ((rule, network), (well, exact))
    ]
    cosine = found[0] @ found[1] / np.linalg.norm(found[0]) / np.linalg.norm(found[1])
    seen = mupc.theory.gradient_alignment(network, (x, x), rule)
    assert float(seen.cosine[-1]) == pytest.approx(cosine, abs=1e-8)
    assert cosine < 0.99
