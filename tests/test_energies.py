"""Energies and their gradients against formulas written out by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import Reference, batch
from test_networks import CASES, build, two_stages

import mupc
from mupc.energies import ErrorView
from mupc.networks.stage import loop_pays
from mupc.regularisers import Regulariser

pytestmark = pytest.mark.usefixtures("float64")


def problem(*args, precision=0.7, regularisers=(), **kwargs):
    network = build(*args, **kwargs)
    x, y = batch(6, 3)
    z = np.random.default_rng(1).normal(size=(4, 5, 5))
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(precision), regularisers)
    return energy, x, y, z


@pytest.fixture(params=["all layers at once", "layer by layer"])
def way(request, monkeypatch):
    """Both ways to an activity gradient, of which the size and the backend choose one."""
    monkeypatch.setattr(
        "mupc.networks.chain.loop_pays", lambda z: request.param == "layer by layer"
    )


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("parameterisation", "skips", "biases", "activation"), CASES)
def test_gradients_are_those_written_out(parameterisation, skips, biases, activation):
    energy, x, y, z = problem(parameterisation, skips, biases, activation)
    plain = Reference(energy.network, activation, skips)
    np.testing.assert_allclose(
        energy.activity_gradient((z,))[0], plain.activity_gradient(x, y, z, 0.7), atol=1e-12
    )
    gradient = energy.weight_gradient((z,))
    stage = gradient.stages[0]
    entry, *hidden, readout = plain.weight_gradients(x, y, z, 0.7)
    multiplier = lambda layer: layer.scale.multiplier
    np.testing.assert_allclose(stage.entry.weights, multiplier(stage.entry) * entry, atol=1e-12)
    np.testing.assert_allclose(
        stage.blocks.weights, multiplier(stage.blocks) * np.stack(hidden), atol=1e-12
    )
    np.testing.assert_allclose(
        gradient.readout.weights, multiplier(gradient.readout) * readout, atol=1e-12
    )
    if biases:
        errors = plain.errors(x, y, z)[0]
        np.testing.assert_allclose(stage.blocks.biases, -np.mean(errors[1:], axis=1), atol=1e-12)


def test_layers_samples_and_mean_agree_with_the_formula():
    energy, x, y, z = problem()
    hidden, output = Reference(energy.network).errors(x, y, z)
    layers = [*(0.5 * np.sum(e**2, -1) for e in hidden), 0.35 * np.sum(output**2, -1)]
    np.testing.assert_allclose(energy.layers((z,)), layers, rtol=1e-12)
    np.testing.assert_allclose(energy.samples((z,)), np.sum(layers, 0), rtol=1e-12)
    np.testing.assert_allclose(energy((z,)), np.mean(np.sum(layers, 0)), rtol=1e-12)


@pytest.mark.parametrize("size", [63, 64])
def test_large_and_small_layers_are_treated_alike(size):
    """On a CPU the gradient at 64 × 128 elements comes from a loop, below from one product."""
    network = mupc.residual_mlp(6, 3, width=128, depth=4, key=jax.random.key(0))
    x, y = batch(6, 3, size)
    z = np.random.default_rng(1).normal(size=(4, size, 128))
    assert loop_pays(z) == (jax.default_backend() == "cpu" and size == 64)
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian())
    samples, (gradient,) = energy.samples_and_gradient((z,))
    plain = Reference(network)
    np.testing.assert_allclose(gradient, plain.activity_gradient(x, y, z, 1.0), atol=1e-11)
    hidden, output = plain.errors(x, y, z)
    expected = 0.5 * (np.sum(np.square(hidden), (0, 2)) + np.sum(output**2, 1))
    np.testing.assert_allclose(samples, expected, rtol=1e-12)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("likelihood", [mupc.Gaussian(0.7), mupc.Categorical(2.0)])
@pytest.mark.parametrize("make", [lambda: two_stages()[0], lambda: build(depth=1)])
def test_gradient_of_two_stages_or_one_layer_is_that_of_the_energy(likelihood, make):
    """And so are its derivatives: the Hessian, applied to a vector, is that of the energy."""
    network = make()
    x, y = batch(6, 3)
    draw = lambda seed: tuple(
        jax.random.normal(jax.random.key(seed), z.shape) for z in network.feedforward(x).activities
    )
    z, v = draw(0), draw(1)
    energy = mupc.FreeEnergy(network, x, y, likelihood, (mupc.ActivityDecay(0.2),))
    total = lambda z: jnp.sum(energy.samples(z))
    samples, gradient = energy.samples_and_gradient(z)
    _, product = jax.jvp(energy.activity_gradient, (z,), (v,))
    _, expected = jax.jvp(jax.grad(total), (z,), (v,))
    np.testing.assert_allclose(samples, energy.samples(z), rtol=1e-12)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), gradient, jax.grad(total)(z)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), product, expected)


@pytest.mark.usefixtures("way")
def test_the_input_may_be_integers():
    energy, x, y, z = problem()
    energy = eqx.tree_at(lambda e: e.x, energy, np.round(3 * x).astype(int))
    expected = Reference(energy.network).activity_gradient(np.round(3 * x), y, z, 0.7)
    np.testing.assert_allclose(energy.activity_gradient((z,))[0], expected, atol=1e-12)


def test_at_the_feedforward_start_hidden_errors_vanish_and_the_energy_is_the_loss():
    energy, x, y, _ = problem()
    start, output = energy.network.feedforward(x)
    np.testing.assert_allclose(energy.layers(start)[:-1], 0, atol=1e-28)
    np.testing.assert_allclose(energy.samples(start), 0.35 * np.sum((y - output) ** 2, -1))


def test_a_layers_weight_gradient_is_local():
    """It changes only with the activities that the layer itself sees: its own and the one below."""
    energy, _, _, z = problem()
    before = energy.weight_gradient((z,)).stages[0].blocks.weights
    z[3] += 1.0
    after = energy.weight_gradient((z,)).stages[0].blocks.weights
    # Blocks predict z_2, z_3 and z_4 (indices 1 to 3).
    np.testing.assert_array_equal(before[:2], after[:2])
    below = energy.network.stages[0].blocks.scale.multiplier * np.mean(np.maximum(z[2], 0), axis=0)
    np.testing.assert_allclose(after[2] - before[2], np.tile(-below, (5, 1)), atol=1e-12)


def test_categorical_is_the_cross_entropy_and_does_not_overflow():
    likelihood = mupc.Categorical(2.0)
    y, output = np.array([0.2, 0.5, 0.3]), np.array([1.0, -2.0, 0.5])
    expected = -np.sum(y * np.log(np.exp(output) / np.sum(np.exp(output))))
    np.testing.assert_allclose(likelihood.loss(y, output), expected, rtol=1e-12)
    np.testing.assert_allclose(likelihood.loss(np.array([0.0, 1.0]), np.array([1e4, 0.0])), 1e4)
    energy, x, y, z = problem()
    categorical = eqx.tree_at(lambda e: e.likelihood, energy, likelihood)
    logits = np.asarray(energy.network.predictions(x, (z,))[1])
    softmax = np.exp(logits) / np.sum(np.exp(logits), -1, keepdims=True)
    cross_entropies = -np.sum(y * np.log(softmax), -1)
    np.testing.assert_allclose(categorical.layers((z,))[-1], 2 * cross_entropies, rtol=1e-12)


def added_gradient(regulariser: Regulariser):
    """What a regulariser adds to the weight gradient, and the network."""
    plain, _, _, z = problem()
    energy, *_ = problem(regularisers=(regulariser,))
    difference = jax.tree.map(
        lambda a, b: a - b, energy.weight_gradient((z,)), plain.weight_gradient((z,))
    )
    return difference, plain.network


def layers_of(network):
    stage = network.stages[0]
    return {"input": stage.entry, "hidden": stage.blocks, "readout": network.readout}


@pytest.mark.parametrize("role", ["input", "hidden", "readout"])
def test_weight_decay_adds_its_gradient_to_its_roles_once(role):
    difference, network = added_gradient(mupc.WeightDecay(0.3, (role,)))
    for name, layer in layers_of(difference).items():
        expected = 0.3 * layers_of(network)[name].weights if name == role else 0.0
        np.testing.assert_allclose(layer.weights, expected, atol=1e-12)


@pytest.mark.parametrize("role", ["input", "hidden", "readout"])
def test_spectral_penalty_adds_its_gradient_to_its_roles_once(role):
    """∂‖I − VᵀV‖²/∂V = −4V(I − VᵀV), and V = aW."""
    difference, network = added_gradient(mupc.SpectralPenalty(0.3, (role,)))
    for name, layer in layers_of(difference).items():
        W = np.asarray(layers_of(network)[name].weights)
        a = layer.scale.multiplier
        V = a * (W if name == "hidden" else W[None])
        gram = np.eye(V.shape[-1]) - V.transpose(0, 2, 1) @ V
        expected = -4 * 0.3 * a * V @ gram if name == role else 0.0 * V
        np.testing.assert_allclose(layer.weights, expected.reshape(W.shape), atol=1e-12)


def test_spectral_penalty_tells_a_matrix_from_a_stack_of_matrices():
    """The entry of a second stage is a hidden layer, yet one matrix."""
    one, two = build(depth=3), build(depth=3, seed=1)
    width = mupc.residual_mlp(5, 3, width=5, depth=3, key=jax.random.key(2)).stages[0]
    entry = eqx.tree_at(lambda e: e.weights, two.stages[0].blocks, jnp.eye(5) * 7)
    network = mupc.Chain((one.stages[0], mupc.Stage(entry, width.blocks)), one.readout)
    layers = [one.stages[0].blocks, entry, width.blocks]
    matrices = [a.scale.multiplier * m for a in layers for m in np.reshape(a.weights, (-1, 5, 5))]
    expected = sum(np.sum((np.eye(5) - V.T @ V) ** 2) for V in matrices)
    penalty = mupc.SpectralPenalty(1.0, ("hidden",)).of_network(network)
    np.testing.assert_allclose(penalty, expected, rtol=1e-12)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("role", "chosen"), [("input", [1, 0, 0, 0]), ("hidden", [0, 1, 1, 1])])
def test_activity_decay_adds_its_gradient_to_its_roles_per_sample(role, chosen):
    plain, *_, z = problem()
    energy, *_ = problem(regularisers=(mupc.ActivityDecay(0.3, (role,)),))
    difference = energy.activity_gradient((z,))[0] - plain.activity_gradient((z,))[0]
    np.testing.assert_allclose(difference, 0.3 * np.array(chosen)[:, None, None] * z, atol=1e-12)
    backprop = mupc.Backpropagation(regularisers=(mupc.ActivityDecay(0.3, (role,)),))
    x, y = batch(6, 3)
    (activities,), output = plain.network.feedforward(x)
    *_, info = backprop.gradients(plain.network, (x, y), None, jax.random.key(0))
    expected = 0.15 * np.array(chosen) * np.mean(np.sum(activities**2, -1), 1)
    np.testing.assert_allclose(info.layers[:-1], expected, rtol=1e-12)
    np.testing.assert_allclose(info.layers[-1], 0.5 * np.mean(np.sum((y - output) ** 2, -1)))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: mupc.WeightDecay(0.1, ("residual",)), "roles must be some of input, hidden"),
        (lambda: mupc.ActivityDecay(0.1, ("readout",)), "readout has no effect"),
    ],
)
def test_roles_that_do_not_exist_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_y_of_the_wrong_width_is_named():
    energy, x, _, z = problem()
    wrong = mupc.FreeEnergy(energy.network, x, jnp.zeros((5, 4)), mupc.Gaussian())
    with pytest.raises(
        ValueError, match=r"y has shape \(5, 4\) but the network's output has shape .5, 3"
    ):
        wrong((z,))


@pytest.mark.parametrize("decay", [(), (mupc.ActivityDecay(0.4),)])
def test_known_errors_change_nothing_but_the_work(decay):
    terms = (mupc.WeightDecay(0.3), *decay)
    energy, _, _, z = problem(activation="tanh", biases=True, regularisers=terms)
    errors = energy.errors((z,))
    plain = Reference(energy.network, "tanh")
    np.testing.assert_allclose(errors[0], plain.errors(energy.x, energy.y, z)[0], atol=1e-12)
    np.testing.assert_allclose(energy.layers((z,), errors), energy.layers((z,)), rtol=1e-12)
    known, slow = energy.weight_gradient((z,), errors), energy.weight_gradient((z,))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), known, slow)
    bare = eqx.tree_at(lambda e: e.regularisers, energy, decay)
    samples = bare.weight_gradient((z,), errors)
    for given in (errors, None):  # in other units the samples' part changes, the weights' own not
        quarter = energy.weight_gradient((z,), given, unit=0.25)
        jax.tree.map(
            lambda q, s, b: np.testing.assert_allclose(q, s + 3 * b, atol=1e-12),
            *(quarter, slow, samples),
        )
    (known,), (slow,) = energy.activity_gradient((z,), errors), energy.activity_gradient((z,))
    np.testing.assert_allclose(known, slow, atol=1e-12)


@pytest.mark.parametrize("decay", [(), (mupc.ActivityDecay(0.4),)])
@pytest.mark.parametrize("likelihood", [mupc.Gaussian(0.7), mupc.Categorical(0.7)])
def test_the_error_view_is_the_energy_of_the_pass_with_errors(likelihood, decay):
    energy, x, _, e = problem(activation="tanh", regularisers=decay)
    energy = eqx.tree_at(lambda f: f.likelihood, energy, likelihood)
    view = ErrorView(energy)
    z = Reference(energy.network, "tanh").feedforward(x, e)[0]
    np.testing.assert_allclose(view.activities((e,))[0], z, atol=1e-12)
    np.testing.assert_allclose(view.samples((e,)), energy.samples((z,)), rtol=1e-12)
    samples, (gradient,) = view.samples_and_gradient((e,))
    slow = jax.grad(
        lambda e: jnp.sum(energy.samples(energy.network.feedforward(x, (e,)).activities))
    )
    np.testing.assert_allclose(samples, energy.samples((z,)), rtol=1e-12)
    np.testing.assert_allclose(gradient, slow(jnp.asarray(e)), atol=1e-12)
    np.testing.assert_allclose(view.of_sample(2).samples((e[:, 2:3],)), samples[2:3], rtol=1e-12)


@pytest.mark.parametrize("likelihood", [mupc.Gaussian(0.7), mupc.Categorical(0.7)])
def test_gauss_newton_factors_give_the_hessian_of_a_linear_network(likelihood):
    """For a linear network the error Hessian is I + JᵀBBᵀJ exactly, whatever the likelihood."""
    network = mupc.residual_mlp(
        6, 3, width=5, depth=4, activation=mupc.identity, key=jax.random.key(0)
    )
    x, y = batch(6, 3, 1)
    energy = mupc.FreeEnergy(network, jnp.asarray(x), jnp.asarray(y), likelihood)
    e = jnp.asarray(np.random.default_rng(1).normal(size=(4, 1, 5)))
    view = ErrorView(energy)
    hessian = jax.hessian(lambda e: view.samples((e.reshape(4, 1, 5),))[0])(e.reshape(-1))
    maps = energy.gauss_newton(view.activities((e,)))
    product = lambda v: maps.down(maps.up((v.reshape(4, 1, 5),)))[0].reshape(-1)
    np.testing.assert_allclose(hessian, np.eye(20) + jax.vmap(product)(jnp.eye(20)).T, atol=1e-10)
