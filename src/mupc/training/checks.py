"""Checks of a configuration's values against the types of its fields."""

import dataclasses
import numbers
import re
from collections.abc import Generator
from contextlib import contextmanager
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

_Config = TypeVar("_Config")


class ConfigError(ValueError):
    """A configuration that cannot be run, with a sentence that says why."""


def option(name: str) -> str:
    """Spell a field as on the command line."""
    return "--" + name.replace("_", "-")


@contextmanager
def spelt_in_python() -> Generator[None]:
    """Let a ConfigError name the parameters of a Python function, not options."""

    def parameter(found: re.Match[str]) -> str:
        return found[2].replace("-", "_") + ("=False" if found[1] else "")

    try:
        yield
    except ConfigError as error:
        sentence = re.sub(r"--(no-)?([a-z]+(?:-[a-z]+)*)", parameter, str(error))
        raise ConfigError(sentence) from error


def with_types(config: _Config) -> _Config:
    """Check the type of every value; make NumPy's numbers, and 1 for 1.0, what the type says.

    Raises:
        ConfigError: if one cannot be of its field's type.
    """
    changed: dict[str, Any] = {}
    for name, hint in get_type_hints(type(config)).items():
        value, kinds = getattr(config, name), _kinds(hint)
        if type(value) in kinds:
            continue
        number = isinstance(value, numbers.Real) and type(value) not in _NO_NUMBERS
        if number and int in kinds and isinstance(value, numbers.Integral):
            changed[name] = int(value)
            continue
        if number and float in kinds:
            changed[name] = float(value)
            continue
        if isinstance(value, list) and tuple in kinds:
            changed[name] = tuple(value)
            continue
        words = " or ".join(_KINDS[kind] for kind in kinds if kind is not NoneType)
        raise ConfigError(f"{option(name)} must be {words}, not {value!r}")
    return cast(_Config, dataclasses.replace(cast(Any, config), **changed))


_NO_NUMBERS: tuple[type, ...] = (bool,)  # though Python counts it among them
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    tuple: "a list of words",
}


def _kinds(hint: Any) -> list[type]:
    """Give the types that a hint allows."""
    if get_origin(hint) is Literal:
        return [str]
    if get_origin(hint) in (Union, UnionType):
        return list(dict.fromkeys(kind for part in get_args(hint) for kind in _kinds(part)))
    return [get_origin(hint) or hint]


def check_choices(config: Any) -> None:
    """Check names against the types of the fields: a stored or a Python-made one may be any.

    Raises:
        ConfigError: if one is not among a field's choices.
    """
    for name, hint in get_type_hints(type(config)).items():
        if not (choices := _choices(hint)):
            continue
        value, words = getattr(config, name), ", ".join(choices)
        if isinstance(value, tuple):
            named = cast(tuple[Any, ...], value)
            if not named or not all(isinstance(one, str) and one in choices for one in named):
                given = ", ".join(map(str, named)) or "none"
                raise ConfigError(f"{option(name)} must be some of {words}, not {given}")
        elif isinstance(value, str) and value not in choices:
            raise ConfigError(f"{option(name)} must be one of {words}, not {value}")


def _choices(hint: Any) -> list[str]:
    """Give the names that a hint allows; none where any will do."""
    if get_origin(hint) is Literal:
        return [choice for choice in get_args(hint) if isinstance(choice, str)]
    return [choice for part in get_args(hint) for choice in _choices(part)]
