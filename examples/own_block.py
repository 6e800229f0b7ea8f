"""A user's own Equinox module as the residual branch of a deep predictive coding network.

The module is a map f of one example's activity, without the skip connection. From it
`mupc.Scaled.initialise` makes the block z + b f(z): it draws the weights anew, and gives each array
the multiplier and the learning-rate factors of a parameterisation.

Each matrix has its own multiplier, from its own fan-in, so that what it computes has the same size
at any width. The branch has one depth multiplier b, however many matrices it holds, so that all
branches together change the activity by as much at any depth. With the depth multiplier on each
matrix, the gate's input would vanish in a deep network, and every gate would stay half open.

Nothing else has to be written: energies, solvers, rules and training work with any block.
"""

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Float, PRNGKeyArray

import mupc

WIDTH, DEPTH = 64, 16


class Gated(eqx.Module):
    """A gated branch: f(z) = V (tanh(z) · sigmoid(U z))."""

    gate: eqx.nn.Linear
    value: eqx.nn.Linear

    def __init__(self, width: int, key: PRNGKeyArray) -> None:
        gate_key, value_key = jax.random.split(key)
        self.gate = eqx.nn.Linear(width, width, use_bias=False, key=gate_key)
        self.value = eqx.nn.Linear(width, width, use_bias=False, key=value_key)

    def __call__(self, z: Float[Array, " width"]) -> Float[Array, " width"]:
        """Return what the branch adds, before its depth multiplier."""
        return self.value(jax.numpy.tanh(z) * jax.nn.sigmoid(self.gate(z)))


def build(
    inputs: int, outputs: int, key: PRNGKeyArray, *, width: int = WIDTH, depth: int = DEPTH
) -> mupc.Chain:
    """Build a chain of one stage: an entry layer, a stack of gated blocks, and a readout."""
    plain_key, blocks_key = jax.random.split(key)
    # Entry and readout are those of the residual MLP.
    plain = mupc.residual_mlp(inputs, outputs, width=width, depth=depth, key=plain_key)

    def block(key: PRNGKeyArray) -> mupc.Scaled:
        # The shape is that of the network: its width, and how many weight layers it has.
        return mupc.Scaled.initialise(Gated(width, key), shape=(width, depth + 1), key=key)

    # One call builds all blocks, stacked: depth is an array axis, not a list.
    blocks = eqx.filter_vmap(block)(jax.random.split(blocks_key, depth - 1))
    return mupc.Chain((mupc.Stage(plain.stages[0].entry, blocks),), plain.readout)


def main() -> float:
    """Train on the digits; return the test accuracy."""
    data = mupc.data.load("digits").flattened()
    network = build(data.inputs, data.outputs, jax.random.key(0))
    rule = mupc.PredictiveCoding()
    optimiser = optax.chain(optax.adam(0.02, eps=1e-12), mupc.scale_uniform(network))
    result = mupc.fit(network, data, rule, optimiser, epochs=5, key=jax.random.key(1))
    assert data.test is not None
    accuracy = mupc.evaluate(result, data.test).accuracy
    assert accuracy is not None
    print(f"{DEPTH} gated blocks: test accuracy {100 * accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    main()
