"""The user's own arrays in an `.npz` file."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from mupc.data.arrays import SPLITS, arrange
from mupc.data.dataset import Dataset
from mupc.data.split import DataError

_HOW = 'save one with numpy.savez("mine.npz", x=x, y=y).'

# Names in use elsewhere, in lower case, for ours.
_ALIASES = {"x_train": "x", "y_train": "y"} | {
    f"{axis}_{name}": f"{axis}_validation" for axis in "xy" for name in ("val", "valid")
}


def load_npz(path: Path) -> Dataset:
    """Return the data set of a file: its arrays x and y, and splits for validation and testing.

    The arrays are `x`, `y` or `x_train`, `y_train`; if the file has them, `x_test`, `y_test`; and
    `x_validation`, `y_validation`, or the same with `val` or `valid`. Capitals make no difference,
    and other arrays are not read. What they must be is said at `mupc.data.arrays.arrange`.

    Raises:
        DataError: if the file cannot be read or its arrays do not fit this description.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file: {_HOW}")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz file, or a truncated one: {_HOW}")
    with np.load(path, allow_pickle=False) as archive:
        try:
            train, validation, test, classes = arrange(_read(archive, path), str(path))
        except DataError as error:
            there = ", ".join(archive.files) or "no arrays"
            raise DataError(f"{error} The file holds {there}.") from error
    return Dataset(path.name, train, validation, test, "", classes)


def _read(archive: np.lib.npyio.NpzFile, path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Return those of our arrays that the file has, by our names."""
    names = _ours(archive.files, path)
    arrays: dict[str, np.ndarray] = {}
    for ours, theirs in names.items():
        try:
            arrays[ours] = archive[theirs]
        except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(
                f"{theirs} of {path} cannot be read ({error}): save it anew as an array of numbers "
                "(labels may be text, y.astype(str))."
            ) from error
    return arrays


def _ours(names: Sequence[str], path: Path) -> dict[str, str]:
    """Return the name in the file of each of our arrays that it has."""
    known = {name for pair in SPLITS.values() for name in pair}
    found: dict[str, str] = {}
    for name in names:
        ours = _ALIASES.get(name.lower(), name.lower())
        if ours not in known:
            continue
        if ours in found:
            raise DataError(f"{path} has both {found[ours]} and {name}: keep one of them.")
        found[ours] = name
    return found
