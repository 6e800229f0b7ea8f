"""Inference against closed forms, and the promises made to every sample."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import Reference, batch
from test_networks import with_random_biases

import mupc
from mupc import FixedSteps, InferenceResult, Tolerance
from mupc.inference.stable_step import largest_eigenvalue

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
    # As many CG steps as outputs: with fewer, how far round-off lets it come is chance.
    "schedule": mupc.Schedule(((mupc.GradientDescent(0.3), 3), (mupc.GaussNewton(3), 10**6))),
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
        network = with_random_biases(network, jax.random.key(1))
    x, y = batch(6, 3, size)
    energy = mupc.FreeEnergy(network, jnp.asarray(x), jnp.asarray(y), mupc.Gaussian(2.0))
    return energy, energy.run().activities


def activities_of(energy, solution):
    """Where inference ended, (layer, batch, ...) from input to output."""
    return np.asarray(energy.network.in_order(solution.point.activities))


def norms_of(banks):
    """Each sample's norm over all layers."""
    return np.sqrt(sum(np.sum(np.square(z), axis=(0, 2)) for z in banks))


@pytest.mark.few(8)
@every_solver
@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("biases", [True, False])
def test_every_solver_reaches_the_equilibrium_of_a_deep_linear_network(solver, skips, biases):
    energy, start = problem(skips=skips, biases=biases)
    plain = Reference(energy.network, None, skips)
    expected, _ = plain.linear_equilibrium(np.asarray(energy.x), np.asarray(energy.y), 2.0)
    stopping = Tolerance(1e-9, patience=0)
    solution = mupc.infer(energy, solver, start, max_steps=20_000, stopping=stopping)
    assert np.all(solution.result == InferenceResult.CONVERGED)
    np.testing.assert_allclose(activities_of(energy, solution), expected, atol=1e-7)
    # The weight gradient at equilibrium follows, by the reference's own formula.
    gradient = energy.weight_gradient(solution.point).readout
    wanted = plain.weight_gradients(np.asarray(energy.x), np.asarray(energy.y), expected, 2.0)[-1]
    np.testing.assert_allclose(gradient.weights, gradient.multiplier * wanted, atol=1e-7)


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "solver",
    # The flow, followed as precisely as that, takes half a minute.
    [
        pytest.param(SOLVERS[n], marks=pytest.mark.full if n == "flow in errors" else [])
        for n in SOLVERS
    ],
    ids=list(SOLVERS),
)
def test_a_sample_is_treated_the_same_alone_and_in_a_batch(solver):
    energy, start = problem(jnp.tanh, size=64)
    solve = lambda energy, start: mupc.infer(
        energy, solver, start, max_steps=60, stopping=Tolerance(1e-2)
    )
    together = solve(energy, start)
    for i in (0, 17, 63):
        one = slice(i, i + 1)
        alone = eqx.tree_at(lambda e: (e.x, e.y), energy, (energy.x[one], energy.y[one]))
        solution = solve(alone, jax.tree.map(lambda z, one=one: z[:, one], start))
        ends = (activities_of(energy, solution)[:, 0], activities_of(energy, together)[:, i])
        np.testing.assert_allclose(*ends, atol=1e-13)
        assert solution.steps[0] == together.steps[i]
        assert solution.result[0] == together.result[i]


@pytest.mark.few(4)
@every_solver
def test_the_solution_reports_what_it_returns(solver):
    energy, start = problem(jnp.tanh)
    solution = mupc.infer(energy, solver, start, max_steps=7, stopping=FixedSteps())
    np.testing.assert_array_equal(solution.steps, 7)
    np.testing.assert_array_equal(solution.result, InferenceResult.MAX_STEPS)
    end, begin = energy.at(solution.point.activities), energy.at(start)
    errors = zip(solution.point.errors, end.errors, strict=True)
    for seen, expected in errors:
        np.testing.assert_allclose(seen, expected, atol=1e-13)
    np.testing.assert_allclose(solution.energy, energy.samples(end))
    norms = lambda point: norms_of(energy.activity_gradient(point))
    np.testing.assert_allclose(solution.residual, norms(end), atol=1e-13)
    np.testing.assert_allclose(solution.initial.residual, norms(begin))
    np.testing.assert_allclose(solution.initial.energy, energy.samples(begin))


def test_gradient_descent_makes_exactly_the_steps_of_its_formula():
    energy, start = problem(jnp.tanh)
    plain = momentum = start
    velocity = jax.tree.map(jnp.zeros_like, start)
    gradient = lambda z: energy.activity_gradient(energy.at(z))
    for _ in range(3):
        plain = jax.tree.map(lambda z, g: z - 0.1 * g, plain, gradient(plain))
        slope = gradient(momentum)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, slope)
        momentum = jax.tree.map(lambda z, g, v: z - 0.1 * (g + 0.9 * v), momentum, slope, velocity)
    run = lambda solver: mupc.infer(energy, solver, start, max_steps=3, stopping=Tolerance(0.0))
    for solver, expected in [((0.1,), plain), ((0.1, 0.9), momentum)]:
        end = activities_of(energy, run(mupc.GradientDescent(*solver)))
        np.testing.assert_allclose(end, energy.network.in_order(expected), atol=1e-14)


def test_a_sample_stops_when_its_own_residual_is_small_enough():
    energy, start = problem(jnp.tanh, size=16)
    solver = mupc.GradientDescent(0.3)
    solution = mupc.infer(energy, solver, start, max_steps=2000, stopping=Tolerance(1e-2))
    assert np.all(solution.result == InferenceResult.CONVERGED)
    assert len(np.unique(solution.steps)) > 1
    run = lambda count: mupc.infer(energy, solver, start, max_steps=count, stopping=Tolerance(0.0))
    for i, steps in enumerate(np.asarray(solution.steps)):
        # Alone, with a limit on steps only: the step at which it stopped is the first good one.
        residual = lambda count, i=i: float(run(count).relative_residual[i])
        assert residual(steps) <= 1e-2 < residual(steps - 1)


def test_an_absolute_tolerance_counts_too():
    energy, start = problem(jnp.tanh)
    stopping = Tolerance(0.0, 1e-3)
    solution = mupc.infer(
        energy, mupc.GradientDescent(0.3), start, max_steps=2000, stopping=stopping
    )
    assert np.all(solution.residual <= 1e-3)
    assert np.all(solution.residual > 1e-4)


def test_a_sample_whose_energy_no_longer_falls_has_stalled():
    """Without a tolerance, descent on a quadratic ends where the energy is flat to round-off."""
    energy, start = problem()
    stopping = Tolerance(0.0)
    solution = mupc.infer(
        energy, mupc.GradientDescent(0.3), start, max_steps=5000, stopping=stopping
    )
    plain = Reference(energy.network, None)
    best, _ = plain.linear_equilibrium(np.asarray(energy.x), np.asarray(energy.y), 2.0)
    np.testing.assert_array_equal(solution.result, InferenceResult.STALLED)
    assert np.all(solution.steps < 1000)
    best = energy.at(energy.network.in_banks(jnp.asarray(best)))
    np.testing.assert_allclose(solution.energy, energy.samples(best), rtol=1e-14)


@pytest.mark.parametrize("stopping", [Tolerance(patience=0), Tolerance(), FixedSteps()])
def test_a_step_above_the_stable_limit_is_called_divergence(stopping):
    energy, start = problem(jnp.tanh)
    solve = lambda **kwargs: mupc.infer(
        energy, mupc.GradientDescent(3.0), start, max_steps=400, stopping=stopping, **kwargs
    )
    assert np.all(solve().result == InferenceResult.DIVERGED)
    with pytest.raises(RuntimeError, match="step size is too large"):
        solve(throw=True)


@eqx.filter_jit
def dense_hessian(energy, activities):
    """By automatic differentiation of the energy itself, of one sample."""
    order, banks = energy.network.in_order, energy.network.in_banks
    z = order(activities)
    flat = lambda v: energy.samples(energy.at(banks(v.reshape(z.shape))))[0]
    return jax.hessian(flat)(z.reshape(-1))


def test_stable_step_measures_the_largest_eigenvalue_of_each_sample():
    energy, start = problem(jnp.tanh, depth=5)
    measured = largest_eigenvalue(energy, start, 200)
    for i in range(5):
        one = eqx.tree_at(lambda e: (e.x, e.y), energy, (energy.x[i : i + 1], energy.y[i : i + 1]))
        hessian = dense_hessian(one, jax.tree.map(lambda z, i=i: z[:, i : i + 1], start))
        largest = np.abs(np.linalg.eigvalsh(hessian)).max()
        assert measured[i] == pytest.approx(largest, rel=1e-3)
    step = mupc.StableStep()(energy, start)
    assert np.all(np.asarray(step * measured) < 1.3)
    assert np.all(np.asarray(step * measured) >= 1 - 1e-3)


def test_starts():
    energy, start = problem(size=400)
    one = lambda choose, seed=0: choose(energy, energy.run(), jax.random.key(seed))
    all_of = lambda point: np.asarray(energy.network.in_order(point.activities))
    begun = one(mupc.FeedforwardStart())
    np.testing.assert_array_equal(all_of(begun), energy.network.in_order(start))
    assert all(np.all(e == 0) for e in begun.errors)
    np.testing.assert_array_equal(all_of(one(mupc.ZeroStart())), 0)
    normal, other = (one(mupc.NormalStart(0.5), seed) for seed in (0, 1))
    assert np.std(all_of(normal)) == pytest.approx(0.5, rel=0.05)
    assert np.max(np.abs(all_of(normal) - all_of(other))) > 0.5
    for point in (one(mupc.ZeroStart()), normal):
        pairs = point.errors, energy.at(point.activities).errors
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), *pairs)
    # A sample draws the same in any batch that it leads.
    few = eqx.tree_at(lambda e: (e.x, e.y), energy, (energy.x[:3], energy.y[:3]))
    drawn = mupc.NormalStart(0.5)(few, few.run(), jax.random.key(0))
    np.testing.assert_array_equal(all_of(drawn), all_of(normal)[:, :3])


def test_every_start_leads_to_the_same_equilibrium_of_a_linear_network():
    energy, start = problem()
    # Near 1e-8 the energy is flat to round-off, the residual is not.
    limits = {"max_steps": 10_000, "stopping": Tolerance(1e-10, patience=0)}
    begins = [
        kind(energy, energy.at(start), jax.random.key(0))
        for kind in (mupc.FeedforwardStart(), mupc.ZeroStart(), mupc.NormalStart())
    ]
    solver = mupc.GradientDescent(0.3)
    ends = [activities_of(energy, mupc.infer(energy, solver, b, **limits)) for b in begins]
    np.testing.assert_allclose(ends[1], ends[0], atol=1e-8)
    np.testing.assert_allclose(ends[2], ends[0], atol=1e-8)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: mupc.StableStep(2.0), "above 0 and below 2, not 2.0"),
        (lambda: mupc.GradientDescent(0.1, momentum=1.0), "of at least 0 and below 1, not 1.0"),
        (lambda: mupc.GradientDescent(-0.1), "above 0, not -0.1"),
        (lambda: Tolerance(-1.0), "of at least 0, not -1.0"),
        (lambda: Tolerance(0.0, -1.0), "of at least 0, not -1.0"),
        (lambda: Tolerance(patience=-1), "a whole number of at least 0, not -1"),
        (lambda: mupc.WeightDecay(-0.1), "of at least 0, not -0.1"),
        (lambda: mupc.NormalStart(np.nan), "above 0, not nan"),
    ],
)
def test_numbers_out_of_range_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shapes", [[(1, 5, 5), (3, 3, 5)], [(1, 5, 5), (2, 5, 5)], [(4, 5, 5)]])
def test_activities_that_do_not_fit_are_named(shapes):
    energy, _ = problem()
    wrong = tuple(jnp.zeros(shape) for shape in shapes)
    sentence = (
        r"beginning with \[\(1, 5\), \(3, 5\)\] for this network and x of shape \(5, 6\), not"
    )
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
        def hidden(self, e, precision):
            traces.append(1)
            return super().hidden(e, precision)

    energy, start = problem()
    energy = Counting(energy.network, energy.x, energy.y, energy.likelihood)
    mupc.infer(energy, make(0.1), start, max_steps=1)
    once = len(traces)
    others = [(0.2, 5, 0), (np.float64(0.3), np.int64(7), 1e-2), (1, jnp.asarray(9), np.float32(0))]
    for value, steps, rtol in others:
        stopping = Tolerance(rtol, patience=steps)
        mupc.infer(energy, make(value), start, max_steps=steps, stopping=stopping)
    assert len(traces) == once > 0


def test_a_stopping_of_a_users_own_measures_unless_it_says_not():
    class Tenth(mupc.inference.Stopping):
        def tolerance(self, initial):
            return 0.1 * initial

        def stalled(self, since):
            return jnp.zeros_like(since, bool)

    energy, start = problem(jnp.tanh)
    run = lambda measure: mupc.infer(
        energy, mupc.GaussNewton(), start, max_steps=9, stopping=Tenth(), measure=measure
    )
    np.testing.assert_array_equal(run(False).steps, run(True).steps)
    assert np.all(run(False).steps > 0)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_start_no_solver_and_no_energy_is_named():
    energy, start = problem(jnp.tanh)
    feedforward = energy.network.feedforward(energy.x)
    with pytest.raises(ValueError, match="start must be a point, such as"):
        mupc.infer(energy, mupc.GaussNewton(), feedforward, max_steps=1)
    with pytest.raises(TypeError, match="solver must be a mupc"):
        mupc.infer(energy, optax.adam(0.1), start, max_steps=1)
    with pytest.raises(TypeError, match="energy must be a mupc"):
        mupc.infer(energy.network, mupc.GaussNewton(), start, max_steps=1)


def test_an_optax_method_may_ask_for_the_energy():
    energy, start = problem(jnp.tanh)
    solver = mupc.Optax(optax.polyak_sgd(max_learning_rate=0.3))
    end = mupc.infer(energy, solver, start, max_steps=5, stopping=FixedSteps())
    assert np.all(end.energy < energy.samples(energy.at(start)))
