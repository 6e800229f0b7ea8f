"""The arrays of a tree by their places in it: what files hold."""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from mupc.records import RunError

_Tree = TypeVar("_Tree")


def named_arrays(tree: PyTree[Any]) -> dict[str, np.ndarray]:
    """Give the arrays of a tree, on the host, by their places; random keys as their data."""
    return {name: np.asarray(_data(leaf)) for name, leaf in _arrays(tree).items()}


def fill(like: _Tree, arrays: Mapping[str, np.ndarray], refusal: str) -> _Tree:
    """Put arrays into a tree like the one that they are from.

    Args:
        like: that tree; its arrays may be shapes alone.
        arrays: by their places, as `named_arrays` gives them.
        refusal: what it means if they are of another tree.

    Raises:
        RunError: if they are; it names the arrays.
    """
    ours = _arrays(like)
    there = {name: _kind(array) for name, array in arrays.items()}
    require_same(there, {name: _kind(_data(leaf)) for name, leaf in ours.items()}, refusal)
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    filled: list[Any] = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        filled.append(_like(leaf, arrays[name]) if name in ours else leaf)
    return jax.tree.unflatten(structure, filled)


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
    """Give an array's content as it lies in memory."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def sha256(content: Any) -> str:
    """Give the SHA-256 sum of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sum_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Give one SHA-256 sum of the names and contents of arrays."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(f"{name} {_kind(arrays[name])} ".encode())
        total.update(as_bytes(arrays[name]).data)
    return total.hexdigest()


def described(module: Any, name: str) -> dict[str, Any]:
    """Give all that makes a module, by its places: settings, numbers, and sums of its arrays."""
    arrays = {
        f"{name}{place}": array.item() if array.size == 1 else sum_of({"": array})[:16]
        for place, array in named_arrays(module).items()
    }
    return named_settings(module, name) | arrays


def named_settings(
    node: Any, place: str = "", within: frozenset[int] = frozenset()
) -> dict[str, Any]:
    """Give what is no array by its place, in words that are the same in every process.

    A module is there by the name of its class; a function by its own and, if it was made inside
    another one (as those of optax are), by what it holds; numbers by nine digits, as the last ones
    may be others on another platform.
    """
    node = inspect.unwrap(node) if callable(node) else node  # of jit, say
    if eqx.is_array(node) or isinstance(node, jax.ShapeDtypeStruct) or id(node) in within:
        return {}
    inner = _inner(node)
    if inner is None:
        return {place: _plain(node)}
    several = f" of {len(inner)}" if isinstance(node, tuple | list) else ""
    kind = node.__name__ if isinstance(node, FunctionType) else type(node).__name__
    found = {place or "its class": f"{kind}{several}"}
    for name, entry in inner.items():
        found |= named_settings(entry, f"{place}{name}", within | {id(node)})
    return found


def _inner(node: Any) -> dict[str, Any] | None:
    """Give what a node is made of; None if it is one value."""
    if isinstance(node, tuple | list):
        return {f"[{i}]": entry for i, entry in enumerate(cast(Sequence[Any], node))}
    if isinstance(node, Mapping):
        return {f"[{name}]": entry for name, entry in cast(Mapping[Any, Any], node).items()}
    if isinstance(node, functools.partial):
        made = cast("functools.partial[Any]", node)
        return {".func": made.func, ".args": made.args, ".keywords": made.keywords}
    if isinstance(node, FunctionType) and "<" in node.__qualname__:
        # Of the code of a lambda the names and constants in it: bytes differ between Pythons.
        code = node.__code__
        constants = [value for value in code.co_consts if not isinstance(value, CodeType)]
        own = {".names": code.co_names, ".constants": constants}
        rest = {".defaults": node.__defaults__, ".holds": _held(node)}
        return own | rest if node.__name__ == "<lambda>" else rest
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return {f".{field.name}": getattr(node, field.name) for field in dataclasses.fields(node)}
    return None


def _held(function: FunctionType) -> dict[str, Any]:
    """Give what a function holds of the one that made it."""
    held: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # nothing was put there yet
            held[name] = cell.cell_contents
    return held


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.9g}"
    if value is None or isinstance(value, bool | int | str):
        return value
    return getattr(value, "__name__", type(value).__name__)


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
