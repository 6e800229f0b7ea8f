"""A user's own Equinox module as the block of a deep predictive coding network.

A block maps one example's activity to the prediction of the next; it owns its skip connection.
`mupc.Scaled` gives it the multiplier and learning-rate factors of a parameterisation. Nothing
else has to be written: energies, solvers, rules and training work with any block.
"""

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Float, PRNGKeyArray

import mupc

WIDTH, DEPTH = 64, 16


class GatedBlock(eqx.Module):
    """A residual block with a gate: z + V (tanh(z) · sigmoid(U z))."""

    gate: eqx.nn.Linear
    value: eqx.nn.Linear

    def __init__(self, width: int, std: float, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key)
        self.gate, self.value = (
            eqx.tree_at(
                lambda layer: layer.weight,
                eqx.nn.Linear(width, width, use_bias=False, key=key),
                mupc.normal(key, (width, width), std),
            )
            for key in keys
        )

    def __call__(self, z: Float[Array, " width"]) -> Float[Array, " width"]:
        """Predict the next activity."""
        return z + self.value(jax.numpy.tanh(z) * jax.nn.sigmoid(self.gate(z)))


def build(inputs: int, outputs: int, key: PRNGKeyArray) -> mupc.Chain:
    """Build a chain of one stage: an entry layer, a stack of gated blocks, and a readout."""
    plain_key, blocks_key = jax.random.split(key)
    # Entry and readout are those of the residual MLP.
    plain = mupc.residual_mlp(inputs, outputs, width=WIDTH, depth=DEPTH, key=plain_key)
    scale = mupc.mupc().scale("hidden", WIDTH, width=WIDTH, length=DEPTH + 1, skips=True)

    def block(key: PRNGKeyArray) -> mupc.Scaled:
        return mupc.Scaled(GatedBlock(WIDTH, scale.std, key), scale)

    # One call builds all blocks, stacked: depth is an array axis, not a list.
    blocks = eqx.filter_vmap(block)(jax.random.split(blocks_key, DEPTH - 1))
    return mupc.Chain((mupc.Stage(plain.stages[0].entry, blocks),), plain.readout)


def main() -> float:
    """Train on the digits; give the test accuracy."""
    data = mupc.data.load("digits")
    network = build(data.inputs, data.outputs, jax.random.key(0))
    rule = mupc.PredictiveCoding(solver=mupc.GradientDescent(step_size=0.25), max_steps=8)
    optimiser = mupc.traced(optax.adam, learning_rate=0.05)
    result = mupc.fit(network, data, rule, optimiser, epochs=5, key=jax.random.key(1))
    assert data.test is not None
    accuracy = mupc.evaluate(result.network, data.test).accuracy
    assert accuracy is not None
    print(f"{DEPTH} gated blocks: test accuracy {100 * accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    main()
