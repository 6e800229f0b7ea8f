"""The transformer: its formula, its causality, and what contracts ask of any network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax

import mupc

VOCABULARY, CONTEXT, WIDTH, HEADS = 7, 6, 8, 2


def network(**more):
    given = {"context": CONTEXT, "pairs": 2, "width": WIDTH, "heads": HEADS} | more
    return mupc.transformer(VOCABULARY, **given, key=jax.random.key(0))


def tokens(size=3, length=CONTEXT):
    return jax.random.randint(jax.random.key(1), (size, length), 0, VOCABULARY)


def norm(z):
    z = z - z.mean(-1, keepdims=True)
    return z / np.sqrt((z**2).mean(-1, keepdims=True) + 1e-6)


def gelu(z):
    """JAX's is an approximation, by tanh."""
    return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))


def test_it_is_its_formula(float64):
    """Sample by sample, head by head, position by position."""
    net = network()
    (stage,) = net.stages
    attention, perceptron = stage.blocks
    length, d = 4, WIDTH // HEADS
    for x, output in zip(tokens(), net.feedforward(tokens()).output, strict=True):
        z = (np.asarray(stage.entry.tokens)[x] + np.asarray(stage.entry.positions)) / np.sqrt(2)
        for i in range(2):
            q, k, v = np.split(norm(z) @ np.asarray(attention.qkv[i]).T / np.sqrt(WIDTH), 3, -1)
            found = np.zeros_like(z)
            for h in range(HEADS):
                own = slice(h * d, (h + 1) * d)
                for t in range(CONTEXT):
                    share = softmax(k[: t + 1, own] @ q[t, own] / d)
                    found[t, own] = share @ v[: t + 1, own]
            z = z + found @ np.asarray(attention.out[i]).T / np.sqrt(WIDTH) / length
            inner = gelu(norm(z) @ np.asarray(perceptron.up[i]).T / np.sqrt(WIDTH))
            z = z + inner @ np.asarray(perceptron.down[i]).T / np.sqrt(4 * WIDTH) / length
        expected = norm(z) @ np.asarray(net.readout.weights).T / WIDTH
        np.testing.assert_allclose(output, expected, rtol=1e-10)


def test_what_comes_later_changes_nothing_before(float64):
    net, x = network(), tokens()
    changed = x.at[:, 4].set((x[:, 4] + 1) % VOCABULARY)
    one, other = (net.feedforward(v).output for v in (x, changed))
    np.testing.assert_array_equal(one[:, :4], other[:, :4])
    assert np.all(np.any(one[:, 4:] != other[:, 4:], axis=-1))
    # A shorter text is the beginning of a longer one.
    np.testing.assert_allclose(net.feedforward(x[:, :3]).output, one[:, :3], rtol=1e-12)


def test_every_branch_has_an_activity_and_learns():
    net, x = network(), tokens()
    y = jax.nn.one_hot(jnp.roll(x, -1, axis=1), VOCABULARY)
    rule = mupc.PredictiveCoding(likelihood=mupc.Categorical(), rho=0.05)
    assert net.depth == 5
    seen = mupc.theory.gradient_alignment(net, (x, y), rule)
    assert seen.cosine.shape == (6,)
    assert np.all(seen.cosine > 0.95)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"pairs": 0}, "pairs must be at least 1, not 0"),
        ({"heads": 3}, "width must be a multiple of the 3 heads, not 8"),
    ],
)
def test_impossible_sizes_are_refused(more, sentence):
    with pytest.raises(ValueError, match=sentence):
        network(**more)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(ValueError, match="at most 6 tokens a sample"):
        network().feedforward(tokens(length=7))


def test_a_tied_readout_is_the_table_of_tokens(float64):
    """It has the same output as a free one of those weights, and the sum of both gradients."""
    net, x = network(tied=True), tokens()
    assert net.readout.weights is None
    assert len(jax.tree.leaves(eqx.filter(net.readout, eqx.is_array))) == 0
    table = net.stages[0].entry.tokens
    free = mupc.Chain(net.stages, eqx.tree_at(lambda r: r.weights, network().readout, table))
    np.testing.assert_array_equal(net.feedforward(x).output, free.feedforward(x).output)
    y = jax.nn.one_hot(jnp.roll(x, -1, axis=1), VOCABULARY)
    z = tuple(0.9 * bank for bank in net.feedforward(x).activities)
    energies = (mupc.FreeEnergy(n, x, y, mupc.Categorical()) for n in (net, free))
    tied, parts = (energy.weight_gradient(energy.at(z)) for energy in energies)
    np.testing.assert_allclose(
        tied.stages[0].entry.tokens,
        parts.stages[0].entry.tokens + parts.readout.weights,
        rtol=1e-10,
    )
    # Weight decay sees the table once.
    decay = mupc.WeightDecay(0.1, roles=("input", "readout"))
    own = [table, net.stages[0].entry.positions]
    expected = 0.05 * sum(np.sum(np.square(w)) for w in own)
    np.testing.assert_allclose(decay.of_network(net), expected, rtol=1e-10)


def test_learned_norms_begin_as_those_without_and_then_learn():
    plain, learned = network(), network(learned_norms=True)
    x = tokens()
    np.testing.assert_array_equal(plain.feedforward(x).output, learned.feedforward(x).output)
    norms = [block.norm for block in (*learned.stages[0].blocks, learned.readout)]
    assert [norm.gains.shape for norm in norms] == [(2, WIDTH), (2, WIDTH), (WIDTH,)]
    y = jax.nn.one_hot(jnp.roll(x, -1, axis=1), VOCABULARY)
    rule = mupc.PredictiveCoding(likelihood=mupc.Categorical(), rho=0.05)
    adam = optax.adam(0.01)
    state = mupc.init(learned, rule, adam, jax.random.key(0))
    after, _ = mupc.step(state, (x, y), rule, adam)
    blocks = after.network.stages[0].blocks
    for norm in (*(block.norm for block in blocks), after.network.readout.norm):
        assert np.all(norm.gains != 1)
        assert np.all(norm.shifts != 0)


def test_a_vision_transformer_is_its_formula(float64):
    """Patch by patch; every one attends to all."""
    image, patch = (4, 6, 2), 2
    net = mupc.vision_transformer(
        image, 3, patch=patch, pairs=1, width=WIDTH, heads=1, key=jax.random.key(0)
    )
    (stage,) = net.stages
    attention, perceptron = stage.blocks
    x = np.asarray(jax.random.normal(jax.random.key(1), image))
    patches = [
        x[i : i + patch, j : j + patch].ravel() for i in range(0, 4, patch) for j in range(0, 6, 2)
    ]
    z = np.asarray(patches) @ np.asarray(stage.entry.patches).T / np.sqrt(8)
    z = (z + np.asarray(stage.entry.positions)) / np.sqrt(2)
    q, k, v = np.split(norm(z) @ np.asarray(attention.qkv[0]).T / np.sqrt(WIDTH), 3, -1)
    found = softmax(q @ k.T / WIDTH, axis=-1) @ v
    z = z + found @ np.asarray(attention.out[0]).T / np.sqrt(WIDTH) / 2
    inner = gelu(norm(z) @ np.asarray(perceptron.up[0]).T / np.sqrt(WIDTH))
    z = z + inner @ np.asarray(perceptron.down[0]).T / np.sqrt(4 * WIDTH) / 2
    expected = np.asarray(net.readout.weights) @ norm(z).mean(0) / WIDTH
    np.testing.assert_allclose(net.feedforward(x[None]).output[0], expected, rtol=1e-10)
    with pytest.raises(ValueError, match=r"images of shape \(4, 6, 2\), not \(6, 4, 2\)"):
        net.feedforward(x.transpose(1, 0, 2)[None])
    with pytest.raises(ValueError, match="4 × 6 pixels are no whole number of patches of 3"):
        mupc.vision_transformer(image, 3, patch=3, pairs=1, width=8, key=jax.random.key(0))
