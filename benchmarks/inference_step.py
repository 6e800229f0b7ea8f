"""One step of gradient-descent inference against two bare batched matrix products.

A step needs two products of the residual blocks: the predictions of all layers, W φ(z), and the
errors carried back, Wᵀ e. All else (activation, errors, norms, the test of each sample for its end)
should cost little beside them. Both sides run in a compiled loop at full float32 precision, for a
few and for many steps; the difference is free of the cost of starting, and of the last look.

    python benchmarks/inference_step.py --sizes 128x128 32x512
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from _problems import MNIST_PIXELS, Size, random_batch, relu_network
from _timing import Ratio, Report, interleave, medians, parser, show
from jaxtyping import Array, Float, Int

import mupc
from mupc.learning import Batch
from mupc.networks import Chain

_LIMIT = 1.2

# Stopping that looks at every step and never happens: no float32 residual falls this far.
_STOPPING: dict[str, mupc.Stopping] = {
    "inference, no stopping": mupc.FixedSteps(),
    "inference, stopping": mupc.Tolerance(1e-12, patience=1_000_000),
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure every size."""
    options = _options(argv)
    report = Report(options)
    for size in options.sizes:
        measure(size, options, report)
    return report.finish()


def measure(size: Size, options: argparse.Namespace, report: Report) -> None:
    """Measure one size."""
    print(f"depth {size.depth}, width {size.width}")
    network = relu_network(MNIST_PIXELS, size, options.seed)
    batch = random_batch(MNIST_PIXELS, options.batch, options.seed)
    loops = {"two bare products": products(size, options.batch, options.seed)}
    for name, stopping in _STOPPING.items():
        loops[name] = inference(network, batch, options, stopping)
    times = steps_and_context(loops, network, batch, options)
    for name, seconds in times.items():
        show(name, seconds)
    middle = medians(times)
    ratios = [
        Ratio(f"{name} / two bare products", middle[name], middle["two bare products"], _LIMIT)
        for name in _STOPPING
    ]
    report.add(ratios, depth=size.depth, width=size.width, seconds=middle)


def steps_and_context(
    loops: dict[str, Callable[[int], Any]],
    network: Chain,
    batch: Batch,
    options: argparse.Namespace,
) -> dict[str, list[float]]:
    """Time one step of every loop and, for context, a forward pass and a backward one."""
    few, many = options.steps
    ends = {(name, steps): loop for name, loop in loops.items() for steps in (few, many)}
    cases = {f"{name} {steps}": partial(loop, steps) for (name, steps), loop in ends.items()}
    context = {
        "feedforward pass": partial(_feedforward, network, batch),
        "backpropagation's gradient": partial(_gradient, network, batch),
    }
    times = interleave({**cases, **context}, options.rounds)
    steps = {
        name: [
            (long - short) / (many - few)
            for short, long in zip(times[f"{name} {few}"], times[f"{name} {many}"], strict=True)
        ]
        for name in loops
    }
    return {**steps, **{name: times[name] for name in context}}


def products(size: Size, batch: int, seed: int) -> Callable[[int], Any]:
    """Return the loop of bare products, of the shapes that the residual blocks have."""
    z_key, w_key = jax.random.split(jax.random.key(seed))
    z = jax.random.normal(z_key, (size.depth - 1, batch, size.width))
    # With this scale no eigenvalue of WᵀW lies above about 1: z does not overflow on the way.
    scale = 0.5 * size.width**-0.5
    W = scale * jax.random.normal(w_key, (size.depth - 1, size.width, size.width))
    return lambda steps: _products(z, W, jnp.asarray(steps))


@jax.jit
def _products(
    z: Float[Array, "layer batch width"],
    W: Float[Array, "layer width width"],
    steps: Int[Array, ""],
) -> Float[Array, "layer batch width"]:
    def body(_: int, z: Array) -> Array:
        u = jnp.einsum("hbi,hoi->hbo", z, W)
        return jnp.einsum("hbo,hoi->hbi", u, W)

    with jax.default_matmul_precision("highest"):
        return jax.lax.fori_loop(0, steps, body, z)


def inference(
    network: Chain, batch: Batch, options: argparse.Namespace, stopping: mupc.Stopping
) -> Callable[[int], Any]:
    """Return our loop, which refuses to be timed if a sample ended early."""
    energy = mupc.FreeEnergy(network, *batch, mupc.Gaussian())
    start = energy.run()
    solver = mupc.GradientDescent(options.step_size)

    def loop(steps: int) -> mupc.Solution:
        return mupc.infer(energy, solver, start, max_steps=steps, stopping=stopping)

    asked = max(options.steps)
    if (made := int(jnp.min(loop(asked).steps))) != asked:
        raise SystemExit(f"a sample ended after {made} of {asked} steps: lower --step-size")
    return loop


@eqx.filter_jit
def _feedforward(network: Chain, batch: Batch) -> Any:
    return network.feedforward(batch[0])


@eqx.filter_jit
def _gradient(network: Chain, batch: Batch) -> Any:
    return mupc.Backpropagation().gradients(network, batch, None, jax.random.key(0))[0]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument(
        "--sizes", type=Size.parse, nargs="+", default=[Size(128, 128), Size(32, 512)]
    )
    options.add_argument("--steps", type=int, nargs=2, default=[4, 36], help="few and many steps")
    options.add_argument("--step-size", type=float, default=0.25, help="of inference")
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
