"""The public step: pure, several updates a batch, ensembles, and any optimiser's demands."""

import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import batch

import mupc
from mupc.arrays import choose, sample_norms
from mupc.data import Dataset, Split
from mupc.inference import InferenceResult, Progress
from mupc.learning import first_gradients
from mupc.learning.rule import Info
from mupc.training.step import entry, stack, train_steps

KEY = jax.random.key(0)


def problem(width=6, depth=3, size=8):
    network = mupc.residual_mlp(6, 3, width=width, depth=depth, activation=jnp.tanh, key=KEY)
    x, y = batch(6, 3, size)
    return network, (jnp.asarray(x, float), jnp.asarray(y, float))


def same(a, b, atol=0.0):
    jax.tree.map(
        lambda v, w: np.testing.assert_allclose(np.asarray(v), np.asarray(w), atol=atol, rtol=0),
        eqx.filter(a, eqx.is_inexact_array),
        eqx.filter(b, eqx.is_inexact_array),
    )


@pytest.mark.usefixtures("float64")
def test_a_step_is_the_rules_gradient_and_the_optimisers_update():
    network, data = problem()
    rule, optimiser = mupc.PredictiveCoding(likelihood=mupc.Gaussian(0.3)), optax.sgd(0.1)
    state = mupc.init(network, rule, optimiser, KEY)
    after, metrics = mupc.step(state, data, rule, optimiser)
    gradients, info = first_gradients(rule, network, data, None, KEY)
    same(after.network, jax.tree.map(lambda w, g: w - 0.1 * g, network, gradients), 1e-14)
    np.testing.assert_allclose(metrics.energy_after, np.sum(info.layers), rtol=1e-12)
    # Pure: the state that was given is as it was, and gives the same again.
    again, _ = mupc.step(state, data, rule, optimiser)
    same(again.network, after.network)
    same(state.network, network)
    assert (int(state.steps), int(after.steps), int(after.failed)) == (0, 1, -1)


class Repeated(mupc.LearningRule):
    """Backpropagation that changes the weights several times on each batch."""

    inner: mupc.Backpropagation
    times: int = eqx.field(static=True)
    likelihood = property(lambda self: self.inner.likelihood)
    regularisers = property(lambda self: self.inner.regularisers)

    @property
    def updates(self):
        return self.times

    def init(self, network, key):
        return jnp.zeros((), int)

    def begin(self, network, batch, state, key):
        return jnp.zeros((), int), state + 1

    def gradients(self, network, batch, carry, key, *, measure=True):
        gradients, _, info = self.inner.gradients(network, batch, None, key)
        return gradients, carry + 1, info


@pytest.mark.usefixtures("float64")
def test_several_updates_on_a_batch_are_as_many_steps_on_it():
    network, data = problem()
    optimiser = optax.adam(0.01)
    three = Repeated(mupc.Backpropagation(), 3)
    state, metrics = mupc.step(mupc.init(network, three, optimiser, KEY), data, three, optimiser)
    single = mupc.Backpropagation()
    plain, losses = mupc.init(network, single, optimiser, KEY), []
    for _ in range(3):
        plain, seen = mupc.step(plain, data, single, optimiser)
        losses.append(seen.loss)
    same(state.network, plain.network, 1e-13)
    # The loss is that of before the first update; one batch was made.
    np.testing.assert_allclose(metrics.loss, losses[0])
    np.testing.assert_allclose(metrics.energy_after, losses[2])
    assert (int(state.steps), int(state.rule)) == (1, 1)


def test_an_update_that_fails_within_a_batch_keeps_what_was_before_it():
    network, data = problem()
    optimiser = optax.sgd(1e30)
    rule = Repeated(mupc.Backpropagation(), 4)
    state, _ = mupc.step(mupc.init(network, rule, optimiser, KEY), data, rule, optimiser)
    assert int(state.failed) == 0
    assert all(np.all(np.isfinite(w)) for w in jax.tree.leaves(state.network))
    later, _ = mupc.step(state, data, rule, optimiser)
    same(later.network, state.network)
    assert int(later.failed) == 0


@pytest.mark.usefixtures("float64")
def test_stacked_states_are_an_ensemble():
    """jax.vmap over states, and the loop's own program: each member's step is its step alone."""
    network, data = problem()
    rates = (0.01, 0.02, 0.05)
    make = lambda rate: mupc.traced(optax.adam, learning_rate=rate)
    rule = mupc.PredictiveCoding()
    states = [
        mupc.init(network, rule, make(rate), jax.random.key(i)) for i, rate in enumerate(rates)
    ]
    whole = stack(states)
    members = eqx.filter_vmap(lambda state: mupc.step(state, data, rule, make(0.02))[0])(whole)
    inputs = tuple((data, rule, make(rate), jnp.asarray(True)) for rate in rates)
    together, _ = train_steps(inputs, stack(states))
    for i, (state, rate) in enumerate(zip(states, rates, strict=True)):
        same(entry(members, i), mupc.step(state, data, rule, make(0.02))[0], 1e-12)
        same(entry(together, i), mupc.step(state, data, rule, make(rate))[0], 1e-12)


def count_traces(monkeypatch):
    traces = []
    original = mupc.Backpropagation.gradients

    def counting(self, *args, **more):
        traces.append(1)
        return original(self, *args, **more)

    monkeypatch.setattr(mupc.Backpropagation, "gradients", counting)
    return traces


@pytest.mark.parametrize("way", ["traced", "chained", "chained twice", "plain"])
def test_numbers_stay_arguments_through_a_chain(monkeypatch, way):
    """Another learning rate is the same program; another network of the same kind, too."""
    if "MUPC_CHECKED" in os.environ and way.startswith("chained"):
        pytest.skip("a checked function is a wrapper: two of them are never the same")
    traces, rule = count_traces(monkeypatch), mupc.Backpropagation()
    network, data = problem()
    ends = []
    for rate in (0.01, 0.02, 0.04):
        adam = mupc.traced(optax.adam, learning_rate=rate)
        optimiser = {
            "traced": lambda adam=adam: adam,
            "chained": lambda adam=adam: optax.chain(adam, mupc.scale_uniform(network)),
            "chained twice": lambda adam=adam: optax.chain(
                optax.clip(1.0), optax.chain(adam, mupc.scale_adam(network))
            ),
            "plain": lambda: optax.adam(0.01),  # made anew, with the same number
        }[way]()
        state = mupc.init(network, rule, optimiser, KEY)
        state, _ = mupc.step(state, data, rule, optimiser)
        ends.append(state.network.readout.weights - network.readout.weights)
    assert len(traces) == 1
    if way != "plain":
        np.testing.assert_allclose(ends[1], 2 * ends[0], rtol=1e-3)
        np.testing.assert_allclose(ends[2], 4 * ends[0], rtol=1e-3)


def fitted(optimiser, steps=30):
    network, (x, y) = problem(size=32)
    split = Split(np.asarray(x, np.float32), np.asarray(y, np.float32))
    return mupc.fit(
        network,
        Dataset("own", split, None, None, "none"),
        mupc.PredictiveCoding(likelihood=mupc.Gaussian(0.3)),
        optimiser,
        steps=steps,
        batch_size=32,
        log_every=1,
        key=KEY,
    )


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.contrib.prodigy(),
        lambda: optax.chain(optax.adam(0.02), optax.contrib.reduce_on_plateau(patience=2)),
        lambda: optax.contrib.momo(0.05),
        lambda: optax.chain(optax.add_noise(1e-6, 0.5, key=0), optax.adam(0.02)),
        lambda: optax.MultiSteps(optax.adam(0.02), 2),
        lambda: mupc.traced(optax.contrib.momo, learning_rate=0.05),
    ],
    ids=[
        "holds parameters",
        "value by plateau",
        "value by momo",
        "noise",
        "several steps",
        "traced",
    ],
)
def test_optimisers_of_every_demand_train(make):
    optimiser = make()
    if isinstance(optimiser, optax.MultiSteps):
        optimiser = optimiser.gradient_transformation()
    result = fitted(optimiser)
    assert result.steps == 30
    assert result.records[-1].loss < result.records[0].loss


def test_an_optimiser_that_asks_for_more_than_a_local_rule_has_gets_a_sentence():
    with pytest.raises(ValueError, match="needs more than gradients, weights and the loss"):
        fitted(optax.lbfgs())


class Langevin(mupc.Solver):
    """z ← z − η ∇F + √(2η) ξ: samples of exp(−F)."""

    step_size: float

    def init(self, energy, position):
        return None

    def step(self, energy, position, state, keys):
        samples, gradient = energy.samples_and_gradient(position)
        draw = lambda key, z: jax.random.normal(key, z.shape, z.dtype)
        banks = [jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in range(len(position))]
        moved = tuple(
            z - self.step_size * g + (2 * self.step_size) ** 0.5 * jax.vmap(draw, (0, 1), 1)(own, z)
            for own, z, g in zip(banks, position, gradient, strict=True)
        )
        seen = Progress(samples, sample_norms(gradient))
        return lambda active: choose(active, moved, position), state, seen


@pytest.mark.usefixtures("float64")
def test_a_sampler_draws_for_each_sample_and_never_stops():
    network, (x, y) = problem(size=200)
    energy = mupc.FreeEnergy(network, x[:1].repeat(200, 0), y[:1].repeat(200, 0), mupc.Gaussian())
    run = lambda energy, **more: mupc.infer(
        energy, Langevin(0.05), energy.run(), max_steps=300, stopping=mupc.Endless(), **more
    )
    end = run(energy, key=jax.random.key(1))
    np.testing.assert_array_equal(end.steps, 300)
    np.testing.assert_array_equal(end.result, InferenceResult.MAX_STEPS)
    z = np.asarray(network.in_order(end.point.activities))
    # Equal samples have drawn differently: about one unit of noise in each of 18 directions.
    assert np.min(np.std(z, axis=1)) > 0.3
    # What a sample draws depends on the key and on its own number alone.
    alone = run(energy.of_sample(0), key=jax.random.key(1))
    np.testing.assert_allclose(network.in_order(alone.point.activities)[:, 0], z[:, 0], atol=1e-10)
    other = run(energy, key=jax.random.key(2))
    assert np.max(np.abs(network.in_order(other.point.activities) - z)) > 0.5


@pytest.mark.usefixtures("float64")
def test_noise_of_an_optax_solver_is_another_for_every_sample():
    network, (x, y) = problem(size=8)
    energy = mupc.FreeEnergy(network, x[:1].repeat(8, 0), y[:1].repeat(8, 0), mupc.Gaussian())
    for key in (0, jax.random.key(0)):
        noisy = optax.chain(optax.add_noise(1e-2, 0.0, key=key), optax.sgd(0.1))
        end = mupc.infer(
            energy, mupc.Optax(noisy), energy.run(), max_steps=3, stopping=mupc.FixedSteps()
        )
        z = np.asarray(network.in_order(end.point.activities))
        assert np.min(np.std(z, axis=1)) > 1e-3


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("solver", [mupc.LBFGS(), mupc.InErrors(mupc.LBFGS()), mupc.GaussNewton()])
def test_a_sample_that_is_done_stands_still_in_the_trace(solver):
    network, (x, y) = problem(size=16)
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(3.0))
    seen = mupc.infer(
        energy, solver, energy.run(), max_steps=60, stopping=mupc.Tolerance(1e-3), trace=True
    )
    assert len(np.unique(seen.steps)) > 1
    for i, made in enumerate(np.asarray(seen.steps)):
        for told, last in ((seen.trace.energy, seen.energy), (seen.trace.residual, seen.residual)):
            np.testing.assert_allclose(told[made:, i], last[i], rtol=1e-9)


class Shown(mupc.LearningRule):
    """A rule with figures of its own for the report."""

    inner: mupc.Backpropagation
    likelihood = property(lambda self: self.inner.likelihood)
    regularisers = property(lambda self: self.inner.regularisers)

    def gradients(self, network, batch, carry, key, *, measure=True) -> tuple[object, None, Info]:
        return self.inner.gradients(network, batch, carry, key)

    def diagnostics(self, network, batch, state, key):
        return {"largest": jnp.asarray(3.0), "nudge": jnp.array([0.5, 2.0])}

    def predict(self, network, x):
        return -network.feedforward(x).output


def test_the_regime_report_shows_what_a_rules_diagnostics_hold():
    network, (x, y) = problem(size=32)
    split = Split(np.asarray(x, np.float32), np.asarray(y, np.float32))
    rule = Shown(mupc.Backpropagation())
    result = mupc.fit(
        network, Dataset("own", split, split, split, "none"), rule, optax.adam(0.01), steps=4,
        batch_size=16, report_every=2, key=KEY,
    )  # fmt: skip
    reports = [record for record in result.records if record.kind == "regime"]
    assert reports[-1].diagnostics == {"largest": 3.0, "nudge": (0.5, 2.0)}
    assert "largest 3" in reports[-1].sentence()
    assert "nudge 0.5–2" in reports[-1].sentence()
    assert mupc.scalars(reports[-1])["regime/nudge/largest"] == 2.0
    # What the rule predicts is what is evaluated.
    output = -np.asarray(result.network.feedforward(jnp.asarray(split.x)).output)
    expected = np.mean(np.argmax(output, axis=1) == np.argmax(split.y, axis=1))
    assert mupc.evaluate(result, split).accuracy == pytest.approx(expected)
    plain = mupc.evaluate(result.network, split)
    assert plain.loss != pytest.approx(mupc.evaluate(result, split).loss)


@pytest.mark.usefixtures("float64")
def test_the_rule_without_arguments_is_that_of_the_command():
    from mupc.settings import Configuration

    ours, theirs = mupc.PredictiveCoding(), Configuration().rule.build(128)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(
        np.testing.assert_array_equal, *(eqx.filter(r, eqx.is_array) for r in (ours, theirs))
    )
    assert eqx.tree_equal(ours, theirs)
    fixed = mupc.PredictiveCoding(mupc.GradientDescent(0.1), 3, mupc.Gaussian(1.0))
    assert fixed.regime is None
    assert mupc.PredictiveCoding(rho=0.2, likelihood=mupc.Categorical()).regime.hold
    assert not mupc.PredictiveCoding(rho=0.2, hold=False).regime.hold
    with pytest.raises(ValueError, match="rho sets the precision"):
        mupc.PredictiveCoding(rho=0.2, likelihood=mupc.Gaussian(0.3))


@pytest.mark.few(1)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("likelihood", [mupc.Gaussian(), mupc.Categorical()])
def test_no_sample_is_further_from_backpropagation_than_the_first_batch(likelihood):
    """Held: π_i = π min(1, λ₀/max(λ_i, λ̄)), and its part of the gradient over π_i/π."""
    network, (x, y) = problem(size=16)
    steeper = eqx.tree_at(lambda n: n.readout.weights, network, replace_fn=lambda w: 4 * w)
    rule = mupc.PredictiveCoding(rho=0.3, likelihood=likelihood)
    state = rule.init(network, KEY)
    carry, state = rule.begin(network, (x, y), state, KEY)
    assert np.max(mupc.theory.regime_number(carry.energy)) <= 0.3 * (1 + 1e-9)
    later, after = rule.begin(steeper, (x, y), state, KEY)
    assert after.first == state.first
    free = mupc.FreeEnergy(steeper, x, y, likelihood)
    each = np.asarray(mupc.theory.regime_number(free))
    mean = float(mupc.theory.mean_regime_number(free))
    np.testing.assert_allclose(after.last, 15 / 16 * state.first + mean / 16, rtol=1e-10)
    factors = np.minimum(1, state.first / np.maximum(each, after.last))
    np.testing.assert_allclose(np.abs(later.factors), factors, rtol=1e-10)
    precisions = 0.3 / state.first * later.factors
    np.testing.assert_allclose(later.energy.precision, precisions, rtol=1e-10)
    assert np.min(factors) < 0.5
    gradients, *_ = rule.gradients(steeper, (x, y), later, KEY)
    parts = [
        (e := later.energy.of_sample(i)).weight_gradient(
            mupc.infer(e, mupc.GaussNewton(), e.run(), max_steps=1).point, unit=later.factors[i]
        )
        for i in range(16)
    ]
    mean = jax.tree.map(lambda *own: sum(own) / 16, *parts)
    same(gradients, mean, 1e-12)


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_a_library_call_are_checked_as_those_of_the_command():
    network, (x, y) = problem(size=32)
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    good = Split(x, y)
    of = lambda split, validation=None: Dataset("own", split, validation, None, "")

    def fit(data=None, network=network, **more):
        options = {"steps": 2, "batch_size": 16, **more}
        data = of(good) if data is None else data
        mupc.fit(network, data, mupc.PredictiveCoding(), optax.adam(0.01), key=KEY, **options)

    mlp = eqx.nn.MLP(6, 3, 4, 1, key=KEY)
    labels, empty = Split(x, np.argmax(y, 1)), Split(x[:0], y[:0])
    broken = x.copy()
    broken[3, 2] = np.nan
    one = "x of the training split is not finite in 1 of 32 samples, the first of them number 3"
    cases = [
        (lambda: fit((x, y)), TypeError, "data must be a mupc.data.Dataset, got tuple"),
        (lambda: fit(good), TypeError, "data must be a mupc.data.Dataset, got Split"),
        (lambda: fit(of(Split(x[:20], y))), ValueError, "20 samples in x and 32 in y"),
        (lambda: fit(of(Split(broken, y))), ValueError, one),
        (lambda: fit(of(labels)), ValueError, r"y of the training split has shape \(32,\)"),
        (lambda: fit(of(Split(x.astype(object), y))), TypeError, "an array of real numbers"),
        (lambda: fit(of(good, empty)), ValueError, "x of the validation split is empty"),
        (lambda: fit(of(good, Split(x[:, :2], y))), ValueError, "has samples of shape"),
        (lambda: fit(network=mlp), TypeError, "expected a network such as mupc.residual_mlp"),
        (lambda: fit(batch_size=64.0), TypeError, "batch_size must be a whole number, got 64.0"),
        (lambda: fit(log_every=True), TypeError, "log_every must be a whole number, got True"),
        (lambda: fit(batch_size=0), ValueError, "batch_size must be at least 1, not 0"),
        (lambda: fit(steps=None, epochs=-1, batch_size=8), ValueError, "a number above 0"),
        (lambda: mupc.evaluate(network, (x, y)), TypeError, "expected a Split such as data.test"),
        (lambda: mupc.evaluate(mlp, good), TypeError, "expected a network"),
        (lambda: mupc.evaluate(network, Split(broken, y)), ValueError, "x of split is not finite"),
    ]
    for call, kind, sentence in cases:
        with pytest.raises(kind, match=sentence):
            call()


def test_a_sound_run_makes_no_nan(tmp_path):
    """Nothing stands for "not measured" that JAX_DEBUG_NANS would stop a run for."""
    from mupc.runs import train
    from mupc.settings import Configuration

    with jax.debug_nans(True):
        for name, more in {"default": {}, "validated": {"validation": 0.2, "warmup": 0}}.items():
            small = {"depth": 2, "width": 8, "steps": 6, "log_every": 5, "report_every": 3}
            settings = {**small, **more, "out": str(tmp_path / name)}
            assert train(Configuration().changed(settings)).result.steps == 6


def test_a_readout_of_zeros_learns():
    """There is no ρ to set where nothing reaches the hidden layers: the likelihood's own π."""
    network, data = problem()
    network = eqx.tree_at(lambda n: n.readout.weights, network, replace_fn=jnp.zeros_like)
    rule, optimiser = mupc.PredictiveCoding(), optax.adam(0.01)
    state = mupc.init(network, rule, optimiser, KEY)
    losses = []
    for _ in range(60):
        state, metrics = mupc.step(state, data, rule, optimiser)
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.8 * losses[0]
    change = np.abs(state.network.stages[0].blocks[0].weights - network.stages[0].blocks[0].weights)
    assert np.all(np.max(change, axis=(1, 2)) > 0)


class Broken(Repeated):
    """Whose last gradient on a batch is none."""

    def begin(self, network, batch, state, key):
        return jnp.zeros((), int), state

    def gradients(self, network, batch, carry, key, *, measure=True):
        gradients, _, info = self.inner.gradients(network, batch, None, key, measure=measure)
        last = carry == self.times - 1
        return jax.tree.map(lambda g: jnp.where(last, jnp.nan, g), gradients), carry + 1, info


def test_a_step_whose_last_update_fails_is_refused_as_a_whole():
    network, data = problem()
    rule, optimiser = Broken(mupc.Backpropagation(), 3), optax.adam(0.1)
    state = mupc.init(network, rule, optimiser, KEY)
    after, _ = mupc.step(state, data, rule, optimiser)
    assert int(after.failed) == 0
    same(after.network, network)
    same(after.optimiser, state.optimiser)


def test_several_updates_with_a_rule_of_predictive_coding_see_the_weights_as_they_are():
    """Also of a network whose functions are leaves, which no loop can carry."""

    class Twice(mupc.PredictiveCoding):
        updates = property(lambda self: 2)

    layers = [eqx.nn.Linear(6, 5, key=KEY), jnp.tanh, eqx.nn.Linear(5, 3, key=KEY)]
    network = mupc.chain_from_modules(layers, jnp.zeros(6))
    _, data = problem()
    rule, optimiser = Twice(likelihood=mupc.Gaussian(0.3)), optax.sgd(0.1)
    after, _ = mupc.step(mupc.init(network, rule, optimiser, KEY), data, rule, optimiser)
    single = mupc.PredictiveCoding(likelihood=mupc.Gaussian(0.3))
    state = mupc.init(network, single, optimiser, KEY)
    # Activities go on from where they were, with the errors that they have under new weights.
    carry, _ = single.begin(network, data, None, KEY)
    for _ in range(2):
        energy = carry.energy.with_parameters(state.network)
        carry = carry._replace(start=energy.at(carry.start.activities))
        gradients, carry, _ = single.gradients(state.network, data, carry, KEY)
        state = eqx.tree_at(
            lambda s: s.network, state,
            eqx.apply_updates(state.network, jax.tree.map(lambda g: -0.1 * g, gradients)),
        )  # fmt: skip
    same(after.network, state.network, 1e-6)


def test_an_energy_of_other_parameters_needs_a_rule_of_its_own():
    class Scale(mupc.Energy):
        a: jax.Array
        x: jax.Array
        parameters = property(lambda self: self.a)
        with_parameters = lambda self, a: eqx.tree_at(lambda e: e.a, self, a)
        of_sample = lambda self, i: eqx.tree_at(lambda e: e.x, self, self.x[i][None])
        layers = lambda self, point: self.a * jnp.sum(point.activities[0] ** 2, axis=(0, 2))[None]

    network, data = problem()
    rule = mupc.PredictiveCoding(
        mupc.GradientDescent(0.1),
        2,
        mupc.Gaussian(),
        energy=lambda *given: Scale(jnp.ones(()), given[1]),
    )
    with pytest.raises(ValueError, match="parameters of the energy are not the network"):
        mupc.step(mupc.init(network, rule, optax.sgd(0.1), KEY), data, rule, optax.sgd(0.1))


def test_optimisers_of_closures_do_what_they_say():
    """Keyword defaults are a part of a function; what cannot be told apart is left as it is."""
    network, data = problem()
    rule = mupc.Backpropagation()

    def with_default(rate):
        scale = jnp.asarray(1.0)

        def update(updates, state, params=None, *, rate=rate):
            return jax.tree.map(lambda u: -rate * scale * u, updates), state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

    def with_set():
        names = {1, 2}

        def update(updates, state, params=None):
            return jax.tree.map(lambda u: -u / len(names), updates), state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

    def moved(optimiser):
        state = mupc.init(network, rule, optimiser, KEY)
        after, _ = mupc.step(state, data, rule, optimiser)
        return np.max(np.abs(after.network.readout.weights - network.readout.weights))

    slow, fast = with_default(0.1), with_default(1.0)
    assert moved(fast) == pytest.approx(10 * moved(slow), rel=1e-4)
    assert moved(with_set()) == pytest.approx(0.5 * moved(fast), rel=1e-4)
    choice = optax.sgd(0.1, momentum=0.9, nesterov=np.bool_(True))
    assert moved(choice) == pytest.approx(moved(optax.sgd(0.1, momentum=0.9, nesterov=True)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: mupc.PredictiveCoding(optax.adam(0.1), 3), "solver must be a mupc.Solver, e.g."),
        (lambda: mupc.PredictiveCoding(likelihood=mupc.Gaussian), "got the class Gaussian"),
        (lambda: mupc.PredictiveCoding(likelihood="gaussian"), "likelihood must be .*'gaussian'"),
        (lambda: mupc.PredictiveCoding(start=mupc.ZeroStart), "start must be a mupc.Start"),
        (lambda: mupc.PredictiveCoding(stopping=mupc.FixedSteps), "stopping must be a mupc.Stop"),
        (lambda: mupc.PredictiveCoding(regularisers=mupc.WeightDecay(0.1)), "must be a list of"),
        (lambda: mupc.PredictiveCoding(regularisers=[0.1]), "must be a list of reg.*got 0.1"),
        (lambda: mupc.Backpropagation(mupc.Gaussian), "likelihood must be a mupc.Likelihood"),
        (
            lambda: mupc.init(
                eqx.nn.MLP(6, 3, 4, 1, key=KEY), mupc.Backpropagation(), optax.adam(0.1), KEY
            ),
            "expected a network such as .*got MLP",
        ),
        (
            lambda: mupc.init(problem()[0], mupc.Backpropagation, optax.adam(0.1), KEY),
            "rule must be a mupc.LearningRule.*got the class Backpropagation",
        ),
    ],
)
def test_what_is_not_what_it_should_be_is_named_at_every_door(build, sentence):
    with pytest.raises(TypeError, match=sentence):
        build()


def test_classes_of_a_likelihood_are_asked_for_by_fit():
    network, (x, y) = problem(size=32)
    data = Dataset("own", Split(np.asarray(x), 2 * np.asarray(y)), None, None, "")
    rule = mupc.PredictiveCoding(likelihood=mupc.Categorical())
    with pytest.raises(ValueError, match="Categorical needs targets that are distributions"):
        mupc.fit(network, data, rule, optax.adam(0.01), steps=2, batch_size=8, key=KEY)
