"""On several devices: what one device gives, in parts; what they hold, and what they send."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mupc
from mupc.data import Dataset, Split
from mupc.hyperparameters import as_module
from mupc.learning import ImplicitGradient
from mupc.runs import resume, train
from mupc.settings import ConfigError, Configuration
from mupc.sweeps.folder import SweepFolder
from mupc.sweeps.points import Space
from mupc.sweeps.sweep import sweep
from mupc.training.fit import fit_together
from mupc.training.plan import Plan
from mupc.training.session import Member
from mupc.training.step import train_step

pytestmark = pytest.mark.skipif(len(jax.devices()) < 8, reason="there are no 8 devices")

KEY = jax.random.key(0)
PARTS = {
    "data=8": {"data": 8},
    "depth=8": {"depth": 8},
    "data=2,depth=4": {"data": 2, "depth": 4},
}


def mlp(depth=9, width=6):
    return mupc.residual_mlp(5, 3, width=width, depth=depth, activation=jnp.tanh, key=KEY)


def conv():
    return mupc.conv_resnet((4, 4, 2), 3, blocks=(8, 8), channels=2, key=KEY)


def text():
    return mupc.transformer(7, context=4, pairs=8, width=8, heads=2, key=KEY)


def hopfield():
    return mupc.residual_hopfield(5, 3, width=6, depth=9, key=KEY)


def decoder():
    return mupc.decoder(4, 5, width=6, depth=9, key=KEY)


def class_decoder():
    return mupc.class_decoder(3, 5, latents=2, width=6, depth=9, key=KEY)


def error_kernels():
    return mupc.conv_decoder(
        2, (4, 4, 2), blocks=8, channels=2, doublings=1, error_kernels=True, key=KEY
    )


def plain():
    return mupc.vgg((4, 4, 2), 3, layers="4p 4", key=KEY)


def layered():
    return mupc.layered_hopfield((4, 4, 2), 3, layers="4p", key=KEY)


def both_ways():
    return mupc.bidirectional_mlp(5, 3, width=6, depth=9, activation=jnp.tanh, key=KEY)


def batch_of(network, size=16):
    """Return inputs, targets, and the likelihood of these."""
    generator = np.random.default_rng(0)
    if network is text:
        tokens = generator.integers(0, 7, size=(2, size, 4))
        return (jnp.asarray(tokens[0]), jax.nn.one_hot(tokens[1], 7, dtype=float)), (
            mupc.Categorical()
        )
    images = network in (conv, error_kernels, plain, layered)
    x = generator.normal(size=(size, *((4, 4, 2) if images else (5,))))
    if network in (decoder, error_kernels):
        return (jnp.asarray(x, float), jnp.asarray(x, float)), mupc.Gaussian(10.0)
    y = jax.nn.one_hot(generator.integers(0, 3, size=size), 3, dtype=float)
    if network is class_decoder:
        return (y, jnp.asarray(x, float)), mupc.Gaussian(10.0)
    return (jnp.asarray(x, float), y), mupc.Gaussian()


RULES = {
    "predictive coding": lambda own: mupc.PredictiveCoding(likelihood=own, rho=0.05),
    "accurate": lambda own: mupc.PredictiveCoding(mupc.GaussNewton(3), 2, own, rho=0.05),
    "backpropagation": mupc.Backpropagation,
    "equilibrium propagation": lambda own: mupc.EquilibriumPropagation(likelihood=own),
    "in activities": lambda own: mupc.PredictiveCoding(mupc.GradientDescent(0.1), 5, own),
    "in errors": lambda own: mupc.PredictiveCoding(mupc.InErrors(mupc.LBFGS(3)), 4, own),
    "fixed precision": lambda own: mupc.PredictiveCoding(mupc.GaussNewton(3), 2, own),
    "of classes": lambda own: mupc.PredictiveCoding(mupc.GaussNewton(3), 2, own),
    "of error kernels": lambda own: mupc.PredictiveCoding(mupc.GradientDescent(0.05), 5, own),
    "bidirectional": lambda own: mupc.BidirectionalPredictiveCoding(max_steps=3, likelihood=own),
    "hybrid": lambda own: mupc.HybridPredictiveCoding(max_steps=2, likelihood=own),
    "incremental": lambda own: mupc.IncrementalPredictiveCoding(likelihood=own, rho=0.05),
    "zero divergence": lambda own: mupc.ZeroDivergence(likelihood=own),
    "augmented Lagrangian": lambda own: mupc.AugmentedLagrangian(rounds=3, likelihood=own),
    "Monte Carlo": lambda own: mupc.MonteCarloPredictiveCoding(
        mupc.InErrors(mupc.Langevin(0.1)), likelihood=own, burn_in=3, samples=3
    ),
}
OTHERS = {
    "fixed precision": decoder,
    "of classes": class_decoder,
    "of error kernels": error_kernels,
    "bidirectional": both_ways,
    "hybrid": both_ways,
}
CASES = [
    ("predictive coding", mlp),
    ("backpropagation", conv),
    ("predictive coding", conv),
    ("equilibrium propagation", hopfield),
    ("backpropagation", hopfield),
    ("predictive coding", text),
    ("backpropagation", text),
    *((rule, mlp) for rule in RULES if rule not in OTHERS),
    *OTHERS.items(),
    ("equilibrium propagation", conv),
    ("equilibrium propagation", text),
]


def trained(network, data, rule, layout, steps=20):
    optimiser = optax.adam(0.01, eps=1e-3)  # a smaller one would make round-off large
    state = mupc.init(network, rule, optimiser, KEY, layout=layout)
    for _ in range(steps):
        state, metrics = mupc.step(state, data, rule, optimiser, layout=layout)
    return state, metrics


def furthest(a, b):
    """Return the largest distance between two arrays of two trees, relative to their size."""
    leaves = [jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)) for tree in (a, b)]
    pairs = [(np.asarray(v), np.asarray(w)) for v, w in zip(*leaves, strict=True)]
    return max(np.linalg.norm(v - w) / (np.linalg.norm(v) or 1.0) for v, w in pairs)


@pytest.mark.few(7)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize(("name", "make"), CASES, ids=[f"{r}, {n.__name__}" for r, n in CASES])
def test_weights_after_training_are_those_of_one_device(name, make, parts):
    data, likelihood = batch_of(make)
    network, rule = make(), RULES[name](likelihood)
    one, _ = trained(network, data, rule, None)
    several, _ = trained(network, data, rule, mupc.Layout(**parts))
    assert furthest(network, one.network) > 1e-3
    assert furthest(one.network, several.network) < 1e-12


@pytest.mark.full
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (plain, mupc.PredictiveCoding(rho=0.05)),
        (layered, mupc.EquilibriumPropagation(mupc.FixedPoint(), 8, nudged_steps=8)),
        (hopfield, ImplicitGradient(mupc.EquilibriumPropagation())),
    ],
    ids=["vgg", "layered Hopfield", "implicit gradient"],
)
def test_what_has_no_depth_to_part_is_parted_along_data(make, rule):
    data, _ = batch_of(make)
    network = make()
    steps = 20 if make is not hopfield else 3
    one, _ = trained(network, data, rule, None, steps)
    several, _ = trained(network, data, rule, mupc.Layout(data=8), steps)
    assert furthest(network, one.network) > 1e-3
    assert furthest(one.network, several.network) < 1e-12


def test_weights_are_those_of_one_device_in_float32():
    (data, likelihood), network = batch_of(mlp), mlp()
    rule = RULES["predictive coding"](likelihood)
    one, _ = trained(network, data, rule, None)
    several, _ = trained(network, data, rule, mupc.Layout(data=2, depth=4))
    assert furthest(one.network, several.network) < 1e-5


def test_every_device_holds_its_part():
    network, optimiser = mlp(), optax.adam(0.01)
    layout = mupc.Layout(data=2, depth=4)
    state = mupc.init(network, mupc.Backpropagation(), optimiser, KEY, layout=layout)
    data, _ = batch_of(mlp)
    state, _ = mupc.step(state, data, mupc.Backpropagation(), optimiser, layout=layout)
    (block,) = state.network.stages[0].blocks
    moments = state.optimiser[0].mu.stages[0].blocks[0].weights
    for weights in (block.weights, moments):
        assert weights.sharding.shard_shape(weights.shape) == (2, 6, 6)
    assert state.network.readout.weights.sharding.is_fully_replicated
    assert layout.parted(data)[0].sharding.shard_shape((16, 5)) == (8, 5)


def compiled(network, rule, layout=None):
    data, _ = batch_of(mlp, 64)
    optimiser = optax.adam(0.01)
    state = mupc.init(network, rule, optimiser, KEY, layout=layout)
    measure = jnp.asarray(False)
    inputs = data if layout is None else layout.parted(data), rule, as_module(optimiser), measure
    if layout is None:
        return train_step.lower(inputs, state).compile().compiled
    with layout.active():
        return train_step.lower(inputs, state).compile().compiled


def memory(program):
    """Return how many bytes a step takes: its arguments, results of their own, and the rest."""
    seen = program.memory_analysis()
    own = seen.output_size_in_bytes - seen.alias_size_in_bytes
    return seen.argument_size_in_bytes + own + seen.temp_size_in_bytes


@pytest.mark.full
@pytest.mark.parametrize("name", ["predictive coding", "in activities", "backpropagation"])
def test_memory_is_parted_along_depth(name):
    network, rule = mlp(depth=1025, width=32), RULES[name](mupc.Gaussian())
    one, parted = (compiled(network, rule, layout) for layout in (None, mupc.Layout(depth=8)))
    assert memory(parted) < 1.3 / 8 * memory(one)


def sent(program):
    """Return how many numbers each message of a compiled step has, by its kind."""
    kinds = "all-gather|all-reduce|collective-permute|all-to-all|reduce-scatter"
    found: dict[str, list[int]] = {}
    for result, kind in re.findall(rf"= (\S.*?) ({kinds})(?:-start)?\(", program.as_text()):
        shapes = re.findall(r"\[([\d,]*)\]", result)
        sizes = [int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes]
        found.setdefault(kind, []).append(max(sizes))
    return found


@pytest.mark.parametrize("devices", [4, 8])
def test_neighbours_send_activities_of_one_layer_and_no_banks(devices):
    """Whatever the depth: one layer of the batch at most, but for numbers of layers in records."""
    rule = RULES["predictive coding"](mupc.Gaussian())
    for depth in (17, 33):
        network = mlp(depth=depth, width=16)
        found = sent(compiled(network, rule, mupc.Layout(depth=devices)))
        records = found.pop("all-gather")
        assert max(records) <= depth * 64
        assert "all-to-all" not in found
        assert "collective-permute" in found
        assert max(max(sizes) for sizes in found.values()) <= 64 * 16


def problem(size=64):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(size, 5)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[generator.integers(0, 3, size=size)]
    return Dataset("noise", Split(x, y), Split(x[:20], y[:20]), None, "as it is")


@pytest.mark.full
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "make"), CASES[:7], ids=[f"{r}, {n.__name__}" for r, n in CASES[:7]]
)
def test_an_ensemble_of_any_kind_is_parted_along_runs(name, make):
    """Of Adam with a larger ε, whose division would make round-off large."""
    (x, y), likelihood = batch_of(make, 64)
    split = Split(np.asarray(x), np.asarray(y))
    data, plan = Dataset("noise", split, split, None, "as it is"), Plan(steps=20, batch_size=16)

    def members():
        for seed in range(4):
            optimiser = mupc.traced(optax.adam, learning_rate=0.01 * (seed + 1), eps=1e-3)
            yield Member(make(), RULES[name](likelihood), optimiser, jax.random.key(seed))

    one = fit_together(list(members()), data, plan)
    several = fit_together(list(members()), data, plan, layout=mupc.Layout(runs=4))
    for a, b in zip(one, several, strict=True):
        assert furthest(make(), a.network) > 1e-3
        assert furthest(a.network, b.network) < 1e-12


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("parts", [{"runs": 4}, {"runs": 2, "data": 2}, {"runs": 2, "depth": 4}])
def test_an_ensemble_is_parted_along_runs(parts):
    data, plan = problem(), Plan(steps=5, batch_size=16)

    def members():
        rule = mupc.PredictiveCoding()
        for seed in range(4):
            key = jax.random.key(seed)
            network = mupc.residual_mlp(5, 3, width=6, depth=5, key=key)
            yield Member(
                network, rule, mupc.traced(optax.adam, learning_rate=0.01 * (seed + 1)), key
            )

    one = fit_together(list(members()), data, plan)
    several = fit_together(list(members()), data, plan, layout=mupc.Layout(**parts))
    for a, b in zip(one, several, strict=True):
        assert furthest(a.network, b.network) < 1e-12
        assert a.records[-1].loss == pytest.approx(b.records[-1].loss, rel=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_run_goes_on_in_another_layout(tmp_path):
    data, network = problem(), mlp()

    def fit(steps, layout, checkpoints=None, stop=None):
        return mupc.fit(
            network,
            data,
            mupc.PredictiveCoding(),
            optax.adam(0.01),
            steps=steps,
            batch_size=16,
            log_every=2,
            report_every=4,
            layout=layout,
            checkpoints=checkpoints,
            callback=stop,
            key=KEY,
        )

    def stop(record):
        if record.step == 4:
            raise RuntimeError("here")

    whole = fit(8, None)
    kept = mupc.Checkpoints(tmp_path, every=2)
    with pytest.raises(RuntimeError, match="here"):
        fit(8, mupc.Layout(depth=4, data=2), kept, stop)
    for layout in (mupc.Layout(depth=2), None):
        again = fit(8, layout, mupc.Checkpoints(tmp_path, every=100))
        assert again.step == whole.step
        assert furthest(whole.network, again.network) < 1e-12


def test_what_does_not_divide_is_said_with_what_would(unchecked):
    layout, rule, optimiser = mupc.Layout(depth=4), mupc.Backpropagation(), optax.adam(0.01)
    begin = lambda network: mupc.init(network, rule, optimiser, KEY, layout=layout)
    with pytest.raises(ValueError, match=r"not divide the 6 layers .*depth=3, or 4 or 8 of these"):
        begin(mlp(depth=7))
    stages = mupc.conv_resnet((4, 4, 2), 3, blocks=(8, 12), channels=2, key=KEY)
    with pytest.raises(ValueError, match=r"not divide the 12 layers .*depth=4, or 8 or 16 of"):
        mupc.Layout(depth=8).check(stages)
    flat = mupc.vgg((4, 4, 1), 3, layers="4 4", key=KEY)
    with pytest.raises(ValueError, match="no repeated layers"):
        begin(flat)
    data, _ = batch_of(mlp, 6)
    own = mupc.Layout(data=4)
    state = mupc.init(mlp(), rule, optimiser, KEY, layout=own)
    with pytest.raises(ValueError, match="not divide a batch of 6: take 4 or 8 samples"):
        mupc.step(state, data, rule, optimiser, layout=own)
    with pytest.warns(UserWarning, match=r"17 samples .* in 1 part, .*75% .* that 16 divides"):
        mupc.Layout(data=2, depth=4).check_batch(34)
    with pytest.raises(ValueError, match="needs 1024 devices, and there are 8"):
        mupc.Layout(data=1024)
    with pytest.raises(ValueError, match="depth must be at least 1"):
        mupc.Layout(depth=0)
    with pytest.raises(TypeError, match=r"data must be a whole number, got 1\.5"):
        mupc.Layout(data=1.5)
    member = Member(mlp(), rule, optimiser, KEY)
    with pytest.raises(ValueError, match="4 devices along runs do not divide 6 runs"):
        fit_together([member] * 6, problem(), Plan(steps=1), layout=mupc.Layout(runs=4))


def no_derivative_at_zero(z):
    return z / jnp.sqrt(jnp.sum(z**2))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("activation", "optimiser"),
    [(no_derivative_at_zero, optax.sgd(0.1)), (jnp.tanh, optax.adafactor(0.01))],
    ids=["no derivative at zero", "moments of other shapes"],
)
def test_idle_turns_and_other_shapes_do_no_harm(activation, optimiser):
    data, _ = batch_of(mlp)
    network = mupc.residual_mlp(5, 3, width=6, depth=9, activation=activation, key=KEY)
    ends = []
    for layout in (None, mupc.Layout(depth=4)):
        rule = mupc.Backpropagation()
        state = mupc.init(network, rule, optimiser, KEY, layout=layout)
        for _ in range(2):
            state, _ = mupc.step(state, data, rule, optimiser, layout=layout)
        assert int(state.failed) == -1
        ends.append(state.network)
    assert furthest(network, ends[0]) > 1e-4
    assert furthest(*ends) < 1e-12


@pytest.mark.skipif(not hasattr(jax, "set_mesh"), reason="JAX 0.6 computes nothing under it")
def test_the_mesh_of_somebody_else_is_left_alone():
    kinds = (jax.sharding.AxisType.Explicit,)
    network, data = mlp(), problem()
    expected = mupc.evaluate(network, data.train)
    for axis in ("data", "depth"):
        with jax.set_mesh(jax.make_mesh((8,), (axis,), axis_types=kinds)):
            assert mupc.evaluate(network, data.train).loss == pytest.approx(expected.loss)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("data=999", "needs 999 devices"),
        ("data=3", "not divide a batch of 16"),
        ("depth=3", "depth=2, or 6 or 9 of these"),
    ],
)
def test_a_sweep_whose_layout_cannot_be_trains_no_point(tmp_path, layout, words):
    """Else all its points would have failed, and the same command with another would not help."""
    base = settings("unused", layout=layout, validation=0.1)
    points = Space(grid={"seed": [0, 1]}).over(base)
    with pytest.raises(ConfigError, match=words):
        sweep(SweepFolder(tmp_path / "sweep"), points)
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_in_step_parts_what_is_left_as_it_can(tmp_path):
    base = settings("unused", layout="runs=2", steps=2, log_every=1)
    points = Space(grid={"seed": [0, 1, 2]}).over(base.changed({"validation": 0.1}))
    with pytest.raises(ConfigError, match="runs that are trained together"):
        sweep(SweepFolder(tmp_path / "sweep"), points)
    assert not (tmp_path / "sweep").exists()
    results = sweep(SweepFolder(tmp_path / "sweep"), points, together=2)
    assert [result.outcome.ended for result in results] == ["finished"] * 3


def settings(path, **given):
    own = {"depth": 9, "width": 8, "steps": 6, "report_every": 0, "batch_size": 16}
    return Configuration().changed({**own, "out": str(path), **given})


def test_the_command_trains_and_resumes_in_a_layout(tmp_path):
    one = train(settings(tmp_path / "one"))
    several = train(settings(tmp_path / "several", layout="data=2,depth=4"))
    assert furthest(one.result.network, several.result.network) < 1e-4
    assert several.test is not None
    assert several.test.accuracy == pytest.approx(one.test.accuracy, abs=0.02)

    def stop(start):
        def see(record):
            raise RuntimeError("here")

        return see

    cut = settings(tmp_path / "cut", layout="depth=2", checkpoint_every=2, log_every=3)
    with pytest.raises(RuntimeError, match="here"):
        train(cut, begin=stop)
    again = resume(tmp_path / "cut", layout="data=2,depth=4")
    assert furthest(one.result.network, again.result.network) < 1e-4


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"layout": "depth=4", "depth": 8}, "4 devices along depth do not divide"),
        ({"layout": "data=3"}, "3 devices along data do not divide a batch of 16"),
        ({"layout": "runs=2"}, "needs runs that are trained together"),
        ({"layout": "data=999"}, "needs 999 devices"),
        ({"layout": "width=2"}, "expected parts of data, depth, runs, e.g. data=4"),
        ({"layout": "data=0"}, "expected parts of data, depth, runs, e.g. data=4"),
        ({"layout": "data"}, "expected parts of data, depth, runs, e.g. data=4"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_before_there_is_a_folder(given, sentence, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        train(settings(tmp_path / "run", **given))
    assert not (tmp_path / "run").exists()
