"""Energies of a user's own: one override is one energy everywhere, or is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import batch

import mupc
from mupc.inference import InferenceResult

pytestmark = pytest.mark.usefixtures("float64")


class Graded(mupc.FreeEnergy):
    """Every hidden layer counts three times as much, by another formula than the library's."""

    def hidden(self, e, precision):
        return 1.5 * jnp.einsum("b...,b...->b", e, e)


class Robust(mupc.FreeEnergy):
    """√(1 + e²) − 1 in place of ½e²: large errors weigh less."""

    def hidden(self, e, precision):
        own = 1.0 if precision is None else precision
        return own * jnp.sum(jnp.sqrt(1 + e**2) - 1, axis=tuple(range(1, e.ndim)))


class Decayed(mupc.FreeEnergy):
    """A term on the weights."""

    def of_weights(self):
        return 0.1 * sum(jnp.sum(w**2) for w in jax.tree.leaves(self.network))


def layered(network, *rest):
    """Precisions by layer, as an option."""
    return mupc.FreeEnergy(network, *rest, precisions=jnp.linspace(0.5, 2, network.depth))


BUILDERS = {"option": layered, "graded": Graded, "robust": Robust, "decayed": Decayed}

SOLVERS = {
    "descent": mupc.GradientDescent(mupc.StableStep()),
    "stable momentum in errors": mupc.InErrors(mupc.GradientDescent(mupc.StableStep(0.5), 0.5)),
    "gauss-newton": mupc.GaussNewton(3),
    "l-bfgs": mupc.LBFGS(),
    "l-bfgs in errors": mupc.InErrors(mupc.LBFGS()),
    "flow in errors": mupc.InErrors(mupc.GradientFlow(rtol=1e-6)),
}


def energy_of(build, width=8, size=16, depth=4):
    network = mupc.residual_mlp(
        6, 3, width=width, depth=depth, activation=jnp.tanh, key=jax.random.key(0)
    )
    x, y = batch(6, 3, size)
    return build(network, jnp.asarray(x), jnp.asarray(y), mupc.Gaussian(0.5), ())


def plain_terms(name, energy, z):
    """The energy of every sample, written out layer by layer in NumPy."""
    network = energy.network
    stage, total, below = network.stages[0], 0.0, np.asarray(energy.x)
    weights = [stage.entry.weights, *stage.blocks[0].weights, network.readout.weights]
    multipliers = [stage.entry.multiplier, *[stage.blocks[0].multiplier] * 3,
                   network.readout.multiplier]  # fmt: skip
    for i, (W, a) in enumerate(zip(weights, multipliers, strict=True)):
        u = a * (below if i == 0 else np.tanh(below)) @ np.asarray(W).T
        u = below + u if 0 < i < 4 else u
        if i == 4:
            loss = 0.5 * np.sum((np.asarray(energy.y) - u) ** 2, axis=1)
            return total + 0.5 * loss
        e = z[i] - u
        total = (
            total
            + {
                "option": 0.5 * np.linspace(0.5, 2, 4)[i] * np.sum(e**2, axis=1),
                "graded": 1.5 * np.sum(e**2, axis=1),
                "robust": np.sum(np.sqrt(1 + e**2) - 1, axis=1),
                "decayed": 0.5 * np.sum(e**2, axis=1),
            }[name]
        )
        below = z[i]
    raise AssertionError


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("name", "width", "size"),
    [
        ("option", 8, 16),
        ("option", 64, 128),
        ("graded", 256, 32),
        ("robust", 8, 128),
        ("robust", 64, 128),
        ("decayed", 8, 16),
    ],
)
def test_what_is_overridden_is_what_every_part_minimises(name, width, size):
    """Both sides of the size from which a stage loops over its layers."""
    energy = energy_of(BUILDERS[name], width, size)
    z = 0.5 * jax.random.normal(jax.random.key(1), (4, size, width))
    banks = energy.network.in_banks(z)
    point = energy.at(banks)
    np.testing.assert_allclose(
        energy.samples(point), plain_terms(name, energy, np.asarray(z)), rtol=1e-12
    )

    def pairs(energy, banks, point):
        total = lambda banks: jnp.sum(jnp.sum(energy.layers(energy.at(banks)), axis=0))
        mean = lambda n: energy.with_parameters(n)(energy.with_parameters(n).at(banks))
        true = jax.grad(total)(banks)
        yield energy.samples_and_gradient(banks)[1], true
        yield energy.activity_gradient(point), true
        by_errors = jax.grad(lambda e: jnp.sum(energy.samples(energy.run(e))))(point.errors)
        yield energy.error_gradient(point), by_errors
        yield energy.weight_gradient(point), eqx.filter_grad(mean)(energy.network)

    # One program, in place of one for every line.
    for ours, theirs in eqx.filter_jit(lambda *given: list(pairs(*given)))(energy, banks, point):
        jax.tree.map(lambda v, w: np.testing.assert_allclose(v, w, atol=1e-10), ours, theirs)


# Every solver on small layers; and on large ones, which a stage loops over, those in activities.
CASES = [
    *((name, solver, 8, 16) for name in BUILDERS for solver in SOLVERS if solver[:4] != "flow"),
    ("option", "flow in errors", 8, 16),
    *((name, solver, 128, 64) for name in ("option", "robust") for solver in ("descent", "l-bfgs")),
]


@pytest.mark.few(3)
@pytest.mark.parametrize(("name", "solver", "width", "size"), CASES)
def test_the_residual_that_is_reported_is_that_of_the_energy_as_overridden(
    name, solver, width, size
):
    solver = SOLVERS[solver]
    energy = energy_of(BUILDERS[name], width, size)
    true = jax.jit(lambda banks: jax.grad(lambda b: jnp.sum(energy.layers(energy.at(b))))(banks))
    norms = lambda point: np.sqrt(
        sum(np.sum(np.asarray(g) ** 2, axis=(0, 2)) for g in true(point.activities))
    )
    start = energy.run()
    end = mupc.infer(energy, solver, start, max_steps=600, stopping=mupc.Tolerance(1e-2))
    np.testing.assert_allclose(end.residual, norms(end.point), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(end.initial.residual, norms(start), rtol=1e-6)
    np.testing.assert_allclose(end.energy, energy.samples(energy.at(end.point.activities)))
    assert np.mean(end.result == InferenceResult.CONVERGED) > 0.9
    converged = np.asarray(end.result == InferenceResult.CONVERGED)
    assert np.all(norms(end.point)[converged] <= 1.0001e-2 * norms(start)[converged])


def test_solvers_agree_on_the_minimum_of_an_energy_with_precisions():
    energy = energy_of(layered)
    tight = mupc.Tolerance(1e-9, patience=0)
    ends = [
        mupc.infer(energy, solver, energy.run(), max_steps=5000, stopping=tight).point.activities
        for solver in (mupc.GradientDescent(0.15), mupc.GaussNewton(3), mupc.InErrors(mupc.LBFGS()))
    ]
    for end in ends[1:]:
        for a, b in zip(end, ends[0], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_precisions_of_a_linear_network_have_the_closed_form():
    network = mupc.residual_mlp(
        6, 3, width=5, depth=4, activation=mupc.identity, biases=True, key=jax.random.key(0)
    )
    x, y = (jnp.asarray(v) for v in batch(6, 3, 5))
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(2.0), precisions=[0.5, 1.0, 2.0, 0.7])
    exact = mupc.theory.equilibrium(energy)
    assert all(np.max(np.abs(g)) < 1e-12 for g in energy.activity_gradient(energy.at(exact)))
    newton = mupc.infer(energy, mupc.GaussNewton(3), energy.run(), max_steps=1)
    for a, b in zip(newton.point.activities, exact, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)
    hessian = mupc.theory.linear_hessian(energy).dense()
    one = energy.of_sample(0)
    flat = lambda v: one.samples(one.at(network.in_banks(v.reshape(4, 1, 5))))[0]
    np.testing.assert_allclose(hessian, jax.hessian(flat)(jnp.zeros(20)), atol=1e-12)


def test_the_metric_of_a_term_is_its_own_curvature():
    """ρ, and Gauss–Newton's steps, of ½·3‖e‖² written as a subclass are those of precisions 3."""
    as_option = lambda *terms: mupc.FreeEnergy(*terms, precisions=3.0)
    ours, theirs = energy_of(Graded), energy_of(as_option)
    numbers = (mupc.theory.regime_number(energy) for energy in (ours, theirs))
    np.testing.assert_allclose(*numbers, rtol=1e-10)
    ends = [mupc.infer(e, mupc.GaussNewton(2), e.run(), max_steps=1) for e in (ours, theirs)]
    for a, b in zip(*(end.point.activities for end in ends), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["layers", "samples", "activity_gradient", "at", "output_loss", "__call__"]
)
def test_overriding_what_is_derived_is_refused_when_the_class_is_made(name):
    body = {name: lambda self, *args: getattr(mupc.FreeEnergy, name)(self, *args)}
    with pytest.raises(TypeError, match=f"Mine overrides {name}.*override hidden or of_weights"):
        type("Mine", (mupc.FreeEnergy,), body)


def test_a_rule_minimises_the_energy_that_it_is_given():
    """By option, by subclass; with ρ too, whose measure whitens errors by their precisions."""
    energy = energy_of(layered)
    data = (energy.x, energy.y)
    key = jax.random.key(0)
    rule = mupc.PredictiveCoding(likelihood=mupc.Gaussian(0.5), energy=layered)
    seen, info = mupc.learning.first_gradients(rule, energy.network, data, None, key)
    end = mupc.infer(energy, mupc.GaussNewton(), energy.run(), max_steps=1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
        seen,
        energy.weight_gradient(end.point),
    )
    np.testing.assert_allclose(info.layers, np.mean(energy.layers(end.point), axis=1), rtol=1e-12)
    held = mupc.PredictiveCoding(rho=0.1, energy=layered)
    carry, _ = held.begin(energy.network, data, held.init(energy.network, key), key)
    assert np.all(np.asarray(mupc.theory.regime_number(carry.energy)) <= 0.1 * (1 + 1e-9))


class Quartic(mupc.Energy):
    """Two parameters, no network: F = Σ ¼z⁴ − a⟨z, x⟩, with z = (a x)^⅓ at rest."""

    a: jax.Array
    x: jax.Array
    y: jax.Array

    parameters = property(lambda self: self.a)

    def with_parameters(self, parameters):
        return eqx.tree_at(lambda e: e.a, self, parameters)

    def layers(self, point):
        (z,) = point.activities
        return jnp.sum(0.25 * z**4 - self.a * z * self.x[None], axis=2)

    def of_sample(self, i):
        return Quartic(self.a, self.x[i][None], self.y)

    def of_weights(self):
        return 0.5 * self.a**2


def test_an_energy_without_predictions_has_activities_alone():
    x = jnp.asarray(np.random.default_rng(0).uniform(0.5, 2, (6, 3)))
    energy, start = Quartic(jnp.asarray(0.8), x, x), (jnp.ones((1, 6, 3)),)
    for solver in (mupc.GradientDescent(0.1), mupc.LBFGS()):
        tight = mupc.Tolerance(1e-9, patience=0)
        end = mupc.infer(energy, solver, start, max_steps=2000, stopping=tight)
        np.testing.assert_allclose(end.point.activities[0][0], np.cbrt(0.8 * x), atol=1e-7)
        assert end.point.errors == ()
        # Negative, and falling: it is not called divergence.
        assert np.all(end.energy < 0)
        assert np.all(end.result == InferenceResult.CONVERGED)
    slope = 0.8 - np.mean(np.sum(x * np.cbrt(0.8 * x), axis=1))
    np.testing.assert_allclose(energy.weight_gradient(end.point), slope, atol=1e-6)
    for solver in (mupc.GaussNewton(), mupc.InErrors(mupc.LBFGS()), mupc.LinearSolve()):
        with pytest.raises(ValueError, match=r"needs a mupc.*Quartic is none: use a solver"):
            mupc.infer(energy, solver, start, max_steps=1)


def test_energies_below_zero_that_fall_a_little_have_not_diverged():
    """A rise is measured against the size of the energy, whatever its sign."""
    x = jnp.ones((4, 3))
    energy = Quartic(jnp.asarray(1.0), x, x)
    near = (jnp.full((1, 4, 3), 1.001),)
    end = mupc.infer(energy, mupc.GradientDescent(0.01), near, max_steps=3)
    assert np.all(end.energy < 0)
    assert not np.any(end.result == InferenceResult.DIVERGED)
    away = mupc.infer(
        energy, mupc.GradientDescent(2.0), near, max_steps=40, stopping=mupc.FixedSteps()
    )
    assert np.all(away.result == InferenceResult.DIVERGED)


class TwoWay(mupc.Energy):
    """Two networks over one set of activities, upwards and downwards; both learn."""

    up: mupc.Network
    down: mupc.Network
    x: jax.Array
    y: jax.Array

    parameters = property(lambda self: (self.up, self.down))

    def with_parameters(self, parameters):
        return eqx.tree_at(lambda e: (e.up, e.down), self, parameters)

    def layers(self, point):
        forwards = mupc.FreeEnergy(self.up, self.x, self.y, mupc.Gaussian())
        backwards = mupc.FreeEnergy(self.down, self.y, self.x, mupc.Gaussian())
        turned = self.down.in_banks(self.up.in_order(point.activities)[::-1])
        return jnp.stack([
            forwards.samples(forwards.at(point.activities)), backwards.samples(backwards.at(turned))
        ])  # fmt: skip

    def of_sample(self, i):
        one = (self.x[i][None], self.y[i][None])
        return eqx.tree_at(lambda e: (e.x, e.y), self, one)


def test_weight_gradients_are_of_whatever_parameters_an_energy_has():
    keys = jax.random.split(jax.random.key(0))
    make = lambda i, o, key: mupc.residual_mlp(i, o, width=5, depth=3, activation=jnp.tanh, key=key)
    up, down = make(4, 2, keys[0]), make(2, 4, keys[1])
    x, y = (jnp.asarray(v) for v in batch(4, 2, 6))
    energy = TwoWay(up, down, x, y)
    start = up.feedforward(x).activities
    tight = mupc.Tolerance(1e-8, patience=0)
    end = mupc.infer(energy, mupc.GradientDescent(0.1), start, max_steps=2000, stopping=tight)
    assert np.all(end.result == InferenceResult.CONVERGED)
    by_up, by_down = energy.weight_gradient(end.point)
    forwards = mupc.FreeEnergy(up, x, y, mupc.Gaussian())
    backwards = mupc.FreeEnergy(down, y, x, mupc.Gaussian())
    turned = down.in_banks(up.in_order(end.point.activities)[::-1])
    for seen, alone, z in ((by_up, forwards, end.point.activities), (by_down, backwards, turned)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
            seen,
            alone.weight_gradient(alone.at(z)),
        )


def test_a_likelihood_needs_a_root_only_for_gauss_newton():
    class Absolute(mupc.Likelihood):
        precision: jax.Array = eqx.field(default=1.0, converter=jnp.asarray)

        def terms(self, y, output):
            return jnp.sqrt(1e-2 + (y - output) ** 2)

    energy = energy_of(lambda n, x, y, *_: mupc.FreeEnergy(n, x, y, Absolute()))
    end = mupc.infer(energy, mupc.InErrors(mupc.LBFGS()), energy.run(), max_steps=200)
    assert np.all(end.relative_residual < 1e-2)
    with pytest.raises(NotImplementedError, match=r"Absolute has no root.*mupc.GaussNewton needs"):
        mupc.infer(energy, mupc.GaussNewton(), energy.run(), max_steps=1)

    class Rooted(Absolute):
        def root(self, output, v):
            return v

    energy = energy_of(lambda n, x, y, *_: mupc.FreeEnergy(n, x, y, Rooted()))
    with pytest.raises(NotImplementedError, match=r"Rooted has no pearson_residual.*GaussNewton"):
        mupc.infer(energy, mupc.GaussNewton(), energy.run(), max_steps=1)
