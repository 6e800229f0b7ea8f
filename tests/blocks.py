"""Blocks of several kinds, as one stage of a chain each: what contracts must hold for."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

import mupc

POSITIONS, PIXELS = 4, 4


class TwoMatrices(eqx.Module):
    """V tanh(U z)."""

    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, width: int, key: PRNGKeyArray) -> None:
        up, down = jax.random.split(key)
        self.up = eqx.nn.Linear(width, 2 * width, use_bias=False, key=up)
        self.down = eqx.nn.Linear(2 * width, width, use_bias=False, key=down)

    def __call__(self, z: Float[Array, " width"]) -> Float[Array, " width"]:
        return self.down(jnp.tanh(self.up(z)))


class Convolution(eqx.Module):
    """A 3 × 3 convolution of tanh(z), (channels, height, width)."""

    kernel: eqx.nn.Conv2d

    def __init__(self, width: int, key: PRNGKeyArray, channels: int | None = None) -> None:
        self.kernel = eqx.nn.Conv2d(
            width if channels is None else channels, width, 3, padding=1, use_bias=False, key=key
        )

    def __call__(self, z: Float[Array, "channels h w"]) -> Float[Array, "width h w"]:
        return self.kernel(jnp.tanh(z))


class Attention(eqx.Module):
    """One head of attention over positions, of activities whose norm is their own."""

    query: eqx.nn.Linear
    key: eqx.nn.Linear
    value: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, width: int, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 4)
        self.query, self.key, self.value, self.out = (
            eqx.nn.Linear(width, width, use_bias=False, key=one) for one in keys
        )

    def __call__(self, z: Float[Array, "positions width"]) -> Float[Array, "positions width"]:
        z = z / jnp.sqrt(jnp.mean(z**2, axis=-1, keepdims=True) + 1e-6)
        q, k, v = (jax.vmap(layer)(z) for layer in (self.query, self.key, self.value))
        weights = jax.nn.softmax(q @ k.T / q.shape[-1], axis=-1)
        return jax.vmap(self.out)(weights @ v)


class Positionwise(eqx.Module):
    """A matrix at every position."""

    matrix: eqx.nn.Linear

    def __init__(self, inputs: int, outputs: int, key: PRNGKeyArray) -> None:
        self.matrix = eqx.nn.Linear(inputs, outputs, use_bias=False, key=key)

    def __call__(self, z: Float[Array, "positions inputs"]) -> Float[Array, "positions outputs"]:
        return jax.vmap(self.matrix)(z)


class Pooled(eqx.Module):
    """A matrix of the mean over pixels."""

    matrix: eqx.nn.Linear

    def __init__(self, inputs: int, outputs: int, key: PRNGKeyArray) -> None:
        self.matrix = eqx.nn.Linear(inputs, outputs, use_bias=False, key=key)

    def __call__(self, z: Float[Array, "channels h w"]) -> Float[Array, " outputs"]:
        return self.matrix(jnp.mean(z, axis=(1, 2)))


INPUTS, OUTPUTS = 6, 3

# By name: entry, block and readout of a width, and the shapes of x and of the output.
KINDS: dict[str, tuple[Any, Any, Any, tuple[int, ...], tuple[int, ...]]] = {
    "two matrices": (
        lambda n, key: eqx.nn.Linear(INPUTS, n, use_bias=False, key=key),
        TwoMatrices,
        lambda n, key: eqx.nn.Linear(n, OUTPUTS, use_bias=False, key=key),
        (INPUTS,),
        (OUTPUTS,),
    ),
    "convolution": (
        lambda n, key: eqx.nn.Conv2d(2, n, 3, padding=1, use_bias=False, key=key),
        Convolution,
        lambda n, key: Pooled(n, OUTPUTS, key),
        (2, PIXELS, PIXELS),
        (OUTPUTS,),
    ),
    "attention": (
        lambda n, key: Positionwise(INPUTS, n, key),
        Attention,
        lambda n, key: Positionwise(n, OUTPUTS, key),
        (POSITIONS, INPUTS),
        (POSITIONS, OUTPUTS),
    ),
}


def build(kind, width, depth, parameterisation=None, key=None):
    """A chain of an entry, depth − 1 residual branches of one kind, and a readout."""
    entry, block, readout, _, _ = KINDS[kind]
    keys = jax.random.split(jax.random.key(0) if key is None else key, 4)
    shape = mupc.Shape(width, depth + 1)

    def scaled(make, role, key, draw):
        return mupc.Scaled.initialise(
            make(width, key), role, parameterisation, shape=shape, key=draw
        )

    def one(key):
        return scaled(block, "hidden", *jax.random.split(key))

    blocks = eqx.filter_vmap(one)(jax.random.split(keys[0], depth - 1))
    return mupc.Chain(
        (mupc.Stage(scaled(entry, "input", *jax.random.split(keys[1])), blocks),),
        scaled(readout, "readout", *jax.random.split(keys[2])),
    )


def batch(kind, size=5, seed=0):
    """Inputs of unit variance, and one-hot targets (at every position)."""
    *_, inputs, outputs = KINDS[kind]
    x = jax.random.normal(jax.random.key(seed), (size, *inputs))
    labels = jax.random.randint(jax.random.key(seed + 1), (size, *outputs[:-1]), 0, OUTPUTS)
    return x, jax.nn.one_hot(labels, OUTPUTS)


def alternating(width, pairs, positions=None, key=None):
    """A stage whose pattern is an attention branch and then a two-matrix branch at each position.

    The two places have activities of their own.
    """
    keys = jax.random.split(jax.random.key(0) if key is None else key, 4)
    shape = mupc.Shape(width, 2 * pairs + 2)

    class EachPosition(eqx.Module):
        inner: TwoMatrices

        def __call__(self, z):
            return jax.vmap(self.inner)(z)

    def branch(make):
        def one(key):
            draw, own = jax.random.split(key)
            return mupc.Scaled.initialise(make(own), shape=shape, key=draw)

        return one

    attention = branch(lambda key: Attention(width, key))
    mlp = branch(lambda key: EachPosition(TwoMatrices(width, key)))
    outer = [
        mupc.Scaled.initialise(
            Positionwise(n, m, keys[i]), role, shape=shape, linear=True, key=keys[i]
        )
        for i, (n, m, role) in enumerate(
            [(INPUTS, width, "input"), (width, OUTPUTS, "readout")], start=2
        )
    ]
    blocks = tuple(
        eqx.filter_vmap(make)(jax.random.split(key, pairs))
        for make, key in zip((attention, mlp), keys[:2], strict=True)
    )
    return mupc.Chain((mupc.Stage(outer[0], blocks),), outer[1])
