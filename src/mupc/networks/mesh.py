"""What is computed on several devices: parts of a batch and of depth, and what neighbours send.

Under a mesh (`mupc.Layout` makes one) with an axis `depth` every device holds the banks and the
weights of its part of each stage's repeated layers; along `data` it holds its part of the samples.
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

_Tree = TypeVar("_Tree")

DATA, DEPTH = "data", "depth"
"""The axes of a mesh along which samples, and layers, are parted."""


class Axes(Enum):
    """What the first axes of arrays are."""

    SAMPLES = auto()
    """Samples."""
    LAYERS = auto()
    """Layers, of weights."""
    BANKS = auto()
    """Layers, and samples if an array has as many axes."""


def devices_along(axis: str) -> int:
    """Return how many devices the present mesh has along an axis; 1 if there is no mesh.

    A mesh whose axes are explicit is none of `mupc.Layout`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    explicit = mesh.empty or AxisType.Explicit in mesh.axis_types
    return 1 if explicit else dict(mesh.shape).get(axis, 1)


def data_axis(z: Float[Array, "batch ..."]) -> str | None:
    """Return the axis of the mesh that parts a batch; None if there is none that divides it."""
    devices = devices_along(DATA)
    return None if devices == 1 or len(z) % devices else DATA


def check_divides(devices: int, repetitions: int, common: int | None = None) -> None:
    """Check that a number of devices along depth divides a number of repetitions.

    Args:
        devices: along depth.
        repetitions: of a stage.
        common: what divides those of all stages, if there are others.

    Raises:
        ValueError: if not.
    """
    if repetitions % devices:
        below = max(d for d in range(1, devices) if not (common or repetitions) % d)
        fewer = repetitions - repetitions % devices
        near = " or ".join(str(n) for n in (fewer, fewer + devices) if n)
        raise ValueError(
            f"{devices} devices along depth do not divide the {repetitions} layers of a stage "
            f"after its entry: give depth={below}, or {near} of these layers"
        )


def kept_as_banks(rooms: _Tree) -> _Tree:
    """Let arrays (count, layer, batch, ...), a count of banks each, be parted as these are."""
    devices = devices_along(DEPTH)

    def keep(room: Array) -> Array:
        if devices == 1:
            return room
        depth = None if room.shape[1] % devices else DEPTH  # an entry is on all of them
        spec = PartitionSpec(None, depth, data_axis(room[0, 0]))
        return jax.lax.with_sharding_constraint(room, spec)

    return jax.tree.map(keep, rooms)


def on_every(terms: Sequence[Array]) -> list[Array]:
    """Let every device along depth have what are a few numbers a layer, (layer, batch)."""
    if devices_along(DEPTH) == 1:
        return list(terms)
    constrain = jax.lax.with_sharding_constraint
    return [constrain(z, PartitionSpec(None, data_axis(z[0]))) for z in terms]


def along_depth(own: Callable[..., Any], kinds: tuple[Axes, ...], result: Any, *given: Any) -> Any:
    """Let every device along depth compute its own part.

    Args:
        own: computes it, of the parts of what is given.
        kinds: of what is given: of arrays, or trees of such; the second are (batch, ...).
        result: kinds of what it returns, a tree of them.
        given: what is given.
    """
    data = data_axis(given[1])
    specs = {
        Axes.SAMPLES: PartitionSpec(data),
        Axes.LAYERS: PartitionSpec(DEPTH),
        Axes.BANKS: PartitionSpec(DEPTH, data),
    }

    def of(kind: Axes, argument: Any) -> Any:
        if kind is not Axes.BANKS:
            return specs[kind]
        return jax.tree.map(lambda z: specs[Axes.BANKS if z.ndim > 1 else Axes.LAYERS], argument)

    shared = jax.shard_map(
        own,
        in_specs=tuple(map(of, kinds, given)),
        out_specs=jax.tree.map(lambda kind: specs[kind], result),
        check_vma=False,
    )
    return shared(*given)


# What follows is for the part of one device.


def turn(*, down: bool = False) -> Array:
    """Return how many devices come before this one, from the input on or from the output."""
    place = jax.lax.axis_index(DEPTH)
    return devices_along(DEPTH) - 1 - place if down else place


def handed(z: Array, *, down: bool = False, by: int = 1) -> Array:
    """Hand an array on, `by` devices further; the first ones receive zeros."""
    pairs = [(i, i + by) for i in range(devices_along(DEPTH) - by)]
    return jax.lax.ppermute(z, DEPTH, [pair[::-1] for pair in pairs] if down else pairs)


def passed(z: Array, first: Array, *, down: bool = False) -> Array:
    """Return what the device before has of z; on the first one, what is given."""
    return jnp.where(turn(down=down) == 0, first, handed(z, down=down))


def to_all(z: Array, device: int) -> Array:
    """Return on all devices what one of them has."""
    return jax.lax.psum(jnp.where(jax.lax.axis_index(DEPTH) == device, z, 0), DEPTH)
