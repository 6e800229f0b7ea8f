"""Inference against closed forms, and the promises made to every sample."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import Reference, batch

import mupc
from mupc import InferenceResult
from mupc.inference.stable import largest_eigenvalue

pytestmark = pytest.mark.usefixtures("float64")

PRECISE = diffrax.PIDController(rtol=1e-10, atol=1e-12)

# One battery runs over all solvers: add a new one here.
SOLVERS = {
    "gradient descent": mupc.GradientDescent(0.3),
    "stable step": mupc.GradientDescent(mupc.StableStep()),
    "momentum": mupc.GradientDescent(0.2, momentum=0.8),
    # ε well above round-off: at the feedforward start most gradients are zero but for round-off,
    # which Adam would amplify to steps of full size.
    "adam": mupc.Optax(optax.adam(optax.exponential_decay(0.1, 1000, 0.5), eps=1e-3)),
    "clipped descent": mupc.Optax(optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.3))),
    "descent in errors": mupc.InErrors(mupc.GradientDescent(0.15)),
    "stable momentum in errors": mupc.InErrors(mupc.GradientDescent(mupc.StableStep(0.5), 0.5)),
    "adam in errors": mupc.InErrors(
        mupc.Optax(optax.adam(optax.exponential_decay(0.1, 300, 0.5), eps=1e-3))
    ),
    "gauss-newton": mupc.GaussNewton(2),
    "l-bfgs": mupc.LBFGS(),
    "l-bfgs in errors": mupc.InErrors(mupc.LBFGS(4)),
    "flow in errors": mupc.InErrors(mupc.GradientFlow(controller=PRECISE, rtol=1e-10)),
    "schedule": mupc.Schedule(((mupc.GradientDescent(0.3), 3), (mupc.GaussNewton(2), 10**6))),
}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


def problem(activation=mupc.identity, skips=True, biases=True, depth=4, size=5):
    network = mupc.residual_mlp(
        6,
        3,
        width=5,
        depth=depth,
        activation=activation,
        skips=skips,
        biases=biases,
        parameterisation=mupc.standard() if not skips else mupc.mupc(),
        key=jax.random.key(0),
    )
    if biases:
        where = lambda n: (n.stages[0].entry.biases, n.stages[0].blocks.biases, n.readout.biases)
        drawn = tuple(jax.random.normal(jax.random.key(1), b.shape) for b in where(network))
        network = eqx.tree_at(where, network, drawn)
    x, y = batch(6, 3, size)
    energy = mupc.FreeEnergy(network, jnp.asarray(x), jnp.asarray(y), mupc.Gaussian(2.0))
    return energy, network.feedforward(x).activities


@every_solver
@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("biases", [True, False])
def test_every_solver_reaches_the_equilibrium_of_a_deep_linear_network(solver, skips, biases):
    energy, start = problem(skips=skips, biases=biases)
    plain = Reference(energy.network, None, skips)
    expected, _ = plain.linear_equilibrium(np.asarray(energy.x), np.asarray(energy.y), 2.0)
    solution = mupc.infer(energy, solver, start, max_steps=20_000, rtol=1e-9, patience=0)
    assert np.all(solution.result == InferenceResult.CONVERGED)
    np.testing.assert_allclose(solution.activities[0], expected, atol=1e-7)
    # The weight gradient at equilibrium follows, by the reference's own formula.
    gradient = energy.weight_gradient(solution.activities).readout
    wanted = plain.weight_gradients(np.asarray(energy.x), np.asarray(energy.y), expected, 2.0)[-1]
    np.testing.assert_allclose(gradient.weights, gradient.scale.multiplier * wanted, atol=1e-7)


@every_solver
def test_a_sample_is_treated_the_same_alone_and_in_a_batch(solver):
    energy, start = problem(jnp.tanh, size=64)
    together = mupc.infer(energy, solver, start, max_steps=60, rtol=1e-2)
    for i in (0, 17, 63):
        one = slice(i, i + 1)
        alone = eqx.tree_at(lambda e: (e.x, e.y), energy, (energy.x[one], energy.y[one]))
        solution = mupc.infer(alone, solver, (start[0][:, one],), max_steps=60, rtol=1e-2)
        np.testing.assert_allclose(
            solution.activities[0][:, 0], together.activities[0][:, i], atol=1e-13
        )
        assert solution.steps[0] == together.steps[i]
        assert solution.result[0] == together.result[i]


@every_solver
def test_the_solution_reports_what_it_returns(solver):
    energy, start = problem(jnp.tanh)
    solution = mupc.infer(energy, solver, start, max_steps=7, rtol=0, patience=0)
    np.testing.assert_array_equal(solution.steps, 7)
    np.testing.assert_array_equal(solution.result, InferenceResult.MAX_STEPS)
    np.testing.assert_allclose(solution.energy, energy.samples(solution.activities))
    norms = lambda z: np.linalg.norm(np.asarray(energy.activity_gradient(z)[0]), axis=(0, 2))
    np.testing.assert_allclose(solution.residual, norms(solution.activities), atol=1e-13)
    np.testing.assert_allclose(solution.initial.residual, norms(start))
    np.testing.assert_allclose(solution.initial.energy, energy.samples(start))


def test_gradient_descent_makes_exactly_the_steps_of_its_formula():
    energy, start = problem(jnp.tanh)
    plain, momentum = start[0], start[0]
    velocity = jnp.zeros_like(plain)
    for _ in range(3):
        plain = plain - 0.1 * energy.activity_gradient((plain,))[0]
        gradient = energy.activity_gradient((momentum,))[0]
        velocity = 0.9 * velocity + gradient
        momentum = momentum - 0.1 * (gradient + 0.9 * velocity)
    run = lambda solver: mupc.infer(energy, solver, start, max_steps=3, rtol=0).activities[0]
    np.testing.assert_allclose(run(mupc.GradientDescent(0.1)), plain, atol=1e-14)
    np.testing.assert_allclose(run(mupc.GradientDescent(0.1, 0.9)), momentum, atol=1e-14)


def test_a_sample_stops_when_its_own_residual_is_small_enough():
    energy, start = problem(jnp.tanh, size=16)
    solver = mupc.GradientDescent(0.3)
    solution = mupc.infer(energy, solver, start, max_steps=2000, rtol=1e-2)
    assert np.all(solution.result == InferenceResult.CONVERGED)
    assert len(np.unique(solution.steps)) > 1
    for i, steps in enumerate(np.asarray(solution.steps)):
        # Alone, with a limit on steps only: the step at which it stopped is the first good one.
        residual = lambda count, i=i: float(
            mupc.infer(energy, solver, start, max_steps=count, rtol=0).relative_residual[i]
        )
        assert residual(steps) <= 1e-2 < residual(steps - 1)


def test_an_absolute_tolerance_counts_too():
    energy, start = problem(jnp.tanh)
    solution = mupc.infer(
        energy, mupc.GradientDescent(0.3), start, max_steps=2000, rtol=0, atol=1e-3
    )
    assert np.all(solution.residual <= 1e-3)
    assert np.all(solution.residual > 1e-4)


def test_a_sample_whose_energy_no_longer_falls_has_stalled():
    """Without a tolerance, descent on a quadratic ends where the energy is flat to round-off."""
    energy, start = problem()
    solution = mupc.infer(energy, mupc.GradientDescent(0.3), start, max_steps=5000, rtol=0)
    plain = Reference(energy.network, None)
    best, _ = plain.linear_equilibrium(np.asarray(energy.x), np.asarray(energy.y), 2.0)
    np.testing.assert_array_equal(solution.result, InferenceResult.STALLED)
    assert np.all(solution.steps < 1000)
    np.testing.assert_allclose(solution.energy, energy.samples((best,)), rtol=1e-14)


@pytest.mark.parametrize("patience", [0, 10])
def test_a_step_above_the_stable_limit_is_called_divergence(patience):
    energy, start = problem(jnp.tanh)
    solve = lambda **kwargs: mupc.infer(
        energy, mupc.GradientDescent(3.0), start, max_steps=400, patience=patience, **kwargs
    )
    assert np.all(solve().result == InferenceResult.DIVERGED)
    with pytest.raises(RuntimeError, match="step size is too large"):
        solve(throw=True)


def test_stable_step_measures_the_largest_eigenvalue_of_each_sample():
    energy, start = problem(jnp.tanh, depth=5)
    measured = largest_eigenvalue(energy, start, 200)
    for i in range(5):
        one = eqx.tree_at(lambda e: (e.x, e.y), energy, (energy.x[i : i + 1], energy.y[i : i + 1]))
        flat = lambda v, one=one: one.samples((v.reshape(5, 1, 5),))[0]
        hessian = jax.hessian(flat)(start[0][:, i].reshape(-1))
        largest = np.abs(np.linalg.eigvalsh(hessian)).max()
        assert measured[i] == pytest.approx(largest, rel=1e-3)
    step = mupc.StableStep()(energy, start)
    assert np.all(np.asarray(step * measured) < 1.3)
    assert np.all(np.asarray(step * measured) >= 1 - 1e-3)


def test_starts():
    _, start = problem(size=400)
    key = jax.random.key(0)
    np.testing.assert_array_equal(mupc.FeedforwardStart()(start, key).activities[0], start[0])
    np.testing.assert_array_equal(mupc.FeedforwardStart()(start, key).errors[0], 0)
    np.testing.assert_array_equal(mupc.ZeroStart()(start, key).activities[0], 0)
    normal = mupc.NormalStart(0.5)(start, key).activities[0]
    other = mupc.NormalStart(0.5)(start, jax.random.key(1)).activities[0]
    assert np.std(normal) == pytest.approx(0.5, rel=0.05)
    assert np.max(np.abs(normal - other)) > 0.5


def test_every_start_leads_to_the_same_equilibrium_of_a_linear_network():
    energy, start = problem()
    ends = [
        mupc.infer(
            energy,
            mupc.GradientDescent(0.3),
            choose(start, jax.random.key(0)).activities,
            max_steps=10_000,
            rtol=1e-10,
            patience=0,  # near 1e-8 the energy is flat to round-off, the residual is not
        ).activities[0]
        for choose in (mupc.FeedforwardStart(), mupc.ZeroStart(), mupc.NormalStart())
    ]
    np.testing.assert_allclose(ends[1], ends[0], atol=1e-8)
    np.testing.assert_allclose(ends[2], ends[0], atol=1e-8)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: mupc.StableStep(2.0), "above 0 and below 2, not 2.0"),
        (lambda: mupc.GradientDescent(0.1, momentum=1.0), "of at least 0 and below 1, not 1.0"),
        (lambda: mupc.GradientDescent(-0.1), "above 0, not -0.1"),
        (
            lambda: mupc.PredictiveCoding(mupc.GradientDescent(0.1), 1, rtol=-1.0),
            "of at least 0, not -1.0",
        ),
        (lambda: mupc.WeightDecay(-0.1), "of at least 0, not -0.1"),
        (lambda: mupc.NormalStart(np.nan), "above 0, not nan"),
    ],
)
def test_numbers_out_of_range_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("shape", [(4, 3, 5), (3, 5, 5)])
def test_activities_that_do_not_fit_are_named(shape):
    energy, _ = problem()
    wrong = (jnp.zeros(shape),)
    sentence = r"beginning with \[\(4, 5\)\] for this network and x of shape \(5, 6\), not"
    with pytest.raises(ValueError, match=sentence):
        mupc.infer(energy, mupc.GradientDescent(0.1), wrong, max_steps=1)
    with pytest.raises(ValueError, match=sentence):
        energy.network.feedforward(energy.x, wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda value: mupc.GradientDescent(value),
        lambda value: mupc.GradientDescent(mupc.StableStep(value)),
        lambda value: mupc.Optax(mupc.traced(optax.adam, learning_rate=value)),
    ],
)
def test_new_numbers_never_compile_inference_again(make):
    traces = []

    class Counting(mupc.FreeEnergy):
        def layers(self, activities, errors=None):
            traces.append(1)
            return super().layers(activities, errors)

    energy, start = problem()
    energy = Counting(energy.network, energy.x, energy.y, energy.likelihood)
    mupc.infer(energy, make(0.1), start, max_steps=1)
    once = len(traces)
    others = [(0.2, 5, 0), (np.float64(0.3), np.int64(7), 1e-2), (1, jnp.asarray(9), np.float32(0))]
    for value, steps, rtol in others:
        mupc.infer(energy, make(value), start, max_steps=steps, rtol=rtol, patience=steps)
    assert len(traces) == once > 0
