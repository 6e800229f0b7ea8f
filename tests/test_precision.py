"""Float32 matrix products run at full precision on every backend (TF32 leaves μPC at chance)."""

import jax
import jax.numpy as jnp
import pytest
from programs import equations, training_step
from test_networks import build

import mupc


def products(found):
    return [e for e in found if e.primitive.name == "dot_general"]


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


def test_the_setting_is_ours_alone():
    """A product of the user's, beside ours, keeps the default."""
    jaxpr = jax.make_jaxpr(lambda a: a @ a)(jnp.ones((2, 2))).jaxpr
    (product,) = products(equations(jaxpr))
    assert product.params["precision"] != (HIGHEST, HIGHEST)
    assert jax.config.jax_default_matmul_precision is None
