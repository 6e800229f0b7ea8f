"""Where the published files of a data set lie: on disk, in the cache, or at their address."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mupc.data.dataset import Dataset
from mupc.data.split import DataError


@dataclass(frozen=True)
class Source:
    """The published files of a data set, and how they are called elsewhere.

    Attributes:
        name: of the data set, and of the subfolder that is looked into first.
        url: where the files are downloaded from.
        md5: the checksum of each file, by its published name.
        spellings: other names of each file in folders that users name; with a / at its end, that of
            a folder.
        folders: other subfolders in which other programs put the files.
    """

    name: str
    url: str
    md5: Mapping[str, str]
    spellings: Mapping[str, tuple[str, ...]]
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """A data set that is loaded by its name.

    Attributes:
        name: what it is called.
        read: returns it, whole and as it is published, from a folder or, of None, from where it is.
        source: its published files; None if it is built in.
    """

    name: str
    read: Callable[[str | Path | None], Dataset]
    source: Source | None = None


def files(source: Source, data_dir: str | Path | None) -> dict[str, Path]:
    """Return where each file of `source` lies, by its published name.

    Looks in `data_dir` only, when it is given; else in MUPC_DATA, then in the cache, to which it
    downloads what is missing. In a folder, the subfolder named after the data set comes first, then
    those of other programs.

    Raises DataError when `data_dir` lacks a file, or a file cannot be downloaded.
    """
    folder = _folder(data_dir)
    if folder is not None:
        found = _search(source, folder)
        if len(found) == len(source.md5):
            return found
        if data_dir is not None:
            raise DataError(_incomplete(source, folder, found))
    return {name: _fetch(source, name) for name in source.md5}


def state(source: Source, data_dir: str | Path | None) -> str:
    """Return in a few words where `files` would find `source`; reads no contents."""
    folder = _folder(data_dir)
    if folder is not None and len(_search(source, folder)) == len(source.md5):
        return f"found in {folder}"
    if data_dir is not None:
        return f"not in {folder}"
    cache = _cache(source)
    if all((cache / name).is_file() for name in source.md5):
        return "in the cache"
    return "not on this machine; fetched when first used"


def require_balanced(labels: UInt8[np.ndarray, " n"], classes: int, name: str, path: Path) -> None:
    """Raise DataError unless each of the classes has as many of the labels, as in `name`."""
    each = len(labels) // classes
    if not np.array_equal(np.bincount(labels, minlength=classes), np.full(classes, each)):
        raise DataError(
            f"{path} holds other data than {name}: its labels are not 0 to {classes - 1} with "
            f"{each} of each class; put {name}'s own files in a folder named {name}."
        )


def _folder(data_dir: str | Path | None) -> Path | None:
    """Return the user's folder: `data_dir`, or MUPC_DATA, or none."""
    named = data_dir if data_dir is not None else os.environ.get("MUPC_DATA")
    return Path(named).expanduser() if named else None


def _search(source: Source, folder: Path) -> dict[str, Path]:
    """Return the files present in the subfolder of `source` or in `folder` that has the most."""
    places = (source.name, *source.folders, ".")
    return max((_present(source, folder / place) for place in places), key=len)


def _present(source: Source, folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in source.md5:
        for spelling in (name, *source.spellings.get(name, ())):
            path = folder / spelling
            if path.is_dir() if spelling.endswith("/") else path.is_file():
                found[name] = path
                break
    return found


def _incomplete(source: Source, folder: Path, found: Mapping[str, Path]) -> str:
    absent = [name for name in source.md5 if name not in found]
    others = ", ".join(source.spellings[absent[0]])
    places = ", ".join(str(folder / place) for place in (source.name, *source.folders))
    return (
        f"{source.name} is not complete in {folder}: expected {', '.join(absent)} ({absent[0]} may "
        f"also be {others}) there or in {places}; download from {source.url}, or leave out the "
        "data folder to have mupc download."
    )


def _cache(source: Source) -> Path:
    """Return the folder of downloads: under MUPC_CACHE, or the system's place for caches."""
    named = os.environ.get("MUPC_CACHE")
    if named:
        return Path(named).expanduser() / source.name
    import pooch

    return Path(pooch.os_cache("mupc")) / source.name


def _fetch(source: Source, name: str) -> Path:
    """Return the cached file `name`, downloaded if it is missing or its checksum is wrong."""
    import pooch

    cache = _cache(source)
    url = source.url + name
    try:
        return Path(pooch.retrieve(url, f"md5:{source.md5[name]}", fname=name, path=cache))
    except OSError as error:  # requests' exceptions are OSErrors without an errno
        problem = f"could not be downloaded to {cache} ({error.strerror or type(error).__name__})"
        cause = error
    except ValueError as error:  # pooch's word for a wrong checksum
        problem = f"arrived with a wrong checksum, not md5 {source.md5[name]}"
        cause = error
    raise DataError(
        f"{source.name} is not on this machine and {url} {problem}: try again with a network, or "
        f"download {', '.join(source.md5)} by hand from there into a folder and set MUPC_DATA or "
        f"--data-dir to it{_note_on_folder(source)}."
    ) from cause


def _note_on_folder(source: Source) -> str:
    folder = _folder(None)
    if folder is None:
        return ""
    found = len(_search(source, folder))
    return f" (MUPC_DATA is {folder}, which has {found} of {source.name}'s {len(source.md5)} files)"
