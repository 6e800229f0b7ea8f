"""Where the published files of a data set lie: on disk, in the cache, or at their address."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mupc.data.dataset import DataError


@dataclass(frozen=True)
class Source:
    """A data set's files: `md5` maps each published file name under `url` to its checksum.

    On disk, in a folder the user names, a file may also lie without its `.gz`, decompressed.
    """

    name: str
    url: str
    md5: dict[str, str]


def files(source: Source, data_dir: str | Path | None) -> dict[str, Path]:
    """Return where each file of `source` lies, by its published name.

    Looks in `data_dir` only, when it is given; else in MUPC_DATA, then in the cache, to which it
    downloads what is missing. In a folder, the subfolder named after the data set comes first.

    Raises DataError when `data_dir` lacks a file, or a file cannot be downloaded.
    """
    folder = _folder(data_dir)
    if folder is not None:
        found = _search(source, folder)
        if len(found) == len(source.md5):
            return found
        if data_dir is not None:
            raise DataError(
                f"{source.name} is not complete in {folder}: expected {_absent(source, found)} "
                f"(or decompressed, without .gz) there or in {folder / source.name}; download from "
                f"{source.url}, or leave out the data folder to have mupc download."
            )
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


def require_balanced(labels: UInt8[np.ndarray, " n"], name: str, path: Path) -> None:
    """Raise DataError unless each of ten classes has a tenth of the labels, as in `name`."""
    each = len(labels) // 10
    if not np.array_equal(np.bincount(labels, minlength=10), np.full(10, each)):
        raise DataError(
            f"{path} holds other data than {name}: its labels are not 0 to 9 with {each} of each "
            f"class; put {name}'s own files in a folder named {name}."
        )


def _folder(data_dir: str | Path | None) -> Path | None:
    """Return the user's folder: `data_dir`, or MUPC_DATA, or none."""
    named = data_dir if data_dir is not None else os.environ.get("MUPC_DATA")
    return Path(named).expanduser() if named else None


def _search(source: Source, folder: Path) -> dict[str, Path]:
    """Return the files present in the subfolder named after `source` or, if more, in `folder`."""
    return max(_present(source, folder / source.name), _present(source, folder), key=len)


def _present(source: Source, folder: Path) -> dict[str, Path]:
    candidates = {name: (folder / name, folder / name.removesuffix(".gz")) for name in source.md5}
    return {
        name: next(path for path in paths if path.is_file())
        for name, paths in candidates.items()
        if any(path.is_file() for path in paths)
    }


def _absent(source: Source, found: dict[str, Path]) -> str:
    return ", ".join(name for name in source.md5 if name not in found)


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
