"""Programs as JAX traces them: the training step, and all equations of a jaxpr."""

import jax
import jax.numpy as jnp
import optax

import mupc
from mupc.hyperparameters import as_module
from mupc.training.step import train_step


def equations(jaxpr):
    """All equations of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def training_step(rule, network, inputs, outputs):
    """All equations of one training step with Adam, on samples that are vectors."""
    return step_equations(rule, network, (jnp.ones((4, inputs)), jnp.ones((4, outputs))))


def step_equations(rule, network, batch):
    """All equations of one training step with Adam on a batch."""
    optimiser = optax.adam(0.1)
    state = mupc.init(network, rule, optimiser, jax.random.key(0))
    arrays, static = jax.tree.flatten((batch, state))

    def step(*arrays):
        batch, state = jax.tree.unflatten(static, arrays)
        inputs = (batch, rule, as_module(optimiser), jnp.asarray(False))
        return jax.tree.leaves(train_step.__wrapped__(inputs, state))

    jax.clear_caches()  # a function that JAX has traced before is not traced again
    return list(equations(jax.make_jaxpr(step)(*arrays).jaxpr))
