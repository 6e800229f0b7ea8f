"""Data sets."""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from mupc import data
from mupc.data import Augmentation, Dataset, Scaling
from mupc.settings.setting import Count, Fraction, Kept, Kind, Located, Place


class DatasetKind(Kind):
    """Data set."""

    slot = "dataset"

    validation: Fraction = 0.0
    """Fraction of the training data held out; the network that does best there is the result. With
    0 it is the last one."""

    @abc.abstractmethod
    def load(self) -> Dataset:
        """Return the data.

        Raises:
            DataError: if it cannot be read.
        """

    def moved(self, place: str) -> dict[str, Any]:
        """Return the settings of the same data at another place, as far as they lie in one."""
        return {}

    @property
    def label(self) -> str:
        """What names a run of it."""
        return self.kind

    @classmethod
    def shorthand(cls, text: str) -> tuple[str, dict[str, Any]] | None:
        """Return the kind that a path stands for."""
        kinds = {".npz": Npz.kind, ".txt": Text.kind}
        found = kinds.get(Path(text).suffix.lower())
        return None if found is None else (found, {"path": text})


class _Numbers(DatasetKind):
    scale: Scaling = "none"
    """What is done to the inputs, by statistics of the training split: `standardise` gives them
    mean 0 and standard deviation 1, `unit` brings them to 0 to 1; published data have been scaled
    already."""
    augment: Augmentation = "none"
    """What is done to images each time that training sees them: `crop` shifts them by up to four
    pixels, `flip-crop` mirrors them too."""

    def load(self) -> Dataset:
        """Return the data.

        Raises:
            DataError: if it cannot be read.
        """
        return self._loaded(self.kind)

    def _loaded(self, name: str, data_dir: str | None = None) -> Dataset:
        found = data.load(name, data_dir=data_dir, validation=self.validation, scale=self.scale)
        return found.augmented(self.augment)


class Digits(_Numbers):
    """Handwritten digits of 8 × 8 pixels; they come with scikit-learn."""

    kind = "digits"


DataDir = Annotated[Place | None, Kept(), Located()]


class _Files(_Numbers):
    data_dir: DataDir = None
    """Folder of data files already on disk, which comes before MUPC_DATA and the cache."""

    def moved(self, place: str) -> dict[str, Any]:
        """Return the settings of the same data in another folder."""
        return {} if Path(place).suffix else {"data_dir": place}

    def load(self) -> Dataset:
        """Return the data.

        Raises:
            DataError: if it cannot be read.
        """
        return self._loaded(self.kind, self.data_dir)


class MNIST(_Files):
    """Handwritten digits of 28 × 28 pixels."""

    kind = "mnist"


class ColorMNIST(_Files):
    """MNIST's digits, each in a colour drawn for it."""

    kind = "color-mnist"


class FashionMNIST(_Files):
    """Articles of clothing, 28 × 28 pixels."""

    kind = "fashion-mnist"


class CIFAR10(_Files):
    """Colour photographs of 32 × 32 pixels."""

    kind = "cifar10"


class CIFAR100(_Files):
    """Colour photographs of 32 × 32 pixels in a hundred classes."""

    kind = "cifar100"


class Npz(_Numbers):
    """Your own arrays, x and y, in a file of NumPy's; `--dataset FILE.npz` is short for it."""

    kind = "npz"

    path: Annotated[Place, Located()]
    """The `.npz` file."""

    def load(self) -> Dataset:
        """Return the data.

        Raises:
            DataError: if it cannot be read.
        """
        return self._loaded(self.path)

    def moved(self, place: str) -> dict[str, Any]:
        """Return the settings of the same data in another file."""
        return {"path": place} if Path(place).suffix == ".npz" else {}

    @property
    def label(self) -> str:
        """What names a run of it."""
        return Path(self.path).stem


class _Characters(DatasetKind):
    brings: ClassVar[Mapping[str, Any]] = {"likelihood": "categorical"}

    context: Count = 64
    """Characters of a sample; each is predicted from those before it."""
    validation: Fraction = 0.1
    """Fraction of the text, at its end, that is held out; the network that does best there is the
    result. With 0 it is the last one."""


class Shakespeare(_Characters):
    """The characters of 40,000 lines of Shakespeare's plays."""

    kind = "shakespeare"

    data_dir: DataDir = None
    """Folder of data files already on disk, which comes before MUPC_DATA and the cache."""

    def load(self) -> Dataset:
        """Return the data.

        Raises:
            DataError: if it cannot be read.
        """
        return data.load_shakespeare(self.data_dir, self.context, self.validation)

    def moved(self, place: str) -> dict[str, Any]:
        """Return the settings of the same data in another folder."""
        return {} if Path(place).suffix else {"data_dir": place}


class Text(_Characters):
    """The characters of a text in UTF-8; `--dataset FILE.txt` is short for it."""

    kind = "text"

    path: Annotated[Place, Located()]
    """The file."""

    def load(self) -> Dataset:
        """Return the data.

        Raises:
            DataError: if it cannot be read, or is too short.
        """
        return data.load_text(self.path, self.context, self.validation)

    def moved(self, place: str) -> dict[str, Any]:
        """Return the settings of the same data in another file."""
        return {"path": place} if Path(place).suffix not in ("", ".npz") else {}

    @property
    def label(self) -> str:
        """What names a run of it."""
        return Path(self.path).stem


DATASETS: tuple[type[DatasetKind], ...] = (
    Digits,
    MNIST,
    *(ColorMNIST, FashionMNIST),
    CIFAR10,
    CIFAR100,
    Npz,
    Shakespeare,
    Text,
)
