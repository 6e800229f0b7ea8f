"""Programs as JAX traces them: the training step, and all equations of a jaxpr."""

import jax
import jax.numpy as jnp
import optax

from mupc.training.step import Inputs, begin, train_step


def equations(jaxpr):
    """All equations of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def training_step(rule, network, inputs, outputs):
    """All equations of one training step with Adam."""
    optimiser, key = optax.adam(0.1), jax.random.key(0)
    state = begin(network, rule, optimiser, key)
    batch = (jnp.ones((4, inputs)), jnp.ones((4, outputs)))
    arrays, static = jax.tree.flatten((batch, jnp.asarray(0), state))

    def step(*arrays):
        batch, count, state = jax.tree.unflatten(static, arrays)
        inputs = Inputs(rule, optimiser, batch, count, jnp.asarray(False), key)
        return jax.tree.leaves(train_step.__wrapped__(inputs, state))

    jax.clear_caches()  # a function that JAX has traced before is not traced again
    return list(equations(jax.make_jaxpr(step)(*arrays).jaxpr))
