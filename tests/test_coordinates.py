"""Coordinate check: what an update does to activities must not depend on width and depth.

This justifies the default parameterisation, and says what each learning-rate rule is for.
"""

import itertools

import equinox as eqx
import jax
import numpy as np
import optax

import mupc

WIDTHS, DEPTHS, STEPS = (64, 256), (4, 64), 3


def batch():
    split = mupc.data.load("digits").train
    return split.x[:32], split.y[:32]


def sizes_of_activities(parameterisation, width, depth, scaling=None, rate=0.01):
    """Root mean square of the last activity before training, and of its change and the output's."""
    network = mupc.residual_mlp(
        64, 10, width=width, depth=depth, parameterisation=parameterisation, key=jax.random.key(0)
    )
    x, y = batch()
    optimiser = optax.adam(rate, eps=1e-12)
    if scaling is not None:
        optimiser = optax.chain(optimiser, scaling(network))
    before = network.feedforward(x)
    step = eqx.filter_jit(lambda n: mupc.Backpropagation().gradients(n, (x, y), None, None)[0])
    state = optimiser.init(eqx.filter(network, eqx.is_inexact_array))
    for _ in range(STEPS):
        updates, state = optimiser.update(step(network), state)
        network = eqx.apply_updates(network, updates)
    after = network.feedforward(x)
    norm = lambda v: float(np.sqrt(np.mean(np.square(v))))
    last, then = before.activities[0][-1], after.activities[0][-1]
    return norm(last), norm(then - last), norm(after.output - before.output)


def table(parameterisation, scaling=None):
    shapes = itertools.product(WIDTHS, DEPTHS)
    return np.array([sizes_of_activities(parameterisation, *s, scaling) for s in shapes])


def spread(column):
    return column.max() / column.min()


def test_under_mupc_with_its_rates_activities_and_their_changes_are_of_one_order():
    seen = table(mupc.mupc(), mupc.scale_adam)
    assert all(spread(column) < 2.5 for column in seen.T)


def test_under_standard_they_are_not():
    seen = table(mupc.standard())
    initial, change, _ = seen.T
    assert spread(initial) > 1e3
    assert spread(change) > 1e3


def test_with_raw_rates_changes_depend_on_size():
    """Why the default rule is *mup*: one raw rate for all layers moves large networks more."""
    _, change, _ = table(mupc.mupc()).T
    assert spread(change) > 4
