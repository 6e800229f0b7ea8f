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
ROLES = [("input", False), ("hidden", True), ("hidden", False), ("readout", False)]
NAMES = ["standard", "ntk", "mupc"]


def table(name, gamma, exponent=0.5, **more):
    return mupc.mupc(gamma, exponent=exponent, **more) if name == "mupc" else getattr(mupc, name)()


def expected(name, role, residual, fan_in, N, L, gamma):
    """Std, what a weight is multiplied by, and factors (of weight, of bias) as the papers give.

    The depth multiplier of a residual branch is in the second; a bias is beside the branch.
    """
    n, d, f = N / 128, L / 129, fan_in / 128
    if name == "standard":
        return fan_in**-0.5, 1.0, (1, 1), (1, 1)
    branch = 1 / np.sqrt(fan_in * L) if residual else 1 / np.sqrt(fan_in)
    if name == "ntk":
        return 1.0, branch, (1, 1), (1, 1)
    multiplier = 1 / (gamma * fan_in) if role == "readout" else branch
    adam = {"input": (gamma, gamma), "readout": (gamma, 1)}.get(role)
    if residual:
        adam = (gamma / np.sqrt(f * d), gamma / d)
    elif role == "hidden":
        adam = (gamma / np.sqrt(f), gamma)
    sgd = {"readout": (gamma**2 * n, 1)}.get(role, (gamma**2 * n, gamma**2 * n))
    if residual:
        sgd = (gamma**2 * n, gamma**2 * n / d)
    return 1.0, multiplier, adam, sgd


@given(st.sampled_from(NAMES), st.sampled_from(ROLES), sizes, sizes, sizes, st.floats(0.1, 10))
def test_table(name, role_and_skip, fan_in, N, L, gamma):
    role, skip = role_and_skip
    parameterisation, shape = table(name, gamma), mupc.Shape(N, L)
    weight = parameterisation.scale(role, shape, fan_in, skip=skip)
    bias = parameterisation.bias_scale(role, shape, skip=skip, beside=True)
    depth = parameterisation.branch_multiplier(L) if skip else 1.0
    std, multiplier, adam, sgd = expected(name, role, skip, fan_in, N, L, gamma)
    assert weight.std == pytest.approx(std)
    assert weight.multiplier * depth == pytest.approx(multiplier)
    assert (weight.adam, bias.adam) == pytest.approx(adam)
    assert (weight.sgd, bias.sgd) == pytest.approx(sgd)
    assert (bias.std, bias.multiplier) == (1, 1)
    assert [(s.role, s.kind) for s in (weight, bias)] == [(role, "weight"), (role, "bias")]
    # The uniform rule counts the inputs that an update by Adam adds up over.
    for scale, width in ((weight, fan_in), (bias, N)):
        deep, hidden = np.sqrt(129 / L), role == "hidden"
        wide = np.sqrt(128 / (width if hidden else N))
        inner, outer = min(wide * min(deep, 8**0.5), 4), np.clip(wide * deep, 1, 8)
        assert scale.uniform == pytest.approx(inner if hidden else outer)


@pytest.mark.parametrize("role", ["input", "hidden", "readout"])
def test_rates_of_generative_networks(role):
    """Those of residual layers and their biases fall with their number, those of ends do not."""
    laws, skip = mupc.generative(), role == "hidden"
    for length in (5, 17, 65, 1025):
        shape = mupc.Shape(256, length)
        weight = laws.scale(role, shape, skip=skip)
        bias = laws.bias_scale(role, shape, skip=skip, beside=True)
        expected = 129**0.5 / length if skip else (129 / 3) ** 0.5
        assert (weight.uniform, bias.uniform) == pytest.approx((expected / 2**0.5,) * 2)
        ntk = mupc.ntk().scale(role, shape, skip=skip)
        assert (weight.std, weight.multiplier) == (ntk.std, ntk.multiplier)
        assert laws.branch_multiplier(length) == length**-0.5


def test_two_hidden_layers_of_a_generative_network_have_the_rates_of_others():
    shape = mupc.Shape(128, 3)
    for role, skip in ROLES:
        ours = mupc.generative().scale(role, shape, skip=skip).uniform
        assert ours == pytest.approx(mupc.ntk().scale(role, shape, skip=skip).uniform)


@given(sizes, sizes, sizes, st.floats(0.1, 10), st.floats(0, 1))
def test_factors_within_a_branch_follow_its_depth_exponent(fan_in, N, L, gamma, alpha):
    """A change by Adam adds up over L branches of L^−α each; half of α is Depth-μP, 1 CompleteP."""
    parameterisation, shape = table("mupc", gamma, alpha), mupc.Shape(N, L)
    weight = parameterisation.scale("hidden", shape, fan_in, skip=True)
    bias = parameterisation.bias_scale("hidden", shape, skip=True)
    f, n, d = fan_in / 128, N / 128, L / 129
    assert parameterisation.branch_multiplier(L) == pytest.approx(L**-alpha)
    assert weight.multiplier == pytest.approx(fan_in**-0.5)
    assert weight.adam == pytest.approx(gamma * d ** (alpha - 1) / np.sqrt(f))
    assert bias.adam == pytest.approx(gamma * d ** (alpha - 1))
    # An exponent of 0 is that of no depth law, as in the standard parameterisation.
    deep = 11.357817 * L ** ((alpha or 0.5) - 1)
    assert weight.uniform == pytest.approx(min(min(deep, 8**0.5) * f**-0.5, 4))
    both = pytest.approx(gamma**2 * n * d ** (2 * alpha - 1))
    assert weight.sgd == bias.sgd == both


@given(st.sampled_from(NAMES), st.sampled_from(ROLES), sizes, sizes, st.floats(0.1, 10))
def test_at_the_base_shape_factors_are_powers_of_gamma_alone(name, role_and_skip, N, L, gamma):
    role, skip = role_and_skip
    more = {"base": mupc.Base(N, L)} if name == "mupc" else {}
    parameterisation, shape = table(name, gamma, **more), mupc.Shape(N, L)
    scale = parameterisation.scale(role, shape, skip=skip)
    gamma = gamma if name == "mupc" else 1
    assert (scale.adam, scale.sgd) == pytest.approx((gamma, gamma**2))
    if name == "mupc":
        assert scale.uniform == pytest.approx(1)


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
    for layer in (stage.entry, stage.blocks[0], updates.readout):
        weight, bias = (getattr(scale, which) for scale in layer.scales)
        np.testing.assert_allclose(layer.weights, weight, rtol=1e-6)
        np.testing.assert_allclose(layer.biases, bias, rtol=1e-6)


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


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"gamma": 0}, "gamma must be positive, not 0"),
        ({"exponent": 1.5}, "exponent must be at least 0 and at most 1, not 1.5"),
        ({"base": mupc.Base(0, 1)}, "a base shape has sizes of at least 1"),
    ],
)
def test_impossible_numbers_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        mupc.mupc(**wrong)
