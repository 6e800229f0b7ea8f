"""The training loop: what it promises about data, results, failures and compilation."""

import dataclasses
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from programs import training_step
from reference import batch
from test_networks import two_stages

import mupc
from mupc.data import Dataset, Split, batch_indices
from mupc.settings import Configuration
from mupc.settings.optimisers import warmup_cosine

KEY = jax.random.key(0)


def toy(size=40, validation=10, seed=0):
    """Two Gaussian clouds: a problem that any network learns."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, size + validation + 7)
    x = generator.normal(size=(len(labels), 4)) + 3 * labels[:, None]
    x, y = x.astype("f"), np.eye(2, dtype="f")[labels]
    parts = [Split(x[a:b], y[a:b]) for a, b in [(0, size), (size, size + validation), (-7, None)]]
    return Dataset("toy", parts[0], parts[1] if validation else None, parts[2], "None.")


def network(depth=3, width=8):
    return mupc.residual_mlp(4, 2, width=width, depth=depth, key=KEY)


PC = mupc.PredictiveCoding(mupc.GradientDescent(0.25), 8, mupc.Gaussian())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"optimiser": optax.adam},
            r"optimiser must be an optax\.GradientTransformation, e\.g\. optax\.adam.*; got <func",
        ),
        (
            {"rule": mupc.PredictiveCoding},
            "rule must be a mupc.LearningRule, .*; got the class Pre",
        ),
        ({"checkpoints": "runs/kept"}, "checkpoints must be .*; got 'runs/kept'"),
        ({"callback": "print"}, "callback must be a function of a record; got 'print'"),
        ({"key": 0}, r"key must be a random key, e\.g\. jax\.random\.key\(0\); got 0"),
        ({"network": mupc.Chain}, r"a network such as mupc\.residual_mlp\(…\), got Chain"),
        ({"data": toy().train}, r"mupc\.data\.Dataset, got Split: .*Dataset\.from_arrays\(x, y\)"),
        ({"data": tuple(toy().train)}, r"mupc\.data\.Dataset, got tuple: .*from_arrays\(x, y\)"),
        ({"verbose": 1}, "verbose must be true or false; got 1"),
        ({"steps": None, "epochs": True}, "epochs must be a number, got True"),
        ({"batch_size": 8.0}, r"batch_size must be a whole number, got 8\.0"),
        ({"steps": 2.5}, r"steps must be a whole number, got 2\.5"),
        ({"log_every": True}, "log_every must be a whole number, got True"),
        ({"early_stopping": "3"}, "early_stopping must be a whole number, got '3'"),
    ],
)
def test_what_is_not_what_it_should_be_is_named(wrong, sentence):
    given = {"rule": PC, "optimiser": optax.adam(0.03), "key": KEY, "steps": 2, "batch_size": 8}
    given |= {"network": network(), "data": toy()}
    with pytest.raises(TypeError, match=sentence):
        mupc.fit(**{**given, **wrong})
    with pytest.raises(TypeError, match=r"expected a Split such as data\.test, got Dataset"):
        mupc.evaluate(network(), toy())


def fit(data=None, rule=PC, optimiser=None, **kwargs):
    optimiser = optimiser or optax.adam(0.03)
    options = {"steps": 30, "batch_size": 8, "key": KEY, **kwargs}
    return mupc.fit(network(), data or toy(), rule, optimiser, **options)


RULES = {
    "unheld": PC,
    "default": mupc.PredictiveCoding(),
    "exact": mupc.Backpropagation(),
    "settling": mupc.EquilibriumPropagation(),
    "zero divergence": mupc.ZeroDivergence(),
    "augmented Lagrangian": mupc.AugmentedLagrangian(rounds=4),
    "Monte Carlo": mupc.MonteCarloPredictiveCoding(burn_in=5, samples=2),
}


def parted(key):
    """The seed of the order of the data, the rule's own key, and that of its steps."""
    order_key, own = jax.random.split(key)
    seed = int(jax.random.randint(order_key, (), 0, np.iinfo(np.int32).max))
    return seed, *jax.random.split(own)


def batches(data, seed, steps, size=8):
    for step in range(steps):
        i = batch_indices(seed, step, len(data.train.x), size)
        yield step, (jnp.asarray(data.train.x[i]), jnp.asarray(data.train.y[i]))


@pytest.mark.few(1)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_fit_is_the_loop_it_stands_for(rule):
    """Rule, optimiser and batch order, called one after the other, give the same weights."""
    data, optimiser = toy(validation=0), optax.adam(0.03)
    result = fit(data, rule, optimiser, steps=7)
    seed, rule_key, step_key = parted(KEY)
    plain = network()
    state = optimiser.init(eqx.filter(plain, eqx.is_inexact_array))
    kept = rule.init(plain, rule_key)
    for step, own in batches(data, seed, 7):
        begin_key, key = jax.random.split(jax.random.fold_in(step_key, step))
        carry, kept = rule.begin(plain, own, kept, begin_key)
        gradients, *_ = rule.gradients(plain, own, carry, key)
        updates, state = optimiser.update(gradients, state)
        plain = eqx.apply_updates(plain, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), result.network, plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), result.state, kept)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_public_steps_are_those_of_fit_and_change_nothing_they_are_given(rule):
    data, optimiser, steps = toy(validation=0), optax.adam(0.03), 5
    result = fit(data, rule, optimiser, steps=steps, log_every=1)
    seed = parted(KEY)[0]
    start = mupc.init(network(), rule, optimiser, jax.random.split(KEY)[1])
    state, losses = start, []
    for _, own in batches(data, seed, steps):
        state, metrics = mupc.step(state, own, rule, optimiser)
        losses.append(float(metrics.loss))
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    jax.tree.map(same, state.network, result.network)
    np.testing.assert_allclose(losses, [r.loss for r in result.records], rtol=1e-5)
    assert (int(state.steps), int(state.failed)) == (steps, -1)
    # The first state is whole: a step from it is the one that was made.
    _, first = next(batches(data, seed, 1))
    assert float(mupc.step(start, first, rule, optimiser)[1].loss) == losses[0]
    jax.tree.map(np.testing.assert_array_equal, start.network, network())


def test_fit_leaves_the_users_network_alone_and_repeats_itself():
    data, start = toy(), network()
    before = np.asarray(start.readout.weights).copy()
    results = [
        mupc.fit(start, data, PC, optax.adam(0.03), steps=5, batch_size=8, key=KEY)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(start.readout.weights, before)
    np.testing.assert_array_equal(*(r.network.readout.weights for r in results))


def test_the_result_is_the_network_that_did_best_on_the_validation_part():
    data = toy()
    result = fit(data, evaluate_every=3, optimiser=optax.adam(0.3))
    seen = {r.step: r for r in result.records if r.kind == "validation"}
    assert list(seen) == list(range(3, 31, 3))
    # The lower loss decides among networks of the same accuracy.
    best = max(seen, key=lambda step: (seen[step].accuracy, -seen[step].loss, -step))
    assert result.step == best
    assert mupc.evaluate(result.network, data.validation).accuracy == seen[best].accuracy
    again = fit(dataclasses.replace(data, validation=None), steps=best, optimiser=optax.adam(0.3))
    np.testing.assert_allclose(result.network.readout.weights, again.network.readout.weights)


def test_early_stopping_counts_evaluations_without_a_better_one():
    result = fit(optimiser=optax.sgd(0.0), evaluate_every=2, early_stopping=3)
    assert result.ended is mupc.Ended.STOPPED_EARLY
    # The first evaluation is the best, and the next three are no better.
    assert (result.steps, result.step) == (8, 2)


def test_evaluation_counts_every_sample():
    data = toy()
    for batch_size in (1, 3, 7, 100):  # 7 test samples: 3 leaves a partial batch
        seen = mupc.evaluate(network(), data.test, batch_size=batch_size)
        output = np.asarray(network().feedforward(data.test.x).output)
        hits = np.argmax(output, -1) == np.argmax(data.test.y, -1)
        assert seen.samples == 7
        assert seen.accuracy == np.mean(hits)
        squares = np.sum((output - data.test.y) ** 2, -1)
        assert seen.loss == pytest.approx(0.5 * np.mean(squares), rel=1e-5)


def test_targets_that_are_no_classes_have_no_accuracy():
    data = toy()
    values = Split(data.test.x, data.test.y * 0.5)
    assert mupc.evaluate(network(), values).accuracy is None


def test_records_are_means_over_the_batches_since_the_last():
    fine = fit(toy(validation=0), log_every=1, steps=6).records
    coarse = fit(toy(validation=0), log_every=3, steps=6).records
    assert [r.step for r in coarse] == [3, 6]
    for index, record in enumerate(coarse):
        part = fine[3 * index : 3 * index + 3]
        for name in ("loss", "accuracy", "energy_before", "energy_after"):
            mean = np.mean([getattr(r, name) for r in part])
            assert getattr(record, name) == pytest.approx(mean, rel=1e-6)
        # Only the last batch of a record is measured: the others would pay a sweep for it.
        assert record.residual == pytest.approx(part[-1].residual, rel=1e-6)
        assert record.energy_after < record.energy_before
        assert record.inference_steps == 8


def test_divergence_stops_with_a_sentence_and_keeps_the_last_sound_network():
    rule = mupc.PredictiveCoding(
        mupc.GradientDescent(3.0), 200, mupc.Gaussian(), stopping=mupc.FixedSteps()
    )
    result = fit(toy(validation=0), rule)
    assert result.ended is mupc.Ended.DIVERGED
    assert result.steps == 0
    assert "diverged at step 1: it began in inference, whose energy rises" in result.message
    assert "Try a smaller learning rate" in result.message
    np.testing.assert_array_equal(result.network.readout.weights, network().readout.weights)


def spoilt(value):
    data = toy(validation=0)
    data.train.x[3] = value
    return data


def test_a_batch_that_overflows_is_named_by_its_step():
    data = spoilt(1e30)
    seed = parted(KEY)[0]
    first = next(step for step in range(5) if 3 in batch_indices(seed, step, 40, 8))
    result = fit(data, steps=10, log_every=10)
    assert result.ended is mupc.Ended.DIVERGED
    assert result.steps == first
    assert f"diverged at step {first + 1}: it began in the feedforward pass" in result.message
    assert "at layer 1 of 4" in result.message
    clean = fit(toy(validation=0), steps=first) if first else None
    expected = network() if clean is None else clean.network
    np.testing.assert_array_equal(result.network.readout.weights, expected.readout.weights)


def test_an_exploding_loss_is_divergence_before_it_overflows():
    result = fit(toy(validation=0), mupc.Backpropagation(), optax.sgd(100.0))
    assert result.ended is mupc.Ended.DIVERGED
    assert result.steps < 29
    assert np.isfinite(mupc.evaluate(result.network, toy().test).loss)


def test_a_network_spoilt_by_the_very_last_step_is_no_success():
    result = fit(toy(validation=0), mupc.Backpropagation(), optax.sgd(1e30), steps=1)
    assert result.ended is mupc.Ended.DIVERGED


def test_divergence_is_never_reported_as_early_stopping():
    rule = mupc.PredictiveCoding(
        mupc.GradientDescent(5.0), 200, mupc.Gaussian(), stopping=mupc.Tolerance(patience=0)
    )
    result = fit(rule=rule, log_every=1000, evaluate_every=2, early_stopping=2)
    assert result.ended is mupc.Ended.DIVERGED
    assert (result.step, result.steps) == (0, 0)


def test_depth_one_trains_and_explains_its_divergence():
    one = mupc.residual_mlp(4, 2, width=8, depth=1, key=KEY)
    train = lambda optimiser: mupc.fit(one, toy(), PC, optimiser, steps=200, batch_size=8, key=KEY)
    assert mupc.evaluate(train(optax.adam(0.1)).network, toy().test).accuracy > 0.9
    assert "diverged at step" in train(optax.sgd(1e4)).message


@pytest.mark.few(1)
@pytest.mark.parametrize("scaled", [mupc.scale_adam, mupc.scale_uniform])
def test_two_stages_train_with_rates_of_their_own(scaled):
    start = two_stages()[0]
    x, y = batch(6, 3, 60)
    data = Dataset("toy", Split(x, y), None, None, "None.")
    optimiser = optax.chain(optax.adam(0.03), scaled(start))
    result = mupc.fit(start, data, PC, optimiser, steps=60, batch_size=20, key=KEY)
    loss = lambda n: mupc.evaluate(n, data.train).loss
    assert result.ended is mupc.Ended.FINISHED
    assert loss(result.network) < 0.8 * loss(start)
    for old, new in zip(start.stages, result.network.stages, strict=True):
        for before, after in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
            assert np.all(np.any(np.asarray(before) != after, axis=-1))


def test_blocks_may_hold_functions():
    """An Equinox MLP keeps its activation as a leaf."""
    plain = network()
    make = lambda key: mupc.Scaled.initialise(
        eqx.nn.MLP(8, 8, 8, 1, key=key), shape=mupc.Shape(8, 5), key=key
    )
    blocks = eqx.filter_vmap(make)(jax.random.split(KEY, 3))
    own = mupc.Chain((mupc.Stage(plain.stages[0].entry, blocks),), plain.readout)
    result = mupc.fit(own, toy(), PC, optax.adam(0.03), steps=30, batch_size=8, key=KEY)
    loss = lambda n: mupc.evaluate(n, toy().train).loss
    assert loss(result.network) < 0.95 * loss(own)


def sent(step, *numbers):
    """A callback that sends signals at a step."""

    def send(record):
        for number in numbers if record.step == step else ():
            os.kill(os.getpid(), number)

    return send


@pytest.mark.parametrize("step", [4, 30])  # the last one, too
def test_ctrl_c_is_raised_after_the_current_step(step):
    records, before = [], signal.getsignal(signal.SIGINT)
    interrupt = sent(step, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(toy(validation=0), log_every=2, callback=lambda r: (records.append(r), interrupt(r)))
    assert records[-1].step == step
    assert signal.getsignal(signal.SIGINT) is before


def test_where_the_users_handlers_return_training_goes_on():
    heard, data = [], toy(validation=0)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: heard.append(number)) for number in numbers]
    try:
        result = fit(data, log_every=10, callback=sent(10, *numbers))
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert heard == list(numbers)
    np.testing.assert_array_equal(result.network.readout.weights, fit(data).network.readout.weights)


def test_only_the_main_thread_hears_signals():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(fit, steps=3).result().steps == 3


def test_a_result_is_shown_in_a_line():
    assert repr(fit(steps=3)) == (
        "<FitResult: finished: 3 of 3 steps; network of step 3, 2 records>"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 41}, "batch_size is 41: choose one from 1 to 40"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"steps": None}, "give either epochs or steps"),
        ({"epochs": 1}, "give either epochs or steps"),
        ({"steps": None, "epochs": 0.01}, "at least one step, not 0"),
        ({"steps": None, "epochs": float("nan")}, "epochs must be a number above 0, not nan"),
        ({"data": spoilt(np.nan)}, "x of the training split is not finite in 1 of 40 .*number 3"),
        ({"early_stopping": 0}, "early_stopping must be at least 1, not 0"),
        ({"evaluate_every": -1}, "evaluate_every must be at least 1, not -1"),
        ({"log_every": 0}, "log_every must be at least 1, not 0"),
        (
            {"data": toy(validation=0), "early_stopping": 2},
            "have no effect without a validation",
        ),
        ({"evaluate_every": 31}, "evaluate_every=31 is more than the 30 steps"),
        # Evaluations at 10, 20 and 30: the third is the end.
        (
            {"evaluate_every": 10, "early_stopping": 2},
            "cannot end training before step 30, and there are 30",
        ),
        ({"steps": 5, "early_stopping": 1}, "early_stopping=1 would have no effect"),
    ],
)
def test_impossible_arguments_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(**options)


@pytest.mark.few(2)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("regime", ["of the likelihood", "held", "from ρ"])
def test_new_numbers_never_compile_again(regime, scaled):
    """One trace serves every learning rate, step size, precision, ρ, tolerance and T."""
    if scaled and "MUPC_CHECKED" in os.environ:
        pytest.skip("a checked function is a new one at every call")
    traces = []

    class Counting(mupc.PredictiveCoding):
        def gradients(self, *args, measure=True):
            traces.append(1)
            return super().gradients(*args, measure=measure)

    for value in (0.01, 0.02, 0.03):
        rule = Counting(
            mupc.GradientDescent(value, momentum=value),
            int(1000 * value),
            mupc.Gaussian(1.0 if regime == "from ρ" else value),
            regularisers=(mupc.WeightDecay(value),),
            stopping=mupc.Tolerance(value, value, int(1000 * value)),
            rho=value if regime == "from ρ" else None,
            hold=regime != "of the likelihood",
        )
        optimiser = mupc.traced(optax.adam, learning_rate=value, eps=value)
        if scaled:  # chains are new functions at every call
            optimiser = optax.chain(optimiser, mupc.scale_adam(network()))
        fit(rule=rule, optimiser=optimiser, steps=3)
    assert len(traces) == 1


@pytest.mark.parametrize(("warmup", "floor"), [(0, 0.0), (4, 0.25)])
def test_the_cosine_schedule_is_that_of_optax_at_any_length(warmup, floor):
    lengths, own, optaxs = (10, 37), [], []
    for steps in lengths:
        schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, steps, floor)
        counts = jnp.arange(steps + 3)
        optaxs.append(jax.vmap(schedule)(counts))
        numbers = {"warmup": float(warmup), "steps": float(steps), "floor": floor}
        own.append(jax.vmap(lambda count, own=numbers: warmup_cosine(count, **own))(counts))
    for ours, theirs in zip(own, optaxs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    net = network()
    chosen = Configuration().changed({"warmup": warmup, "floor": floor}).optimiser
    first, second = (chosen.build(net, steps) for steps in lengths)
    assert jax.tree.structure(first) == jax.tree.structure(second)  # so one program serves both


def test_the_traced_step_is_the_same_at_any_depth():
    shallow, deep = (training_step(PC, network(depth), 4, 2) for depth in (8, 512))
    assert len(shallow) == len(deep) > 100
