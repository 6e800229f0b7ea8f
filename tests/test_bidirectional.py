"""Two networks over one set of activities: bidirectional and hybrid predictive coding."""

import itertools

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from reference import batch

import mupc
from mupc.energies import Energy
from mupc.learning import first_gradients
from mupc.records import Regime
from mupc.runs import train
from mupc.settings import ConfigError, Configuration

KEY = jax.random.key(0)
pytestmark = pytest.mark.usefixtures("float64")
STRENGTH, DOWN = 0.3, mupc.Gaussian(0.7)


def both(depth=4, activation=jnp.tanh, **more):
    return mupc.bidirectional_mlp(
        6, 3, width=5, depth=depth, activation=activation, key=KEY, **more
    )


def data():
    x, y = batch(6, 3, 7)
    return jnp.asarray(x), jnp.asarray(y)


def bidirectional(network=None, **more):
    network = both() if network is None else network
    options = {"strength": STRENGTH, "down_likelihood": DOWN, **more}
    return mupc.BidirectionalEnergy(network, *data(), mupc.Gaussian(2.0), **options)


def amortised(network=None, **more):
    network = both() if network is None else network
    options = {"down_likelihood": DOWN, **more}
    return mupc.AmortisedEnergy(network, *data(), mupc.Gaussian(2.0), **options)


def moved(energy):
    """A point that is no equilibrium."""
    activities = energy.run().activities
    keys = jax.random.split(jax.random.key(5), len(activities))
    pairs = zip(activities, keys, strict=True)
    return energy.at(tuple(z + 0.3 * jax.random.normal(key, z.shape) for z, key in pairs))


def multiplied(network, before, layer):
    """What layer l of a residual MLP predicts, by loops over nothing but its arrays."""
    entry, hidden = network.stages[0].entry, network.stages[0].blocks[0]
    block = entry if layer == 0 else network.readout if layer == network.depth else hidden
    weights = np.asarray(block.weights)
    weights = weights if block is not hidden else weights[layer - 1]
    read = before if block.activation is mupc.identity else np.tanh(before)
    return (before if block is hidden else 0) + block.multiplier * read @ weights.T


def squares(network, ends, inner):
    """The sum of half squared errors of each layer of one direction, and of its output."""
    sequence = [np.asarray(ends[0]), *np.asarray(inner), np.asarray(ends[1])]
    return [
        0.5 * np.sum((above - multiplied(network, below, layer)) ** 2, axis=1)
        for layer, (below, above) in enumerate(itertools.pairwise(sequence))
    ]


def test_the_energy_is_that_of_loops_over_both_directions():
    network, (x, y), energy = both(), data(), bidirectional()
    point = moved(energy)
    z = np.asarray(network.in_order(point.activities))
    *up, target = squares(network.up, (x, y), z)
    *down, image = squares(network.down, (y, x), z[::-1])
    expected = sum(up) + 2 * target + STRENGTH * (sum(down) + float(DOWN.precision) * image)
    np.testing.assert_allclose(energy.samples(point), expected, rtol=1e-12)
    np.testing.assert_allclose(energy.layers(point)[2], up[2] + STRENGTH * down[1], rtol=1e-12)
    hybrid = amortised()
    below = hybrid.at(network.downwards(point.activities))
    np.testing.assert_allclose(
        hybrid.samples(below), sum(down) + float(DOWN.precision) * image, rtol=1e-12
    )


def test_regularisers_count_once_whatever_the_strength():
    network, decay = both(), mupc.WeightDecay(0.1)
    with_, without = bidirectional(regularisers=[decay]), bidirectional()
    point = moved(without)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12)
    for part in ("up", "down"):
        more, less = (getattr(e.weight_gradient(point), part) for e in (with_, without))
        own = jax.tree.map(lambda w: 0.1 * w, eqx.filter(getattr(network, part), eqx.is_array))
        jax.tree.map(lambda a, b, c: close(a, b + c), more, less, own)
    first = bidirectional(regularisers=[mupc.ActivityDecay(1.0, ("input",))])
    z = point.activities[0][0]
    more = first.layers(point) - without.layers(point)
    close(more, jnp.zeros_like(more).at[0].set(jnp.sum(z**2, axis=1) / 2))


@pytest.mark.parametrize("make", [bidirectional, amortised])
def test_gradients_are_those_of_automatic_differentiation(make):
    energy = make(both(biases=True), regularisers=[mupc.WeightDecay(0.1)])
    point = moved(energy)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12)
    jax.tree.map(close, energy.activity_gradient(point), Energy.activity_gradient(energy, point))
    total = lambda errors: jnp.sum(energy.samples(energy.run(errors)))
    jax.tree.map(close, energy.error_gradient(point), jax.grad(total)(point.errors))
    one, of_batch = energy.of_sample(2), energy.samples(point)[2]
    alone = one.at(jax.tree.map(lambda z: z[:, 2][:, None], point.activities))
    close(one.samples(alone), of_batch[None])
    if make is bidirectional:
        jax.tree.map(close, energy.weight_gradient(point), Energy.weight_gradient(energy, point))


def test_each_layer_of_an_amortising_network_learns_where_inference_ended():
    """From what it was given in the pass; the other network learns by its errors, as alone."""
    energy, network, (x, y) = amortised(), both(), data()
    point = moved(energy)
    begun, ended = network.feedforward(x).activities, network.upwards(point.activities)

    def missed(up):
        predicted, output = up.predictions(x, begun)
        hidden = jax.tree.map(lambda z, u: jnp.sum((z - u) ** 2) / 2, ended, predicted)
        return (sum(hidden) + jnp.sum((y - output) ** 2)) / len(x)  # of precision 2

    down = mupc.FreeEnergy(network.down, y, x, DOWN)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12)
    gradient = energy.weight_gradient(point)
    jax.tree.map(close, gradient.up, eqx.filter_grad(missed)(network.up))
    jax.tree.map(close, gradient.down, down.weight_gradient(point))


def settled(energy, start):
    """The minimum of a quadratic energy, by one dense Newton step."""
    flat, back = jax.flatten_util.ravel_pytree(start.activities)
    total = lambda z: jnp.sum(energy.samples(energy.at(back(z))))
    step = jnp.linalg.solve(jax.hessian(total)(flat), jax.grad(total)(flat))
    return back(flat - step)


@pytest.mark.parametrize(
    ("make", "solver"),
    [
        (bidirectional, mupc.InErrors(mupc.LBFGS(10))),
        (bidirectional, mupc.LBFGS(10)),
        (amortised, mupc.InErrors(mupc.LBFGS(10))),
        (amortised, mupc.GaussNewton(20)),
    ],
)
def test_inference_ends_at_the_closed_form_of_a_linear_network(make, solver):
    energy = make(both(activation=mupc.identity))
    found = mupc.infer(
        energy, solver, energy.run(), max_steps=200, stopping=mupc.Tolerance(1e-12), key=KEY
    )
    exact = settled(energy, energy.run())
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8)
    jax.tree.map(close, found.point.activities, exact)


def test_without_strength_the_upward_network_learns_by_predictive_coding():
    network, own = both(), data()
    solver = mupc.InErrors(mupc.LBFGS(4))
    options = {"max_steps": 100, "stopping": mupc.Tolerance(1e-9)}
    rule = mupc.BidirectionalPredictiveCoding(
        solver, likelihood=mupc.Gaussian(0.5), strength=1e-12, **options
    )
    plain = mupc.PredictiveCoding(solver, likelihood=mupc.Gaussian(0.5), **options)
    ours, _ = first_gradients(rule, network, own, rule.init(network, KEY), KEY)
    theirs, _ = first_gradients(plain, network.up, own, plain.init(network.up, KEY), KEY)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8)
    jax.tree.map(close, ours.up, theirs)


def test_hybrid_inference_begins_at_the_upward_pass():
    network, own = both(), data()
    rule = mupc.HybridPredictiveCoding()
    carry, _ = rule.begin(network, own, rule.init(network, KEY), KEY)
    up = network.feedforward(own[0]).activities
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
        network.upwards(carry.start.activities),
        up,
    )


@pytest.mark.few(1)
@pytest.mark.parametrize("rule", ["bidirectional", "hybrid"])
def test_both_networks_learn_and_are_kept(rule, tmp_path):
    settings = {
        "bidirectional": {"width": 16, "steps": 60, "learning_rate": 0.03},
        "hybrid": {"width": 64, "steps": 100, "learning_rate": 0.002},
    }[rule]
    out = str(tmp_path / "run")
    run = train(Configuration().changed({"rule": rule, "depth": 3, "out": out, **settings}))
    network = mupc.load_network(run.folder.path / "network.safetensors")
    labels = np.argmax(run.data.test.y, axis=1)
    images = network.down.feedforward(jnp.eye(10)).output
    seen = [run.data.test.x.reshape(len(labels), -1)[labels == k].mean(axis=0) for k in range(10)]
    alike = [np.corrcoef(image, mean)[0, 1] for image, mean in zip(images, seen, strict=True)]
    assert np.mean(alike) > 0.8
    assert run.test.accuracy > 0.5
    assert run.regime.learning == len(run.regime.hidden)


def test_a_network_of_one_direction_is_refused(unchecked):
    network = mupc.residual_mlp(6, 3, width=5, depth=4, key=KEY)
    for rule in (mupc.BidirectionalPredictiveCoding(), mupc.HybridPredictiveCoding()):
        with pytest.raises(TypeError, match=r"network must be a mupc\.Bidirectional"):
            first_gradients(rule, network, data(), None, KEY)
    other = mupc.residual_mlp(3, 6, width=5, depth=3, key=KEY)
    with pytest.raises(ValueError, match=r"as many hidden layers, .*, not 4 and 3"):
        mupc.Bidirectional(network, other)
    narrow = mupc.residual_mlp(3, 6, width=7, depth=4, key=KEY)
    with pytest.raises(ValueError, match=r"one shape, not of \(5,\), \(7,\)"):
        bidirectional(mupc.Bidirectional(network, narrow))
    with pytest.raises(TypeError, match="down_likelihood must be a mupc"):
        amortised(down_likelihood=3)
    with pytest.raises(ValueError, match="no regulariser on activities"):
        amortised(regularisers=[mupc.ActivityDecay(0.1)])
    with pytest.raises(ValueError, match=r"use mupc\.InErrors"):
        mupc.BidirectionalPredictiveCoding(mupc.GaussNewton())
    energy = bidirectional()
    with pytest.raises(ValueError, match="GaussNewton is for the errors of one direction"):
        energy.gauss_newton(energy.run())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"network": "bidirectional-mlp", "rule": "backpropagation"},
            "choose rule bidirectional or",
        ),
        ({"rule": "hybrid", "network": "vgg"}, "choose network bidirectional-mlp"),
        ({"rule": "bidirectional", "solver": "gauss-newton"}, "use l-bfgs"),
        ({"rule": "hybrid", "solver": "linear-solve"}, "use gauss-newton"),
        ({"rule": "hybrid", "activity_decay": 0.1}, "takes no activity_decay"),
        ({"network": "layered-hopfield", "pool": "average"}, "pool would have no effect"),
        ({"network": "vgg", "layers": "3", "pool": "average"}, "pool would have no effect"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Configuration().changed(settings)


def test_a_rule_brings_its_network():
    config = Configuration().changed({"rule": "hybrid"})
    assert config.network.kind == "bidirectional-mlp"
    assert Configuration().changed({"network": "bidirectional-mlp"}).rule.kind == "bidirectional"


def test_shapes_are_those_of_the_upward_network():
    network = both()
    assert network.depth == 4
    assert jax.tree.structure(network.layers) == jax.tree.structure(network.up.layers)
    banks = both_banks()
    turned = network.down.in_order(network.downwards(banks))
    np.testing.assert_array_equal(turned, network.in_order(banks)[::-1])
    assert eqx.tree_equal(network.upwards(network.downwards(banks)), banks)


def both_banks():
    return both().feedforward(data()[0]).activities


@pytest.mark.parametrize(
    ("depth", "more", "told"), [(128, {}, "2e-05"), (32, {"strength": 1e-4}, ""), (8, {}, "")]
)
def test_downward_errors_of_many_layers_are_warned_of(depth, more, told):
    config = Configuration().changed({"rule": "bidirectional", "depth": depth, **more})
    warning = config.rule.warning(Regime(0.1, None), config) or ""
    assert told in warning
    assert ("add up" in warning) == bool(told)
