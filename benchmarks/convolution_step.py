"""One training step of convolutional networks: predictive coding, backpropagation, and plain JAX.

The plain step is what one would write without this library for speed on a CPU: convolutions one
after the other, not in a loop, with the derivatives that XLA has for them, and optax.

    python benchmarks/convolution_step.py --blocks 3 18
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from _problems import CLASSES, default_rule, step_arguments
from _timing import Ratio, Report, interleave, medians, parser, show

import mupc
from mupc.learning import Batch, LearningRule
from mupc.networks import Chain
from mupc.training.metrics import Metrics
from mupc.training.step import train_step

_YARDSTICK = "backpropagation"
_PLAIN = "plain jax and optax, unrolled"
_DEFAULT = "Gauss–Newton 1 x 1 (default)"
_LIMIT, _LIMIT_OF_YARDSTICK = 2.0, 1.2
_IMAGE = (32, 32, 3)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure every depth."""
    options = _options(argv)
    report = Report(options)
    for blocks in options.blocks:
        print(f"3 stages of {blocks} blocks, {options.channels} channels: {3 * blocks + 4} layers")
        network = mupc.conv_resnet(
            _IMAGE,
            CLASSES,
            blocks=(blocks,) * 3,
            channels=options.channels,
            key=jax.random.key(options.seed),
        )
        x = jax.random.normal(jax.random.key(options.seed), (options.batch, *_IMAGE))
        batch = x, jax.nn.one_hot(jnp.arange(options.batch) % CLASSES, CLASSES)
        cases: dict[str, Callable[[], Any]] = {
            _YARDSTICK: Training(mupc.Backpropagation(), network, batch),
            _DEFAULT: Training(default_rule(), network, batch),
            _PLAIN: PlainTraining(network, batch),
        }
        times = interleave(cases, options.rounds)
        for name, seconds in times.items():
            show(name, seconds)
        middle = medians(times)
        ratios = [
            Ratio(f"{_DEFAULT} / {_YARDSTICK}", middle[_DEFAULT], middle[_YARDSTICK], _LIMIT),
            Ratio(
                f"{_YARDSTICK} / {_PLAIN}", middle[_YARDSTICK], middle[_PLAIN], _LIMIT_OF_YARDSTICK
            ),
        ]
        report.add(ratios, blocks=blocks, seconds=middle)
    return report.finish()


class Training:
    """Training steps on one batch, each call one: a step consumes the state, so that is kept."""

    def __init__(self, rule: LearningRule, network: Chain, batch: Batch) -> None:
        self.inputs, self.state = step_arguments(rule, network, batch)
        self()

    def __call__(self) -> Metrics:
        """Make a step; the metrics are ready when the whole step is."""
        self.state, metrics = train_step(self.inputs, self.state)
        return metrics


class PlainTraining:
    """The same network, batch and optimiser, without this library."""

    def __init__(self, network: Any, batch: Batch) -> None:
        optimiser = optax.adam(1e-6)
        kernels = [
            [stage.entry.kernels[0], *stage.blocks[0].kernels[0]] for stage in network.stages
        ]
        scales = [
            (s.entry.scales[0].multiplier, s.blocks[0].scales[0].multiplier * s.blocks[0].branch)
            for s in network.stages
        ]
        last = network.readout.scales[0].multiplier

        def conv(x: jax.Array, w: jax.Array, stride: int = 1) -> jax.Array:
            return jax.lax.conv_general_dilated(
                x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        def loss(weights: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            stages, readout = weights
            for i, ((entry, *blocks), (first, inner)) in enumerate(
                zip(stages, scales, strict=True)
            ):
                x = first * conv(jax.nn.relu(x) if i else x, entry, 2 if i else 1)
                for kernel in blocks:
                    x = x + inner * conv(jax.nn.relu(x), kernel)
            output = last * jnp.mean(jax.nn.relu(x), (1, 2)) @ readout.T
            return 0.5 * jnp.sum((y - output) ** 2) / len(x)

        def step(weights: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
            value, gradient = jax.value_and_grad(loss)(weights, x, y)
            updates, state = optimiser.update(gradient, state)
            return optax.apply_updates(weights, updates), state, value

        self.step, self.batch = jax.jit(step, donate_argnums=(0, 1)), batch
        self.weights: Any = jax.tree.map(jnp.array, (kernels, network.readout.weights))
        self.state = optimiser.init(self.weights)
        self()

    def __call__(self) -> jax.Array:
        """Make a step; all of it is made when this call returns what is waited for."""
        self.weights, self.state, value = self.step(self.weights, self.state, *self.batch)
        jax.block_until_ready(self.weights)
        return value


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--blocks", type=int, nargs="+", default=[3, 18], help="in each stage")
    options.add_argument("--channels", type=int, default=16)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
