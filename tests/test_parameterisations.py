"""The table of parameterisations against the formulas it stands for."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mupc

sizes = st.integers(1, 2048)
ROLES = [("input", True), ("hidden", True), ("hidden", False), ("readout", True)]


def expected(name, role, skips, fan_in, N, L, gamma):
    """Initial std, multiplier and rate factors as the papers give them, one formula a line."""
    n, d = N / 128, L / 129
    residual = role == "hidden" and skips
    if name == "standard":
        return fan_in**-0.5, 1.0, (1, 1), (1, 1)
    branch = 1 / np.sqrt(fan_in * L) if residual else 1 / np.sqrt(fan_in)
    if name == "ntk":
        return 1.0, branch, (1, 1), (1, 1)
    multiplier = 1 / (gamma * fan_in) if role == "readout" else branch
    adam = {"input": (gamma, gamma), "readout": (gamma, 1)}.get(role)
    if residual:
        adam = (gamma / np.sqrt(n * d), gamma / d)
    elif role == "hidden":
        adam = (gamma / np.sqrt(n), gamma)
    sgd = {"readout": (gamma**2 * n, 1)}.get(role, (gamma**2 * n, gamma**2 * n))
    if residual:
        sgd = (gamma**2 * n, gamma**2 * n / d)
    return 1.0, multiplier, adam, sgd


@given(
    st.sampled_from(["standard", "ntk", "mupc"]),
    st.sampled_from(ROLES),
    sizes,
    sizes,
    sizes,
    st.floats(0.1, 10),
)
def test_table(name, role_and_skips, fan_in, N, L, gamma):
    role, skips = role_and_skips
    parameterisation = getattr(mupc, name)(**({"gamma": gamma} if name == "mupc" else {}))
    scale = parameterisation.scale(role, fan_in, width=N, length=L, skips=skips)
    std, multiplier, adam, sgd = expected(name, role, skips, fan_in, N, L, gamma)
    assert scale.std == pytest.approx(std)
    assert scale.multiplier == pytest.approx(multiplier)
    assert scale.adam == pytest.approx(adam)
    assert scale.sgd == pytest.approx(sgd)
    least = 0 if role == "hidden" else 1
    assert scale.uniform == pytest.approx((np.clip(np.sqrt(128 * 129 / (N * L)), least, 4),) * 2)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (50, 50)])
def test_initialisers_have_the_standard_deviation_asked_for(shape):
    gaussian = mupc.normal(jax.random.key(0), shape, 0.3)
    # 2,000 or more entries: the sample deviation is within 6 % of σ but for one draw in 10^4.
    assert np.std(gaussian) == pytest.approx(0.3, rel=0.06)
    orthogonal = mupc.orthogonal(jax.random.key(0), shape, 0.3)
    singular = np.linalg.svd(orthogonal, compute_uv=False)
    np.testing.assert_allclose(singular, 0.3 * np.sqrt(max(shape)), rtol=1e-5)
    assert np.std(orthogonal) == pytest.approx(0.3, rel=0.06)


@pytest.mark.parametrize(
    ("scaling", "which"),
    [(mupc.scale_adam, "adam"), (mupc.scale_sgd, "sgd"), (mupc.scale_uniform, "uniform")],
)
def test_scaled_rates_multiply_each_update_by_its_layers_factor(scaling, which):
    network = mupc.residual_mlp(6, 3, width=8, depth=4, biases=True, key=jax.random.key(0))
    ones = jax.tree.map(jnp.ones_like, eqx.filter(network, eqx.is_inexact_array))
    transformation = scaling(network)
    updates, _ = transformation.update(ones, transformation.init(ones))
    stage = updates.stages[0]
    for layer in (stage.entry, stage.blocks, updates.readout):
        factors = getattr(layer.scale, which)
        np.testing.assert_allclose(layer.weights, factors.weight, rtol=1e-6)
        np.testing.assert_allclose(layer.biases, factors.bias, rtol=1e-6)


def test_traced_optimiser_equals_optax():
    network = mupc.residual_mlp(6, 3, width=8, depth=4, key=jax.random.key(0))
    params = eqx.filter(network, eqx.is_inexact_array)
    ours, theirs = mupc.traced(optax.adam, learning_rate=0.1, eps=1e-3), optax.adam(0.1, eps=1e-3)
    seen, _ = ours.update(params, ours.init(params))
    wanted, _ = theirs.update(params, theirs.init(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), seen, wanted)


def test_an_array_without_a_scale_is_an_error():
    with pytest.raises(ValueError, match=r"shape \(3, 3\) lies in no scaled block.*mupc\.Scaled"):
        mupc.scale_adam({"loose": jnp.ones((3, 3))})


def test_gamma_must_be_positive():
    with pytest.raises(ValueError, match="gamma must be positive, not 0"):
        mupc.mupc(gamma=0)
