"""What a setting is: a frozen field with a type, a default, a range and a text, declared once.

A `Setting` is a group of fields. A `Kind` is one that is chosen among others by its name, such as a
solver; a `Section` is always there. Fields may themselves be of these: a configuration is a tree.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, cast, get_args

import numpy as np
from annotated_types import Ge, Gt, Len, Lt
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration

Count = Annotated[int, Ge(1)]
NotNegativeCount = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
SomeOf = Len(1)
"""Of a list of names: at least one."""


@dataclasses.dataclass(frozen=True)
class Traced:
    """Marks a number that is an argument of the compiled step: a new value compiles nothing."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """Marks where, or how, a run is kept: whatever it is, it is the same run."""


@dataclasses.dataclass(frozen=True)
class Located:
    """Marks where data lie, which their content tells from others: they may be moved."""


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _expanded(path: str) -> str:
    return str(Path(path).expanduser())


Place = Annotated[str, AfterValidator(_absolute)]
"""A file or folder to read; it holds from any folder."""
OutPlace = Annotated[str, AfterValidator(_expanded)]
"""A folder to write to."""


MovedData = Annotated[
    Place | None,
    Field(description="Where the data lie now, if they were moved: a file, or a folder of files."),
]
"""Where the data of something that goes on lie, unless they lie where they lay."""


class ConfigError(ValueError):
    """A configuration that cannot be run, with a sentence that says why.

    Settings stand between backticks in its text, so that every surface may spell them its way.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.replace("`", ""))
        self.text = text

    def spelt(self, spell: Callable[[str], str]) -> str:
        """Return the sentence with its settings spelt otherwise, such as as options."""
        return re.sub("`([a-z_]+)`", lambda found: spell(found[1]), self.text)


def option(name: str) -> str:
    """Return how a setting is spelt on the command line."""
    return "--" + name.replace("_", "-")


class Setting(BaseModel):
    """A group of settings. Fields are documented by the text below them, which `--help` shows."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        """Take lists for tuples, NumPy's numbers for Python's, and `none` for what may be None."""
        if not isinstance(values, Mapping):
            return values
        given = cast(Mapping[str, Any], values)
        may = {n for n, f in cls.model_fields.items() if type(None) in get_args(f.annotation)}
        return {
            name: None if name in may and value == "none" else _as_plain(value)
            for name, value in given.items()
        }

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings of these values.

        Raises:
            ConfigError: if one is not what it must be.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(_sentence(error)) from None

    @classmethod
    def merged(cls, current: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of fields when some are given anew."""
        return {**current, **given}

    @classmethod
    def own_fields(cls) -> dict[str, FieldInfo]:
        """Return the fields that hold values, by name."""
        return {n: f for n, f in cls.model_fields.items() if group_of(f) is None}

    @classmethod
    def marked(cls, mark: type) -> set[str]:
        """Return the names of the fields that carry a mark: `Traced`, `Kept` or `Located`."""
        return {
            name
            for name, field in cls.own_fields().items()
            if any(isinstance(entry, mark) for entry in field.metadata)
        }

    @classmethod
    def default(cls, name: str) -> object:
        """Return a field's default."""
        return cls.model_fields[name].default

    def values(self) -> dict[str, Any]:
        """Return the values of the fields that hold values, by name."""
        return {name: getattr(self, name) for name in self.own_fields()}

    def shown(self) -> dict[str, Any]:
        """Return the values that files of these settings hold, by name."""
        return self.values()

    def groups(self) -> Iterator[tuple[str, "Setting"]]:
        """Yield the groups in this one, by name, outermost first."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Setting):
                yield name, value
                yield from value.groups()

    def structure(self) -> dict[str, Any]:
        """Return what decides the compiled program: all but numbers that are its arguments."""
        free = self.marked(Traced)
        values = self.values()
        # A word in a number's place (`stable`) makes another program.
        return {n: v for n, v in values.items() if n not in free or isinstance(v, str)}

    def check(self, config: "Configuration") -> None:
        """Check what these settings ask of the others.

        Raises:
            ConfigError: if they do not go together.
        """


class Section(Setting):
    """Settings that every configuration has."""


class Kind(Setting):
    """Settings of one kind of something, chosen by its name."""

    slot: ClassVar[str]
    """What it is a kind of, in one word: the option that chooses it."""
    kind: ClassVar[str]
    """Its name."""
    brings: ClassVar[Mapping[str, Any]] = {}
    """What other settings begin with where it is chosen, by name."""

    @classmethod
    def shorthand(cls, text: str) -> tuple[str, dict[str, Any]] | None:
        """Return the kind, and its settings, that a text stands for which is no kind's name."""
        return None


def group_of(field: FieldInfo) -> type[Setting] | None:
    """Return the class of a field that is a group of settings; None if it holds a value."""
    hint = field.annotation
    return hint if isinstance(hint, type) and issubclass(hint, Setting) else None


def unheeded(name: str, reason: str) -> ConfigError:
    """Return the error of a setting that would have no effect."""
    return ConfigError(f"`{name}` would have no effect, since {reason}: leave it out")


def _number(value: Any) -> Any:
    """Return a number as one would say it: 0, not 0.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(cast(list[Any], value))
    return value.item() if isinstance(value, np.generic) else value


# Pydantic's kinds of errors, in words; with what the range of the field adds to them.
_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a word",
    "tuple_type": "a list",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "one of {expected}",
    "too_short": "at least one word",
}


def _sentence(error: ValidationError) -> str:
    """Return one sentence of what is wrong with a field, of the first that is wrong."""
    found = error.errors(include_url=False)
    first = [one for one in found if one["loc"][:1] == found[0]["loc"][:1]]
    if not found[0]["loc"]:
        return str(found[0]["msg"]).removeprefix("Value error, ")
    name, given = found[0]["loc"][0], found[0]["input"]
    if found[0]["type"] == "missing":
        return f"`{name}` must be given"
    if found[0]["type"] == "extra_forbidden":
        return f"there is no setting {name}"
    if found[0]["type"] == "value_error":
        return f"`{name}`: {str(found[0]['msg']).removeprefix('Value error, ')}"
    entries = isinstance(found[0]["loc"][-1], int)  # what is wrong is a word in a list
    wanted = [_wanted(one, several=len(first) > 1) for one in first]
    words = " or ".join(dict.fromkeys(wanted[:1] if entries else wanted))
    shown = given if isinstance(given, str) else repr(given)
    if entries and found[0]["type"] == "literal_error":
        return f"`{name}` must be some of {words}, not {shown}"
    return f"{'each of ' if entries else ''}`{name}` must be {words}, not {shown}"


def _wanted(error: Any, *, several: bool) -> str:
    """Return what a value must be; of a number, or a word in its place, the word alone."""
    context = {name: _number(value) for name, value in error.get("ctx", {}).items()}
    context["expected"] = str(context.get("expected", "")).replace("'", "")
    if error["type"] == "literal_error" and (several or isinstance(error["loc"][-1], int)):
        return str(context["expected"])
    template: str = _WANTED.get(error["type"]) or error["msg"]
    return template.format(**context)
