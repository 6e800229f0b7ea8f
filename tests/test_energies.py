"""Energies and their gradients against formulas written out by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import Reference, batch
from test_networks import CASES, build, drawn_like, patterned, two_stages

import mupc
from mupc.energies import ErrorView
from mupc.networks import Network
from mupc.regularisers import Regulariser

pytestmark = pytest.mark.usefixtures("float64")


def problem(*args, precision=0.7, regularisers=(), **kwargs):
    network = build(*args, **kwargs)
    x, y = batch(6, 3)
    z = np.random.default_rng(1).normal(size=(4, 5, 5))
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(precision), regularisers)
    return energy, x, y, z


def at(energy, z):
    """The point of activities (layer, batch, ...), from input to output."""
    return energy.at(energy.network.in_banks(jnp.asarray(z)))


@pytest.fixture(params=["all layers at once", "layer by layer"])
def way(request, monkeypatch):
    """Both ways to an activity gradient, of which the blocks and the backend choose one."""
    looped = request.param == "layer by layer"
    method = mupc.Chain._looped if looped else Network.local_gradient
    monkeypatch.setattr(mupc.Chain, "local_gradient", method)


@pytest.mark.few(8)
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("parameterisation", "skips", "biases", "activation"), CASES)
def test_gradients_are_those_written_out(parameterisation, skips, biases, activation):
    energy, x, y, z = problem(parameterisation, skips, biases, activation)
    plain = Reference(energy.network, activation, skips)
    point = at(energy, z)
    expected = plain.activity_gradient(x, y, z, 0.7)
    for gradient in (energy.activity_gradient(point), energy.samples_and_gradient(point[0])[1]):
        np.testing.assert_allclose(energy.network.in_order(gradient), expected, atol=1e-12)
    gradient = energy.weight_gradient(point)
    stage = gradient.stages[0]
    entry, *hidden, readout = plain.weight_gradients(x, y, z, 0.7)
    layers = (stage.entry, stage.blocks[0], gradient.readout)
    for layer, wanted in zip(layers, (entry, np.stack(hidden), readout), strict=True):
        np.testing.assert_allclose(layer.weights, layer.multiplier * wanted, atol=1e-12)
    if biases:
        errors = plain.errors(x, y, z)[0]
        np.testing.assert_allclose(stage.blocks[0].biases, -np.mean(errors[1:], axis=1), atol=1e-12)


def test_layers_samples_and_mean_agree_with_the_formula():
    energy, x, y, z = problem()
    hidden, output = Reference(energy.network).errors(x, y, z)
    layers = [*(0.5 * np.sum(e**2, -1) for e in hidden), 0.35 * np.sum(output**2, -1)]
    point = at(energy, z)
    np.testing.assert_allclose(energy.layers(point), layers, rtol=1e-12)
    np.testing.assert_allclose(energy.samples(point), np.sum(layers, 0), rtol=1e-12)
    np.testing.assert_allclose(energy(point), np.mean(np.sum(layers, 0)), rtol=1e-12)


NETWORKS = {
    "two stages": lambda: two_stages()[0],
    "a pattern": lambda: patterned()[0],
    "depth one": lambda: build(depth=1),
}


@pytest.mark.parametrize("size", [63, 64])
def test_large_and_small_layers_are_treated_alike(size):
    """On a CPU the gradient at 64 × 128 elements comes from a loop, below from one product."""
    network = mupc.residual_mlp(6, 3, width=128, depth=4, key=jax.random.key(0))
    x, y = batch(6, 3, size)
    z = np.random.default_rng(1).normal(size=(4, size, 128))
    banks = network.in_banks(z)
    assert network.stages[0].loops_on(banks) == (("cpu",) if size == 64 else ())
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian())
    samples, gradient = energy.samples_and_gradient(banks)
    plain = Reference(network)
    gradient = network.in_order(gradient)
    np.testing.assert_allclose(gradient, plain.activity_gradient(x, y, z, 1.0), atol=1e-11)
    hidden, output = plain.errors(x, y, z)
    expected = 0.5 * (np.sum(np.square(hidden), (0, 2)) + np.sum(output**2, 1))
    np.testing.assert_allclose(samples, expected, rtol=1e-12)


@pytest.mark.few(2)
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("likelihood", [mupc.Categorical(2.0), mupc.Gaussian(0.7)])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_gradient_of_any_chain_is_that_of_the_energy(likelihood, make):
    """And so are its derivatives: the Hessian, applied to a vector, is that of the energy."""
    network = make()
    x, y = batch(6, 3)
    z, v = drawn_like(network, x, 1), drawn_like(network, x, 2)
    energy = mupc.FreeEnergy(network, x, y, likelihood, (mupc.ActivityDecay(0.2),))

    @eqx.filter_jit
    def derivatives(energy, z, v):
        slow = jax.grad(lambda z: jnp.sum(energy.samples(energy.at(z))))
        fast = lambda z: energy.samples_and_gradient(z)[1]
        ways = (fast, lambda z: energy.activity_gradient(energy.at(z)), slow)
        return [jax.jvp(way, (z,), (v,)) for way in ways]

    seen, other, expected = derivatives(energy, z, v)
    samples = energy.samples_and_gradient(z)[0]
    np.testing.assert_allclose(samples, energy.samples(energy.at(z)), rtol=1e-12)
    for found in (seen, other):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), found, expected)


@pytest.mark.usefixtures("way")
def test_the_input_may_be_integers():
    energy, x, y, z = problem()
    whole = np.round(3 * x)
    energy = mupc.FreeEnergy(energy.network, whole.astype(int), y, energy.likelihood)
    assert jnp.issubdtype(energy.x.dtype, jnp.integer)
    plain, point = Reference(energy.network), at(energy, z)
    expected = plain.activity_gradient(whole, y, z, 0.7)
    for gradient in (energy.activity_gradient(point), energy.samples_and_gradient(point[0])[1]):
        np.testing.assert_allclose(energy.network.in_order(gradient), expected, atol=1e-12)
    entry = energy.weight_gradient(point).stages[0].entry
    expected = entry.multiplier * plain.weight_gradients(whole, y, z, 0.7)[0]
    np.testing.assert_allclose(entry.weights, expected, atol=1e-12)


def test_at_the_feedforward_start_hidden_errors_vanish_and_the_energy_is_the_loss():
    energy, x, y, _ = problem()
    activities, output = energy.network.feedforward(x)
    for start in (energy.at(activities), energy.run()):
        np.testing.assert_allclose(energy.layers(start)[:-1], 0, atol=1e-28)
        np.testing.assert_allclose(energy.samples(start), 0.35 * np.sum((y - output) ** 2, -1))


def test_a_layers_weight_gradient_is_local():
    """It changes only with the activities that the layer itself sees: its own and the one below."""
    energy, _, _, z = problem()
    before = energy.weight_gradient(at(energy, z)).stages[0].blocks[0].weights
    z[3] += 1.0
    after = energy.weight_gradient(at(energy, z)).stages[0].blocks[0].weights
    # Blocks predict z_2, z_3 and z_4 (indices 1 to 3).
    np.testing.assert_array_equal(before[:2], after[:2])
    below = energy.network.stages[0].blocks[0].multiplier * np.mean(np.maximum(z[2], 0), axis=0)
    np.testing.assert_allclose(after[2] - before[2], np.tile(-below, (5, 1)), atol=1e-12)


def test_categorical_is_the_cross_entropy_and_does_not_overflow():
    likelihood = mupc.Categorical(2.0)
    y, output = np.array([0.2, 0.5, 0.3]), np.array([1.0, -2.0, 0.5])
    expected = -np.sum(y * np.log(np.exp(output) / np.sum(np.exp(output))))
    np.testing.assert_allclose(likelihood.loss(y, output), expected, rtol=1e-12)
    np.testing.assert_allclose(likelihood.loss(np.array([0.0, 1.0]), np.array([1e4, 0.0])), 1e4)
    energy, x, y, z = problem()
    categorical = eqx.tree_at(lambda e: e.likelihood, energy, likelihood)
    point = at(energy, z)
    logits = np.asarray(energy.network.predictions(x, point.activities)[1])
    softmax = np.exp(logits) / np.sum(np.exp(logits), -1, keepdims=True)
    cross_entropies = -np.sum(y * np.log(softmax), -1)
    np.testing.assert_allclose(categorical.layers(point)[-1], 2 * cross_entropies, rtol=1e-12)


def added_gradient(regulariser: Regulariser):
    """What a regulariser adds to the weight gradient, and the network."""
    plain, _, _, z = problem()
    energy, *_ = problem(regularisers=(regulariser,))
    point = at(plain, z)
    difference = jax.tree.map(
        jnp.subtract, energy.weight_gradient(point), plain.weight_gradient(point)
    )
    return difference, plain.network


def layers_of(network):
    stage = network.stages[0]
    return {"input": stage.entry, "hidden": stage.blocks[0], "readout": network.readout}


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
        a = layer.multiplier
        V = a * (W if name == "hidden" else W[None])
        gram = np.eye(V.shape[-1]) - V.transpose(0, 2, 1) @ V
        expected = -4 * 0.3 * a * V @ gram if name == role else 0.0 * V
        np.testing.assert_allclose(layer.weights, expected.reshape(W.shape), atol=1e-12)


def test_spectral_penalty_tells_a_matrix_from_a_stack_of_matrices():
    """The entry of a second stage is a hidden layer, yet one matrix."""
    one, two = build(depth=3), build(depth=3, seed=1)
    width = mupc.residual_mlp(5, 3, width=5, depth=3, key=jax.random.key(2)).stages[0]
    entry = eqx.tree_at(lambda e: e.weights, two.stages[0].blocks[0], jnp.eye(5) * 7)
    network = mupc.Chain((one.stages[0], mupc.Stage(entry, width.blocks)), one.readout)
    layers = [one.stages[0].blocks[0], entry, width.blocks[0]]
    matrices = [a.multiplier * m for a in layers for m in np.reshape(a.weights, (-1, 5, 5))]
    expected = sum(np.sum((np.eye(5) - V.T @ V) ** 2) for V in matrices)
    penalty = mupc.SpectralPenalty(1.0, ("hidden",)).of_network(network)
    np.testing.assert_allclose(penalty, expected, rtol=1e-12)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("role", "chosen"), [("input", [1, 0, 0, 0]), ("hidden", [0, 1, 1, 1])])
def test_activity_decay_adds_its_gradient_to_its_roles_per_sample(role, chosen):
    plain, *_, z = problem()
    energy, *_ = problem(regularisers=(mupc.ActivityDecay(0.3, (role,)),))
    point = at(plain, z)
    ways = (lambda e: e.activity_gradient(point), lambda e: e.samples_and_gradient(point[0])[1])
    for way in ways:
        difference = plain.network.in_order(jax.tree.map(jnp.subtract, way(energy), way(plain)))
        expected = 0.3 * np.array(chosen)[:, None, None] * z
        np.testing.assert_allclose(difference, expected, atol=1e-12)
    backprop = mupc.Backpropagation(regularisers=(mupc.ActivityDecay(0.3, (role,)),))
    x, y = batch(6, 3)
    activities, output = plain.network.feedforward(x)
    activities = plain.network.in_order(activities)
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
        wrong.layers(at(energy, z))


@pytest.mark.parametrize("decay", [(), (mupc.ActivityDecay(0.4),)])
def test_a_point_is_the_same_from_its_activities_and_from_its_errors(decay):
    terms = (mupc.WeightDecay(0.3), *decay)
    energy, x, y, z = problem(activation="tanh", biases=True, regularisers=terms)
    one, order = at(energy, z), energy.network.in_order
    errors = Reference(energy.network, "tanh").errors(x, y, z)[0]
    np.testing.assert_allclose(order(one.errors), errors, atol=1e-12)
    other = energy.run(energy.network.in_banks(jnp.asarray(errors)))
    np.testing.assert_allclose(order(other.activities), z, atol=1e-12)
    np.testing.assert_allclose(energy.layers(other), energy.layers(one), rtol=1e-12)
    for method in (energy.activity_gradient, energy.weight_gradient, energy.error_gradient):
        pairs = method(one), method(other)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), *pairs)


@pytest.mark.parametrize("decay", [(), (mupc.ActivityDecay(0.4),)])
@pytest.mark.parametrize("unit", [0.25, np.array([0.25, 0.5, 1.0, 2.0, 4.0])])
def test_in_other_units_the_samples_part_changes_and_the_weights_own_does_not(decay, unit):
    """Sample by sample, and against the derivative of the whole energy by automatic means."""
    terms = (mupc.WeightDecay(0.3), *decay)
    energy, *_, z = problem(activation="tanh", biases=True, regularisers=terms)
    point, bare = at(energy, z), eqx.tree_at(lambda e: e.regularisers, energy, decay)

    # Of arguments: older versions of XLA fold constants to something else.
    @eqx.filter_jit
    def gradients(energy, bare, point):
        one = lambda i: bare.of_sample(i).weight_gradient(
            jax.tree.map(lambda v: v[:, i][:, None], point)
        )
        slow = mupc.Energy.weight_gradient(energy, point, unit=unit)
        fast = energy.weight_gradient(point, unit=unit)
        whole = energy.weight_gradient(point), bare.weight_gradient(point)
        return fast, slow, whole, [one(jnp.asarray(i)) for i in range(5)]

    fast, slow, (whole, samples), each = gradients(energy, bare, point)
    own = jax.tree.map(jnp.subtract, whole, samples)
    shares = np.broadcast_to(1 / (5 * unit), 5)
    expected = jax.tree.map(lambda o, *g: o + np.tensordot(shares, g, 1), own, *each)
    for found in (fast, slow):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected)


@pytest.mark.parametrize("decay", [(), (mupc.ActivityDecay(0.4),)])
@pytest.mark.parametrize("likelihood", [mupc.Gaussian(0.7), mupc.Categorical(0.7)])
def test_the_error_view_is_the_energy_of_the_pass_with_errors(likelihood, decay):
    energy, x, _, e = problem(activation="tanh", regularisers=decay)
    energy = eqx.tree_at(lambda f: f.likelihood, energy, likelihood)
    view, banks = ErrorView(energy), energy.network.in_banks(jnp.asarray(e))
    point = at(energy, Reference(energy.network, "tanh").feedforward(x, e)[0])
    np.testing.assert_allclose(view.samples(view.at(banks)), energy.samples(point), rtol=1e-12)
    samples, gradient = view.samples_and_gradient(banks)
    ran = lambda e: energy.at(energy.network.feedforward(x, e).activities)
    slow = jax.grad(lambda e: jnp.sum(energy.samples(ran(e))))(banks)
    np.testing.assert_allclose(samples, energy.samples(point), rtol=1e-12)
    for found in (gradient, view.activity_gradient(view.at(banks))):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, slow)
    one = view.of_sample(2)
    alone = one.samples(one.at(jax.tree.map(lambda e: e[:, 2:3], banks)))
    np.testing.assert_allclose(alone, samples[2:3], rtol=1e-12)


@pytest.mark.few(2)
@pytest.mark.parametrize("precisions", [None, 3.0, np.array([0.5, 2.0, 1.0, 4.0])])
@pytest.mark.parametrize("likelihood", [mupc.Gaussian(0.7), mupc.Categorical(0.7)])
@pytest.mark.parametrize("factor", [0.3, -0.3])
def test_gauss_newton_factors_give_the_hessian_of_a_linear_network(likelihood, precisions, factor):
    """For a linear network the error Hessian is D + sJᵀBBᵀJ exactly, whatever the likelihood.

    A view has each error in its own unit, so that there it is I + s(BᵀJD^−½)ᵀBᵀJD^−½.
    """
    network = mupc.residual_mlp(
        6, 3, width=5, depth=4, activation=mupc.identity, key=jax.random.key(0)
    )
    x, y = batch(6, 3, 1)
    factors = jnp.array([factor])
    energy = mupc.FreeEnergy(network, x, y, likelihood, (), precisions, factors)
    view = ErrorView(energy)
    banks = lambda flat: network.in_banks(flat.reshape(4, 1, 5))
    flat = lambda banks: network.in_order(banks).reshape(-1)
    e = jnp.asarray(np.random.default_rng(1).normal(size=20))
    hessian = jax.hessian(lambda e: view.samples(view.at(banks(e)))[0])(e)
    point = view.run(banks(e))
    maps = energy.gauss_newton(point)
    r, down = maps.residual(energy.error_gradient(point))
    np.testing.assert_allclose(flat(down), flat(maps.down(r)), atol=1e-12)
    D = np.repeat(np.broadcast_to(1.0 if precisions is None else precisions, 4), 5)
    np.testing.assert_allclose(flat(maps.whiten(banks(jnp.ones(20)))), D**-0.5, rtol=1e-12)
    product = lambda v: flat(maps.down(maps.up(banks(v))))
    np.testing.assert_array_equal(maps.sign, np.sign([factor]))
    whitened = np.eye(20) + np.sign(factor) * jax.vmap(product)(jnp.eye(20)).T
    np.testing.assert_allclose(hessian, whitened, atol=1e-10)
    plain = jax.hessian(lambda e: energy.samples(energy.run(banks(e)))[0])(e / np.sqrt(D))
    expected = np.sqrt(D)[:, None] * whitened * np.sqrt(D)
    np.testing.assert_allclose(plain, expected, atol=1e-10)


def test_hidden_precisions_and_factors_of_samples_are_those_of_the_formula():
    energy, x, y, z = problem(activation="tanh")
    precisions, factors = np.array([0.5, 2.0, 1.0, 4.0]), np.array([1.0, 0.5, 0.1, 2.0, 1.0])
    energy = mupc.FreeEnergy(energy.network, x, y, energy.likelihood, (), precisions, factors)
    hidden, output = Reference(energy.network, "tanh").errors(x, y, z)
    squares = [0.5 * np.sum(e**2, -1) for e in (*hidden, output)]
    weights = [*np.tile(precisions[:, None], 5), 0.7 * factors]
    point = at(energy, z)
    np.testing.assert_allclose(energy.layers(point), np.multiply(weights, squares), rtol=1e-12)
    np.testing.assert_allclose(energy.precision, 0.7 * factors)
    one = energy.of_sample(jnp.asarray(3))
    alone = one.samples(jax.tree.map(lambda v: v[:, 3:4], point))
    np.testing.assert_allclose(alone, np.sum(np.multiply(weights, squares), 0)[3:4], rtol=1e-12)
    with pytest.raises(ValueError, match="one number or 4, one for every hidden layer, not 3"):
        mupc.FreeEnergy(energy.network, x, y, energy.likelihood, (), np.ones(3)).layers(point)
    with pytest.raises(ValueError, match="expected finite numbers above 0"):
        mupc.FreeEnergy(energy.network, x, y, energy.likelihood, (), np.zeros(4))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"factors": np.ones(3)}, "factors must be 5 numbers, one for each sample"),
        ({"factors": np.zeros(5)}, "expected finite numbers other than 0"),
        ({"precisions": [1.0, np.inf, 2.0]}, "expected finite numbers above 0"),
    ],
)
def test_precisions_are_positive_and_factors_not_zero(options, sentence):
    network = mupc.residual_mlp(4, 3, width=5, depth=3, key=jax.random.key(0))
    with pytest.raises(ValueError, match=sentence):
        mupc.FreeEnergy(network, np.zeros((5, 4)), np.zeros((5, 3)), mupc.Gaussian(), **options)


def test_precisions_may_be_a_list_within_a_compiled_function():
    network = mupc.residual_mlp(4, 3, width=5, depth=3, key=jax.random.key(0))
    build = lambda x: mupc.FreeEnergy(network, x, x[:, :3], mupc.Gaussian(), precisions=[1, 2, 3])
    x = jnp.ones((5, 4))
    np.testing.assert_allclose(jax.jit(lambda x: build(x).precisions)(x), [1, 2, 3])
