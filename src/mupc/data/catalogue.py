"""The known data sets, by name."""

import difflib
from pathlib import Path

from mupc.data.arrays import load_arrays
from mupc.data.cifar10 import CIFAR10, load_cifar10
from mupc.data.dataset import DataError, Dataset, hold_out
from mupc.data.digits import load_digits
from mupc.data.mnist import FASHION_MNIST, MNIST, load_fashion_mnist, load_mnist
from mupc.data.sources import state

_PUBLISHED = {
    MNIST.name: (MNIST, load_mnist),
    FASHION_MNIST.name: (FASHION_MNIST, load_fashion_mnist),
    CIFAR10.name: (CIFAR10, load_cifar10),
}


def load(name: str, *, data_dir: str | Path | None = None, validation: float = 0.0) -> Dataset:
    """Return a data set: `digits`, `mnist`, `fashion-mnist`, `cifar10`, or an `.npz` file's path.

    The files of a published data set are looked for in `data_dir`, if it is given, and nowhere
    else; otherwise in the folder MUPC_DATA (an environment variable), then in the cache (the
    system's, or the folder MUPC_CACHE), to which they are downloaded when missing. The arrays an
    `.npz` file must have are described at `mupc.data.arrays.load_arrays`.

    `validation` is the fraction, in [0, 1), of the training data set apart; the same samples every
    time, whatever the seed of the run. At 0 the data set has no validation part.

    Raises DataError, with a sentence that says what to do, for whatever is wrong.
    """
    if not 0 <= validation < 1:
        raise DataError(f"validation is {validation}: give a fraction of at least 0, below 1.")
    return hold_out(_load(name, data_dir), validation)


def available(data_dir: str | Path | None = None) -> dict[str, str]:
    """Return for each known name where its data are; reads no contents and uses no network."""
    published = {name: state(source, data_dir) for name, (source, _) in _PUBLISHED.items()}
    return {"digits": "built in", **published}


def _load(name: str, data_dir: str | Path | None) -> Dataset:
    if name in _PUBLISHED:
        _, read = _PUBLISHED[name]
        return read(data_dir)
    own_file = name.endswith(".npz")
    if name != "digits" and not own_file:
        raise DataError(_unknown(name))
    if data_dir is not None:
        raise DataError(f"{name} is not read from a data folder: leave out the data folder.")
    return load_arrays(Path(name).expanduser()) if own_file else load_digits()


def _unknown(name: str) -> str:
    known = ("digits", *_PUBLISHED)
    nearest = difflib.get_close_matches(name.lower(), known, n=1)
    suggestion = f"did you mean {nearest[0]}? " if nearest else ""
    return (
        f"There is no data set '{name}': {suggestion}Known are {', '.join(known)}, and the path of "
        "an .npz file of your own."
    )
