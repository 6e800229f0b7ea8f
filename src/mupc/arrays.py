"""Small helpers on arrays whose batch is axis 1: sample norms, masks, and numbers as leaves."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num


def as_scalar(value: ArrayLike) -> Float[Array, ""]:
    """Convert one number to an array of the default float type.

    Hyperparameters are array leaves, so that a new value never compiles a program again.
    """
    array = jnp.asarray(value, dtype=jnp.result_type(float))
    if array.ndim:
        raise ValueError(f"expected one number, not an array of shape {array.shape}")
    return array


def as_positive(value: ArrayLike) -> Float[Array, ""]:
    """Convert one number above zero; a traced one cannot be checked."""
    # NumPy decides: a comparison by JAX would be traced inside a compiled function.
    if not isinstance(value, Tracer) and not np.all((np.asarray(value) > 0) & np.isfinite(value)):
        raise ValueError(f"expected a number above 0, not {value}")
    return as_scalar(value)


def as_count(value: ArrayLike, least: int = 0) -> Int[Array, ""]:
    """Convert one whole number, at least `least`; a traced one is checked for its type alone."""
    array = jnp.asarray(value)
    if array.ndim or not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"expected one whole number, not {value}")
    if not isinstance(value, Tracer) and np.asarray(value) < least:
        raise ValueError(f"expected a whole number of at least {least}, not {value}")
    return array.astype(int)


def layer_square_norms(z: Float[Array, "layer batch ..."]) -> Float[Array, "layer batch"]:
    """Give ‖z‖² of each layer of each sample."""
    return jnp.sum(z**2, axis=tuple(range(2, z.ndim)))


def sample_norms(arrays: Sequence[Float[Array, "layer batch ..."]]) -> Float[Array, " batch"]:
    """Give each sample's Euclidean norm over all layers of all stages."""
    return jnp.sqrt(sum((jnp.sum(layer_square_norms(z), axis=0) for z in arrays), jnp.zeros(())))


def over_samples(
    values: Num[Array, " batch"] | Bool[Array, " batch"] | Num[Array, ""],
    like: Float[Array, "layer batch ..."],
) -> Array:
    """Shape one value per sample (or one for all) so that it broadcasts against `like`."""
    return values if values.ndim == 0 else values.reshape(1, -1, *([1] * (like.ndim - 2)))
