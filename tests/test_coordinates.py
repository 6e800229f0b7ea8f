"""Coordinate check: what an update does to activities must not depend on width and depth.

This justifies the default parameterisation, and says what each learning-rate rule is for.
"""

import itertools

import equinox as eqx
import jax
import numpy as np
import optax
import pytest

import mupc
from mupc.learning import first_gradients

BACKPROPAGATION = mupc.Backpropagation()
TRUNCATED = mupc.PredictiveCoding(mupc.GradientDescent(0.25), 8, mupc.Gaussian())
WIDTHS, DEPTHS, STEPS = (64, 256), (4, 64), 3


def batch():
    split = mupc.data.load("digits").flattened().train
    return split.x[:32], split.y[:32]


def sizes_of_activities(parameterisation, width, depth, scaling, rule):
    """Root mean square of the last activity before training, and of its change and the output's."""
    network = mupc.residual_mlp(
        64, 10, width=width, depth=depth, parameterisation=parameterisation, key=jax.random.key(0)
    )
    x, y = batch()
    optimiser = optax.adam(0.01, eps=1e-12)
    if scaling is not None:
        optimiser = optax.chain(optimiser, scaling(network))
    before = network.feedforward(x)
    step = eqx.filter_jit(lambda n: first_gradients(rule, n, (x, y), None, jax.random.key(0))[0])
    state = optimiser.init(eqx.filter(network, eqx.is_inexact_array))
    for _ in range(STEPS):
        updates, state = optimiser.update(step(network), state)
        network = eqx.apply_updates(network, updates)
    after = network.feedforward(x)
    norm = lambda v: float(np.sqrt(np.mean(np.square(v))))
    last, then = before.activities[-1][-1], after.activities[-1][-1]
    return norm(last), norm(then - last), norm(after.output - before.output)


def test_the_library_measures_the_same():
    network = mupc.residual_mlp(64, 10, width=64, depth=4, key=jax.random.key(0))
    optimiser = optax.chain(optax.adam(0.01, eps=1e-12), mupc.scale_adam(network))
    seen = mupc.theory.coordinate_check(network, batch(), BACKPROPAGATION, optimiser, updates=STEPS)
    last, change, output = sizes_of_activities(mupc.mupc(), 64, 4, mupc.scale_adam, BACKPROPAGATION)
    np.testing.assert_allclose(seen.scales[-2], last, rtol=1e-5)
    np.testing.assert_allclose(seen.changes[-2:], [change, output], rtol=1e-3)
    assert seen.scales.shape == seen.changes.shape == (5,)


def table(parameterisation, scaling=None, rule=BACKPROPAGATION):
    shapes = itertools.product(WIDTHS, DEPTHS)
    return np.array([sizes_of_activities(parameterisation, *s, scaling, rule) for s in shapes])


def spread(column):
    return column.max() / column.min()


def test_under_mupc_with_its_rates_activities_and_their_changes_are_of_one_order():
    seen = table(mupc.mupc(), mupc.scale_adam)
    assert all(spread(column) < 2.5 for column in seen.T)


def images():
    split = mupc.data.load("digits").train
    return split.x[:16], split.y[:16]


def latents():
    """What a decoder reads where its input is given."""
    return jax.random.normal(jax.random.key(1), (16, 4, 4, 3)), images()[0]


def text():
    x = jax.random.randint(jax.random.key(1), (4, 8), 0, 5)
    return x, jax.nn.one_hot(np.roll(x, -1, axis=1), 5)


def without_prior(network):
    return mupc.Chain(network.stages[1:], network.readout)


FAMILIES = {
    "conv-decoder": lambda laws, width, depth: without_prior(
        mupc.conv_decoder(
            3,
            (8, 8, 1),
            doublings=1,
            blocks=depth,
            channels=width // 4,
            parameterisation=laws,
            key=KEY,
        )
    ),
    "conv-resnet": lambda laws, width, depth: mupc.conv_resnet(
        (8, 8, 1), 10, blocks=(depth, depth), channels=width // 4, parameterisation=laws, key=KEY
    ),
    "transformer": lambda laws, width, depth: mupc.transformer(
        5, context=8, pairs=depth, width=width, parameterisation=laws, key=KEY
    ),
    "vision-transformer": lambda laws, width, depth: mupc.vision_transformer(
        (8, 8, 1), 10, patch=2, pairs=depth, width=width, parameterisation=laws, key=KEY
    ),
}
KEY = jax.random.key(0)


@pytest.mark.few(1)
@pytest.mark.parametrize("family", FAMILIES)
def test_so_they_are_in_networks_of_images_and_of_text(family):
    """Width times 4, depth times 8; under the standard parameterisation activities explode."""
    data = {"transformer": text, "conv-decoder": latents}.get(family, images)()
    rule = mupc.Backpropagation(
        likelihood=mupc.Categorical() if family == "transformer" else mupc.Gaussian()
    )

    def measured(laws, width, depth, scaling):
        network = FAMILIES[family](laws, width, depth)
        optimiser = optax.adam(0.01, eps=1e-12)
        if scaling is not None:
            optimiser = optax.chain(optimiser, scaling(network))
        seen = mupc.theory.coordinate_check(network, data, rule, optimiser, updates=STEPS)
        return seen.scales[-2], seen.changes[-2], seen.changes[-1]

    sizes = [(32, 2), (128, 2), (32, 16)]
    exponent = 0.5 if family.startswith("conv") else 1.0
    laws = mupc.mupc(exponent=exponent)
    flat = np.array([measured(laws, *size, mupc.scale_adam) for size in sizes])
    assert all(spread(column) < 2.5 for column in flat.T), flat
    steep = np.array([measured(mupc.standard(), *size, None) for size in sizes])
    assert max(spread(column) for column in steep.T) > 4, steep


def test_under_standard_they_are_not():
    seen = table(mupc.standard())
    initial, change, _ = seen.T
    assert spread(initial) > 1e3
    assert spread(change) > 1e3


def test_with_raw_rates_the_changes_of_exact_gradients_depend_on_size():
    """What the factors of *mup* are for."""
    _, change, _ = table(mupc.mupc()).T
    assert spread(change) > 4


@pytest.mark.full
def test_truncated_inference_is_what_raw_rates_suit():
    """Why the default rule is *raw*: the default inference reaches the top layers only.

    Their number does not grow with depth, so factors made for all layers learning at once make
    the change of the output depend on size more, not less.
    """
    spreads = {
        scaling: spread(table(mupc.mupc(), scaling, TRUNCATED)[:, 2])
        for scaling in (None, mupc.scale_adam, mupc.scale_uniform)
    }
    assert spreads[None] < 3.5 < spreads[mupc.scale_adam] < spreads[mupc.scale_uniform]
