"""Deep linear networks in closed form, and activity Hessians, against dense ones."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Reference, batch
from test_inference import dense_hessian, problem
from test_networks import with_random_biases

import mupc
from mupc.theory import (
    activity_hessian,
    equilibrated_energy,
    equilibrium,
    extreme_eigenvalues,
    linear_hessian,
    measured_step_limit,
    predicted_step_limit,
    spectrum,
)
from mupc.theory.lanczos import lanczos

pytestmark = pytest.mark.usefixtures("float64")


@st.composite
def linear_energies(draw, decay=True):
    """Energies of deep linear networks of any small shape and setting."""
    sizes = st.integers(1, 4)
    inputs, outputs, depth = draw(sizes), draw(sizes), draw(st.integers(1, 6))
    biases, key = draw(st.booleans()), jax.random.key(draw(st.integers(0, 99)))
    network = mupc.residual_mlp(
        inputs,
        outputs,
        width=draw(st.integers(1, 5)),
        depth=depth,
        activation=mupc.identity,
        skips=draw(st.booleans()),
        biases=biases,
        parameterisation=draw(
            st.sampled_from([mupc.standard(), mupc.ntk(), mupc.mupc(), mupc.mupc(3.0)])
        ),
        key=key,
    )
    if biases:
        network = with_random_biases(network, key)
    x, y = batch(inputs, outputs, 3)
    likelihood = mupc.Gaussian(draw(st.floats(0.01, 100)))
    regularisers = ()
    if decay and draw(st.booleans()):
        roles = draw(st.sampled_from([("input",), ("hidden",), ("input", "hidden")]))
        regularisers = (mupc.ActivityDecay(draw(st.floats(0, 2)), roles),)
    return mupc.FreeEnergy(network, jnp.asarray(x), jnp.asarray(y), likelihood, regularisers)


def dense_of_sample(energy, i, activities):
    """The Hessian of sample i alone."""
    own = jax.tree.map(lambda z: z[:, i : i + 1], activities)
    return dense_hessian(energy.of_sample(jnp.asarray(i)), own)


@eqx.filter_jit
def closed_forms(energy, start):
    """The closed forms, and what each must equal: one program, as the shapes of each are new."""
    A, z = linear_hessian(energy), equilibrium(energy)
    order, rest = energy.network.in_order, energy.at(z)
    gradient = order(energy.activity_gradient(rest))
    seen = {
        "Hessian": (A.dense(), dense_of_sample(energy, 1, start)),
        "product": (A @ order(start), order(activity_hessian(energy, start)(start))),
        "gradient at z*": (gradient, jnp.zeros_like(gradient)),
    }
    began = order(energy.activity_gradient(energy.at(start)))
    if energy.regularisers:
        return seen, began
    at = lambda network: eqx.tree_at(lambda e: e.network, energy, network)
    total = eqx.filter_grad(lambda n: jnp.mean(equilibrated_energy(at(n)).energy))(energy.network)
    local = energy.weight_gradient(rest)
    weights = zip(jax.tree.leaves(total), jax.tree.leaves(local), strict=True)
    seen["F*"] = (equilibrated_energy(energy).energy, energy.samples(rest))
    seen |= {f"gradient of F* by weights {i}": pair for i, pair in enumerate(weights)}
    return seen, began


@pytest.mark.full
@settings(max_examples=6)
@given(linear_energies())
def test_closed_forms_are_those_of_the_energy(energy):
    """Oracle 6: the Hessian by automatic differentiation; z* where the gradient vanishes; F* at it.

    The total derivative of F* by the weights is the local one, as z* is a minimum.
    """
    seen, began = closed_forms(energy, energy.network.feedforward(energy.x).activities)
    for name, (found, expected) in seen.items():
        size = np.max(np.abs(expected), initial=0)
        scale = np.max(np.abs(began)) if name == "gradient at z*" else size
        assert np.max(np.abs(found - expected), initial=0) <= 1e-9 * max(scale, 1e-3), name


def test_s_is_the_covariance_of_the_output_when_every_layer_is_noisy():
    """S = I/π + JJᵀ: by its meaning, not its formula."""
    energy, _ = problem(depth=6)
    network, x = energy.network, energy.x[:1]
    run = lambda e: network.feedforward(x, network.in_banks(e)).output[0]
    J = jax.jacobian(run)(jnp.zeros((6, 1, 5)))
    J = J.reshape(3, -1)
    np.testing.assert_allclose(equilibrated_energy(energy).S, jnp.eye(3) / 2 + J @ J.T, rtol=1e-12)


def test_the_equilibrium_can_be_differentiated():
    """Against dense linear algebra: z* = A⁻¹b with both read off a NumPy loop."""
    energy, _ = problem(biases=False)
    moved = jax.tree.map(lambda w: w + 1e-6 * jnp.cos(jnp.arange(w.size)).reshape(w.shape), energy)
    direction = jax.tree.map(jnp.subtract, moved.network, energy.network)
    at = lambda n: n.in_order(equilibrium(energy.with_parameters(n)))
    tangent = eqx.filter_jvp(at, (energy.network,), (direction,))[1]
    dense = lambda n: Reference(n, None).linear_equilibrium(
        np.asarray(energy.x), np.asarray(energy.y), 2.0
    )[0]
    step = lambda t: jax.tree.map(lambda w, d: w + t * d, energy.network, direction)
    np.testing.assert_allclose(tangent, (dense(step(1)) - dense(step(-1))) / 2, atol=1e-11)


def test_what_has_no_closed_form_says_so():
    energy, _ = problem()
    decaying = mupc.FreeEnergy(
        energy.network, energy.x, energy.y, energy.likelihood, (mupc.ActivityDecay(0.1),)
    )
    weighed = mupc.FreeEnergy(energy.network, energy.x, energy.y, energy.likelihood, (), 2.0)
    for other in (decaying, weighed):
        with pytest.raises(ValueError, match=r"activity decay or hidden precisions .* is not this"):
            equilibrated_energy(other)
    with pytest.raises(ValueError, match="closed form is for linear networks"):
        linear_hessian(problem(jnp.tanh)[0])


# Spectra


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("activation", "trained", "precisions"),
    [
        (jnp.tanh, False, np.linspace(0.5, 4, 16)),
        (mupc.identity, False, None),
        (jnp.tanh, False, None),
        (jnp.tanh, True, None),
    ],
)
def test_extreme_eigenvalues_are_those_of_the_dense_hessian(activation, trained, precisions):
    """At the size that the accuracy is promised for, at rest and in the middle of inference."""
    network = mupc.residual_mlp(
        12, 4, width=32, depth=16, activation=activation, key=jax.random.key(0)
    )
    if trained:  # the weights of a network that has learned are larger, and its Hessian worse
        grown = lambda w: 1.5 * w if eqx.is_inexact_array(w) else w
        network = jax.tree.map(grown, network)
    x, y = (jnp.asarray(v) for v in batch(12, 4, 2))
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(1.0), (), precisions)
    start = network.feedforward(x).activities
    z = mupc.infer(energy, mupc.GradientDescent(0.1), start, max_steps=20).point.activities
    seen = extreme_eigenvalues(energy, z)
    for i in range(2):
        dense = np.linalg.eigvalsh(dense_of_sample(energy, i, z))
        np.testing.assert_allclose(seen.smallest[i], dense[0], rtol=1e-6)
        np.testing.assert_allclose(seen.largest[i], dense[-1], rtol=1e-6)
        assert np.min(np.abs(dense - float(seen.smallest[i]))) <= seen.bounds[i] + 1e-12
        expected = dense[-1] / dense[0] if dense[0] > 0 else np.nan
        np.testing.assert_allclose(seen.condition_number[i], expected, rtol=1e-6)


def test_negative_curvature_is_found_and_has_no_condition_number():
    energy, start = problem(jnp.tanh, depth=6)
    energy = eqx.tree_at(lambda e: e.likelihood, energy, mupc.Gaussian(50.0))
    noise = 2 * jax.random.normal(jax.random.key(3), (6, 5, 5))
    z = jax.tree.map(jnp.add, start, energy.network.in_banks(noise))
    seen = extreme_eigenvalues(energy, z)
    dense = np.stack([np.linalg.eigvalsh(dense_of_sample(energy, i, z)) for i in range(5)])
    negative = dense[:, 0] < 0
    assert np.any(negative)
    np.testing.assert_allclose(seen.smallest[negative], dense[negative, 0], rtol=1e-6)
    assert np.array_equal(np.isnan(seen.condition_number), negative)


def test_lanczos_is_exact_when_the_space_is_exhausted():
    """A multiple eigenvalue leaves fewer dimensions than asked for, and makes no wrong ones."""
    values = np.array([1.0, 1.0, 1.0, 2.0, 5.0])
    krylov = lanczos(lambda v: jnp.asarray(values) * v, jnp.ones(5), 5)
    ritz, vectors = np.linalg.eigh(krylov.matrix())
    weights = vectors[0] ** 2
    for value, weight in [(1.0, 0.6), (2.0, 0.2), (5.0, 0.2)]:
        assert np.sum(weights[np.abs(ritz - value) < 1e-9]) == pytest.approx(weight)
    assert ritz.min() >= 1 - 1e-9
    assert ritz.max() <= 5 + 1e-9


def test_the_spectrum_has_the_moments_of_the_hessian():
    """Quadrature of k points integrates polynomials exactly, from each start: traces of powers."""
    energy, start = problem(jnp.tanh, depth=8, size=3)
    seen = spectrum(energy, start, probes=400, steps=20)
    assert np.sum(seen.weights) == pytest.approx(1)
    dense = np.stack([dense_of_sample(energy, i, start) for i in range(3)])
    size = dense.shape[1]
    for power in (1, 2, 3):
        expected = np.mean([np.trace(np.linalg.matrix_power(A, power)) / size for A in dense])
        assert np.sum(seen.weights * seen.eigenvalues**power) == pytest.approx(expected, rel=0.03)


# Steps


def test_the_measured_step_limit_of_a_quadratic_energy_is_the_predicted_one():
    energy, start = problem(depth=6)
    predicted = predicted_step_limit(energy, start)
    dense = np.linalg.eigvalsh(linear_hessian(energy).dense())[-1]
    np.testing.assert_allclose(predicted, 2 / dense, rtol=1e-9)
    measured = measured_step_limit(energy, start, 2.5 * predicted, steps=2000)
    np.testing.assert_allclose(measured, predicted, rtol=0.01)


def test_below_the_measured_limit_descent_converges_and_above_it_diverges():
    energy, start = problem(jnp.tanh, depth=6, size=2)
    stopping = mupc.Tolerance(1e-8)
    end = mupc.infer(energy, mupc.LBFGS(), start, max_steps=500, stopping=stopping)
    z = end.point.activities
    limit = measured_step_limit(energy, z, predicted_step_limit(energy, z))
    near = jax.tree.map(lambda z: z + 1e-3, z)
    for factor, result in [
        (0.95, mupc.InferenceResult.CONVERGED),
        (1.2, mupc.InferenceResult.DIVERGED),
    ]:
        for i in range(2):
            one = energy.of_sample(jnp.asarray(i))
            begin = jax.tree.map(lambda z, i=i: z[:, i : i + 1], near)
            step = mupc.GradientDescent(factor * float(limit[i]))
            stopping = mupc.Tolerance(1e-3, patience=0)
            seen = mupc.infer(one, step, begin, max_steps=2000, stopping=stopping)
            assert seen.result[0] == result
