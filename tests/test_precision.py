"""Float32 matrix products run at full precision on every backend (TF32 leaves μPC at chance)."""

import jax
import jax.numpy as jnp
import optax
import pytest
from test_networks import build

import mupc
from mupc.training.step import Inputs, begin, train_step


def equations(jaxpr):
    """All equations of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def products(function, *args):
    jaxpr = jax.make_jaxpr(function)(*args)
    return [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "dot_general"]


HIGHEST = jax.lax.Precision.HIGHEST

RULES = {
    "predictive coding": mupc.PredictiveCoding(
        mupc.GradientDescent(mupc.StableStep()), 4, regularisers=[mupc.SpectralPenalty(0.1)]
    ),
    "backpropagation": mupc.Backpropagation(),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_product_of_a_training_step_asks_for_full_precision(rule):
    network, optimiser, key = build(), optax.adam(0.1), jax.random.key(0)
    state = begin(network, rule, optimiser, key)
    batch = (jnp.ones((4, 6)), jnp.ones((4, 3)))
    arrays, static = jax.tree.flatten((batch, jnp.asarray(0), state))

    def step(*arrays):
        batch, count, state = jax.tree.unflatten(static, arrays)
        inputs = Inputs(rule, optimiser, batch, count, key)
        return jax.tree.leaves(train_step.__wrapped__(inputs, state))

    found = products(step, *arrays)
    assert len(found) >= 6
    for product in found:
        assert product.params["precision"] == (HIGHEST, HIGHEST)


def test_the_setting_is_ours_alone():
    """A product of the user's, beside ours, keeps the default."""
    (product,) = products(lambda a: a @ a, jnp.ones((2, 2)))
    assert product.params["precision"] != (HIGHEST, HIGHEST)
    assert jax.config.jax_default_matmul_precision is None
