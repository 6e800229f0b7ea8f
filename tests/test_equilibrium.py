"""Deep linear networks in closed form, and activity Hessians, against dense ones."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Reference, batch
from test_inference import problem

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


def random_biases(network, key):
    where = lambda n: (n.stages[0].entry.biases, n.stages[0].blocks.biases, n.readout.biases)
    keys = jax.random.split(key, 3)
    drawn = tuple(jax.random.normal(k, b.shape) for k, b in zip(keys, where(network), strict=True))
    return eqx.tree_at(where, network, drawn)


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
        network = random_biases(network, key)
    x, y = batch(inputs, outputs, 3)
    likelihood = mupc.Gaussian(draw(st.floats(0.01, 100)))
    regularisers = ()
    if decay and draw(st.booleans()):
        roles = draw(st.sampled_from([("input",), ("hidden",), ("input", "hidden")]))
        regularisers = (mupc.ActivityDecay(draw(st.floats(0, 2)), roles),)
    return mupc.FreeEnergy(network, jnp.asarray(x), jnp.asarray(y), likelihood, regularisers)


def dense_hessian(energy, i, z):
    """By automatic differentiation of the energy itself, of one sample."""
    one = energy.of_sample(jnp.asarray(i))
    flat = lambda v: one.samples((v.reshape(len(z), 1, -1),))[0]
    return jax.hessian(flat)(z[:, i].reshape(-1))


@eqx.filter_jit
def closed_forms(energy, start):
    """The closed forms, and what each must equal: one program, as the shapes of each are new."""
    A, z = linear_hessian(energy), equilibrium(energy)
    seen = {
        "Hessian": (A.dense(), dense_hessian(energy, 1, start[0])),
        "product": (A @ start[0], activity_hessian(energy, start)(start)[0]),
        "gradient at z*": (energy.activity_gradient(z)[0], jnp.zeros_like(z[0])),
    }
    if energy.regularisers:
        return seen, energy.activity_gradient(start)[0]
    at = lambda network: eqx.tree_at(lambda e: e.network, energy, network)
    total = eqx.filter_grad(lambda n: jnp.mean(equilibrated_energy(at(n)).energy))(energy.network)
    local = energy.weight_gradient(z)
    weights = zip(jax.tree.leaves(total), jax.tree.leaves(local), strict=True)
    seen["F*"] = (equilibrated_energy(energy).energy, energy.samples(z))
    seen |= {f"gradient of F* by weights {i}": pair for i, pair in enumerate(weights)}
    return seen, energy.activity_gradient(start)[0]


@settings(max_examples=6, deadline=None)
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
    J = jax.jacobian(lambda e: network.feedforward(x, (e,)).output[0])(jnp.zeros((6, 1, 5)))
    J = J.reshape(3, -1)
    np.testing.assert_allclose(equilibrated_energy(energy).S, jnp.eye(3) / 2 + J @ J.T, rtol=1e-12)


def test_the_equilibrium_can_be_differentiated():
    """Against dense linear algebra: z* = A⁻¹b with both read off a NumPy loop."""
    energy, _ = problem(biases=False)
    moved = jax.tree.map(lambda w: w + 1e-6 * jnp.cos(jnp.arange(w.size)).reshape(w.shape), energy)
    direction = jax.tree.map(jnp.subtract, moved.network, energy.network)
    at = lambda n: equilibrium(eqx.tree_at(lambda e: e.network, energy, n))[0]
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
    with pytest.raises(ValueError, match="with activity decay the energy at equilibrium is not"):
        equilibrated_energy(decaying)
    with pytest.raises(ValueError, match="closed form is for linear networks"):
        linear_hessian(problem(jnp.tanh)[0])


# Spectra


@pytest.mark.parametrize(
    ("activation", "trained"), [(mupc.identity, False), (jnp.tanh, False), (jnp.tanh, True)]
)
def test_extreme_eigenvalues_are_those_of_the_dense_hessian(activation, trained):
    """At the size that the accuracy is promised for, at rest and in the middle of inference."""
    network = mupc.residual_mlp(
        12, 4, width=32, depth=16, activation=activation, key=jax.random.key(0)
    )
    if trained:  # the weights of a network that has learned are larger, and its Hessian worse
        grown = lambda w: 1.5 * w if eqx.is_inexact_array(w) else w
        network = jax.tree.map(grown, network)
    x, y = (jnp.asarray(v) for v in batch(12, 4, 2))
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(1.0))
    start = network.feedforward(x).activities
    z = mupc.infer(energy, mupc.GradientDescent(0.1), start, max_steps=20).activities
    seen = extreme_eigenvalues(energy, z)
    for i in range(2):
        dense = np.linalg.eigvalsh(dense_hessian(energy, i, z[0]))
        np.testing.assert_allclose(seen.smallest[i], dense[0], rtol=1e-6)
        np.testing.assert_allclose(seen.largest[i], dense[-1], rtol=1e-6)
        assert np.min(np.abs(dense - float(seen.smallest[i]))) <= seen.bounds[i] + 1e-12
        expected = dense[-1] / dense[0] if dense[0] > 0 else np.nan
        np.testing.assert_allclose(seen.condition_number[i], expected, rtol=1e-6)


def test_negative_curvature_is_found_and_has_no_condition_number():
    energy, start = problem(jnp.tanh, depth=6)
    energy = eqx.tree_at(lambda e: e.likelihood, energy, mupc.Gaussian(50.0))
    z = (start[0] + 2 * jax.random.normal(jax.random.key(3), start[0].shape),)
    seen = extreme_eigenvalues(energy, z)
    dense = np.stack([np.linalg.eigvalsh(dense_hessian(energy, i, z[0])) for i in range(5)])
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
    dense = np.stack([dense_hessian(energy, i, start[0]) for i in range(3)])
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
    z = mupc.infer(energy, mupc.LBFGS(), start, max_steps=500, rtol=1e-8).activities
    limit = measured_step_limit(energy, z, predicted_step_limit(energy, z))
    near = (z[0] + 1e-3,)
    for factor, result in [
        (0.95, mupc.InferenceResult.CONVERGED),
        (1.2, mupc.InferenceResult.DIVERGED),
    ]:
        for i in range(2):
            one = energy.of_sample(jnp.asarray(i))
            begin = (near[0][:, i : i + 1],)
            step = mupc.GradientDescent(factor * float(limit[i]))
            seen = mupc.infer(one, step, begin, max_steps=2000, rtol=1e-3, patience=0)
            assert seen.result[0] == result
