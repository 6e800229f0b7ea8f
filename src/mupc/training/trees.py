"""The arrays of a tree by their places in it, and what tells it from others: what files hold."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, PyTree

from mupc.records import RunError

_Tree = TypeVar("_Tree")

UNNAMED = "<locals>"
"""What stands for a function that was made inside another one, whose name tells nothing."""


def named_arrays(tree: PyTree[Any]) -> dict[str, np.ndarray]:
    """Return the arrays of a tree, on the host, by their places; random keys as their data.

    Of one that is parted over several processes, all must ask.
    """
    return {name: on_host(array) for name, array in placed_arrays(tree).items()}


def placed_arrays(tree: PyTree[Any]) -> dict[str, Any]:
    """Return the arrays of a tree, where they lie, by their places; random keys as their data."""
    return {name: _data(leaf) for name, leaf in _arrays(tree).items()}


def on_host(array: Any) -> np.ndarray:
    """Return an array, whole, on the host; of one that several processes have, all must ask."""
    parted = isinstance(array, Array) and not array.is_fully_addressable
    if parted and not array.is_fully_replicated:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def fill(like: _Tree, arrays: Mapping[str, np.ndarray], refusal: str) -> _Tree:
    """Return a tree with arrays in it, like the one that they are from.

    Args:
        like: that tree; its arrays may be shapes alone.
        arrays: by their places, as `named_arrays` returns them.
        refusal: what it means if they are of another tree.

    Raises:
        RunError: if they are; it names the arrays.
    """
    wanted = _arrays(like)
    theirs = {name: _kind(array) for name, array in arrays.items()}
    ours = {name: _kind(_data(leaf)) for name, leaf in wanted.items()}
    if theirs != ours and _halved(theirs) == _halved(ours):
        x64 = any("float64" in kind for kind in theirs.values())
        switch = "set JAX_ENABLE_X64=1" if x64 else "unset JAX_ENABLE_X64"
        raise RunError(
            f"what is read was computed in {'float64' if x64 else 'float32'}: {switch} to go on "
            "with it"
        )
    require_same(theirs, ours, refusal)
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    filled: list[Any] = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        filled.append(_like(leaf, arrays[name]) if name in wanted else leaf)
    return jax.tree.unflatten(structure, filled)


def _halved(kinds: Mapping[str, str]) -> dict[str, str]:
    """Return kinds of arrays as they are without JAX's 64 bits."""
    return {name: kind.replace("64 ", "32 ") for name, kind in kinds.items()}


def require_same(theirs: Mapping[str, Any], ours: Mapping[str, Any], refusal: str) -> None:
    """Refuse two tables that differ.

    Raises:
        RunError: the refusal, and what differs.
    """
    names = [*theirs, *(name for name in ours if name not in theirs)]
    differing = [
        f"{name} ({theirs.get(name, 'none')} there, {ours.get(name, 'none')} here)"
        for name in names
        if theirs.get(name) != ours.get(name)
    ]
    if differing:
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise RunError(f"{refusal}: it differs in {', '.join(differing[:5])}{more}")


def as_bytes(array: np.ndarray) -> np.ndarray:
    """Return an array's content as it lies in memory."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def sha256(content: Any) -> str:
    """Return the SHA-256 sum of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sum_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Return one SHA-256 sum of the names and contents of arrays."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(f"{name} {_kind(arrays[name])} ".encode())
        total.update(as_bytes(arrays[name]).data)
    return total.hexdigest()


def described(module: Any, name: str) -> dict[str, Any]:
    """Return what tells a module from others, by places: settings, numbers, sums of its arrays."""
    arrays = {
        f"{name}{place}": array.item() if array.size == 1 else sum_of({"": array})[:16]
        for place, array in named_arrays(module).items()
    }
    return named_settings(module, name) | arrays


def named_settings(node: Any, place: str = "") -> dict[str, Any]:
    """Return what is no array by its place, in words that are the same in every process.

    A module is there by the name of its class and by its fields, a function by its name alone: two
    lambdas, or two functions made inside others (as those of optax are), are not told apart.
    Numbers have nine digits, as the last ones may be others on another platform.
    """
    if eqx.is_array(node) or isinstance(node, jax.ShapeDtypeStruct):
        return {}
    entries = _entries(node)
    if entries is None:
        return {place: _plain(node)}
    several = f" of {len(entries)}" if isinstance(node, tuple | list) else ""
    found: dict[str, Any] = {place or "its class": f"{type(node).__name__}{several}"}
    for name, entry in entries.items():
        found |= named_settings(entry, f"{place}{name}")
    return found


def _entries(node: Any) -> dict[str, Any] | None:
    """Return what a node is made of; None if it is one value."""
    if isinstance(node, tuple | list):
        return {f"[{i}]": entry for i, entry in enumerate(cast(Sequence[Any], node))}
    if isinstance(node, Mapping):
        return {f"[{name}]": entry for name, entry in cast(Mapping[Any, Any], node).items()}
    if isinstance(node, functools.partial):
        partial = cast("functools.partial[Any]", node)
        return {".func": partial.func, ".args": partial.args, ".keywords": partial.keywords}
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return {f".{field.name}": getattr(node, field.name) for field in dataclasses.fields(node)}
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.9g}"
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.dtype):
        return str(cast(Any, value))
    name = getattr(value, "__name__", type(value).__name__)
    within = getattr(value, "__qualname__", name).rpartition(".")[0]
    return UNNAMED if within.endswith(UNNAMED) and name != "<lambda>" else name


def _arrays(tree: PyTree[Any]) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in leaves
        if eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
    }


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _like(leaf: Any, array: np.ndarray) -> Array:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return jnp.asarray(array)


def _kind(array: Any) -> str:
    return f"{array.dtype} {'x'.join(map(str, array.shape)) or 'number'}"
