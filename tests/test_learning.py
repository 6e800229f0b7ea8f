"""Learning rules: what their gradients are, and what they tend to."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import batch

import mupc
from mupc.learning import explain, first_gradients
from mupc.learning.regime import Held
from mupc.runs import train
from mupc.settings import Configuration

RULES = {
    "predictive coding": mupc.PredictiveCoding(mupc.GradientDescent(0.25), 8, mupc.Gaussian()),
    "held regime": mupc.PredictiveCoding(likelihood=mupc.Gaussian(), hold=True),
    "default": mupc.PredictiveCoding(),
    "backpropagation": mupc.Backpropagation(),
    "equilibrium propagation": mupc.EquilibriumPropagation(),
    "incremental": mupc.IncrementalPredictiveCoding(),
    "zero divergence": mupc.ZeroDivergence(),
    "augmented Lagrangian": mupc.AugmentedLagrangian(rounds=4),
    "Monte Carlo": mupc.MonteCarloPredictiveCoding(
        mupc.InErrors(mupc.Langevin(0.1)), burn_in=20, samples=50
    ),
}


def problem(depth=3, width=6):
    network = mupc.residual_mlp(
        6, 3, width=width, depth=depth, activation=jnp.tanh, key=jax.random.key(0)
    )
    x, y = batch(6, 3, 8)
    return network, (jnp.asarray(x), jnp.asarray(y))


KEY = jax.random.key(0)


@pytest.mark.usefixtures("float64")
def test_backpropagation_is_the_gradient_of_the_loss_of_the_feedforward_pass():
    network, (x, y) = problem()
    rule = mupc.Backpropagation(mupc.Gaussian(0.5))
    gradients, info = first_gradients(rule, network, (x, y), None, KEY)
    loss = lambda n: 0.25 * jnp.mean(jnp.sum((y - n.feedforward(x).output) ** 2, -1))
    expected = eqx.filter_grad(loss)(network)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), gradients, expected)
    np.testing.assert_allclose(info.layers[-1], loss(network))
    np.testing.assert_allclose(info.output, network.feedforward(x).output)


@pytest.mark.usefixtures("float64")
def test_predictive_coding_tends_to_backpropagation_with_an_error_of_order_precision():
    """Layer by layer, the slope of log difference over log precision is 1."""
    network, data = problem()
    wanted, _ = first_gradients(mupc.Backpropagation(), network, data, None, KEY)
    precisions = np.array([1e-1, 1e-2, 1e-3])

    def difference(precision):
        rule = mupc.PredictiveCoding(
            mupc.GradientDescent(0.3),
            20_000,
            mupc.Gaussian(precision),
            stopping=mupc.Tolerance(1e-9, patience=0),
        )
        gradients, _ = first_gradients(rule, network, data, None, KEY)
        norm = lambda a, b: jnp.linalg.norm(a / precision - b)
        entry, *blocks, readout = (
            pair
            for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted), strict=True)
            for pair in (zip(a, b, strict=True) if a.ndim == 3 else [(a, b)])
        )
        return [norm(*entry), *(norm(*pair) for pair in blocks), norm(*readout)]

    differences = np.log([difference(precision) for precision in precisions])
    slopes = np.polyfit(np.log(precisions), differences, 1)[0]
    # The readout, too: its error is the difference of the output at and before equilibrium.
    np.testing.assert_allclose(slopes, 1.0, atol=0.05)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_learns_and_keeps_the_networks_structure(rule):
    network, batch = problem()
    carry, state = rule.begin(network, batch, rule.init(network, KEY), KEY)
    gradients, _, info = rule.gradients(network, batch, carry, KEY)
    assert jax.tree.structure(gradients) == jax.tree.structure(network)
    downhill = eqx.apply_updates(network, jax.tree.map(lambda g: -0.05 * g, gradients))
    _, after = first_gradients(rule, downhill, batch, state, KEY)
    assert jnp.mean((after.output - batch[1]) ** 2) < jnp.mean((info.output - batch[1]) ** 2)
    assert info.layers.shape == (4,)


def sensitivities(network, x, y, likelihood):
    """λ = ‖Jᵀg‖²/‖g‖² of each sample, by dense Jacobians, and its mean weighed by ‖Jᵀg‖²."""
    each, learned = map(np.asarray, _sensitivities(network, x, y, likelihood))
    return each, np.sum(each * learned) / np.sum(learned)


@eqx.filter_jit
def _sensitivities(network, x, y, likelihood):

    def one(x, y):
        banks = lambda e: network.in_banks(e.reshape(network.depth, 1, -1))
        run = lambda e: network.feedforward(x[None], banks(e)).output[0]
        zeros = jnp.zeros(network.in_order(network.feedforward(x[None]).activities).size)
        J, output = jax.jacobian(run)(zeros), run(zeros)
        g = jax.grad(lambda out: likelihood.loss(y, out))(output)
        learned = jnp.sum((J.T @ g) ** 2)
        return learned / jnp.sum(g**2), learned

    return jax.vmap(one)(x, y)


def steeper(network):
    return eqx.tree_at(lambda n: n.readout.weights, network, replace_fn=lambda w: 3 * w)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [mupc.Gaussian, mupc.Categorical])
@pytest.mark.parametrize("rho", [None, 0.2])
def test_a_held_regime_lets_the_precision_of_every_sample_follow_the_network(rho, make):
    """π_i = π min(1, λ₀/max(λ_i, λ̄)), π = ρ/λ₀ or what is given; λ̄ is a mean, λ₀ its first."""
    network, (x, y) = problem()
    rule = mupc.PredictiveCoding(likelihood=make(0.4 if rho is None else 1.0), rho=rho, hold=True)
    state = rule.init(network, KEY)
    _, first = sensitivities(network, x, y, make())
    common = 0.4 if rho is None else rho / first
    begin = eqx.filter_jit(lambda n, state: rule.begin(n, (x, y), state, KEY))
    learn = eqx.filter_jit(lambda n, carry: rule.gradients(n, (x, y), carry, KEY))
    last = first
    for here in (network, steeper(network), network):
        each, mean = sensitivities(here, x, y, make())
        last += (mean - last) / 16
        expected = common * np.minimum(1, first / np.maximum(each, last))
        before = state
        carry, state = begin(here, state)
        *_, info = learn(here, carry)
        np.testing.assert_allclose(np.abs(carry.energy.precision), expected, rtol=1e-10)
        np.testing.assert_allclose(info.precision, np.mean(expected), rtol=1e-10)
        np.testing.assert_allclose(state, (first, last), rtol=1e-10)
        shown = rule.diagnostics(here, (x, y), before, KEY)["rho"]
        learned = np.asarray(_sensitivities(here, x, y, make())[1])
        share = learned / np.sum(learned)
        np.testing.assert_allclose(shown, np.sum(share * expected * each), rtol=1e-10)
        # No sample is further away than the first batch was on average.
        assert np.all(expected * each <= common * first * (1 + 1e-12))
    assert sensitivities(steeper(network), x, y, make())[1] > 3 * first
    free = mupc.PredictiveCoding(likelihood=make(0.4 if rho is None else 1.0), rho=rho, hold=False)
    if rho is not None:  # a precision that is not held is that of the first batch for good
        carry, _ = free.begin(steeper(network), (x, y), state, KEY)
        np.testing.assert_allclose(carry.energy.precision, common, rtol=1e-10)


def test_training_leaves_a_held_regime_where_it_began_and_carries_another_away(tmp_path):
    ends = {}
    for hold in (True, False):
        settings = {"regime": "held" if hold else "initial", "rho": 0.1, "activation": "tanh"}
        settings |= {"depth": 6, "width": 16, "steps": 80, "out": str(tmp_path / str(hold))}
        ends[hold] = train(Configuration().changed(settings)).regime.rho
    assert 0.05 < ends[True] <= 0.1  # no sample's number is above what the mean was at first
    assert ends[False] > 0.3


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rho", [None, 0.2])
@pytest.mark.parametrize("empty", [0, 1])
def test_a_batch_with_nothing_to_learn_leaves_the_regime(empty, rho):
    network, (x, y) = problem()
    likelihood = mupc.Gaussian(0.4 if rho is None else 1.0)
    rule = mupc.PredictiveCoding(likelihood=likelihood, rho=rho, hold=True)
    state = rule.init(network, KEY)
    each, first = sensitivities(network, x, y, mupc.Gaussian())
    factors = np.minimum(1, first / each)
    common = 0.4 if rho is None else rho / first
    solved = network.feedforward(x).output
    learn = eqx.filter_jit(lambda y, carry: rule.gradients(network, (x, y), carry, KEY))
    for i in range(3):
        target = solved if i == empty else y
        # Not compiled, as the targets were not: what is left is zero, and not round-off.
        carry, state = rule.begin(network, (x, target), state, KEY)
        gradients, _, info = learn(target, carry)
        known = i > 0 or empty > 0
        np.testing.assert_allclose(state, 2 * [first if known else 0.0], rtol=1e-10)
        if i == empty:
            jax.tree.map(lambda g: np.testing.assert_allclose(g, 0, atol=1e-15), gradients)
        else:
            np.testing.assert_allclose(info.precision, common * np.mean(factors), rtol=1e-10)
    with pytest.raises(ValueError, match="begin needs the state that its init gives"):
        rule.begin(network, (x, y), None, KEY)


@pytest.mark.usefixtures("float64")
def test_a_sample_with_nothing_to_learn_does_not_count_in_the_first_mean():
    network, (x, y) = problem()
    y = y.at[3].set(network.feedforward(x).output[3])
    rule = mupc.PredictiveCoding(rho=0.2)
    carry, state = rule.begin(network, (x, y), rule.init(network, KEY), KEY)
    others = np.delete(np.arange(8), 3)
    _, first = sensitivities(network, x[others], y[others], mupc.Gaussian())
    np.testing.assert_allclose(state.first, first, rtol=1e-10)
    np.testing.assert_allclose(abs(carry.energy.precision[3]), 0.2 / first, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_a_held_precision_changes_the_regime_and_not_the_size_of_gradients():
    """A sample at f of the precision has its part divided by f; the weights' own part is not."""
    network, (x, y) = problem()
    make = lambda precision, *terms, **more: mupc.PredictiveCoding(
        mupc.GaussNewton(), 1, mupc.Gaussian(precision), regularisers=terms, **more
    )
    both = eqx.filter_jit(
        lambda rule, x, y, state: first_gradients(rule, network, (x, y), state, KEY)
    )
    learn = lambda rule, rows=slice(None), state=None: both(rule, x[rows], y[rows], state)[0]
    each, mean = sensitivities(network, x, y, mupc.Gaussian())
    first = 0.25 * mean
    seen = learn(
        make(0.4, mupc.WeightDecay(0.3), hold=True),
        state=Held(jnp.asarray(first), jnp.asarray(mean)),
    )
    factors = np.minimum(1, first / np.maximum(each, mean))
    assert len(np.unique(factors)) > 2
    alone = [learn(make(0.4 * f), slice(i, i + 1)) for i, f in enumerate(factors)]
    mean = lambda *own: sum(g / f for g, f in zip(own, factors, strict=True)) / 8
    expected = jax.tree.map(lambda w, *own: 0.3 * w + mean(*own), network, *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), seen, expected)


def test_rules_explain_where_things_go_wrong():
    network, batch = problem(depth=6)
    steep = mupc.PredictiveCoding(mupc.GradientDescent(5.0), 64, mupc.Gaussian())
    assert "in inference, whose energy rises from" in explain(steep, network, batch, None, KEY)
    huge = eqx.tree_at(
        lambda n: n.stages[0].blocks[0].weights, network, replace_fn=lambda w: w.at[2].mul(1e9)
    )
    for rule in RULES.values():
        sentence = explain(rule, huge, batch, rule.init(huge, KEY), KEY)
        # The third block predicts the fourth hidden layer, of six and an output.
        assert "in the feedforward pass" in sentence
        assert "at layer 4 of 7" in sentence


@pytest.mark.usefixtures("float64")
def test_factors_that_an_energy_is_built_with_stay():
    network, (x, y) = problem()
    own = np.linspace(0.5, 2.0, len(x))
    build = lambda *terms: mupc.FreeEnergy(*terms, factors=own)
    carries = [
        rule.begin(network, (x, y), rule.init(network, KEY), KEY)[0]
        for rule in (mupc.PredictiveCoding(rho=0.2, energy=e) for e in (build, mupc.FreeEnergy))
    ]
    ours, plain = (carry.energy.precision for carry in carries)
    np.testing.assert_allclose(ours, own * np.asarray(plain), rtol=1e-12)
    np.testing.assert_array_equal(carries[0].factors, carries[1].factors)
