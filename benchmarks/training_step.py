"""One training step of predictive coding, optimiser included, against backpropagation's.

The default (one Gauss–Newton iteration with one step of conjugate gradients, in a held regime),
more accurate solvers, and gradient descent on activities. Our own backpropagation is compared with
a plain step written by hand with `jax.value_and_grad` and optax on the same stacked network.

    python benchmarks/training_step.py --sizes 128x128 512x128 128x512
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from _problems import (
    MNIST_PIXELS,
    Size,
    default_rule,
    every_step,
    random_batch,
    relu_network,
    step_arguments,
)
from _timing import Ratio, Report, interleave, medians, parser, show

import mupc
from mupc.learning import Batch, LearningRule
from mupc.networks import Chain
from mupc.training.metrics import Metrics
from mupc.training.step import train_step

_YARDSTICK = "backpropagation"
_PLAIN = "plain jax and optax"
_DEFAULT = "Gauss–Newton 1 x 1 (default)"

# By depth and width: the larger, the less all that is not a matrix product weighs.
_LIMITS = {(128, 128): 2.4, (512, 128): 2.0, (128, 512): 1.7}
_LIMIT_OF_YARDSTICK = 1.1
_SIZES = [Size(128, 128), Size(512, 128), Size(128, 512)]


def solvers(steps: int) -> dict[str, LearningRule]:
    """Return the rules that are timed; none of them stops early."""
    return {
        _DEFAULT: default_rule(),
        "Gauss–Newton 1 x 2": every_step(mupc.GaussNewton(2), 1),
        "Gauss–Newton 3 x 4": every_step(mupc.GaussNewton(4), 3),
        f"L-BFGS in errors, T = {steps}": every_step(mupc.InErrors(mupc.LBFGS()), steps),
        f"gradient descent, T = {steps}": every_step(mupc.GradientDescent(0.25), steps),
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
    cases: dict[str, Callable[[], Any]] = {
        name: Training(rule, network, batch)
        for name, rule in {_YARDSTICK: mupc.Backpropagation(), **solvers(options.steps)}.items()
    }
    cases[_PLAIN] = PlainTraining(network, batch)
    times = interleave(cases, options.rounds)
    for name, seconds in times.items():
        show(name, seconds)
    middle = medians(times)
    limits = {_DEFAULT: _LIMITS.get((size.depth, size.width))}
    ratios = [
        Ratio(f"{name} / {_YARDSTICK}", middle[name], middle[_YARDSTICK], limits.get(name))
        for name in cases
        if name not in (_YARDSTICK, _PLAIN)
    ]
    report.add(ratios, depth=size.depth, width=size.width, seconds=middle)
    honest = Ratio(
        f"{_YARDSTICK} / {_PLAIN}", middle[_YARDSTICK], middle[_PLAIN], _LIMIT_OF_YARDSTICK
    )
    report.add([honest], depth=size.depth, width=size.width)


class Training:
    """Training steps on one batch, each call one: a step consumes the state, so that is kept."""

    def __init__(self, rule: LearningRule, network: Chain, batch: Batch) -> None:
        self.inputs, self.state = step_arguments(rule, network, batch)
        metrics = self()
        if isinstance(rule, mupc.PredictiveCoding):
            made, asked = float(metrics.inference_steps), int(rule.limit)
            if made <= asked - 1:  # the mean: one sample that makes all steps lets the loop run
                raise SystemExit(f"inference made {made} of {asked} steps")

    def __call__(self) -> Metrics:
        """Make a step; the metrics are ready when the whole step is."""
        self.state, metrics = train_step(self.inputs, self.state)
        return metrics


class PlainTraining:
    """What one would write without this library, for the same weights, batch and optimiser."""

    def __init__(self, network: Any, batch: Batch) -> None:
        (stage,) = network.stages
        layers = stage.entry, stage.blocks[0], network.readout
        first, inner, last = (layer.multiplier for layer in layers)
        optimiser = optax.adam(1e-6)

        def loss(weights: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            entry, blocks, readout = weights
            z = first * x @ entry.T
            advance = lambda z, W: (z + inner * jax.nn.relu(z) @ W.T, None)  # noqa: E731
            z, _ = jax.lax.scan(advance, z, blocks)
            output = last * jax.nn.relu(z) @ readout.T
            return 0.5 * jnp.sum((y - output) ** 2) / len(x)

        def step(weights: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
            value, gradient = jax.value_and_grad(loss)(weights, x, y)
            updates, state = optimiser.update(gradient, state)
            return optax.apply_updates(weights, updates), state, value

        self.step, self.batch = jax.jit(step, donate_argnums=(0, 1)), batch
        self.weights: Any = tuple(jnp.array(layer.weights) for layer in layers)
        self.state = optimiser.init(self.weights)

    def __call__(self) -> jax.Array:
        """Make a step; all of it is made when this call returns what is waited for."""
        self.weights, self.state, value = self.step(self.weights, self.state, *self.batch)
        jax.block_until_ready(self.weights)
        return value


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument(
        "--sizes",
        type=Size.parse,
        nargs="+",
        default=_SIZES,
    )
    options.add_argument("--steps", type=int, default=8, help="of inference by descent")
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
