"""What single solvers promise, beyond the battery of test_inference."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Reference, batch
from test_inference import PRECISE, problem
from test_networks import two_stages

import mupc
from mupc import InferenceResult
from mupc.energies import ErrorView

pytestmark = pytest.mark.usefixtures("float64")


def with_likelihood(energy, likelihood):
    return eqx.tree_at(lambda e: e.likelihood, energy, likelihood)


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_the_closed_form_of_a_linear_network_is_a_dense_solve(skips, biases, depth):
    energy, start = problem(skips=skips, biases=biases, depth=depth)
    expected, _ = Reference(energy.network, None, skips).linear_equilibrium(
        np.asarray(energy.x), np.asarray(energy.y), 2.0
    )
    solution = mupc.infer(energy, mupc.LinearSolve(), start, max_steps=1, rtol=1e-10)
    np.testing.assert_allclose(solution.activities[0], expected, atol=1e-12)
    assert np.all(solution.result == InferenceResult.CONVERGED)


@pytest.mark.parametrize("skips", [True, False])
def test_gauss_newton_solves_a_linear_network_in_one_iteration(skips):
    """With as many conjugate gradient steps as outputs; with fewer it does not."""
    energy, start = problem(skips=skips)
    expected = mupc.infer(energy, mupc.LinearSolve(), start, max_steps=1).activities[0]
    solve = lambda steps: mupc.infer(energy, mupc.GaussNewton(steps), start, max_steps=1)
    np.testing.assert_allclose(solve(3).activities[0], expected, atol=1e-11)
    assert np.max(np.abs(solve(1).activities[0] - expected)) > 1e-3


def test_gauss_newton_is_newtons_method_for_a_linear_network_and_any_likelihood():
    """Categorical, I + JᵀBBᵀJ is the exact Hessian: iterations converge quadratically."""
    energy, start = problem()
    energy = with_likelihood(energy, mupc.Categorical(2.0))
    view, e = ErrorView(energy), jnp.zeros_like(start[0])
    hessian = jax.hessian(lambda e: jnp.sum(view.samples((e,))))(e).reshape(100, 100)
    gradient = view.activity_gradient((e,))[0].reshape(-1)
    newton = e - np.linalg.solve(hessian, gradient).reshape(e.shape)
    one = mupc.infer(energy, mupc.GaussNewton(3), start, max_steps=1)
    np.testing.assert_allclose(one.errors[0], newton, atol=1e-10)
    solution = mupc.infer(energy, mupc.GaussNewton(3), start, max_steps=8, rtol=1e-10)
    assert np.all(solution.result == InferenceResult.CONVERGED)
    assert np.all(solution.steps <= 6)


def test_gauss_newton_never_raises_the_energy_where_a_full_step_does():
    energy, start = problem(jnp.tanh, size=64)
    energy = with_likelihood(energy, mupc.Gaussian(500.0))
    view, e = ErrorView(energy), jnp.zeros_like(start[0])
    maps = energy.gauss_newton(start)
    flat = lambda v: v.transpose(1, 0, 2).reshape(64, 20)
    gradient = flat(view.activity_gradient((e,))[0])
    unit = lambda k: jnp.broadcast_to(jnp.eye(20)[k].reshape(4, 1, 5), e.shape)
    columns = [flat(maps.down(maps.up((unit(k),)))[0]) for k in range(20)]
    step = -np.linalg.solve(np.eye(20) + np.stack(columns, 2), gradient[..., None])[..., 0]
    full = jnp.asarray(step.reshape(64, 4, 5).transpose(1, 0, 2))
    before = energy.samples(start)
    assert np.sum(view.samples((full,)) > before) > 3  # unguarded, some samples go up
    for steps in (1, 2, 5):
        seen = mupc.infer(
            energy, mupc.GaussNewton(3), start, max_steps=steps, rtol=0, patience=0, trace=True
        )
        assert np.all(np.diff(seen.trace.energy, axis=0) <= 1e-12)
        assert np.all(seen.energy <= before)
    assert np.mean(seen.energy < before) > 0.9


def test_errors_that_are_known_change_nothing():
    energy, start = problem(jnp.tanh)
    zero = jax.tree.map(jnp.zeros_like, start)
    for solver in (mupc.GaussNewton(2), mupc.InErrors(mupc.LBFGS())):
        one = mupc.infer(energy, solver, start, max_steps=3)
        other = mupc.infer(energy, solver, start, max_steps=3, errors=zero)
        np.testing.assert_allclose(one.activities[0], other.activities[0], atol=1e-13)
        np.testing.assert_allclose(one.errors[0], energy.errors(one.activities)[0], atol=1e-13)


def test_coordinates_do_not_change_the_equilibrium_nor_what_is_learned_there():
    energy, start = problem(jnp.tanh, size=16)
    solvers = (
        mupc.GradientDescent(0.3, momentum=0.5),
        mupc.InErrors(mupc.GradientDescent(0.1, momentum=0.5)),
        mupc.InErrors(mupc.LBFGS()),
        mupc.GaussNewton(2),
        mupc.InErrors(mupc.GradientFlow(controller=PRECISE, rtol=1e-9)),
    )
    ends = [mupc.infer(energy, s, start, max_steps=5000, rtol=1e-8, patience=0) for s in solvers]
    gradients = [jax.tree.leaves(energy.weight_gradient(e.activities, e.errors)) for e in ends]
    for end, gradient in zip(ends[1:], gradients[1:], strict=True):
        np.testing.assert_allclose(end.activities[0], ends[0].activities[0], atol=1e-6)
        for a, b in zip(gradient, gradients[0], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("solver", [mupc.GaussNewton(2), mupc.InErrors(mupc.LBFGS())])
def test_several_stages_settle_to_the_minimum_that_descent_finds(solver):
    network, _ = two_stages()
    x, y = batch(6, 3)
    energy = mupc.FreeEnergy(network, jnp.asarray(x), jnp.asarray(y), mupc.Gaussian(0.5))
    start = network.feedforward(energy.x).activities
    slow = mupc.infer(energy, mupc.GradientDescent(0.2), start, max_steps=20_000, rtol=1e-9)
    fast = mupc.infer(energy, solver, start, max_steps=500, rtol=1e-9, patience=0)
    for a, b in zip(fast.activities, slow.activities, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_flow_of_one_variable_is_the_exponential():
    """One linear layer of width one: F = ½(z − u)² + ½(y − wz)², whose flow is known."""
    network = mupc.residual_mlp(
        1, 1, width=1, depth=1, activation=mupc.identity, key=jax.random.key(0)
    )
    x, y = jnp.array([[1.0], [2.0]]), jnp.array([[0.5], [-1.0]])
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(1.0))
    start = network.feedforward(x).activities
    w = float(network.readout.weights[0, 0] * network.readout.scale.multiplier)
    flow = mupc.GradientFlow(controller=PRECISE, rtol=0.0, horizon=0.7)
    end = mupc.infer(energy, flow, start, max_steps=1).activities[0][0, :, 0]
    u = start[0][0, :, 0]
    rest = (u + w * y[:, 0]) / (1 + w**2)
    expected = rest + (u - rest) * np.exp(-(1 + w**2) * 0.7)
    np.testing.assert_allclose(end, expected, rtol=1e-8)


def test_a_schedule_hands_each_sample_from_one_solver_to_the_next():
    energy, start = problem(jnp.tanh, size=8)
    descent, exact = mupc.GradientDescent(0.3), mupc.GaussNewton(2)
    schedule = mupc.Schedule(((descent, 3), (exact, 2)))
    both = mupc.infer(energy, schedule, start, rtol=0, patience=0)  # of five steps by itself
    first = mupc.infer(energy, descent, start, max_steps=3, rtol=0, patience=0)
    second = mupc.infer(energy, exact, first.activities, max_steps=2, rtol=0, patience=0)
    np.testing.assert_allclose(both.activities[0], second.activities[0], atol=1e-13)
    np.testing.assert_array_equal(both.steps, 5)
    # Residuals are relative to the very start, and the limit is on all steps together.
    np.testing.assert_allclose(both.initial.residual, first.initial.residual)
    four = mupc.infer(energy, schedule, start, max_steps=4, rtol=0, patience=0)
    np.testing.assert_array_equal(four.steps, 4)
    # What has converged stays; what has stalled goes on.
    flat = mupc.infer(
        energy, mupc.Schedule(((descent, 1), (exact, 200))), start, max_steps=201, rtol=1e-6
    )
    assert np.all(flat.result == InferenceResult.CONVERGED)
    done = mupc.infer(energy, exact, start, max_steps=200, rtol=1e-6)
    again = mupc.Schedule(((exact, 200), (mupc.GradientDescent(0.1), 9)))
    kept = mupc.infer(energy, again, start, max_steps=300, rtol=1e-6)
    np.testing.assert_allclose(kept.activities[0], done.activities[0], atol=1e-13)
    with pytest.raises(ValueError, match="a schedule needs at least one pair"):
        mupc.Schedule(())
    assert mupc.PredictiveCoding(schedule).limit == 5
    traced = mupc.infer(energy, schedule, start, rtol=0, patience=0, trace=True)
    assert traced.trace.energy.shape == (5, start[0].shape[1])


def test_what_is_no_solver_or_no_start_is_named():
    energy, start = problem(jnp.tanh)
    with pytest.raises(ValueError, match="give max_steps, the largest number of steps"):
        mupc.infer(energy, mupc.GaussNewton(), start)
    with pytest.raises(ValueError, match="give max_steps, the largest number of steps"):
        mupc.PredictiveCoding(mupc.GaussNewton())
    with pytest.raises(ValueError, match=r"give a solver, such as mupc.LBFGS\(\), and not"):
        mupc.infer(energy, mupc.LBFGS, start, max_steps=3)
    with pytest.raises(ValueError, match="activities must be a tuple with one array"):
        mupc.infer(energy, mupc.LBFGS(), energy.x, max_steps=3)


@pytest.mark.parametrize("solver", [mupc.GradientDescent(0.3), mupc.GaussNewton(1)])
def test_a_trace_is_what_shorter_runs_report(solver):
    energy, start = problem(jnp.tanh)
    run = lambda steps, **more: mupc.infer(
        energy, solver, start, max_steps=steps, rtol=0, patience=0, **more
    )
    trace = run(4, trace=True).trace
    assert trace.energy.shape == trace.residual.shape == (4, 5)
    np.testing.assert_allclose(trace.energy[0], energy.samples(start))
    for steps in (1, 2, 3):
        end = run(steps)
        np.testing.assert_allclose(trace.energy[steps], end.energy, rtol=1e-12)
        np.testing.assert_allclose(trace.residual[steps], end.residual, rtol=1e-10)
    short = mupc.infer(energy, solver, start, max_steps=500, rtol=0.5, trace=True)
    assert np.all(np.isnan(short.trace.energy[np.max(short.steps) + 1 :]))


def test_residuals_are_measured_only_if_wanted():
    energy, start = problem(jnp.tanh)
    for solver in (mupc.GaussNewton(), mupc.GradientDescent(0.1)):
        seen = mupc.infer(energy, solver, start, max_steps=2, rtol=0, patience=0, measure=False)
        whole = mupc.infer(energy, solver, start, max_steps=2, rtol=0, patience=0)
        assert np.all(np.isnan(seen.residual))
        np.testing.assert_allclose(seen.energy, whole.energy, rtol=1e-12)
        np.testing.assert_array_equal(seen.result, whole.result)
        assert np.all(np.isfinite(whole.residual))


@pytest.mark.parametrize(
    ("solver", "change", "sentence"),
    [
        (mupc.LinearSolve(), {"activation": jnp.tanh}, "closed form is for linear networks"),
        (mupc.LinearSolve(), {"likelihood": mupc.Categorical()}, "closed form is for the Gaussian"),
        (mupc.GaussNewton(), {"decay": 0.1}, "takes no activity decay"),
    ],
)
def test_problems_that_a_solver_cannot_solve_get_a_sentence(solver, change, sentence):
    energy, start = problem(change.get("activation", mupc.identity))
    energy = with_likelihood(energy, change.get("likelihood", energy.likelihood))
    if "decay" in change:
        energy = mupc.FreeEnergy(
            energy.network, energy.x, energy.y, energy.likelihood, (mupc.ActivityDecay(0.1),)
        )
    with pytest.raises(ValueError, match=sentence):
        mupc.infer(energy, solver, start, max_steps=1)


def test_counts_of_solvers_are_checked():
    with pytest.raises(ValueError, match="a whole number of at least 1, not 0"):
        mupc.GaussNewton(0)
    with pytest.raises(ValueError, match="a whole number of at least 1, not 0"):
        mupc.LBFGS(0)


MONOTONE = {
    "gauss-newton 1": mupc.GaussNewton(1),
    "gauss-newton 3": mupc.GaussNewton(3),
    "l-bfgs in errors": mupc.InErrors(mupc.LBFGS(5)),
    "l-bfgs": mupc.LBFGS(5),
}


@settings(max_examples=12, deadline=None)
@given(
    solver=st.sampled_from(sorted(MONOTONE)),
    activation=st.sampled_from([mupc.identity, jnp.tanh, jax.nn.relu]),
    categorical=st.booleans(),
    skips=st.booleans(),
    rho=st.sampled_from([0.05, 0.1, 1.0, 20.0]),
    depth=st.sampled_from([1, 5]),
    seed=st.integers(0, 10**6),
)
def test_random_small_problems(solver, activation, categorical, skips, rho, depth, seed):
    """Energy never ends above its start; converged means a small residual; minima agree."""
    network = mupc.residual_mlp(
        4, 3, width=5, depth=depth, activation=activation, skips=skips, key=jax.random.key(seed)
    )
    x, y = (jnp.asarray(v) for v in batch(4, 3, 6, seed))
    make = mupc.Categorical if categorical else mupc.Gaussian
    precision = mupc.theory.precision_for(rho, mupc.FreeEnergy(network, x, y, make(1.0)))
    energy = mupc.FreeEnergy(network, x, y, make(precision))
    start = network.feedforward(x).activities
    end = mupc.infer(energy, MONOTONE[solver], start, max_steps=400, rtol=1e-6, patience=50)
    before = energy.samples(start)
    assert np.all(end.energy <= before * (1 + 1e-12))
    norms = np.linalg.norm(energy.activity_gradient(end.activities)[0], axis=(0, 2))
    began = np.linalg.norm(energy.activity_gradient(start)[0], axis=(0, 2))
    converged = np.asarray(end.result == InferenceResult.CONVERGED)
    assert np.all(norms[converged] <= 1.0001e-6 * began[converged])
    if activation is not jax.nn.relu and rho <= 0.1:
        assert np.all(converged)
        other = mupc.InErrors(mupc.GradientDescent(0.5))
        slow = mupc.infer(energy, other, start, max_steps=5000, rtol=1e-6, patience=0)
        assert np.all(slow.result == InferenceResult.CONVERGED)
        one, two = (energy.weight_gradient(s.activities) for s in (end, slow))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * np.max(np.abs(b), initial=0))
