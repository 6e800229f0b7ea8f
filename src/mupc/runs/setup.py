"""What a run trains: the objects that its configuration names, checked against its data."""

import re
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from mupc.data import Dataset
from mupc.networks import Network
from mupc.records import DataSummary, Regime, RunError
from mupc.runs.network_file import load_network
from mupc.settings import ConfigError, Configuration
from mupc.settings.network import NetworkKind
from mupc.training.layout import Layout
from mupc.training.plan import Schedule
from mupc.training.session import Member, first_batch
from mupc.training.tensorboard import check_tensorboard


class Setup(NamedTuple):
    """What a run trains, and the regime in which it begins."""

    member: Member
    regime: Regime


def set_up(
    config: Configuration,
    data: Dataset,
    steps: int,
    regime: Regime | None = None,
    initial: Path | None = None,
) -> Setup:
    """Return what a configuration names, for a run of so many steps.

    Args:
        config: the configuration.
        data: its data.
        steps: of the run.
        regime: is measured unless it is known already.
        initial: the file of the network that training begins from; where the configuration says
            unless given.

    Raises:
        ConfigError: if the network that training begins from cannot be read, or is another.
    """
    network_key, key = jax.random.split(jax.random.key(config.training.seed))
    network = _draw(config.network, data.shape, data.outputs, network_key)
    if (place := initial or config.training.init_from) is not None:
        path = Path(place)
        try:
            network = load_network(path / "network.safetensors" if path.is_dir() else path, network)
        except RunError as error:
            raise ConfigError(f"`init_from`: {error}") from error
    if regime is None:
        batch = first_batch(data, config.training.batch_size, key)
        regime = config.rule.measure(network, batch)
    return Setup(member_of(config, network, steps, key), regime)


def member_of(config: Configuration, network: Network, steps: int, key: PRNGKeyArray) -> Member:
    """Return a network with the rule and the optimiser that a configuration names."""
    rule = config.rule.build(config.network.hidden)
    return Member(network, rule, config.optimiser.build(network, steps, rule.updates), key)


@eqx.filter_jit
def _draw(network: NetworkKind, shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Network:
    """Draw a network as one program: operation by operation it takes a second longer."""
    return network.build(shape, outputs, key)


def lay_out(config: Configuration, runs: int = 1) -> Layout | None:
    """Return how runs are parted over devices; None if they are not.

    Of a sweep some runs may be left, which fewer devices divide.

    Raises:
        ConfigError: if there are not as many devices, or they do not divide a batch.
    """
    if not (parts := config.run.parts):
        if jax.process_count() > 1:
            raise ConfigError(
                f"there are {jax.process_count()} processes: give a `layout` over all of their "
                f"{jax.device_count()} devices, such as data={jax.device_count()}"
            )
        return None
    try:
        Layout(**parts)  # are there as many?
        most = parts.get("runs", 1)
        parts |= {"runs": max(d for d in range(1, most + 1) if not runs % d)}
        layout = Layout(**parts)
        layout.check_batch(config.training.batch_size)
    except ValueError as error:
        raise ConfigError(f"`layout`: {error}") from error
    return layout


def check_layout(layout: Layout | None, network: Network) -> None:
    """Check that a layout, if there is one, divides a network.

    Raises:
        ConfigError: if not.
    """
    try:
        if layout is not None:
            layout.check(network)
    except ValueError as error:
        raise ConfigError(f"`layout`: {error}") from error


def check_parts(config: Configuration, data: Dataset, runs: int) -> None:
    """Check the layout of a configuration, without making its network.

    Raises:
        ConfigError: if it cannot be.
    """
    layout = lay_out(config, runs)

    def build(key: PRNGKeyArray) -> Network:
        network = config.network.build(data.shape, data.outputs, key)
        check_layout(layout, network)
        return network

    eqx.filter_eval_shape(build, jax.random.key(0))


def check_runs(config: Configuration, together: int) -> None:
    """Check that what is parted along runs is there: as many runs together, or a multiple.

    Raises:
        ConfigError: if not.
    """
    if together % (devices := config.run.parts.get("runs", 1)):
        raise ConfigError(
            f"`layout` has runs={devices}, which needs runs that are trained together: of a sweep, "
            f"by `together` {devices}, or a multiple"
        )


def load_data(config: Configuration) -> Dataset:
    """Return the data set of a configuration, in the shape that its network takes."""
    return config.network.view(config.dataset.load())


def summary(data: Dataset) -> DataSummary:
    """Return what a run says of its data."""
    targets = data.train.y.shape[1:]
    return DataSummary(data.name, data.shape, targets, data.classes, data.fingerprint)


def check_data(config: Configuration, data: Dataset) -> Schedule:
    """Return how far training goes, with the configuration checked against the data at hand.

    Raises:
        ConfigError: if the configuration and the data do not go together, or a package is missing.
    """
    if config.run.tensorboard:
        try:
            check_tensorboard()
        except ImportError as error:
            raise ConfigError(str(error).replace("TensorBoard", "`tensorboard`")) from error
    config.network.check_data(data)
    likelihood = config.rule.likelihood.build()
    if not likelihood.takes(data.train.y):
        raise ConfigError(
            f"`likelihood` {config.rule.likelihood.kind} needs targets that are "
            f"{likelihood.needs}, and those of {data.name} are not: use gaussian"
        )
    plan = config.training.plan(data)
    try:
        schedule = plan.over(data)
    except ValueError as error:
        # Of the library's arguments, which are settings here.
        raise ConfigError(re.sub(r"^(\w+)=", r"`\1` ", str(error))) from error
    config.optimiser.schedule.check_length(schedule.steps)
    return schedule
