"""What a run leaves, read again."""

import warnings
from pathlib import Path

from mupc.data import Dataset, Split
from mupc.networks import Network
from mupc.records import DataSummary, RunError, RunFolder
from mupc.runs.network_file import load_network
from mupc.runs.setup import load_data
from mupc.settings import Configuration
from mupc.settings.files import stored


def stored_config(path: str | Path) -> Configuration:
    """Read a run's configuration.

    Raises:
        RunError, ConfigError: if there is no run, or none that this version reads.
    """
    return stored(RunFolder.open(path).config())


def load_run(path: str | Path, data: str | None = None) -> tuple[Configuration, Dataset, Network]:
    """Read a run's configuration, its data and its trained network.

    Args:
        path: the run folder.
        data: where its data lie now, if they were moved: an `.npz` file, or a folder of files.

    Raises:
        RunError: if there is no run, or no whole network of its configuration in it, or if the data
            are others.
    """
    folder, config = RunFolder.open(path), stored_config(path).moved(data)
    _check_network(folder)
    loaded = load_data(config)
    folder.check_data(loaded.fingerprint)
    shapes = config.network.shapes(loaded.shape, loaded.outputs)
    return config, loaded, load_network(folder.network, shapes)


def load_trained(path: str | Path) -> tuple[DataSummary, Network]:
    """Read a run's trained network, and what its data were, without reading these.

    Raises:
        RunError: if there is no run, or no whole network of its configuration in it.
    """
    folder, config = RunFolder.open(path), stored_config(path)
    _check_network(folder)
    if (data := folder.data()) is None:
        raise RunError(f"the run {path} does not say what its data are: it has no data.json")
    shapes = config.network.shapes(data.shape, data.targets[-1])
    return data, load_network(folder.network, shapes)


def _check_network(folder: RunFolder) -> None:
    """Check that a run has a network; warn where that is not its last."""
    path = folder.path
    if not folder.network.is_file():
        raise RunError(
            f"the run {path} holds no trained network: it has not ended, or {folder.network.name} "
            f"was removed; mupc train --resume {path} goes on with a run that has not ended"
        )
    if not folder.has_ended:
        warnings.warn(
            f"the run {path} has not ended: this is its network of before it went on",
            stacklevel=3,
        )


def split_of(data: Dataset, name: str) -> Split:
    """Return the split of a data set that has this name.

    Raises:
        RunError: if the data set has no such split.
    """
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    if (split := parts[name]) is None:
        there = " or ".join(part for part, held in parts.items() if held is not None)
        raise RunError(f"{data.name} has no {name} split in this run: use {there}")
    return split
