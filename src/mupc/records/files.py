"""Files of JSON, written whole or not at all."""

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from mupc.records.validation import RunError


def plain(value: Any) -> Any:
    """Write null for what is not a number: JSON has neither nan nor infinity."""
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in cast(Mapping[str, Any], value).items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in cast(Iterable[Any], value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file whole or not at all: a kill half-way leaves what was there before."""
    # Another process, or machine, may be writing the same.
    part = path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}.part")
    part.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n", "utf-8")
    os.replace(part, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a table of names and values.

    Raises:
        RunError: if there is none, or it is damaged.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise RunError(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} is damaged (it holds no table of names and values)")
    return cast(dict[str, Any], content)
