"""Learning rules: what their gradients are, and what they tend to."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import batch

import mupc
from mupc.learning.regime import Held
from mupc.training.config import TrainConfig
from mupc.training.run import train

RULES = {
    "predictive coding": mupc.PredictiveCoding(mupc.GradientDescent(0.25), 8),
    "held regime": mupc.PredictiveCoding(mupc.GaussNewton(), 1, hold_regime=True),
    "backpropagation": mupc.Backpropagation(),
}


def problem(depth=3, width=6):
    network = mupc.residual_mlp(
        6, 3, width=width, depth=depth, activation=jnp.tanh, key=jax.random.key(0)
    )
    x, y = batch(6, 3, 8)
    return network, (jnp.asarray(x), jnp.asarray(y))


@pytest.mark.usefixtures("float64")
def test_backpropagation_is_the_gradient_of_the_loss_of_the_feedforward_pass():
    network, (x, y) = problem()
    rule = mupc.Backpropagation(mupc.Gaussian(0.5))
    gradients, _, info = rule.gradients(network, (x, y), None, jax.random.key(0))
    loss = lambda n: 0.25 * jnp.mean(jnp.sum((y - n.feedforward(x).output) ** 2, -1))
    expected = eqx.filter_grad(loss)(network)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), gradients, expected)
    np.testing.assert_allclose(info.layers[-1], loss(network))
    np.testing.assert_allclose(info.output, network.feedforward(x).output)


@pytest.mark.usefixtures("float64")
def test_predictive_coding_tends_to_backpropagation_with_an_error_of_order_precision():
    """Layer by layer, the slope of log difference over log precision is 1."""
    network, data = problem()
    key = jax.random.key(0)
    wanted, *_ = mupc.Backpropagation().gradients(network, data, None, key)
    precisions = np.array([1e-1, 1e-2, 1e-3])

    def difference(precision):
        rule = mupc.PredictiveCoding(
            mupc.GradientDescent(0.3),
            20_000,
            mupc.Gaussian(precision),
            rtol=1e-9,
            patience=0,
        )
        gradients, *_ = rule.gradients(network, data, None, key)
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
    state = rule.init(network, None)
    gradients, state, info = rule.gradients(network, batch, state, jax.random.key(0))
    assert jax.tree.structure(gradients) == jax.tree.structure(network)
    downhill = eqx.apply_updates(network, jax.tree.map(lambda g: -0.05 * g, gradients))
    *_, after = rule.gradients(downhill, batch, state, jax.random.key(0))
    assert jnp.mean((after.output - batch[1]) ** 2) < jnp.mean((info.output - batch[1]) ** 2)
    assert info.layers.shape == (4,)


@pytest.mark.usefixtures("float64")
def test_a_held_regime_lets_the_precision_follow_the_network():
    """Every fifth batch is measured, and counts for 0.3 of the mean that the precision follows."""
    network, batch = problem()
    steeper = eqx.tree_at(lambda n: n.readout.weights, network, replace_fn=lambda w: 3 * w)
    number = lambda n: float(
        mupc.theory.learned_regime_number(
            mupc.FreeEnergy(n, *batch, mupc.Gaussian(0.4)), n.feedforward(batch[0])
        )
    )
    rule = mupc.PredictiveCoding(mupc.GaussNewton(), 1, mupc.Gaussian(0.4), hold_regime=True)
    state, key = rule.init(network, None), jax.random.key(0)
    seen = []
    for i in range(60):
        _, state, info = rule.gradients(network if i < 5 else steeper, batch, state, key)
        seen.append(float(info.precision))
    first, later = number(network), number(steeper)
    measured = [first] + [later + (first - later) * 0.7**k for k in range(1, 12)]
    expected = [0.4 * first / measured[i // 5] for i in range(60)]
    np.testing.assert_allclose(seen, expected, rtol=1e-10)
    # In the end the regime number of the steeper network is the one that the first batch had.
    assert later > 3 * first
    assert seen[-1] / 0.4 * later == pytest.approx(first, rel=0.1)


def test_training_leaves_a_held_regime_where_it_began_and_carries_another_away(tmp_path):
    ends = {}
    for hold in (True, False):
        config = TrainConfig(
            depth=6,
            width=16,
            activation="tanh",
            steps=80,
            rho=0.1,
            hold_regime=hold,
            out=str(tmp_path / str(hold)),
        )
        ends[hold] = train(config).regime.rho
    assert 0.05 < ends[True] < 0.2
    assert ends[False] > 0.4


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("empty", [0, 5])
def test_a_batch_with_nothing_to_learn_leaves_the_precision(empty):
    network, (x, y) = problem()
    rule = mupc.PredictiveCoding(mupc.GaussNewton(), 1, mupc.Gaussian(0.4), hold_regime=True)
    state, key = rule.init(network, None), jax.random.key(0)
    for i in range(11):
        target = network.feedforward(x).output if i == empty else y
        _, state, info = rule.gradients(network, (x, target), state, key)
        np.testing.assert_allclose(info.precision, 0.4, rtol=1e-12)
    with pytest.raises(ValueError, match="give the state that its init gives"):
        rule.gradients(network, (x, y), None, key)


@pytest.mark.usefixtures("float64")
def test_a_held_precision_changes_the_regime_and_not_the_size_of_gradients():
    """At a quarter of the precision the samples' part is in quarters, the weights' own is not."""
    network, batch = problem()
    decay, key = mupc.WeightDecay(0.3), jax.random.key(0)
    learn = lambda rule, state=None: rule.gradients(network, batch, state, key)[0]
    make = lambda precision, *terms, **more: mupc.PredictiveCoding(
        mupc.GaussNewton(), 1, mupc.Gaussian(precision), terms, **more
    )
    held = Held(jnp.asarray(1), jnp.asarray(1.0), jnp.asarray(4.0))
    seen = learn(make(0.4, decay, hold_regime=True), held)
    bare = learn(make(0.1))
    own = jax.tree.map(jnp.subtract, learn(make(0.1, decay)), bare)
    expected = jax.tree.map(lambda b, o: 4 * b + o, bare, own)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), seen, expected)


def test_rules_explain_where_things_go_wrong():
    network, batch = problem(depth=6)
    key = jax.random.key(0)
    steep = mupc.PredictiveCoding(mupc.GradientDescent(5.0), 64)
    assert "in inference, whose energy rises from" in steep.explain(network, batch, None, key)
    huge = eqx.tree_at(
        lambda n: n.stages[0].blocks.weights, network, replace_fn=lambda w: w.at[2].mul(1e9)
    )
    for rule in RULES.values():
        sentence = rule.explain(huge, batch, rule.init(huge, key), key)
        # The third block predicts the fourth hidden layer, of six and an output.
        assert "in the feedforward pass" in sentence
        assert "at layer 4 of 7" in sentence
