"""Small helpers on arrays whose batch is axis 1: sample norms, masks, and numbers as leaves."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Num

_Tree = TypeVar("_Tree")

AnyArray = Array | np.ndarray
"""An array of JAX or of NumPy, where the latter is converted."""


class Readable(eqx.Module):
    """A module whose repr has the values of its numbers, and the shapes of its arrays."""

    def __repr__(self) -> str:
        """Return it in words, traced numbers by their type."""
        return eqx.tree_pformat(jax.tree.map(_number, self))


def _number(leaf: Any) -> Any:
    known = isinstance(leaf, jax.Array | np.ndarray) and not isinstance(leaf, Tracer)
    if not known or leaf.ndim or not isinstance(leaf.dtype, np.dtype):  # keys are of others
        return leaf
    if leaf.dtype.kind not in "biuf" or (isinstance(leaf, jax.Array) and leaf.is_deleted()):
        return leaf
    return float(f"{float(leaf):.6g}") if leaf.dtype.kind == "f" else leaf.item()


def as_scalar(value: ArrayLike) -> Float[Array, ""]:
    """Convert one number to an array of the default float type.

    Hyperparameters are array leaves, so that a new value never compiles a program again.
    """
    array = jnp.asarray(value, dtype=jnp.result_type(float))
    if array.ndim:
        raise ValueError(f"expected one number, not an array of shape {array.shape}")
    return array


def scalar_that_is(
    wanted: str, holds: Callable[[float], bool]
) -> Callable[[ArrayLike], Float[Array, ""]]:
    """Make a converter of numbers that refuses those outside a range; it cannot see traced ones."""

    def convert(value: ArrayLike) -> Float[Array, ""]:
        array = as_scalar(value)
        # NumPy decides: a comparison by JAX would be traced inside a compiled function.
        if not isinstance(value, Tracer) and not holds(float(np.asarray(value, array.dtype))):
            raise ValueError(f"expected a finite number {wanted}, not {value}")
        return array

    return convert


as_positive = scalar_that_is("above 0", lambda value: 0 < value < np.inf)
as_not_negative = scalar_that_is("of at least 0", lambda value: 0 <= value < np.inf)


def as_positive_array(value: ArrayLike | Sequence[float] | None) -> Float[Array, "..."] | None:
    """Convert positive numbers to an array of the default float type; None stays None."""
    return _as_array(value, lambda numbers: numbers > 0, "above 0")


def as_mask(value: ArrayLike | Sequence[float] | None) -> Float[Array, "..."] | None:
    """Convert zeros and ones to an array of the default float type; None stays None."""
    return _as_array(value, lambda numbers: (numbers == 0) | (numbers == 1), "that are 0 or 1")


def as_nonzero_array(value: ArrayLike | Sequence[float] | None) -> Float[Array, "..."] | None:
    """Convert numbers other than zero to an array of the default float type; None stays None."""
    return _as_array(value, lambda numbers: numbers != 0, "other than 0")


def as_array(value: ArrayLike | Sequence[float] | None) -> Float[Array, "..."] | None:
    """Convert finite numbers to an array of the default float type; None stays None."""
    return _as_array(value, np.isfinite, "of any size")


def _as_array(
    value: ArrayLike | Sequence[float] | None,
    sound: Callable[[np.ndarray], np.ndarray],
    which: str,
) -> Float[Array, "..."] | None:
    if value is None:
        return None
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        numbers = np.asarray(value, float)
        if not np.all(sound(numbers) & np.isfinite(numbers)):
            raise ValueError(f"expected finite numbers {which}, not {value}")
    return jnp.asarray(value, dtype=jnp.result_type(float))


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


def sample_norms(arrays: Sequence[Float[Array, "_layer batch ..."]]) -> Float[Array, " batch"]:
    """Give each sample's Euclidean norm over all layers of all stages."""
    return jnp.sqrt(sum((jnp.sum(layer_square_norms(z), axis=0) for z in arrays), jnp.zeros(())))


def sample_products(
    a: Sequence[Float[Array, "_layer batch ..."]], b: Sequence[Float[Array, "_layer batch ..."]]
) -> Float[Array, " batch"]:
    """Give each sample's inner product over all layers of all stages."""
    axes = lambda z: (0, *range(2, z.ndim))  # noqa: E731
    products = (jnp.sum(v * w, axis=axes(v)) for v, w in zip(a, b, strict=True))
    return sum(products, jnp.zeros(()))


@jax.custom_batching.custom_vmap
def any_sample(which: Bool[Array, " batch"]) -> Bool[Array, ""]:
    """Return whether any sample is meant; under `jax.vmap`, any sample of any member.

    A loop over steps that goes on until no sample is active stays one loop then. Were it one for
    each member, every step would select what each carries; and samples that are done do not move.
    """
    return jnp.any(which)


@any_sample.def_vmap
def _any_member(
    axis_size: int, in_batched: list[bool], which: Bool[Array, "members batch"]
) -> tuple[Bool[Array, ""], bool]:
    del axis_size, in_batched
    return any_sample(which.reshape(-1)), False


def choose(where: Bool[Array, " batch"], new: _Tree, old: _Tree) -> _Tree:
    """Take some samples from one tree of (layer, batch, ...) arrays, the others from another."""
    return jax.tree.map(lambda v, w: jnp.where(over_samples(where, v), v, w), new, old)


def over_samples(
    values: Num[Array, " batch"] | Bool[Array, " batch"] | Num[Array, ""],
    like: Float[Array, "layer batch ..."],
) -> Array:
    """Shape one value per sample (or one for all) so that it broadcasts against `like`."""
    return values if values.ndim == 0 else values.reshape(1, -1, *([1] * (like.ndim - 2)))


def over_rows(
    values: Num[Array, " batch"] | Num[Array, ""], like: Float[Array, "batch ..."]
) -> Array:
    """Shape one value per sample (or one for all) so that it broadcasts against rows of samples."""
    return values if values.ndim == 0 else values.reshape(-1, *([1] * (like.ndim - 1)))


def ratio(a: Float[Array, "..."] | float, b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Divide where b is not zero, and give zero where it is: a solved sample has zero over zero."""
    return jnp.where(b != 0, a / jnp.where(b != 0, b, 1), 0)


def reduced(
    size: Float[Array, " batch"], rise: Float[Array, " batch"], slope: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """Shrink a step along which the energy rose, from its size, the rise, and its first slope.

    It becomes what minimises the parabola through them, but at least a tenth and at most a half.
    """
    best = -0.5 * slope * size**2 / (rise - slope * size)
    return jnp.clip(jnp.where(jnp.isfinite(best), best, 0.0), 0.1 * size, 0.5 * size)
