"""Text as characters: any UTF-8 file, in windows whose targets are the characters that follow."""

from pathlib import Path

import numpy as np
from jaxtyping import Int32

from mupc.data.dataset import Dataset
from mupc.data.sources import Source, files
from mupc.data.split import DataError, Split

_FILE = "input.txt"


def load_text(path: str | Path, context: int = 64, validation: float = 0.1) -> Dataset:
    """Return the data set of a file: windows of `context` characters, one after the other.

    x are the numbers of the characters, (n, context); y has, one-hot, what follows each of them,
    (n, context, characters). The vocabulary is that of the whole file, in the order of its code
    points (`Dataset.classes`). What is left over at an end is left out. Line ends are as they are.

    Args:
        path: a UTF-8 file.
        context: how many characters a sample has.
        validation: the fraction that is held out, at the end of the file, so that no sample of it
            overlaps with one that is trained on.

    Raises:
        DataError: if the file cannot be read, or is too short.
    """
    path = Path(path).expanduser()
    return of_text(_read(path), path.name, context, validation)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): name a text file.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}): save it in that "
            "encoding."
        ) from error


SHAKESPEARE = Source(
    "shakespeare",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",
    {_FILE: "6fb458f1232090904fb40fe944165e91"},
    {_FILE: ("tinyshakespeare.txt", "shakespeare.txt")},
    folders=("tinyshakespeare",),
)


def load_shakespeare(
    data_dir: str | Path | None = None, context: int = 64, validation: float = 0.1
) -> Dataset:
    """Return tiny Shakespeare, 1.1 million characters of his plays (Karpathy, 2015).

    Args:
        data_dir: the folder of its file; see `mupc.data.load`.
        context: how many characters a sample has.
        validation: the fraction that is held out, at its end.

    Raises:
        DataError: if it is not there and cannot be downloaded.
    """
    path = files(SHAKESPEARE, data_dir)[_FILE]
    return of_text(_read(path), SHAKESPEARE.name, context, validation)


def of_text(text: str, name: str, context: int, validation: float) -> Dataset:
    """Return the data set of a text; see `load_text`."""
    if not 0 <= validation < 1:
        raise DataError(f"validation is {validation}: expected a fraction of at least 0, below 1.")
    if context < 1:
        raise DataError(f"context is {context}: choose at least 1.")
    characters, numbers = np.unique(np.array(list(text), dtype="U1"), return_inverse=True)
    numbers = numbers.astype(np.int32)
    end = len(numbers) - round(validation * len(numbers))
    parts = {"train": numbers[:end], "validation": numbers[end:]}
    if not validation:
        del parts["validation"]
    for part, own in parts.items():
        if len(own) <= context:
            raise DataError(
                f"the {part} split of {name} has {len(own)} characters, and a sample takes "
                f"{context} and one more: give a longer text, or a smaller context."
            )
    splits = {part: _windows(own, context, len(characters)) for part, own in parts.items()}
    classes = tuple(map(str, characters))
    about = f"Characters of a vocabulary of {len(classes)}, in windows of {context}."
    return Dataset(name, splits["train"], splits.get("validation"), None, about, classes)


def _windows(numbers: Int32[np.ndarray, " n"], context: int, size: int) -> Split:
    count = (len(numbers) - 1) // context
    x = numbers[: count * context].reshape(count, context)
    following = numbers[1 : count * context + 1]
    rows = np.eye(size, dtype=np.uint8)[following]  # a quarter of the memory of single precision
    return Split(x, rows.reshape(count, context, size))
