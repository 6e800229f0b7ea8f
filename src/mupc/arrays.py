"""Small helpers on arrays whose batch is axis 1: sample norms, masks, and numbers as leaves."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Num


def as_scalar(value: ArrayLike) -> Float[Array, ""]:
    """Convert a number to an array of the default float type.

    Hyperparameters are array leaves, so that a new value never compiles a program again.
    """
    return jnp.asarray(value, dtype=jnp.result_type(float))


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
