"""Float32 matrix products run at full precision on every backend (TF32 leaves μPC at chance)."""

import jax
import jax.numpy as jnp
import pytest
from programs import equations, step_equations, training_step
from test_networks import build

import mupc


def products(found):
    return [e for e in found if e.primitive.name in ("dot_general", "conv_general_dilated")]


HIGHEST = jax.lax.Precision.HIGHEST

RULES = {
    "predictive coding": mupc.PredictiveCoding(
        mupc.GradientDescent(mupc.StableStep()), 4, regularisers=[mupc.SpectralPenalty(0.1)]
    ),
    "gauss-newton": mupc.PredictiveCoding(mupc.GaussNewton(2)),
    "backpropagation": mupc.Backpropagation(),
    "equilibrium propagation": mupc.EquilibriumPropagation(),
    "incremental": mupc.IncrementalPredictiveCoding(),
    "zero divergence": mupc.ZeroDivergence(),
    "augmented Lagrangian": mupc.AugmentedLagrangian(rounds=4),
    "Monte Carlo": mupc.MonteCarloPredictiveCoding(burn_in=5, samples=2),
}

TWO_WAYS = {"width": 4, "depth": 2, "key": jax.random.key(0)}
OTHERS = {
    "bidirectional": (
        mupc.bidirectional_mlp(6, 3, **TWO_WAYS),
        mupc.BidirectionalPredictiveCoding(),
    ),
    "hybrid": (mupc.bidirectional_mlp(6, 3, **TWO_WAYS), mupc.HybridPredictiveCoding()),
    "Hopfield chain": (mupc.residual_hopfield(6, 3, **TWO_WAYS), mupc.EquilibriumPropagation()),
    "layered Hopfield": (
        mupc.layered_hopfield((6, 6, 1), 3, layers="2p d4", key=jax.random.key(0)),
        mupc.EquilibriumPropagation(mupc.FixedPoint(), beta=0.1),
    ),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_product_of_a_training_step_asks_for_full_precision(rule, loop, monkeypatch):
    platforms = (jax.default_backend(),) if loop else ()
    monkeypatch.setattr(mupc.Dense, "loops_on", lambda self, size, *, local: platforms)
    found = products(training_step(rule, build(), 6, 3))
    assert len(found) >= 6
    for product in found:
        assert product.params["precision"] == (HIGHEST, HIGHEST)


@pytest.mark.parametrize(("network", "rule"), OTHERS.values(), ids=OTHERS)
def test_so_does_every_product_of_networks_that_settle(network, rule):
    x = jnp.ones((4, *((6, 6, 1) if rule.solver.projects else (6,))))
    found = products(step_equations(rule, network, (x, jnp.ones((4, 3)))))
    assert len(found) >= 6
    for product in found:
        assert product.params["precision"] == (HIGHEST, HIGHEST)


def test_the_setting_is_ours_alone():
    """A product of the user's, beside ours, keeps the default."""
    jaxpr = jax.make_jaxpr(lambda a: a @ a)(jnp.ones((2, 2))).jaxpr
    (product,) = products(equations(jaxpr))
    assert product.params["precision"] != (HIGHEST, HIGHEST)
    assert jax.config.jax_default_matmul_precision is None
