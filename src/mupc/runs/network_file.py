"""A network alone, in one file: safetensors, with what is needed to build it again.

The file is safetensors' own format (https://github.com/huggingface/safetensors): arrays by name,
which any program can read, and a text named `mupc`: the SHA-256 sum of the rest of it, and JSON
with the format's number, the network's classes and settings, the configuration, the sizes of input
and output, and a sum of all arrays.
"""

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast, overload

import numpy as np

from mupc.networks import Chain, Network
from mupc.records import RunError
from mupc.settings import Configuration
from mupc.settings.files import stored
from mupc.settings.network import NetworkKind
from mupc.training.trees import (
    UNNAMED,
    fill,
    named_arrays,
    named_settings,
    require_same,
    sha256,
    sum_of,
)

_Network = TypeVar("_Network", bound=Network)

_FORMAT = 1


class Origin(NamedTuple):
    """What built a network: its settings, for data of these shapes, prepared in this way."""

    network: NetworkKind
    shape: tuple[int, ...]
    outputs: int
    data: str


def save_network(path: str | Path, network: Network, *, origin: Origin | None = None) -> None:
    """Write a network's arrays to a file, whole or not at all.

    Args:
        path: the file; what was there is replaced.
        network: any network.
        origin: what built it; with it, the file can be read without a network like this one.

    Raises:
        TypeError: if it is no network.
        OSError: if it cannot be written; what was there stays.
    """
    from safetensors.numpy import save

    given: Any = network
    if not isinstance(given, Network):
        raise TypeError(f"give a network such as mupc.Chain, not {type(given).__name__}")
    path, arrays = Path(path), named_arrays(network)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    about: dict[str, Any] = {"format": _FORMAT, "sha256": sum_of(arrays)}
    about["settings"] = named_settings(network)
    if origin is not None:
        tables = Configuration(network=origin.network).tables()
        about |= {"config": {"network": tables["network"]}, "inputs": list(origin.shape)}
        about |= {"outputs": origin.outputs, "data": origin.data}
    text = json.dumps(about)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(save(arrays, {"mupc": f"{sha256(text.encode())} {text}"}))
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


@overload
def load_network(path: str | Path) -> Chain: ...
@overload
def load_network(path: str | Path, like: _Network) -> _Network: ...
def load_network(path: str | Path, like: Network | None = None) -> Network:
    """Read a network from a file that `save_network` or `mupc train` wrote.

    Args:
        path: the file; a run's is `network.safetensors` in its folder.
        like: a network of the same classes, settings and shapes, whose arrays do not matter. The
            networks of runs need none: the file says how to build them.

    Raises:
        RunError: if the file is damaged, of a newer format, or of another network than `like`; or
            if it needs a `like`.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        inside = path / "network.safetensors"
        hint = f": the network of that run is {inside}" if inside.is_file() else ""
        raise RunError(f"{path} is {'a folder' if path.is_dir() else 'no file'}{hint}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = cast(Mapping[str, str], file.metadata() or {})
            arrays: dict[str, np.ndarray] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except OSError as error:
        raise RunError(f"cannot read the network {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise RunError(f"the network {path} is damaged: {error}") from error
    about = _about(path, metadata)
    if sum_of(arrays) != about["sha256"]:
        raise RunError(f"the network {path} is damaged: it does not hold what was written")
    refusal = f"{path} is of another network"
    if like is None:
        return fill(_build(path, about), arrays, refusal)
    network = fill(like, arrays, refusal)
    # What only one of them knows is of another version of mupc, and so may a local function's name.
    theirs, ours = about.get("settings", {}), named_settings(like)
    known = [name for name, value in ours.items() if name in theirs and value != UNNAMED]
    require_same({n: theirs[n] for n in known}, {n: ours[n] for n in known}, refusal)
    return network


def _about(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what a file says of itself, if it is what was written.

    Raises:
        RunError: if not.
    """
    if "mupc" not in metadata:
        raise RunError(f"{path} was not written by mupc: it does not say of which format it is")
    total, _, text = metadata["mupc"].partition(" ")
    if sha256(text.encode()) != total:
        raise RunError(f"the network {path} is damaged: its description is not what was written")
    about = json.loads(text)
    if about["format"] != _FORMAT:
        raise RunError(
            f"the network {path} is of format {about['format']}, and this version of mupc reads "
            f"{_FORMAT}: read it with the version that wrote it, or a newer one"
        )
    return about


def _build(path: Path, about: Mapping[str, Any]) -> Network:
    """Return the shapes of the network that a file describes."""
    if "config" not in about:
        raise RunError(
            f"{path} does not say how to build its network: give load_network one like it"
        )
    # Of a number in the place of a shape, and of settings that do not apply, as they were once.
    shape = about["inputs"] if isinstance(about["inputs"], list) else [about["inputs"]]
    given = {name: value for name, value in about["config"].items() if value is not None}
    return stored(given).network.shapes(tuple(shape), about["outputs"])
