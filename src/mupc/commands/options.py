"""From words on the command line to settings: every option is a field, and its help the field's."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args, get_origin

from pydantic.fields import FieldInfo

from mupc.settings.configuration import KINDS, REQUIRED, Configuration, owners
from mupc.settings.files import (
    PRESETS,
    flattened,
    on_top,
    packaged,
    preset,
    settings_of,
    value_of,
)
from mupc.settings.setting import ConfigError, Kind, Setting, option

_Own = TypeVar("_Own", bound=Setting)


class Positional:
    """Marks a field that is given by its place, not by its name."""


class Parsed(NamedTuple, Generic[_Own]):
    """What was typed: the command's own options, a configuration, and what of it was given."""

    own: _Own
    config: Configuration
    given: dict[str, Any]
    file: str | None


class Base(NamedTuple):
    """Where the settings of a run begin.

    They are those of `--preset`, with what the command has in a TOML file of its own name beside
    its module (as far as the chosen kinds have it), and then those of `--file`.
    """

    read: Callable[[str], Mapping[str, Any]] = settings_of
    """Returns the table of settings of a file."""
    about: str = "TOML file of settings, or a run's config.json."
    """What that file is."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(message)


def parse(
    name: str, words: Sequence[str], own: type[_Own], base: Base | None = None
) -> Parsed[_Own]:
    """Return what the words after a command's name mean.

    Kinds are chosen first, and the options are those of the chosen ones; `--help` prints them and
    ends the program.

    Args:
        name: of the command.
        words: what was typed.
        own: the command's own options.
        base: where the settings of a run begin, if the command takes them.

    Raises:
        ConfigError: if a word has no meaning, or an option is impossible.
    """
    config = Configuration() if base is None else _chosen(name, words, base)
    parser = _Parser(
        prog=f"mupc {name}",
        description=own.__doc__,
        allow_abbrev=False,
        formatter_class=_Formatter,
    )
    for field, info in own.model_fields.items():
        _add(parser, field, info, info.get_default())
    if base is not None:
        _add_choice(parser, "preset", PRESETS, "default", "Where settings begin: a publication's.")
        parser.add_argument("--file", default=argparse.SUPPRESS, help=base.about)
        _add_settings(parser, config)
    found, rest = parser.parse_known_args(list(words))
    given = vars(found)
    given.pop("preset", None)
    file = given.pop("file", None)
    mine = {name: given.pop(name) for name in own.model_fields if name in given}
    if rest:
        raise _stray(rest[0], config if base is not None else None, own)
    if file is not None and not given:
        config = _whole(config, file)
    return Parsed(own.checked(mine), config.changed(given), given, file)


def _whole(config: Configuration, file: str) -> Configuration:
    """Return what a file says, if it goes together."""
    try:
        return config.changed({})
    except ConfigError as error:
        raise ConfigError(f"in {file}: {error}") from error


def _chosen(name: str, words: Sequence[str], base: Base) -> Configuration:
    """Return the preset and the file, with the kinds that are named among the words.

    A kind cannot be chosen without the settings that have no default.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    first = (*KINDS, *REQUIRED)
    for early in ("preset", "file", *first):
        # Given without a value, it is left to the whole parser, which says so.
        parser.add_argument(option(early), nargs="?", dest=early, default=argparse.SUPPRESS)
    found = vars(parser.parse_known_args([word for word in words if word != "--help"])[0])
    found = {early: value for early, value in found.items() if value is not None}
    config, path = preset(found.pop("preset", "default")), found.pop("file", None)
    table = {} if path is None else base.read(path)
    try:
        kinds = {one: value for one, value in flattened(table).items() if one in first}
        other = {one for one in KINDS if one in found and found[one] != kinds.get(one)}
        for one in REQUIRED & kinds.keys():  # of a kind that another takes the place of
            if other & {owner.slot for owner in owners(one)}:
                del kinds[one]
        # What goes together is seen once the options have been read.
        config = config.changed(kinds | found, checked=False)
        own = flattened(packaged("mupc.commands", name))
        mine = {one: own[one] for one in own.keys() & config.flat().keys()}
        config = on_top(config.changed(mine, checked=False), table, checked=False)
    except ConfigError as error:
        raise (error if path is None else ConfigError(f"in {path}: {error}")) from error
    return config.changed(found, checked=False)


def early(words: Sequence[str], name: str) -> str | None:
    """Return the value of an option on which the defaults of the others depend."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument(option(name), nargs="?", dest="value")
    return parser.parse_known_args(list(words))[0].value


def _add_settings(parser: argparse.ArgumentParser, config: Configuration) -> None:
    """Add a group of options for every group of settings, of the kinds that are chosen."""
    for name, group in config.groups():
        title = name if not isinstance(group, Kind) else f"{name}: {group.kind}"
        place = parser.add_argument_group(title, (type(group).__doc__ or "").splitlines()[0])
        if isinstance(group, Kind):
            _add_choice(place, name, tuple(KINDS[name]), group.kind, f"Kind of {name}.")
        for field, info in type(group).own_fields().items():
            _add(place, field, info, getattr(group, field))


def _add_choice(place: Any, name: str, kinds: Sequence[str], default: str, text: str) -> None:
    place.add_argument(
        option(name),
        metavar="{" + ",".join(kinds) + "}",
        default=argparse.SUPPRESS,
        help=f"{text} (default: {default})",
    )


def _add(place: Any, name: str, info: FieldInfo, default: Any) -> None:
    """Add the option of a field."""
    text = " ".join((info.description or "").split())
    if not (info.is_required() or default in (None, (), "") or default is False):
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{text} (default: {str(shown).lower() if default is True else shown})"
    common: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
    hints = _parts(info.annotation)
    if bool in hints:
        place.add_argument(option(name), action=argparse.BooleanOptionalAction, **common)
        return
    common["metavar"] = _metavar(hints)
    common["type"] = str if set(hints) <= {str, type(None)} else value_of
    if tuple in hints:
        common["nargs"] = "+"
    if any(isinstance(mark, Positional) for mark in info.metadata):
        place.add_argument(name, **{**common, "metavar": name.upper()})
    else:
        place.add_argument(option(name), **common)


def _parts(hint: Any) -> list[Any]:
    """Return the types, and the literal words, that an annotation is made of."""
    origin = get_origin(hint)
    if origin is Literal:
        return list(get_args(hint))
    if origin is tuple:
        return [tuple, *_parts(get_args(hint)[0])]
    if get_args(hint):
        inner = get_args(hint)[:1] if hasattr(hint, "__metadata__") else get_args(hint)
        return [part for one in inner for part in _parts(one)]
    return [hint]


def _metavar(parts: Sequence[Any]) -> str:
    words = {int: "N", float: "NUMBER", str: "TEXT"}
    names = [words.get(part, part) for part in parts if part not in (tuple, type(None))]
    names = list(dict.fromkeys(map(str, names)))
    return names[0] if len(names) == 1 else "{" + ",".join(names) + "}"


def _stray(word: str, config: Configuration | None, own: type[Setting]) -> ConfigError:
    """Return why a word has no meaning."""
    name, dashes = word.partition("=")[0], word.startswith("--")
    if not dashes:
        return ConfigError(f"cannot tell what {word} is for: options begin with --")
    if config is None:
        options = ", ".join(map(option, own.model_fields)) or "none"
        return ConfigError(f"there is no option {name}; options: {options}")
    try:
        config.changed({name[2:]: None})
    except ConfigError as error:
        plain = f"there is no setting {name[2:].replace('-', '_')}"
        if error.text.startswith(plain):
            hint = error.text.removeprefix(plain)
            hint = hint.replace("mean ", "mean --").replace("_", "-")
            return ConfigError(f"there is no option {name}{hint}")
        return error
    return ConfigError(f"{name} needs a value")


class _Formatter(argparse.HelpFormatter):
    """Lines of at most 100 columns, options on the left."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=None)

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any = None) -> None:
        """Leave the list of all options to the help itself."""
        places = " ".join(a.metavar for a in actions if not a.option_strings)
        super().add_usage(
            f"%(prog)s {places} [options]".replace("  ", " "), actions, groups, prefix
        )
