"""Configurations in files: TOML, or the JSON of a run folder; presets are such files."""

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast

import tomli_w

from mupc.settings.configuration import TABLES, Configuration, check_name
from mupc.settings.setting import ConfigError

_PRESETS = resources.files("mupc.settings") / "presets"
PRESETS = ("default", *sorted(p.name[:-5] for p in _PRESETS.iterdir() if p.name.endswith(".toml")))
"""Names of published configurations; the default is what the settings themselves say."""


def preset(name: str) -> Configuration:
    """Return a published configuration.

    Raises:
        ConfigError: if there is none of this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name}: choose {' or '.join(PRESETS)}")
    if name == "default":
        return Configuration()
    return on_top(Configuration(), packaged("mupc.settings", f"presets/{name}"))


def packaged(room: str, name: str) -> dict[str, Any]:
    """Return the table of a TOML file that lies beside a package's modules; without one, none."""
    file = resources.files(room) / f"{name}.toml"
    return tomllib.loads(file.read_text("utf-8")) if file.is_file() else {}


def flattened(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a table, nested or flat, by name.

    Raises:
        ConfigError: if one is unknown, or given twice.
    """
    values: dict[str, Any] = {}
    _flatten(table, "", values, {})
    return values


def on_top(
    config: Configuration, table: Mapping[str, Any], *, checked: bool = True
) -> Configuration:
    """Return a configuration with the settings of a table, nested or flat, on top of it.

    `checked` is that of `Configuration.changed`.

    Raises:
        ConfigError: if one is unknown, impossible, or in a table to which it does not belong.
    """
    values: dict[str, Any] = {}
    tables: dict[str, str] = {}
    _flatten(table, "", values, tables)
    changed = config.changed(values, checked=checked)
    places = changed.places()
    for name, place in tables.items():
        if name in places and place not in ("", places[name]):
            raise ConfigError(f"{name} stands in [{place}], and belongs in [{places[name]}]")
    return changed


def _flatten(
    table: Mapping[str, Any], place: str, values: dict[str, Any], tables: dict[str, str]
) -> None:
    for key, value in table.items():
        name = key.replace("-", "_")
        if isinstance(value, Mapping):
            if name not in TABLES:
                check_name(name)
                raise ConfigError(f"`{name}` must be a value, not a table")
            _flatten(cast(Mapping[str, Any], value), name, values, tables)
            continue
        name, where = (place, "") if name == "kind" else (name, place)
        if name in values:
            raise ConfigError(f"{name} is given twice")
        values[name], tables[name] = value, where


def read_table(path: str | Path) -> dict[str, Any]:
    """Return the content of a TOML file, or of one that ends in `.json`.

    Raises:
        ConfigError: if it cannot be read.
    """
    kind = "JSON" if str(path).endswith(".json") else "TOML"
    read = json.loads if kind == "JSON" else tomllib.loads
    try:
        content = read(_text(Path(path).expanduser().read_bytes()))
    except IsADirectoryError as error:
        inside = Path(path) / "config.json"
        raise ConfigError(f"{path} is a folder: of a run use {inside}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not of this kind, or of no known encoding
        raise ConfigError(f"{path} is not a {kind} file: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no table of settings")
    return cast(dict[str, Any], content)


def _text(content: bytes) -> str:
    """Decode a file, with a byte-order mark or in UTF-16 as some shells write it."""
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return content.decode("utf-16" if marked else "utf-8-sig")


def settings_of(path: str | Path) -> dict[str, Any]:
    """Return the table of settings of a file.

    It is a TOML file of settings, or the `config.json` of a run folder, of which that folder is
    left out: where that run is there can be no other.

    Raises:
        ConfigError: if it cannot be read.
    """
    table = read_table(path)
    if str(path).endswith(".json") and Path(path).with_name("environment.json").is_file():
        keeping = {name: value for name, value in table.get("run", {}).items() if name != "out"}
        table = {name: value for name, value in table.items() if name != "out"}
        table |= {"run": keeping} if keeping else {}
    return table


def read_config(path: str | Path, base: Configuration) -> Configuration:
    """Return a configuration with the settings of a file on top of it; see `settings_of`.

    Raises:
        ConfigError: if it cannot be read, or a setting is unknown or impossible.
    """
    table = settings_of(path)
    try:
        return on_top(base, table)
    except ConfigError as error:
        raise ConfigError(f"in {path}: {error}") from error


def stored(table: Mapping[str, Any]) -> Configuration:
    """Return the configuration that a record holds.

    Raises:
        ConfigError: if it is none.
    """
    try:
        return on_top(Configuration(), table)
    except ConfigError as error:
        raise ConfigError(f"in the stored configuration: {error}") from error


def value_of(text: str) -> Any:
    """Return the value that a text means, as TOML has it, a word without quotation marks."""
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        try:
            return float(text)  # .1, which TOML does not know
        except ValueError:
            return text


def to_toml(config: Configuration) -> str:
    """Return a configuration as TOML."""
    return tomli_w.dumps(config.tables())
