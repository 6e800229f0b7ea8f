"""One training step of convolutional networks and transformers: both rules, and plain JAX.

The plain step is what one would write without this library for speed on a CPU: convolutions one
after the other, not in a loop, with the derivatives that XLA has for them; transformer blocks in
one `scan`; and optax.

    python benchmarks/architectures_step.py conv-3 conv-18 vgg5
    python benchmarks/architectures_step.py transformer-4x128 transformer-16x64
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from _problems import CLASSES, step_arguments
from _timing import Ratio, Report, interleave, medians, parser, show

import mupc
from mupc.learning import Batch, LearningRule
from mupc.networks import Chain
from mupc.training.metrics import Metrics
from mupc.training.step import train_step

_YARDSTICK, _DEFAULT = "backpropagation", "Gauss–Newton 1 x 1 (default)"
_PLAIN = "plain jax and optax"
_IMAGE, _CONTEXT, _VOCABULARY = (32, 32, 3), 64, 65
Loss = Callable[[Any, jax.Array], jax.Array]
"""Of weights and inputs: the output of the whole batch."""


class Problem(NamedTuple):
    """A network, a batch, both rules, and the same network written in plain JAX."""

    network: Chain
    batch: Batch
    likelihood: mupc.Likelihood
    weights: Any
    output: Loss
    limit: float
    limit_of_yardstick: float


def residual(blocks: int, options: argparse.Namespace) -> Problem:
    """Return three stages of so many blocks of 16 channels and more."""
    network = mupc.conv_resnet(
        _IMAGE, CLASSES, blocks=(blocks,) * 3, channels=16, key=jax.random.key(options.seed)
    )
    kernels = [[stage.entry.kernels[0], *stage.blocks[0].kernels[0]] for stage in _stages(network)]
    scales = [
        (s.entry.scales[0].multiplier, s.blocks[0].scales[0].multiplier * s.blocks[0].branch)
        for s in _stages(network)
    ]
    readout: Any = network.readout

    def output(weights: Any, x: jax.Array) -> jax.Array:
        stages, last = weights
        for i, ((entry, *rest), (first, inner)) in enumerate(zip(stages, scales, strict=True)):
            x = first * _conv(jax.nn.relu(x) if i else x, entry, 2 if i else 1)
            for kernel in rest:
                x = x + inner * _conv(jax.nn.relu(x), kernel)
        return readout.scales[0].multiplier * jnp.mean(jax.nn.relu(x), (1, 2)) @ last.T

    weights = kernels, readout.weights
    batch = _images(options.batch, options)
    return Problem(network, batch, mupc.Gaussian(), weights, output, 2.0, 1.2)


def vgg(layers: str, options: argparse.Namespace) -> Problem:
    """Return a network of the field's benchmark (arXiv 2407.01163), or of other pooled layers."""
    network = mupc.vgg(_IMAGE, CLASSES, layers=layers, key=jax.random.key(options.seed))
    blocks = [stage.entry for stage in _stages(network)]
    readout: Any = network.readout

    def output(weights: Any, x: jax.Array) -> jax.Array:
        layers, (last, shift) = weights
        for (kernel, bias), block in zip(layers, blocks, strict=True):
            x = jax.nn.gelu(block.scales[0].multiplier * _conv(x, kernel) + bias)
            n, height, width, channels = x.shape
            x = jnp.max(x.reshape(n, height // 2, 2, width // 2, 2, channels), (2, 4))
        return readout.scales[0].multiplier * x.reshape(len(x), -1) @ last.T + shift

    weights = [(block.kernel, block.biases) for block in blocks], (readout.weights, readout.biases)
    return Problem(network, _images(32, options), mupc.Gaussian(), weights, output, 2.0, 1.2)


def transformer(pairs: int, width: int, options: argparse.Namespace) -> Problem:
    """Return a network of characters, and 16 windows of 64."""
    network = mupc.transformer(
        _VOCABULARY, context=_CONTEXT, pairs=pairs, width=width, key=jax.random.key(options.seed)
    )
    (stage,) = _stages(network)
    attention, perceptron = stage.blocks
    branch, heads = attention.branch, attention.heads
    root, inner = width**-0.5, (4 * width) ** -0.5
    readout: Any = network.readout
    seen = jnp.tril(jnp.ones((_CONTEXT, _CONTEXT), bool))

    def norm(z: jax.Array) -> jax.Array:
        z = z - jnp.mean(z, axis=-1, keepdims=True)
        return z * jax.lax.rsqrt(jnp.mean(z**2, axis=-1, keepdims=True) + 1e-6)

    def pair(z: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        qkv, out, up, down = layer
        parts = jnp.split(root * norm(z) @ qkv.mT, 3, axis=-1)
        q, k, v = (p.reshape(*p.shape[:2], heads, -1) for p in parts)
        logits = jnp.einsum("bthd,bshd->bhts", q, k) * heads / width
        shares = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), axis=-1)
        found = jnp.einsum("bhts,bshd->bthd", shares, v).reshape(z.shape)
        z = z + branch * root * found @ out.mT
        return z + branch * inner * jax.nn.gelu(root * norm(z) @ up.mT) @ down.mT, None

    def output(weights: Any, x: jax.Array) -> jax.Array:
        tokens, positions, layers, last = weights
        z, _ = jax.lax.scan(pair, (tokens[x] + positions) * 2**-0.5, layers)
        return norm(z) @ last.T / width

    layers = attention.qkv, attention.out, perceptron.up, perceptron.down
    weights = stage.entry.tokens, stage.entry.positions, layers, readout.weights
    x = jax.random.randint(jax.random.key(options.seed), (16, _CONTEXT), 0, _VOCABULARY)
    batch = x, jax.nn.one_hot(jnp.roll(x, -1, axis=1), _VOCABULARY)
    return Problem(network, batch, mupc.Categorical(), weights, output, 2.2, 1.1)


CASES = ("conv-3", "conv-18", "vgg5", "transformer-4x128", "transformer-16x64")


def problem_of(name: str, options: argparse.Namespace) -> Problem:
    """Return conv-BLOCKS, transformer-PAIRSxWIDTH, or the layers of a `mupc.vgg`."""
    kind, _, size = name.partition("-")
    if kind == "conv":
        return residual(int(size), options)
    if kind == "transformer":
        pairs, width = map(int, size.split("x"))
        return transformer(pairs, width, options)
    return vgg(name, options)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure every case."""
    options = _options(argv)
    report = Report(options)
    for name in options.cases:
        print(name)
        problem = problem_of(name, options)
        network, batch, likelihood, *_ = problem
        ours = (
            mupc.Backpropagation(likelihood=likelihood),
            mupc.PredictiveCoding(likelihood=likelihood),
        )
        cases: dict[str, Callable[[], Any]] = {
            _YARDSTICK: Training(ours[0], network, batch),
            _DEFAULT: Training(ours[1], network, batch),
            _PLAIN: PlainTraining(problem),
        }
        times = interleave(cases, options.rounds)
        for case, seconds in times.items():
            show(case, seconds)
        middle = medians(times)
        default, yardstick, plain = (middle[n] for n in (_DEFAULT, _YARDSTICK, _PLAIN))
        ratios = [
            Ratio(f"{_DEFAULT} / {_YARDSTICK}", default, yardstick, problem.limit),
            Ratio(f"{_YARDSTICK} / {_PLAIN}", yardstick, plain, problem.limit_of_yardstick),
        ]
        report.add(ratios, case=name, seconds=middle)
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

    def __init__(self, problem: Problem) -> None:
        optimiser = optax.adam(1e-6)

        def loss(weights: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            output = problem.output(weights, x)
            return jnp.mean(jax.vmap(problem.likelihood.loss)(y, output))

        def step(weights: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
            value, gradient = jax.value_and_grad(loss)(weights, x, y)
            updates, state = optimiser.update(gradient, state)
            return optax.apply_updates(weights, updates), state, value

        self.step, self.batch = jax.jit(step, donate_argnums=(0, 1)), problem.batch
        self.weights: Any = jax.tree.map(jnp.array, problem.weights)
        self.state = optimiser.init(self.weights)
        self()

    def __call__(self) -> jax.Array:
        """Make a step; all of it is made when this call returns what is waited for."""
        self.weights, self.state, value = self.step(self.weights, self.state, *self.batch)
        jax.block_until_ready(self.weights)
        return value


def _conv(x: jax.Array, w: jax.Array, stride: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _stages(network: Chain) -> Any:
    return network.stages


def _images(size: int, options: argparse.Namespace) -> Batch:
    x = jax.random.normal(jax.random.key(options.seed), (size, *_IMAGE))
    return x, jax.nn.one_hot(jnp.arange(size) % CLASSES, CLASSES)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("cases", nargs="*", default=list(CASES), help="of these kinds")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
