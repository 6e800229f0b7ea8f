"""A check that arguments are what they should be, before they fail somewhere else."""

from numbers import Integral
from typing import Any


def check_kind(name: str, value: object, wanted: Any, example: str) -> None:
    """Check that an argument is of a type, or of one of several.

    Args:
        name: of the argument.
        value: what was given for it.
        wanted: the type, or a tuple of them.
        example: what it should be, in words.

    Raises:
        TypeError: if it is something else.
    """
    if not isinstance(value, wanted):
        what = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        raise TypeError(f"{name} must be {example}; got {what}")


def check_sizes(**sizes: int) -> None:
    """Check that sizes, by name, are whole numbers of at least 1.

    Raises:
        TypeError: if one is no whole number.
        ValueError: if one is smaller.
    """
    for name, size in sizes.items():
        check_kind(name, size, Integral, "a whole number")
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")
