"""The known data sets, by name: a new one is a file of this folder, and an entry in `_KNOWN`."""

import difflib
from pathlib import Path

from mupc.data.cifar import CIFAR10, CIFAR100
from mupc.data.color_mnist import COLOR_MNIST
from mupc.data.dataset import Dataset, prepare
from mupc.data.digits import DIGITS
from mupc.data.mnist import FASHION_MNIST, MNIST
from mupc.data.npz import load_npz
from mupc.data.scaling import Scaling
from mupc.data.sources import state
from mupc.data.split import DataError
from mupc.data.text import SHAKESPEARE, load_shakespeare

_KNOWN = {
    known.name: known for known in (DIGITS, MNIST, COLOR_MNIST, FASHION_MNIST, CIFAR10, CIFAR100)
}


def load(
    name: str | Path,
    *,
    data_dir: str | Path | None = None,
    validation: float = 0.0,
    scale: Scaling = "none",
    seed: int = 0,
) -> Dataset:
    """Return a data set by name, or an `.npz` file by its path.

    Names are `digits`, `mnist`, `color-mnist`, `fashion-mnist`, `cifar10`, `cifar100` and
    `shakespeare`.

    Images have the shape (n, height, width, channels); `Dataset.flattened` makes rows of them.

    The arrays that an `.npz` file must have are described at `mupc.data.npz.load_npz`.

    Args:
        name: the name of a data set, or a path.
        data_dir: the folder of a published data set's files, and the only place where they are
            looked for. Without one that is the folder MUPC_DATA (an environment variable), then the
            cache (the system's, or the folder MUPC_CACHE), to which missing files are downloaded.
        validation: the fraction of the training split, in [0, 1), that is held out: the same
            samples for all runs. At 0 there is no validation split, unless an `.npz` file has one.
        scale: `none` leaves x as it is; published data sets have been standardised. `standardise`
            gives it mean 0 and standard deviation 1, `unit` brings it to 0 to 1, by statistics of
            the training split alone: of each feature of rows (n, features), of each channel of
            images (n, height, width, channels), or of all numbers.
        seed: draws which samples are held out.

    Raises:
        DataError: with a sentence that says what to do, for whatever is wrong.
    """
    if str(name) == SHAKESPEARE.name:
        if scale != "none":
            raise DataError(f"{name} is text, which has no scale: leave out `scale`.")
        return load_shakespeare(data_dir, validation=validation)
    return prepare(_load(str(name), data_dir), validation, scale, seed)


def available(data_dir: str | Path | None = None) -> dict[str, str]:
    """Return for each known name where its data are; reads no contents and uses no network."""
    sources = {name: known.source for name, known in _KNOWN.items()} | {
        SHAKESPEARE.name: SHAKESPEARE
    }
    return {
        name: "built in" if source is None else state(source, data_dir)
        for name, source in sources.items()
    }


def _load(name: str, data_dir: str | Path | None) -> Dataset:
    if name in _KNOWN:
        return _KNOWN[name].read(data_dir)
    if not name.lower().endswith(".npz"):
        raise DataError(_unknown(name))
    if data_dir is not None:
        raise DataError(f"{name} is not read from a data folder: leave out the data folder.")
    return load_npz(Path(name).expanduser())


def _unknown(name: str) -> str:
    names = (*_KNOWN, SHAKESPEARE.name)
    nearest = difflib.get_close_matches(name.lower(), names, n=1)
    suggestion = f"did you mean {nearest[0]}? " if nearest else ""
    return (
        f"There is no data set '{name}': {suggestion}Known are {', '.join(names)}, and the path "
        "of an .npz file of your own."
    )
