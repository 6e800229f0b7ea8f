"""What holds for any block: multipliers by parameter and branch, patterns, the same energies."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from blocks import INPUTS, KINDS, OUTPUTS, TwoMatrices, alternating, batch, build
from programs import step_equations

import mupc
from mupc.learning import first_gradients
from mupc.networks import Network, rate_factors


def dense(width, depth, parameterisation=None, key=None):
    return mupc.residual_mlp(
        INPUTS,
        OUTPUTS,
        width=width,
        depth=depth,
        activation=jnp.tanh,
        parameterisation=parameterisation,
        key=jax.random.key(0) if key is None else key,
    )


def network_of(kind, *args, **more):
    return dense(*args, **more) if kind == "dense" else build(kind, *args, **more)


def batch_of(kind, size=5):
    return batch("two matrices" if kind == "dense" else kind, size)


def branch_scale(kind, length):
    """The root mean square of what branches add, times √L: mean over four networks."""
    x, _ = batch_of(kind, 16)
    squares = []
    for seed in range(4):
        network = network_of(kind, 64, length - 1, key=jax.random.key(seed))
        squares.append(_branch_square(network, x))
    return np.sqrt(length * np.mean(squares))


@eqx.filter_jit
def _branch_square(network, x):
    z = network.in_order(network.feedforward(x).activities)
    return jnp.mean(jnp.diff(z, axis=0) ** 2)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["dense", "two matrices"])
def test_a_branch_adds_as_much_at_every_depth_however_many_matrices_it_has(kind):
    """Its root mean square is c/√L: one multiplier for a block made it 1/L for two matrices."""
    scales = np.array([branch_scale(kind, length) for length in (17, 129, 1025)])
    assert np.max(scales) / np.min(scales) < 1.03
    assert 0.4 < np.min(scales) < 1


def coordinates(kind, width, depth, parameterisation):
    network = network_of(kind, width, depth, parameterisation)
    optimiser = optax.chain(optax.adam(0.01, eps=1e-12), mupc.scale_adam(network))
    seen = mupc.theory.coordinate_check(
        network, batch_of(kind, 4), mupc.Backpropagation(), optimiser
    )
    return np.array([seen.scales[-2], seen.changes[-2]])


SIZES = [*((width, 16) for width in (64, 128, 256, 512)), *((64, d) for d in (4, 64, 256))]


@pytest.mark.full
@pytest.mark.parametrize("kind", ["dense", *KINDS])
def test_activities_and_their_updates_have_one_size_at_every_width_and_depth(kind):
    """Under mupc; under standard the last activity, or its change, grows with the size."""
    spread = {}
    for parameterisation, sizes in ((mupc.mupc(), SIZES), (mupc.standard(), SIZES[::2])):
        seen = np.array([coordinates(kind, *size, parameterisation) for size in sizes])
        spread[parameterisation.name] = np.max(seen, axis=0) / np.min(seen, axis=0)
    # At four layers the first and the last are most of the network: a factor of two remains.
    assert np.all(spread["mupc"] < 2.2)
    assert np.max(spread["standard"]) > 4


def test_every_parameter_has_numbers_from_its_own_fan_in():
    """Matrices, kernels, embeddings, biases and the gains of norms, in one call."""

    class Mixed(eqx.Module):
        up: eqx.nn.Linear
        norm: eqx.nn.LayerNorm
        kernel: eqx.nn.Conv2d
        table: eqx.nn.Embedding

    keys = jax.random.split(jax.random.key(0), 4)
    module = Mixed(
        eqx.nn.Linear(300, 4000, key=keys[0]),
        eqx.nn.LayerNorm(16),
        eqx.nn.Conv2d(64, 40, 3, key=keys[1]),
        eqx.nn.Embedding(90, 50, key=keys[2]),
    )
    shape = mupc.Shape(256, 516)
    block = mupc.Scaled.initialise(module, shape=shape, key=keys[3])
    by_kind = [(p.scale.kind, p.array.shape) for p in block.parameters]
    assert by_kind == [
        ("weight", (4000, 300)),
        ("bias", (4000,)),
        ("bias", (16,)),
        ("bias", (16,)),
        ("weight", (40, 64, 3, 3)),
        ("bias", (40, 1, 1)),
        ("weight", (90, 50)),
    ]
    for parameter, fan_in in zip(block.parameters, (300, 0, 0, 0, 64 * 9, 0, 1), strict=True):
        scale = parameter.scale
        if not fan_in:
            assert (scale.multiplier, scale.adam) == (1, (516 / 129) ** -0.5)
            continue
        assert scale.multiplier == pytest.approx(fan_in**-0.5)
        assert scale.adam == pytest.approx((fan_in / 128 * 516 / 129) ** -0.5)
        assert np.std(parameter.array) == pytest.approx(1, rel=0.05)
    assert block.branch == pytest.approx(516**-0.5)
    np.testing.assert_array_equal(block.module.norm.weight, 1)
    # CompleteP (arXiv 2505.01618, Table 1): 1/L on the branch, and no depth in the rates.
    one = mupc.Scaled.initialise(module, "hidden", mupc.mupc(exponent=1), shape=shape, key=keys[3])
    assert one.branch == pytest.approx(1 / 516)
    assert one.scales[0].adam == pytest.approx((300 / 128) ** -0.5)
    # The base shape is the one at which every factor is 1.
    base = mupc.mupc(base=mupc.Base(256, 516))
    at_base = mupc.Scaled.initialise(eqx.nn.Linear(256, 256, key=keys[0]), "hidden", base,
                                     shape=shape, key=keys[3])  # fmt: skip
    assert [s.adam for s in at_base.scales] == [s.sgd for s in at_base.scales] == [1, 1]


@pytest.mark.usefixtures("unchecked")
def test_what_is_a_weight_depends_on_the_module_and_not_on_its_axes():
    """Gains and offsets of norms stay; a kernel of one pixel and one channel is drawn."""
    keys = jax.random.split(jax.random.key(0), 5)
    modules = [
        (eqx.nn.LayerNorm((4, 3, 3)), ["bias", "bias"]),
        (eqx.nn.RMSNorm((4, 3)), ["bias", "bias"]),
        (eqx.nn.GroupNorm(2, 4), ["bias", "bias"]),
        (eqx.nn.Conv2d(1, 16, 1, key=keys[0]), ["weight", "bias"]),
        (eqx.nn.Conv2d(8, 8, 1, groups=8, key=keys[1]), ["weight", "bias"]),
        (eqx.nn.ConvTranspose2d(3, 5, 2, key=keys[2]), ["weight", "bias"]),
    ]
    for module, kinds in modules:
        block = mupc.Scaled.initialise(module, shape=(4, 5), key=keys[3])
        assert [p.scale.kind for p in block.parameters] == kinds
        for before, parameter in zip(jax.tree.leaves(module), block.parameters, strict=True):
            kept = parameter.scale.kind == "bias"
            assert bool(np.all(before == parameter.array)) == kept
    with pytest.raises(
        ValueError, match="role must be one of input, hidden, readout, not 'output'"
    ):
        mupc.Scaled.initialise(modules[0][0], "output", shape=(4, 5), key=keys[4])
    with pytest.raises(
        ValueError, match="role must be one of input, hidden, readout, not 'output'"
    ):
        mupc.Scaled.keep(modules[0][0], "output")


def test_uniform_rates_follow_the_exponent_of_the_branch():
    """L branches of L^−α, each moved by L^(α−1), move the output by as much at any L, and α < 1."""
    for exponent in (0.5, 0.6, 0.7, 1.0):
        parameterisation = mupc.mupc(exponent=exponent)
        for length in (129, 1032):
            scale = parameterisation.scale("hidden", mupc.Shape(128, length), skip=True)
            moved = length * parameterisation.branch_multiplier(length) * scale.uniform
            assert moved == pytest.approx(129**0.5 if exponent < 1 else 8**0.5)


def test_rate_factors_of_a_branch_are_its_parameters_own():
    network = build("two matrices", 64, 9)
    factors = rate_factors(network, lambda scale: scale.adam).stages[0].blocks[0]
    assert factors.module.up.weight == pytest.approx((64 / 128 * 10 / 129) ** -0.5)
    assert factors.module.down.weight == pytest.approx((128 / 128 * 10 / 129) ** -0.5)


def slow(network):
    """The same network with nothing but what is abstract: derivatives by JAX of the whole."""

    class Slow(Network):
        chain: mupc.Chain
        linear = property(lambda self: self.chain.linear)
        layers = property(lambda self: self.chain.layers)
        in_order = lambda self, banks: self.chain.in_order(banks)
        in_banks = lambda self, layers: self.chain.in_banks(layers)
        feedforward = lambda self, x, errors=None: self.chain.feedforward(x, errors)
        predictions = lambda self, x, activities: self.chain.predictions(x, activities)

    return Slow(network)


def drawn(network, x, seed=7):
    activities = network.feedforward(x).activities
    keys = jax.random.split(jax.random.key(seed), len(activities))
    return tuple(
        jax.random.normal(k, z.shape, z.dtype) for k, z in zip(keys, activities, strict=True)
    )


EVERY = {
    **{kind: lambda kind=kind: build(kind, 5, 4) for kind in KINDS},
    "alternating": lambda: alternating(5, 3),
    "entry alone": lambda: build("two matrices", 5, 2),
    "conv-resnet": lambda: mupc.conv_resnet(
        IMAGE, OUTPUTS, blocks=(2, 1), channels=3, activation=jnp.tanh, key=jax.random.key(0)
    ),
    "transformer": lambda: mupc.transformer(
        VOCABULARY, context=4, pairs=2, width=4, heads=2, key=jax.random.key(0)
    ),
    "tied transformer": lambda: mupc.transformer(
        VOCABULARY,
        context=4,
        pairs=1,
        width=4,
        heads=1,
        learned_norms=True,
        tied=True,
        key=jax.random.key(0),
    ),
    "vision-transformer": lambda: mupc.vision_transformer(
        IMAGE, OUTPUTS, patch=1, pairs=1, width=4, key=jax.random.key(0)
    ),
    "conv-decoder": lambda: mupc.conv_decoder(
        2, (4, 6, 2), doublings=1, blocks=2, channels=3, key=jax.random.key(0)
    ),
}
IMAGE, VOCABULARY = (6, 5, 2), 5


def data_for(kind, size=5):
    """A batch in the form that a network takes."""
    if kind in ("conv-resnet", "vision-transformer"):
        x = jax.random.normal(jax.random.key(0), (size, *IMAGE))
        return x, jax.nn.one_hot(jnp.arange(size) % OUTPUTS, OUTPUTS)
    if kind == "conv-decoder":
        x = jax.nn.softmax(jax.random.normal(jax.random.key(0), (size, 4, 6, 2)))
        return x, x
    if kind.endswith("transformer"):
        x = jax.random.randint(jax.random.key(0), (size, 4), 0, VOCABULARY)
        return x, jax.nn.one_hot(jnp.roll(x, -1, axis=1), VOCABULARY)
    like = "attention" if kind == "alternating" else kind
    return batch(like if like in KINDS else "two matrices", size)


@pytest.mark.few(3)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", EVERY)
def test_a_chain_does_layer_by_layer_what_jax_does_to_the_whole(kind):
    network = EVERY[kind]()
    x, y = data_for(kind)
    z, d = drawn(network, x), drawn(network, x, 8)
    energy = mupc.FreeEnergy(network, x, y, mupc.Categorical(0.7), (mupc.ActivityDecay(0.2),))
    reference = eqx.tree_at(lambda e: e.network, energy, slow(network))
    numbers = (None,) * len(z)

    def pairs(network, energy, reference, x, z, d):
        mean = lambda n: jnp.mean(
            energy.with_parameters(n).samples(energy.with_parameters(n).at(z))
        )
        point, output = energy.at(z), network.feedforward(x).output
        yield energy.samples_and_gradient(z), reference.samples_and_gradient(z)
        yield (
            network._looped(_term, _loss, x, z, numbers),
            slow(network).local_gradient(_term, _loss, x, z, numbers),
        )
        yield energy.activity_gradient(point), reference.samples_and_gradient(z)[1]
        yield energy.weight_gradient(point), reference.weight_gradient(point).chain
        yield network.pushforward(x, z, d), slow(network).pushforward(x, z, d)
        yield network.pullback(x, z, output, d), slow(network).pullback(x, z, output, d)
        yield network.pullback(x, z, output), slow(network).pullback(x, z, output)
        by_errors = jax.grad(lambda e: jnp.sum(energy.samples(energy.run(e))))(point.errors)
        yield energy.error_gradient(energy.run(point.errors)), by_errors
        yield energy.weight_gradient(point), eqx.filter_grad(mean)(network)

    # One program, in place of one for every line; of arguments, since the XLA of jax 0.5 folds
    # constants that go through a convolution, or an attention, to something else.
    program = eqx.filter_jit(lambda *given: list(pairs(*given)))
    for ours, theirs in program(network, energy, reference, x, z, d):
        jax.tree.map(lambda v, w: np.testing.assert_allclose(v, w, atol=1e-11), ours, theirs)


def _term(u, z, number):
    return jnp.sum((z - u) ** 4, axis=tuple(range(1, z.ndim)))


def _loss(output):
    return jnp.sum(output**2, axis=tuple(range(1, output.ndim)))


@pytest.mark.usefixtures("float64")
def test_layers_of_a_pattern_are_in_order_from_input_to_output():
    """A plain loop over repetitions and places gives the same activities, errors and energies."""
    network, (x, y) = alternating(5, 3), batch("attention")
    z = drawn(network, x)
    energy = mupc.FreeEnergy(network, x, y, mupc.Gaussian(0.3))
    (stage,) = network.stages
    at = lambda tree, i: jax.tree.map(lambda v: v[i] if eqx.is_array(v) else v, tree)
    before, expected, activities = x, [], []
    for i, block in enumerate(
        [stage.entry, *(at(block, i) for i in range(3) for block in stage.blocks)]
    ):
        own = z[0][0] if i == 0 else z[1 + (i - 1) % 2][(i - 1) // 2]
        expected.append(0.5 * jnp.sum((own - jax.vmap(block)(before)) ** 2, axis=(1, 2)))
        activities.append(own)
        before = own
    error = jax.vmap(network.readout)(before) - y
    expected.append(0.15 * jnp.sum(error**2, axis=(1, 2)))
    np.testing.assert_allclose(energy.layers(energy.at(z)), expected, rtol=1e-12)
    np.testing.assert_array_equal(network.in_order(z), activities)
    for bank, again in zip(z, network.in_banks(network.in_order(z)), strict=True):
        np.testing.assert_array_equal(bank, again)
    assert (network.depth, stage.sizes, stage.repetitions) == (7, (1, 3, 3), 3)


REPEATED = {
    "alternating": lambda n: alternating(8, n),
    "conv-resnet": lambda n: mupc.conv_resnet(IMAGE, OUTPUTS, blocks=(n, n), channels=2, key=KEY),
    "transformer": lambda n: mupc.transformer(VOCABULARY, context=4, pairs=n, width=4, key=KEY),
}
KEY = jax.random.key(0)


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", REPEATED)
def test_a_pattern_is_traced_once_whatever_its_repetitions(kind):
    data = data_for(kind, 4)
    counts = [
        len(step_equations(mupc.PredictiveCoding(), REPEATED[kind](n), data)) for n in (4, 64)
    ]
    assert counts[0] == counts[1]


def test_blocks_that_do_not_make_a_pattern_are_refused():
    network = alternating(5, 3)
    (stage,) = network.stages
    shorter = jax.tree.map(lambda v: v[:2] if eqx.is_array(v) else v, stage.blocks[1])
    with pytest.raises(ValueError, match=r"repeated equally often.*\[3, 2\]"):
        mupc.Stage(stage.entry, (stage.blocks[0], shorter))
    with pytest.raises(ValueError, match="must share a leading axis"):
        mupc.Stage(stage.entry, mupc.Scaled.keep(TwoMatrices(5, jax.random.key(0)), "hidden"))


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["transformer", "conv-resnet", "alternating"])
@pytest.mark.parametrize("solver", [mupc.GaussNewton(2), mupc.InErrors(mupc.LBFGS(4))])
@pytest.mark.usefixtures("float64")
def test_a_sample_of_any_network_is_treated_the_same_alone_and_in_a_batch(kind, solver):
    network = EVERY[kind]()
    x, y = data_for(kind, 8)
    end = lambda rows: mupc.infer(
        e := mupc.FreeEnergy(network, x[rows], y[rows], mupc.Gaussian(0.5)), solver, e.run(),
        max_steps=4, stopping=mupc.FixedSteps(),
    ).point  # fmt: skip
    together = end(slice(None))
    for i in (0, 5):
        alone = end(slice(i, i + 1))
        for a, b in zip(alone.activities, together.activities, strict=True):
            np.testing.assert_allclose(a[:, 0], b[:, i], atol=1e-12)


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["two matrices", "convolution", "attention"])
def test_every_kind_of_block_learns_in_every_layer(kind):
    network, (x, y) = build(kind, 16, 12), batch(kind, 16)
    optimiser = optax.chain(optax.adam(0.02, eps=1e-12), mupc.scale_uniform(network))
    rule = mupc.PredictiveCoding()
    state = mupc.init(network, rule, optimiser, jax.random.key(0))
    first = None
    for _ in range(40):
        state, metrics = mupc.step(state, (x, y), rule, optimiser, measure=False)
        first = metrics.loss if first is None else first
    assert metrics.loss < 0.5 * first
    change = mupc.theory.relative_change(network, state.network)
    assert change.shape == (13,)
    assert np.min(change[1:-1]) > 0.1 * np.max(change[1:-1])


def test_a_gradient_of_a_token_network_needs_no_gradient_of_its_tokens():
    """Whole numbers at the input stay such: an embedding looks them up."""
    keys = jax.random.split(jax.random.key(0), 4)
    shape = mupc.Shape(8, 5)

    class Table(eqx.Module):
        table: eqx.nn.Embedding

        def __call__(self, tokens):
            return jax.vmap(self.table)(tokens)

    entry = mupc.Scaled.initialise(
        Table(eqx.nn.Embedding(11, 8, key=keys[0])), "input", shape=shape, key=keys[1]
    )
    others = alternating(8, 2)
    network = mupc.Chain((mupc.Stage(entry, others.stages[0].blocks),), others.readout)
    tokens = jax.random.randint(keys[2], (6, 4), 0, 11)
    y = jax.nn.one_hot(tokens % OUTPUTS, OUTPUTS)
    for rule in (mupc.PredictiveCoding(), mupc.PredictiveCoding(mupc.GradientDescent(0.2), 16)):
        gradients, info = first_gradients(
            rule, network, (tokens, y), rule.init(network, keys[3]), keys[3]
        )
        assert info.output.shape == (6, 4, OUTPUTS)
        rows = np.any(np.asarray(gradients.stages[0].entry.module.table.weight) != 0, axis=1)
        np.testing.assert_array_equal(np.flatnonzero(rows), np.unique(tokens))
