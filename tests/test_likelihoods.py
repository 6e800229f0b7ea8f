"""Likelihoods against formulas, finite sums and automatic differentiation; what is not observed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mupc
from mupc.likelihoods import losses

pytestmark = pytest.mark.usefixtures("float64")

SIZE = 5
OUTPUT = np.array([0.3, -1.2, 2.0, 0.0, -0.4])
PRECISIONS = [0.5, 2.0, 1.0, 4.0, 0.1]


def gaussian():
    return mupc.Gaussian(2.0, precisions=PRECISIONS)


def flipped(make):
    """Every y of coins, and its probability."""
    p = 1 / (1 + np.exp(-OUTPUT))
    y = np.array([[(i >> k) & 1 for k in range(SIZE)] for i in range(2**SIZE)], float)
    return make(), y, np.prod(np.where(y, p, 1 - p), axis=1)


def spread(make):
    """Every sign that y can differ by, where the loss is one of absolute differences."""
    y = np.array([[(i >> k) & 1 for k in range(SIZE)] for i in range(2**SIZE)]) * 2.0 - 1
    return make(), OUTPUT + y, np.full(2**SIZE, 2.0**-SIZE)


def chosen(make):
    p = np.exp(OUTPUT) / np.sum(np.exp(OUTPUT))
    return make(), np.eye(SIZE), p


FINITE = {
    "bernoulli": (flipped, mupc.Bernoulli),
    "laplace": (spread, mupc.Laplace),
    "categorical": (chosen, mupc.Categorical),
}


@pytest.mark.parametrize("name", FINITE)
def test_the_root_is_one_of_the_fisher_information(name):
    """The mean of score times score over every y that there is."""
    draw, make = FINITE[name]
    likelihood, every, weights = draw(make)
    score = jax.vmap(jax.grad(lambda out, y: likelihood.loss(y, out)), (None, 0))
    scores = np.asarray(score(jnp.asarray(OUTPUT), every))
    root = np.stack([likelihood.root(jnp.asarray(OUTPUT), unit) for unit in jnp.eye(SIZE)], axis=1)
    np.testing.assert_allclose(root @ root.T, scores.T @ np.diag(weights) @ scores, atol=1e-12)
    if name != "laplace":  # whose Hessian vanishes
        hessian = jax.hessian(lambda out: likelihood.loss(every[0], out))(jnp.asarray(OUTPUT))
        np.testing.assert_allclose(root @ root.T, hessian, atol=1e-12)


def test_terms_are_the_negative_logarithms_of_probabilities():
    likelihood, every, weights = flipped(mupc.Bernoulli)
    found = [likelihood.loss(y, OUTPUT) for y in every]
    np.testing.assert_allclose(found, -np.log(weights), rtol=1e-12)
    y = OUTPUT + np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    np.testing.assert_allclose(mupc.Laplace().terms(y, OUTPUT), [1, 2, 0.5, 0, 3])
    np.testing.assert_allclose(
        gaussian().terms(y, OUTPUT), 0.5 * np.array(PRECISIONS) * [1, 4, 0.25, 0, 9]
    )
    root = gaussian().root(jnp.asarray(OUTPUT), jnp.ones(SIZE))
    np.testing.assert_allclose(root, np.sqrt(PRECISIONS))


def test_coins_do_not_overflow():
    likelihood, far = mupc.Bernoulli(), jnp.array([1e4, -1e4])
    np.testing.assert_allclose(likelihood.terms(np.array([0.0, 1.0]), far), 1e4)
    np.testing.assert_array_equal(likelihood.mean(far), [1, 0])
    roots = likelihood.root(jnp.array([30.0, -30.0]), jnp.ones(2))
    np.testing.assert_allclose(roots, np.exp(-15), rtol=1e-10)


def test_fitted_precisions_are_the_likeliest():
    rng = np.random.default_rng(0)
    output = rng.normal(size=(200, 3))
    y = output + rng.normal(size=(200, 3)) * [0.1, 1.0, 4.0]
    fitted = mupc.Gaussian.fitted(y, output)
    each = np.asarray(fitted.precision * fitted.precisions)
    np.testing.assert_allclose(each, 1 / np.mean((y - output) ** 2, axis=0), rtol=1e-10)
    np.testing.assert_allclose(np.prod(fitted.precisions), 1, rtol=1e-10)
    # Where the logarithm of the probability has no slope: one by one, Σ ½ p (y − ŷ)² − n/2 log p.
    slope = lambda p: 0.5 * np.sum((y - output) ** 2, axis=0) - 0.5 * len(y) / p
    np.testing.assert_allclose(slope(each), 0, atol=1e-8)
    with pytest.raises(ValueError, match="no error over this batch"):
        mupc.Gaussian.fitted(y, np.where([True, False, False], y, output))


LIKELIHOODS = [gaussian, mupc.Laplace, mupc.Bernoulli, mupc.Categorical]


@pytest.mark.parametrize("make", LIKELIHOODS)
def test_the_pearson_residual_is_the_shortest_whose_root_is_the_gradient(make):
    likelihood, y = make(), np.random.default_rng(1).dirichlet(np.ones(SIZE))
    score = jax.grad(lambda out: likelihood.loss(y, out))(jnp.asarray(OUTPUT))
    root = np.stack([likelihood.root(jnp.asarray(OUTPUT), unit) for unit in jnp.eye(SIZE)], axis=1)
    found = likelihood.pearson_residual(y, OUTPUT)
    np.testing.assert_allclose(root @ found, score, atol=1e-12)
    np.testing.assert_allclose(found, np.linalg.pinv(root) @ score, atol=1e-12)


@pytest.mark.parametrize("make", [mupc.Bernoulli, mupc.Categorical])
def test_a_residual_of_what_was_thought_impossible_is_a_number(make):
    y, output = (jnp.asarray(v, jnp.float32) for v in ([0.0, 1.0], [1e4, -1e4]))
    far = {mupc.Bernoulli: [1e6, -1e6], mupc.Categorical: [1, -1e6]}[make]
    np.testing.assert_allclose(make().pearson_residual(y, output), far, rtol=1e-6)


@pytest.mark.few(3)
@pytest.mark.parametrize("make", [mupc.Bernoulli, mupc.Categorical])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_steps_of_samples_that_are_certainly_right_or_wrong_lower_their_energy(make, steps):
    """More steps than outputs, too; of logits from which p rounds to 0."""
    energy, _, _ = problem(make)
    where = lambda e: (e.network.readout.weights, e.y)
    weights = 1e5 * energy.network.readout.weights
    certain = eqx.tree_at(where, energy, (weights, jnp.eye(SIZE)[:3]))
    start = certain.run()
    assert np.max(np.abs(certain.output(start))) > 800
    end = mupc.infer(certain, mupc.GaussNewton(steps), start, max_steps=1)
    assert np.all(np.isfinite(end.energy))
    assert np.all(end.energy <= certain.samples(start) * (1 + 1e-12))


def problem(make, observed=None):
    network = mupc.residual_mlp(
        6, SIZE, width=5, depth=3, activation=jnp.tanh, key=jax.random.key(0)
    )
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(3, 6)), rng.normal(size=(3, 3, 5))
    y = rng.dirichlet(np.ones(SIZE), size=3)
    energy = mupc.FreeEnergy(network, x, y, make(), observed=observed)
    return energy, y, energy.at(network.in_banks(jnp.asarray(z)))


@pytest.mark.parametrize("make", LIKELIHOODS)
def test_only_what_is_observed_counts(make):
    """Terms, gradients and the Gauss–Newton maps, against sums over what is known."""
    known = np.array([[1, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    known = known[:, 0] if make is mupc.Categorical else known
    energy, y, point = problem(make, known)
    output = np.asarray(energy.output(point))
    terms = np.stack([make().terms(a, b) for a, b in zip(y, output, strict=True)])
    wanted = (known * terms).reshape(3, -1).sum(axis=1) * make().precision
    np.testing.assert_allclose(energy.layers(point)[-1], wanted, rtol=1e-12)
    every = problem(make, np.ones_like(known))[0]
    whole = problem(make)[0]
    np.testing.assert_allclose(every.layers(point), whole.layers(point), rtol=1e-12)
    total = lambda z: jnp.sum(energy.samples(energy.at(z)))
    for a, b in zip(energy.activity_gradient(point), jax.grad(total)(point[0]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    # One sample of which nothing is known has no gradient by its output, and no curvature.
    assert all(np.all(np.asarray(a)[:, 1] == 0) for a in energy.adjoint(point))
    pushed = energy.gauss_newton(point).up(point.activities)
    assert np.all(np.asarray(pushed)[1] == 0)
    full = whole.gauss_newton(point).up(point.activities)
    np.testing.assert_allclose(pushed[2], full[2], rtol=1e-10)
    np.testing.assert_allclose(energy.of_sample(0).layers(at_sample(point, 0)),
                               energy.layers(point)[:, :1], rtol=1e-12)  # fmt: skip


def at_sample(point, i):
    return jax.tree.map(lambda z: z[:, i : i + 1], point)


@pytest.mark.usefixtures("unchecked")
def test_what_is_observed_is_shaped_like_the_terms():
    y = jnp.zeros((3, SIZE))
    with pytest.raises(ValueError, match=r"shaped like the terms of the likelihood, \(3, 5\), not"):
        losses(gaussian(), y, y, jnp.ones(3))
    with pytest.raises(ValueError, match="that are 0 or 1"):
        problem(gaussian, -np.ones((3, SIZE)))


def test_what_is_not_known_may_be_anything():
    known = jnp.array([[1.0, 0, 1, 1, 0]])
    y = jnp.where(known > 0, 0.5, jnp.nan)
    for make in (gaussian, mupc.Laplace, mupc.Bernoulli):
        assert np.all(np.isfinite(losses(make(), y, jnp.ones((1, SIZE)), known)))


@pytest.mark.usefixtures("unchecked")
def test_precisions_are_shaped_like_an_output():
    for wrong in (np.ones((2, SIZE)), np.ones(1)):
        with pytest.raises(ValueError, match=r"precisions must have the shape .* \(5,\)"):
            mupc.Gaussian(precisions=wrong).loss(OUTPUT, OUTPUT)
    with pytest.raises(ValueError, match="y has shape"):
        mupc.Gaussian.fitted(np.ones((4, 3)), np.ones(3))


def test_likelihoods_know_what_targets_they_take():
    rows = {"numbers": np.array([[3.0, -1]]), "coins": np.array([[0.0, 1]] * 2 + [[1, 1]]),
            "classes": np.array([[0.25, 0.75]])}  # fmt: skip
    every = (gaussian(), mupc.Laplace(), mupc.Bernoulli(), mupc.Categorical())
    takes = {type(one): {n for n, y in rows.items() if one.takes(y)} for one in every}
    assert takes == {
        mupc.Gaussian: set(rows), mupc.Laplace: set(rows),
        mupc.Bernoulli: {"coins", "classes"}, mupc.Categorical: {"classes"},
    }  # fmt: skip
    network = mupc.residual_mlp(2, 2, width=4, depth=1, key=jax.random.key(0))
    data = mupc.data.Dataset.from_arrays(rows["coins"], 3.0 * rows["coins"])
    with pytest.raises(ValueError, match=r"mupc\.Bernoulli needs targets that are numbers from 0"):
        mupc.fit(network, data, mupc.Backpropagation(mupc.Bernoulli()), optax.sgd(0.1), steps=1,
                 batch_size=3,                 key=jax.random.key(0))  # fmt: skip


@pytest.mark.parametrize("make", [gaussian, mupc.Bernoulli, mupc.Categorical])
def test_gauss_newton_settles_any_smooth_likelihood(make):
    energy, _, _ = problem(make)
    end = mupc.infer(energy, mupc.GaussNewton(SIZE), energy.run(), max_steps=60,
                     stopping=mupc.Tolerance(1e-10))  # fmt: skip
    slopes = energy.activity_gradient(end.point)
    assert max(float(jnp.max(jnp.abs(g))) for g in slopes) < 1e-6
