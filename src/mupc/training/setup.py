"""What a run trains: the objects that its configuration names, checked against its data."""

from typing import NamedTuple

import jax

from mupc.data import Dataset, load, steps_per_epoch
from mupc.training.build import build_optimiser, build_rule, draw_network
from mupc.training.config import ConfigError, TrainConfig
from mupc.training.loop import check_evaluations
from mupc.training.metrics import is_distribution
from mupc.training.regime import Regime, measure_regime
from mupc.training.tensorboard import check_tensorboard
from mupc.training.trainer import Member, first_batch


class Setup(NamedTuple):
    """What a run trains, and the regime in which it begins."""

    member: Member
    regime: Regime


def set_up(config: TrainConfig, data: Dataset, steps: int, regime: Regime | None = None) -> Setup:
    """Build what a resolved configuration names, for a run of so many steps.

    The regime is measured, unless it is known already.
    """
    network_key, fit_key = jax.random.split(jax.random.key(config.seed))
    network = draw_network(config, data.inputs, data.outputs, network_key)
    if regime is None:
        regime = measure_regime(config, network, first_batch(data, config.batch_size, fit_key))
    optimiser = build_optimiser(config, network, steps)
    return Setup(Member(network, build_rule(config), optimiser, fit_key), regime)


def load_data(config: TrainConfig) -> Dataset:
    """Load the data set of a configuration."""
    return load(config.dataset, data_dir=config.data_dir, validation=config.validation)


def check_data(config: TrainConfig, data: Dataset) -> int:
    """Check what can only be checked with the data at hand; give the number of steps.

    Raises:
        ConfigError: if the configuration and the data do not go together, or a package is missing.
    """
    if config.tensorboard:
        check_tensorboard()
    check_targets(data)
    if config.likelihood == "categorical" and not is_distribution(data.train.y):
        raise ConfigError(
            f"--likelihood categorical needs targets that are distributions over classes, and "
            f"those of {data.name} are not: take gaussian"
        )
    if config.batch_size > (size := len(data.train.x)):
        raise ConfigError(
            f"--batch-size must be at most {size}, the number of training samples, not "
            f"{config.batch_size}"
        )
    epoch = steps_per_epoch(size, config.batch_size)
    steps = config.steps or round((config.epochs or 0) * epoch)
    if not steps:
        raise ConfigError(f"--epochs {config.epochs} is no step: an epoch has {epoch}")
    if config.validation:
        try:
            check_evaluations(steps, epoch, config.evaluate_every, config.early_stopping)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    check_warmup(config, steps)
    return steps


def check_targets(data: Dataset) -> None:
    """Check that targets are of the form that the command's networks predict.

    Raises:
        ConfigError: if they have positions.
    """
    if (shape := data.train.y.shape[1:]) != (data.outputs,):
        raise ConfigError(
            f"the targets of {data.name} are of shape {shape} per sample, and the command's "
            "networks predict one row: train one of your own with mupc.fit"
        )


def check_warmup(config: TrainConfig, steps: int) -> None:
    """Check that the learning rate rises within a run of so many steps.

    Raises:
        ConfigError: if not.
    """
    if config.warmup and config.warmup >= steps:
        raise ConfigError(f"--warmup must be smaller than the {steps} steps of the whole run")
