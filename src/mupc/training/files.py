"""Configurations in files: TOML as one writes it, or the JSON of a run folder."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

from mupc.training.config import PRESETS, ConfigError, TrainConfig, from_settings
from mupc.training.resolution import resolve, unresolved


def read_table(path: str | Path) -> dict[str, Any]:
    """Read a TOML file, or one that ends in `.json`.

    Raises:
        ConfigError: if it cannot be read.
    """
    kind = "JSON" if str(path).endswith(".json") else "TOML"
    read = json.loads if kind == "JSON" else tomllib.loads
    try:
        content = read(Path(path).read_text("utf-8"))
    except IsADirectoryError as error:
        inside = Path(path) / "config.json"
        raise ConfigError(f"{path} is a folder: of a run take {inside}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # not of this kind, or not UTF-8
        raise ConfigError(f"{path} is not a {kind} file: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no table of settings")
    return content


def read_config(path: str | Path, preset: str | None = None) -> TrainConfig:
    """Read the configuration of a run, on top of a preset; it is not resolved.

    Args:
        path: a TOML file of settings, or the `config.json` of a run folder, of which what follows
            from other settings is left out, and that folder.
        preset: the preset; None: the file's, if it names one.

    Raises:
        ConfigError: if it cannot be read, or a setting is unknown or of a wrong type.
    """
    table = read_table(path)
    said = {"preset": preset or "default", **table}
    try:
        config = from_settings(said, PRESETS[from_settings({"preset": said["preset"]}).preset])
        if preset not in (None, config.preset):
            raise ConfigError(f"the preset is {config.preset}: leave out --preset {preset}")
        if not str(path).endswith(".json"):
            return config
        # Where that run is there can be no other.
        of_a_run = Path(path).with_name("environment.json").is_file()
        return dataclasses.replace(unresolved(config), out=None if of_a_run else config.out)
    except ConfigError as error:
        raise ConfigError(f"in {path}: {error}") from error


def to_toml(config: TrainConfig) -> str:
    """Write a configuration as TOML.

    What follows from other settings stands in comments: without the hash it holds whatever they
    are.

    Raises:
        ConfigError: if the configuration is impossible.
    """
    lines: list[str] = []
    for name, value in dataclasses.asdict(resolve(config)).items():
        given = getattr(config, name)
        if value is not None:
            # Strings, numbers, truth values and lists are written alike in JSON and TOML.
            lines.append(
                f"{'# ' if given is None else ''}{name} = {json.dumps(value, ensure_ascii=False)}"
            )
    return "\n".join(lines) + "\n"
