"""Activation functions: how they pickle, and that of a linear layer."""

import copyreg
import importlib
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

Activation = Callable[[Float[Array, "..."]], Float[Array, "..."]]


def _named(function: Any) -> tuple[Callable[..., Any], tuple[str, str]]:
    """Return how to find a compiled function of JAX again, by its public name."""
    name = getattr(function, "__name__", "")
    for module in ("jax.nn", "jax.numpy"):
        if getattr(importlib.import_module(module), name, None) is function:
            return _found, (module, name)
    raise pickle.PicklingError(f"a compiled function can be pickled if JAX has it, not {function}")


def _found(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


# Of these kinds are activations such as relu and tanh: with them networks pickle as other trees do.
for _kind in (type(jax.nn.relu), type(jnp.tanh)):
    copyreg.pickle(_kind, _named)


def identity(z: Num[Array, "..."]) -> Num[Array, "..."]:
    """Return `z`: the activation of a linear layer."""
    return z
