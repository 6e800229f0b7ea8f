"""The pieces of arrays that devices of several processes have, and what is written of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array

from mupc.training.trees import as_bytes, sha256

_Place = tuple[tuple[int, int], ...]
"""Where a piece of an array begins and ends, along every axis."""


class Described(NamedTuple):
    """What is written of an array: the SHA-256 sum of each of its pieces, by their places."""

    dtype: str
    shape: list[int]
    sums: list[tuple[_Place, str]]

    def tells(self, array: np.ndarray) -> bool:
        """Return whether it is of this array."""
        if (self.dtype, self.shape) != (str(array.dtype), list(array.shape)):
            return False
        return all(
            sha256(as_bytes(array[tuple(slice(*along) for along in place)])) == total
            for place, total in self.sums
        )


Pieces = Mapping[_Place, np.ndarray | None]


def pieces_of(array: Array) -> Pieces:
    """Return the pieces of an array that devices of several processes have, by their places.

    It is one piece if a process has all of it; None is a piece that this process has not.
    """
    if array.is_fully_addressable or array.is_fully_replicated:
        return {tuple((0, size) for size in array.shape): np.asarray(array)}
    here = {_place(shard.index, array.shape): shard for shard in array.addressable_shards}
    everywhere = array.sharding.devices_indices_map(array.shape).values()
    places = sorted({_place(index, array.shape) for index in everywhere})
    return {place: np.asarray(here[place].data) if place in here else None for place in places}


def described(arrays: Mapping[str, Array], pieces: Mapping[str, Pieces]) -> dict[str, Described]:
    """Return what is written of arrays; if one is parted over processes, all must ask."""
    sums = np.asarray([_digest(piece) for own in pieces.values() for piece in own.values()])
    if any(len(own) > 1 for own in pieces.values()):
        sums = np.max(multihost_utils.process_allgather(sums), axis=0)
    hexadecimal = (total.tobytes().hex() for total in sums)
    return {
        name: Described(
            str(array.dtype),
            list(array.shape),
            [(place, next(hexadecimal)) for place in pieces[name]],
        )
        for name, array in arrays.items()
    }


def _place(index: Sequence[slice], shape: Sequence[int]) -> _Place:
    bounds = (along.indices(size) for along, size in zip(index, shape, strict=True))
    return tuple((start, stop) for start, stop, _ in bounds)


def _digest(piece: np.ndarray | None) -> np.ndarray:
    if piece is None:
        return np.zeros(32, np.uint8)
    return np.frombuffer(bytes.fromhex(sha256(as_bytes(piece))), np.uint8)
