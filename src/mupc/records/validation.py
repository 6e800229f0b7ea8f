"""What is read from disk, checked once: after this every field has its declared type.

JSON has neither nan nor infinity: where a number is declared, null is nan. Where it may be None,
null is None. Fields that a type does not declare are left out, so that folders of other versions
can be read.
"""

import enum
import inspect
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from mupc.records.types import (
    Record,
    RegimeRecord,
    TheoryRecord,
    TraceRecord,
    TrainRecord,
    ValidationRecord,
)

T = TypeVar("T")

_KINDS: dict[str, Any] = {
    kind.kind: kind
    for kind in (TrainRecord, ValidationRecord, RegimeRecord, TraceRecord, TheoryRecord)
}


class RunError(ValueError):
    """A run folder that cannot be used, with a sentence that says why."""


def record_from(values: Mapping[str, Any], where: str = "a record") -> Record:
    """Return the record of training that this is; see `any_record_from`."""
    record = any_record_from(values, where)
    if isinstance(record, TheoryRecord):
        raise RunError(f"{where} is damaged: it is of `mupc theory`, not of training")
    return record


def any_record_from(values: object, where: str) -> Record | TheoryRecord:
    """Return the record that `dataclasses.asdict` made this of, or whose line in a file it is.

    Args:
        values: by field.
        where: what to call it in an error.

    Raises:
        RunError: if it is no record, or a field is missing or of another type.
    """
    kind = cast(Any, values).get("kind") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise RunError(f"{where} is damaged: kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    return read_as(_KINDS[kind], values, where)


def read_as(kind: type[T], values: object, where: str) -> T:
    """Return a dataclass, or named tuple, of what was read from JSON.

    Raises:
        RunError: if a field is missing or of another type.
    """
    try:
        return _fields(kind, values, "it")
    except _OddError as error:
        raise RunError(f"{where} is damaged: {error}") from None


class _OddError(ValueError):
    """What is wrong with a field, in words."""


def _odd(field: str, wanted: str, value: object) -> _OddError:
    shown = repr(value)
    return _OddError(f"{field} must be {wanted}, got {shown[:60]}{'…' * (len(shown) > 60)}")


@cache
def _declared(kind: type[Any]) -> dict[str, tuple[Any, bool]]:
    """Return the type of every field, and whether it may be left out."""
    hints, parameters = get_type_hints(kind), inspect.signature(kind).parameters
    return {name: (hints[name], p.default is not p.empty) for name, p in parameters.items()}


def _fields(kind: type[T], values: object, field: str) -> T:
    if not isinstance(values, Mapping):
        raise _odd(field, "a table of names and values", values)
    found: dict[str, Any] = {}
    for name, (declared, optional) in _declared(kind).items():
        if name in values:
            found[name] = _value(declared, values[name], name)
        elif not optional:
            raise _OddError(f"{name} is missing")
    return kind(**found)


def _value(declared: Any, value: Any, field: str) -> Any:
    """Return a value as its declaration has it."""
    if declared is Any:
        return value
    origin, inner = get_origin(declared), get_args(declared)
    if origin in (Union, types.UnionType):
        return _one_of(inner, value, field)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _odd(field, "a list of numbers", value)
        return tuple(_value(inner[0], entry, field) for entry in cast(list[Any], value))
    if origin is not None:  # of tables there are those by name alone
        if not isinstance(value, Mapping):
            raise _odd(field, "a table of names and values", value)
        table = cast(Mapping[str, Any], value)
        return {name: _value(inner[1], entry, f"{field}.{name}") for name, entry in table.items()}
    if declared is float:
        return _number(value, field)
    if declared in _WORDS:
        if type(value) is not declared:
            raise _odd(field, _WORDS[declared], value)
        return value
    if issubclass(declared, enum.Enum):
        names = {member.name.lower(): member for member in declared}
        if not isinstance(value, str) or value not in names:
            raise _odd(field, f"one of {', '.join(names)}", value)
        return names[value]
    return _fields(declared, value, field)


_WORDS = {int: "a whole number", bool: "true or false", str: "a text"}


def _one_of(inner: tuple[Any, ...], value: Any, field: str) -> Any:
    """Return a value of one of several types; of None first, since a number takes null for nan."""
    if value is None and type(None) in inner:
        return None
    lists = isinstance(value, list | tuple)
    kinds = [kind for kind in inner if kind is not type(None)]
    kinds = [kind for kind in kinds if type(value) is kind] or kinds
    fitting = [kind for kind in kinds if (get_origin(kind) is tuple) == lists]
    return _value((fitting or kinds)[0], value, field)


def _number(value: Any, field: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _odd(field, "a number", value)
    try:
        return float(value)
    except OverflowError:
        return math.inf
