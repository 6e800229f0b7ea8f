"""`mupc theory`: what theory speaks of, measured over depth, width and training time."""

import dataclasses
import itertools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from mupc.arrays import sample_norms
from mupc.data import Dataset, Split, load, steps_per_epoch
from mupc.energies import FreeEnergy, Point
from mupc.inference import LBFGS, InErrors, Tolerance, infer
from mupc.learning import Backpropagation, Batch, first_gradients, mean_regime_number
from mupc.likelihoods import Gaussian
from mupc.networks import Chain, Network, scale_adam
from mupc.records import RunFolder, environment
from mupc.theory import (
    alignment,
    coordinate_check,
    equilibrium,
    extreme_eigenvalues,
    spectrum,
)
from mupc.training.config import PRESETS, Activation, ConfigError, PresetName, TrainConfig, option
from mupc.training.look import short
from mupc.training.loop import fit_together
from mupc.training.metrics import as_input
from mupc.training.resolution import resolve
from mupc.training.results import Ended
from mupc.training.setup import check_targets, set_up

_RATE, _EPS = 0.01, 1e-12  # of the coordinate check's Adam
_STEPS, _RTOL = 500, 1e-6  # of the search for the equilibrium


@dataclasses.dataclass(frozen=True)
class TheoryConfig:
    """Measure conditioning, energy and alignment at equilibrium over depth, width and training."""

    depths: tuple[int, ...] = (8, 16, 32)
    """Numbers of hidden layers H."""
    widths: tuple[int, ...] = (32, 64, 128)
    """Widths N."""
    parameterisations: tuple[Literal["mupc", "ntk", "standard"], ...] = ("mupc",)
    """How weights, multipliers and rate factors scale."""
    train: tuple[int, ...] = (0,)
    """Batches of training before measuring; each number is a run of its own."""
    preset: PresetName = "default"
    """How they are trained, as for `mupc train`: the default rule, whose learning rate falls to
    zero, or the paper's."""
    learning_rate: float | None = None
    """Learning rate of that training (default: the preset's, which is too large for others than
    mupc)."""
    learning_rate_rule: Literal["raw", "mup", "uniform"] | None = None
    """Its factors by layer, as for `mupc train` (default: the preset's)."""
    activation: Activation = "tanh"
    """Activation function φ."""
    skips: bool = True
    """Residual (skip) connections."""
    precision: float = 1.0
    """Output precision π at which everything is measured."""
    dataset: str = "digits"
    """Data set, as for `mupc train`."""
    data_dir: str | None = None
    """Folder of data files already on disk."""
    samples: int = 32
    """Samples of the batch."""
    hessians: int = 2
    """Samples whose activity Hessian is looked at; each has its own."""
    seed: int = 0
    """Seed of everything random."""
    out: str | None = None
    """Folder; must be new (default: runs/theory, with a number if there is one)."""


@dataclasses.dataclass(frozen=True)
class TheoryRecord:
    """One network, measured; None stands for what is not a number.

    Attributes:
        parameterisation, depth, width, trained: which one; batches it was trained for.
        diverged: whether training did; the network is the last sound one.
        rho: regime number, mean over samples, at the feedforward activities.
        smallest, largest: eigenvalues of the activity Hessian at equilibrium, median over samples.
        bounds: within this distance of either there is an eigenvalue, largest over samples.
        condition_number: their ratio, median over samples; None where one is not positive definite.
        step_limit: 2 / largest.
        residual: relative residual of the equilibrium, largest over samples.
        energy_ratio: F* over the loss at the same precision, of the batch.
        cosine, ratio: gradient at equilibrium against backpropagation's, layer by layer.
        whole_cosine: the cosine of all weights together.
        scale, moved: root mean square of every activity and of the output, and of their change by
            three updates of Adam (backpropagation's gradient; under mupc with the rates `mup`).
        spectrum: density of the Hessians' eigenvalues: `eigenvalues` and their `weights`.
    """

    parameterisation: str
    depth: int
    width: int
    trained: int
    diverged: bool
    rho: float | None
    smallest: float | None
    largest: float | None
    bounds: float | None
    condition_number: float | None
    step_limit: float | None
    residual: float | None
    energy_ratio: float | None
    cosine: tuple[float, ...]
    ratio: tuple[float, ...]
    whole_cosine: float | None
    scale: tuple[float, ...]
    moved: tuple[float, ...]
    spectrum: dict[str, tuple[float, ...]]
    kind: str = "theory"


class Case(NamedTuple):
    """A network to be measured."""

    config: TrainConfig
    network: Chain
    trained: int
    diverged: bool


def survey(
    config: TheoryConfig, report: Callable[[TheoryRecord], None]
) -> tuple[RunFolder, list[TheoryRecord]]:
    """Measure every case of a grid in float64, and write a folder.

    Args:
        config: the grid.
        report: is called with every record as soon as it is known.

    Raises:
        ConfigError, DataError, RunError: before anything is measured.
    """
    data = _check(config)
    folder = RunFolder.create(
        config.out or _folder(),
        dataclasses.asdict(config),
        environment(),
        {"precision": config.precision, "rho": None},
    )
    found: list[TheoryRecord] = []
    with _float64():
        for training, trained in _grid(config):
            case = _trained(training, data, trained)
            record = measure(case, _batch(data.train, config.samples), config)
            folder.append(dataclasses.asdict(record))
            found.append(record)
            report(record)
    return folder, found


def measure(case: Case, batch: Batch, config: TheoryConfig) -> TheoryRecord:
    """Measure one network on a batch."""
    seen = _measure(case.network, batch, Gaussian(config.precision), config.hessians)
    optimiser = optax.adam(_RATE, eps=_EPS)
    if case.config.parameterisation == "mupc":
        optimiser = optax.chain(optimiser, scale_adam(case.network))
    scale, moved = coordinate_check(case.network, batch, Backpropagation(), optimiser)
    values = {name: short(np.asarray(value, float)) for name, value in seen.items()}
    points = {name: values.pop(name) for name in ("eigenvalues", "weights")}
    return TheoryRecord(
        parameterisation=case.config.parameterisation,
        depth=case.config.depth,
        width=case.config.width,
        trained=case.trained,
        diverged=case.diverged,
        scale=short(np.asarray(scale)),
        moved=short(np.asarray(moved)),
        spectrum=points,
        **values,
    )


@eqx.filter_jit
def _measure(network: Chain, batch: Batch, likelihood: Gaussian, hessians: int) -> dict[str, Array]:
    energy = FreeEnergy(network, *batch, likelihood)
    start = energy.run()
    end, residual = _equilibrium(energy, start)
    few = FreeEnergy(network, batch[0][:hessians], batch[1][:hessians], likelihood)
    where = jax.tree.map(lambda v: v[:, :hessians], end.activities)
    extremes = extreme_eigenvalues(few, where)
    density = spectrum(few, where, probes=2, steps=100)
    rule = Backpropagation(likelihood)
    exact, _ = first_gradients(rule, network, batch, None, jax.random.key(0))
    learned = energy.weight_gradient(end)
    cosine, ratio = alignment(learned, exact)
    largest = jnp.median(extremes.largest)
    return {
        "rho": mean_regime_number(energy),
        "smallest": jnp.median(extremes.smallest),
        "largest": largest,
        "bounds": jnp.max(extremes.bounds),
        "condition_number": jnp.median(extremes.condition_number),
        "step_limit": 2 / largest,
        "residual": jnp.max(residual),
        "energy_ratio": jnp.sum(energy.samples(end)) / jnp.sum(energy.samples(start)),
        "cosine": cosine,
        "ratio": ratio,
        "whole_cosine": _cosine(learned, exact),
        "eigenvalues": density.eigenvalues,
        "weights": density.weights,
    }


def _equilibrium(energy: FreeEnergy, start: Point) -> tuple[Point, Array]:
    """Give the equilibrium, in closed form or by L-BFGS in errors, and its relative residual."""
    if energy.network.linear:
        end = energy.at(equilibrium(energy))
        ends = [sample_norms(energy.activity_gradient(at)) for at in (end, start)]
        return end, ends[0] / ends[1]
    stopping = Tolerance(_RTOL, patience=50)
    solution = infer(energy, InErrors(LBFGS()), start, max_steps=_STEPS, stopping=stopping)
    return solution.point, solution.relative_residual


def _cosine(a: Network, b: Network) -> Array:
    v, w = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    return v @ w / (jnp.linalg.norm(v) * jnp.linalg.norm(w))


def _grid(config: TheoryConfig) -> list[tuple[TrainConfig, int]]:
    """Give the configuration of every network, and for how many batches it is trained."""
    base = PRESETS[config.preset]
    base = dataclasses.replace(
        base,
        dataset=config.dataset,
        activation=config.activation,
        skips=config.skips,
        learning_rate=config.learning_rate or base.learning_rate,
        learning_rate_rule=config.learning_rate_rule or base.learning_rate_rule,
        seed=config.seed,
    )
    grid = itertools.product(
        config.parameterisations, config.depths, config.widths, sorted(config.train)
    )
    return [
        (
            resolve(
                dataclasses.replace(
                    base,
                    depth=depth,
                    width=width,
                    parameterisation=parameterisation,
                    steps=max(trained, 1),
                )
            ),
            trained,
        )
        for parameterisation, depth, width, trained in grid
    ]


def _trained(config: TrainConfig, data: Dataset, trained: int) -> Case:
    member, _ = set_up(config, data, max(trained, 1))
    if trained == 0:
        return Case(config, cast(Chain, member.network), 0, diverged=False)
    (result,) = fit_together(
        [member], data, steps=trained, batch_size=config.batch_size, log_every=trained
    )
    if result.ended is Ended.TERMINATED:
        raise SystemExit(143)
    if result.ended is Ended.INTERRUPTED:
        raise KeyboardInterrupt
    return Case(config, cast(Chain, result.network), trained, result.ended is Ended.DIVERGED)


def _check(config: TheoryConfig) -> Dataset:
    """Check all that can be wrong before anything is written or measured; give the data."""
    least = {"depths": 1, "widths": 1, "train": 0}
    for name, limit in least.items():
        values = getattr(config, name)
        if not values or min(values) < limit:
            raise ConfigError(f"{option(name)} must be numbers of at least {limit}, not {values}")
    if not config.parameterisations:
        raise ConfigError("--parameterisations must name at least one")
    if not 0 < config.precision < float("inf"):
        raise ConfigError(f"--precision must be above 0, not {config.precision}")
    data = load(config.dataset, data_dir=config.data_dir)
    check_targets(data)
    for name, most in {"samples": len(data.train.x), "hessians": config.samples}.items():
        if not 1 <= getattr(config, name) <= most:
            asked = getattr(config, name)
            raise ConfigError(f"{option(name)} must be at least 1 and at most {most}, not {asked}")
    _grid(config)
    if max(config.train):
        try:
            steps_per_epoch(len(data.train.x), TrainConfig().batch_size)
        except ValueError as error:
            raise ConfigError(f"--train: {error}") from error
    return data


def _batch(split: Split, samples: int) -> Batch:
    x, y = (part[:samples] for part in split)
    return as_input(x), jnp.asarray(y, float)


def _folder() -> Path:
    path, count = Path("runs/theory"), 1
    while path.exists():
        count += 1
        path = path.with_name(f"theory-{count}")
    return path


@contextmanager
def _float64() -> Generator[None]:
    """Compute in float64 for a while: condition numbers need the digits."""
    before = bool(jax.config.read("jax_enable_x64"))
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
