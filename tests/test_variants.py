"""Variants of predictive coding: incremental, zero-divergence, augmented Lagrangian, sampled."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import batch
from scipy.stats import norm

import mupc
from mupc.learning import first_gradients
from mupc.records import Regime
from mupc.runs import train
from mupc.settings import ConfigError, Configuration
from mupc.training.report import Model, regime_report, trace_report

KEY = jax.random.key(0)
pytestmark = pytest.mark.usefixtures("float64")


def mlp(depth=5, width=6, activation=jnp.tanh):
    return mupc.residual_mlp(6, 3, width=width, depth=depth, activation=activation, key=KEY)


def of_rows(network):
    x, y = batch(6, 3, 7)
    return network, (jnp.asarray(x), jnp.asarray(y))


def of_images():
    network = mupc.conv_resnet(
        (6, 6, 2), 3, channels=3, blocks=(2, 1), activation=jnp.tanh, key=KEY
    )
    keys = jax.random.split(jax.random.key(1))
    x = jax.random.normal(keys[0], (4, 6, 6, 2))
    return network, (x, jax.random.normal(keys[1], (4, 3)))


def of_tokens():
    network = mupc.transformer(7, width=8, pairs=2, context=5, heads=2, key=KEY)
    tokens = jax.random.randint(jax.random.key(2), (3, 6), 0, 7)
    return network, (tokens[:, :-1], jax.nn.one_hot(tokens[:, 1:], 7))


PROBLEMS = {
    "mlp": (lambda: of_rows(mlp()), mupc.Gaussian(0.3)),
    "cnn": (of_images, mupc.Gaussian()),
    "transformer": (of_tokens, mupc.Categorical(2.0)),
}


def gradients(rule, network, data):
    return first_gradients(rule, network, data, rule.init(network, KEY), jax.random.key(3))[0]


def largest(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.max(jnp.abs(u - v))) for u, v in pairs)


@pytest.mark.parametrize(("problem", "likelihood"), PROBLEMS.values(), ids=PROBLEMS)
def test_zero_divergence_learning_is_backpropagation(problem, likelihood):
    network, data = problem()
    decay = [mupc.WeightDecay(0.1)]
    ours = gradients(mupc.ZeroDivergence(likelihood, decay), network, data)
    exact = gradients(mupc.Backpropagation(likelihood, decay), network, data)
    assert largest(ours, exact) < 1e-10
    assert largest(ours, jax.tree.map(jnp.zeros_like, ours)) > 1e-3


def test_zero_divergence_errors_are_those_of_a_loop_over_layers():
    """Of the algorithm as it stands: every layer moves at every step, and one of them learns."""
    network, (x, y) = of_rows(mlp(depth=4))
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian())
    z = energy.run().activities
    kept = []
    for layer in (3, 2, 1, 0):
        slope = jax.grad(lambda z: jnp.sum(energy.samples(energy.at(z))))(z)
        z = jax.tree.map(lambda a, b: a - b, z, slope)
        kept.insert(0, network.in_order(energy.at(z).errors)[layer])
    point = mupc.Point(energy.run().activities, network.in_banks(jnp.stack(kept)))
    ours = gradients(mupc.ZeroDivergence(), network, (x, y))
    assert largest(ours, energy.weight_gradient(point)) < 1e-14


def test_multipliers_take_over_from_errors_round_by_round():
    """The gradient tends to backpropagation's, and errors to zero, at a geometric rate."""
    network, data = of_rows(mlp())
    likelihood = mupc.Gaussian(0.1)
    exact = gradients(mupc.Backpropagation(likelihood), network, data)
    solver = mupc.InErrors(mupc.LBFGS())

    def after(rounds):
        rule = mupc.AugmentedLagrangian(solver, 60, rounds, likelihood=likelihood)
        return largest(gradients(rule, network, data), exact)

    first, second, fourth, last = map(after, (1, 2, 4, 16))
    assert second < 0.5 * first
    assert fourth < 0.5 * second
    assert last < 1e-12
    # Newton's rounds, and the source's descent on activities, have the same end.
    newton = mupc.AugmentedLagrangian(mupc.GaussNewton(4), 3, 16, likelihood=likelihood)
    assert largest(gradients(newton, network, data), exact) < 1e-12
    descent = mupc.AugmentedLagrangian(rounds=4000, likelihood=likelihood)
    assert largest(gradients(descent, network, data), exact) < 1e-8


def test_a_round_is_what_the_source_says():
    """Of arXiv 2605.31022: a step down the augmented Lagrangian, then the multipliers."""
    network, (x, y) = of_rows(mlp(depth=3))
    step, rate, rounds = 0.2, 0.7, 5
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian())

    def augmented(network, z, multipliers):
        free = mupc.FreeEnergy(network, x, y, mupc.Gaussian())
        errors = free.at(z).errors
        extra = sum(jnp.sum(m * e) for m, e in zip(multipliers, errors, strict=True))
        return jnp.sum(free.samples(free.at(z))) + extra

    z = energy.run().activities
    multipliers = tuple(map(jnp.zeros_like, z))
    for _ in range(rounds):
        used = multipliers
        slope = jax.grad(augmented, 1)(network, z, used)
        z = jax.tree.map(lambda a, b: a - step * b, z, slope)
        errors = energy.at(z).errors
        multipliers = jax.tree.map(lambda m, e: m + rate * e, used, errors)
    plain = eqx.filter_grad(lambda network: augmented(network, z, used) / len(x))(network)
    rule = mupc.AugmentedLagrangian(mupc.GradientDescent(step), 1, rounds, rate)
    assert largest(gradients(rule, network, (x, y)), plain) < 1e-14
    trace = rule.trace(network, (x, y), None, KEY).trace
    assert trace.energy.shape == trace.residual.shape == (rounds, len(x))
    record = trace_report(Model(network, network, rule, None), (x, y), KEY, step=0)
    assert len(record.residual) == rounds + 1
    assert record.residual[0] == 1
    np.testing.assert_allclose(record.energy[0], np.mean(trace.energy[0]), rtol=1e-3)


@pytest.mark.parametrize("factors", [None, [1.0, -0.5, 2.0, 1.0, -1.0, 0.3, 1.0]])
def test_an_energy_with_multipliers_is_one_energy_everywhere(factors):
    """Its gradients, by activities, errors and weights, are those of its layers' terms."""
    network, (x, y) = of_rows(mlp())
    shapes = network.feedforward(x).activities
    draw = lambda i: tuple(
        jax.random.normal(key, z.shape)
        for key, z in zip(jax.random.split(jax.random.key(i), len(shapes)), shapes, strict=True)
    )
    energy = mupc.FreeEnergy(
        network, x, y, mupc.Gaussian(0.7), (mupc.ActivityDecay(0.1),), 1.3, factors, draw(0)
    )
    point = energy.at(draw(1))
    total = lambda z: jnp.sum(energy.layers(energy.at(z)))
    value, plain = jax.value_and_grad(total)(point.activities)
    samples, gradient = energy.samples_and_gradient(point.activities)
    np.testing.assert_allclose(jnp.sum(samples), value)
    by_errors = jax.grad(lambda e: jnp.sum(energy.layers(energy.run(e))))(point.errors)
    for ours, exact in (
        (gradient, plain),
        (energy.activity_gradient(point), plain),
        (energy.error_gradient(point), by_errors),
    ):
        assert largest(ours, exact) < 1e-12
    by_weights = eqx.filter_grad(lambda n: energy.with_parameters(n)(
        energy.with_parameters(n).at(point.activities)))(network)  # fmt: skip
    assert largest(energy.weight_gradient(point), by_weights) < 1e-12
    alone = energy.of_sample(3)
    one = jax.tree.map(lambda z: z[:, 3:4], point.activities)
    np.testing.assert_allclose(alone.samples(alone.at(one)), samples[3:4])


def test_the_closed_form_refuses_multipliers():
    network, (x, y) = of_rows(mlp(activation=mupc.identity))
    rule = mupc.AugmentedLagrangian(mupc.LinearSolve(), 1, 2)
    with pytest.raises(ValueError, match="multipliers"):
        gradients(rule, network, (x, y))


def test_a_schedule_counts_batches_however_many_updates_each_has(tmp_path):
    """Late in a run, too, a batch changes the weights; with the last one the rate is zero."""
    settings = {"rule": "incremental", "updates": 4, "depth": 2, "width": 8, "steps": 8}
    config = Configuration().changed({**settings, "out": str(tmp_path / "run")})
    network = mlp(2, 8)
    optimiser = config.optimiser.build(network, 8, config.rule.build(2).updates)
    ones = jax.tree.map(jnp.ones_like, eqx.filter(network, eqx.is_inexact_array))
    state, sizes = optimiser.init(ones), []
    for _ in range(32):
        updates, state = optimiser.update(ones, state, ones)
        sizes.append(float(-updates.readout.weights[0, 0]))
    plain = config.optimiser.build(network, 8)
    state, wanted = plain.init(ones), []
    for _ in range(8):
        updates, state = plain.update(ones, state, ones)
        wanted.append(float(-updates.readout.weights[0, 0]))
    np.testing.assert_allclose(sizes, np.repeat(wanted, 4), rtol=1e-5)
    assert sizes[24] > 0


def test_a_report_compares_zero_divergence_with_backpropagation():
    network, data = of_rows(mlp())
    rule = mupc.ZeroDivergence()
    report = regime_report(Model(network, network, rule, None), data, KEY, step=0, seconds=0.0)
    np.testing.assert_allclose(report.cosine, 1)
    assert report.residual is None


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "rule",
    [
        mupc.IncrementalPredictiveCoding,
        mupc.AugmentedLagrangian,
        mupc.MonteCarloPredictiveCoding,
    ],
)
def test_a_schedule_of_solvers_is_refused(rule):
    with pytest.raises(TypeError, match=r"solver must be a mupc\.Solver"):
        rule(mupc.Schedule([(mupc.GaussNewton(), 1)]))


def test_too_few_rounds_for_the_depth_are_warned_of():
    deep = {"rule": "augmented-lagrangian", "depth": 80}
    sentence = "64 steps on activities do not carry the error through 80 layers"
    for settings, warned in (
        (deep, True),
        ({**deep, "rounds": 160}, False),
        ({**deep, "solver": "gauss-newton"}, False),
    ):
        config = Configuration().changed(settings)
        said = config.rule.warning(Regime(1.0, 0.1), config)
        assert (sentence in (said or "")) == warned


def test_incremental_steps_are_those_of_a_plain_loop():
    """Each step on the activities, under the newest weights, is followed by one on the weights."""
    network, (x, y) = of_rows(mlp(depth=3))
    rule = mupc.IncrementalPredictiveCoding(mupc.GradientDescent(0.2), 5, mupc.Gaussian())
    optimiser = optax.sgd(0.3)
    state, _ = mupc.step(mupc.init(network, rule, optimiser, KEY), (x, y), rule, optimiser)
    plain, z = network, network.feedforward(x).activities
    total = lambda network, z: jnp.sum(
        (energy := mupc.FreeEnergy(network, x, y, mupc.Gaussian())).samples(energy.at(z))
    )
    for _ in range(5):
        slope = jax.grad(total, 1)(plain, z)
        z = jax.tree.map(lambda a, b: a - 0.2 * b, z, slope)
        by_weights = eqx.filter_grad(total)(plain, z)
        plain = jax.tree.map(
            lambda w, g: w if g is None else w - 0.3 * g / len(x), plain, by_weights,
            is_leaf=lambda leaf: leaf is None,
        )  # fmt: skip
    assert largest(eqx.filter(state.network, eqx.is_array), eqx.filter(plain, eqx.is_array)) < 1e-13


def linear_problem():
    network = mupc.residual_mlp(3, 2, width=3, depth=2, activation=mupc.identity, key=KEY)
    x, y = batch(3, 2, 1)
    return network, mupc.FreeEnergy(network, x, y, mupc.Gaussian(2.0))


def posterior(energy):
    """The mean and the covariance of exp(−F) of a linear network's activities, as rows."""
    start = energy.run().activities
    flat, back = jax.flatten_util.ravel_pytree(start)
    value = lambda z: jnp.sum(energy.samples(energy.at(back(z))))
    hessian, slope = jax.hessian(value)(flat), jax.grad(value)(flat)
    return flat - jnp.linalg.solve(hessian, slope), hessian


@pytest.mark.parametrize("temperature", [1.0, pytest.param(0.25, marks=pytest.mark.full)])
def test_samples_of_a_linear_network_have_the_mean_and_the_covariance_of_its_closed_form(
    temperature,
):
    """4,000 chains: within three standard errors, corrected for the number of comparisons."""
    chains, step = 4000, 0.05
    _, energy = linear_problem()
    mean, hessian = posterior(energy)
    many = eqx.tree_at(
        lambda e: (e.x, e.y), energy, (energy.x.repeat(chains, 0), energy.y.repeat(chains, 0))
    )
    end = mupc.infer(
        many, mupc.Langevin(step, temperature), many.run(), max_steps=400,
        stopping=mupc.Endless(), key=KEY,
    )  # fmt: skip
    drawn = np.concatenate(
        [np.moveaxis(z, 1, 0).reshape(chains, -1) for z in end.point.activities], 1
    )
    # Of the chain of steps, whose covariance is T H⁻¹ (1 − ηH/2)⁻¹.
    size = len(mean)
    exact = temperature * np.linalg.inv(hessian @ (np.eye(size) - step * hessian / 2))
    deviations = (drawn.mean(axis=0) - mean) / np.sqrt(np.diag(exact) / chains)
    variances = np.outer(np.diag(exact), np.diag(exact)) + exact**2
    seen = np.cov(drawn, rowvar=False)
    spread = (seen - exact) / np.sqrt(variances / (chains - 1))
    every = np.concatenate([deviations, spread[np.triu_indices(size)]])
    limit = norm.isf(norm.sf(3) / len(every))
    assert np.max(np.abs(every)) < limit
    assert np.mean(every**2) == pytest.approx(1, abs=0.6)
    # And not that of another temperature, nor of no noise.
    assert np.all(np.abs(np.diag(seen) / np.diag(exact) - 1) < 0.2)


@pytest.mark.full
def test_sampling_learns_the_gradient_of_the_marginal_likelihood():
    """By Fisher's identity, checked against log N(y; ŷ, S) of a linear network."""
    network, energy = linear_problem()
    precision = 2.0

    def marginal(network):
        z, out = network.feedforward(energy.x)
        zeros = jax.tree.map(jnp.zeros_like, z)
        J = jax.jacobian(lambda e: network.feedforward(energy.x, e).output[0])(zeros)
        flat = jnp.concatenate([j.reshape(2, -1) for j in J], axis=1)
        S = flat @ flat.T + jnp.eye(2) / precision
        r = energy.y[0] - out[0]
        return 0.5 * r @ jnp.linalg.solve(S, r) + 0.5 * jnp.linalg.slogdet(S)[1]

    exact = eqx.filter_grad(marginal)(network)
    size = 4000
    data = energy.x.repeat(size, 0), energy.y.repeat(size, 0)
    rule = mupc.MonteCarloPredictiveCoding(
        mupc.Langevin(0.01), 600, 40, 30, mupc.Gaussian(precision)
    )
    ours = gradients(rule, network, data)
    scale = max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(exact))
    assert largest(ours, exact) < 0.05 * scale
    # An equilibrium's gradient, of the largest summand, is another.
    mode = gradients(
        mupc.PredictiveCoding(mupc.LinearSolve(), 1, mupc.Gaussian(precision)), network, data
    )
    assert largest(mode, exact) > 0.15 * scale


def test_a_sampler_without_noise_descends():
    _, energy = linear_problem()
    run = lambda solver: (
        mupc.infer(
            energy, solver, energy.run(), max_steps=7, stopping=mupc.Endless()
        ).point.activities
    )
    assert largest(run(mupc.Langevin(0.1, 0.0)), run(mupc.GradientDescent(0.1))) < 1e-15


KINDS = {
    "incremental": {},
    "zero-divergence": {},
    "augmented-lagrangian": {"rounds": 8},
    "monte-carlo": {"max_steps": 20, "step_size": 0.1, "precision": 10.0},
}


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", KINDS)
def test_every_variant_trains_by_the_command_and_says_how(kind, tmp_path):
    settings = {"rule": kind, "depth": 4, "width": 32, "epochs": 4, **KINDS[kind]}
    config = Configuration().changed({**settings, "out": str(tmp_path / "run")})
    run = train(config)
    assert run.test.accuracy > 0.7
    assert run.regime.sentence()
    assert Configuration().changed(config.flat()) == config


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rule": "incremental", "max_steps": 3}, "one step of inference for each of its"),
        ({"rule": "zero-divergence", "activity_decay": 0.1}, "takes no activity_decay"),
        ({"rule": "augmented-lagrangian", "solver": "linear-solve", "activation": "linear"},
         "knows no multipliers"),
        ({"rule": "monte-carlo", "network": "residual-hopfield"}, "makes no predictions"),
        ({"rule": "monte-carlo", "solver": "l-bfgs"}, "monte-carlo samples, and solver l-bfgs"),
        ({"rule": "monte-carlo", "rtol": 0.1}, "rtol would have no effect, since solver is lang"),
        ({"rule": "equilibrium-propagation", "solver": "langevin"}, "never comes to rest"),
        ({"solver": "langevin"}, "never comes to rest, as rule predictive-coding wants it to"),
        ({"rule": "incremental", "solver": "adam", "max_steps": 1}, "begins its method anew"),
    ],
)  # fmt: skip
def test_what_a_variant_does_not_take_is_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Configuration().changed(settings)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: mupc.IncrementalPredictiveCoding(updates=0), "updates must be at least 1"),
        (lambda: mupc.AugmentedLagrangian(rounds=0), "rounds must be at least 1"),
        (lambda: mupc.MonteCarloPredictiveCoding(samples=0), "samples must be at least 1"),
        (lambda: mupc.Langevin(-1.0), "above 0"),
        (lambda: mupc.Langevin(0.1, -1.0), "at least 0"),
    ],
)
def test_impossible_numbers_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_zero_divergence_refuses_activity_decay():
    network, data = of_rows(mlp())
    with pytest.raises(ValueError, match="no activity decay"):
        gradients(mupc.ZeroDivergence(regularisers=[mupc.ActivityDecay(0.1)]), network, data)
