"""What the benchmarks measure: networks on random batches of a data set's shape, and their step."""

import inspect
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import mupc
from mupc.hyperparameters import as_module
from mupc.learning import Batch, LearningRule
from mupc.networks import Chain
from mupc.training.step import Inputs, State, train_step

CLASSES = 10
MNIST_PIXELS = 784
DIGITS_PIXELS = 64


class Size(NamedTuple):
    """How large a network is."""

    depth: int
    width: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Read "128x512" (depth × width)."""
        depth, width = map(int, text.split("x"))
        return cls(depth, width)

    def __repr__(self) -> str:
        return f"{self.depth}x{self.width}"


def random_batch(pixels: int, size: int, seed: int) -> Batch:
    """Draw standardised inputs and one-hot targets: time and memory do not depend on the values."""
    x = jax.random.normal(jax.random.key(seed), (size, pixels))
    return x, jax.nn.one_hot(jnp.arange(size) % CLASSES, CLASSES)


def relu_network(pixels: int, size: Size, seed: int) -> Chain:
    """Build the residual ReLU network of the μPC paper."""
    key = jax.random.key(seed)
    return mupc.residual_mlp(pixels, CLASSES, width=size.width, depth=size.depth, key=key)


def every_step(solver: mupc.Solver, steps: int) -> mupc.PredictiveCoding:
    """Make the rule that always makes this many steps: nothing stops it.

    The precision is of the default's order, so that accurate solvers have no minimum to rest in.
    """
    likelihood = mupc.Gaussian(0.1)
    return mupc.PredictiveCoding(solver, steps, likelihood, stopping=mupc.FixedSteps())


def default_rule() -> mupc.PredictiveCoding:
    """Make the rule of `mupc train`."""
    return mupc.PredictiveCoding()


def fixed_steps(step_size: float, steps: int) -> mupc.PredictiveCoding:
    """Make the rule that always makes this many steps of gradient descent."""
    return every_step(mupc.GradientDescent(step_size), steps)


def step_arguments(
    rule: LearningRule, network: Chain, batch: Batch, learning_rate: float = 1e-6
) -> tuple[Inputs, State]:
    """Return the arguments of `train_step` at the first step, with Adam.

    The default learning rate is so small that the network stays where it was drawn: a benchmark
    repeats the step, and must not walk into divergence, which would end inference early.
    """
    optimiser = mupc.traced(optax.adam, learning_rate=learning_rate)
    inputs = (batch, rule, as_module(optimiser), jnp.asarray(False))
    return inputs, mupc.init(network, rule, optimiser, jax.random.key(0))


def trace_step(arguments: tuple[Inputs, State]) -> jax.stages.Traced:
    """Trace the training step as `mupc.fit` does (its arrays are arguments), from nothing.

    JAX's own `jit` in place of Equinox's, because its stages can be timed one by one.
    """
    jax.clear_caches()
    arrays, rest = eqx.partition(arguments, eqx.is_array)

    def step(*arrays: Any) -> Any:
        return inspect.unwrap(train_step)(*eqx.combine(arrays, rest))

    return jax.jit(step, donate_argnums=1).trace(*arrays)
