"""The transformer: its formula, its causality, and what contracts ask of any network."""

import jax
import jax.numpy as jnp
import numpy as np
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
