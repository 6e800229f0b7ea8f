"""Train a deep μPC network on the digits, as a library: the example of README.md."""

import jax
import optax

import mupc


def main(depth: int = 128, width: int = 128, epochs: float = 3) -> float:
    """Train; return the test accuracy."""
    data = mupc.data.load("digits").flattened()
    network = mupc.residual_mlp(
        data.inputs, data.outputs, width=width, depth=depth, key=jax.random.key(0)
    )
    rule = mupc.PredictiveCoding()
    optimiser = optax.chain(optax.adam(0.02, eps=1e-12), mupc.scale_uniform(network))
    result = mupc.fit(network, data, rule, optimiser, epochs=epochs, key=jax.random.key(1))
    assert data.test is not None
    accuracy = mupc.evaluate(result, data.test).accuracy
    assert accuracy is not None
    print(f"{depth} layers: test accuracy {100 * accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    main()
