"""What theory speaks of, measured over depth, width and training time."""

import dataclasses
import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from mupc.arrays import sample_norms
from mupc.data import Dataset, Split
from mupc.energies import FreeEnergy, Point
from mupc.inference import LBFGS, InErrors, Tolerance, infer
from mupc.learning import Backpropagation, Batch, first_gradients, mean_regime_number
from mupc.likelihoods import Gaussian
from mupc.networks import Chain, Network, scale_adam
from mupc.records import Ended, Regime, RunFolder, TheoryRecord, environment
from mupc.runs.setup import load_data, set_up
from mupc.settings import ConfigError, Configuration
from mupc.settings.setting import (
    Count,
    NotNegativeCount,
    Positive,
    Setting,
    SomeOf,
    unheeded,
)
from mupc.theory import (
    alignment,
    coordinate_check,
    equilibrium,
    extreme_eigenvalues,
    spectrum,
)
from mupc.training.evaluate import as_input
from mupc.training.fit import fit_together
from mupc.training.plan import Plan
from mupc.training.report import short

_RATE, _EPS = 0.01, 1e-12  # of the coordinate check's Adam
_STEPS, _RTOL = 500, 1e-6  # of the search for the equilibrium


class TheoryOptions(Setting):
    """Measure conditioning, energy and alignment at equilibrium over depth, width and training.

    Settings of `mupc train` say how the networks are trained before.
    """

    depths: Annotated[tuple[Count, ...], SomeOf] = (8, 16, 32)
    """Numbers of hidden layers H."""
    widths: Annotated[tuple[Count, ...], SomeOf] = (32, 64, 128)
    """Widths N."""
    parameterisations: Annotated[tuple[str, ...], SomeOf] = ("mupc",)
    """How weights, multipliers and rate factors scale."""
    train: Annotated[tuple[NotNegativeCount, ...], SomeOf] = (0,)
    """Batches of training before measuring; each number is a run of its own."""
    at_precision: Positive = 1.0
    """Output precision π at which everything is measured."""
    samples: Count = 32
    """Samples of the batch."""
    hessians: Count = 2
    """Samples whose activity Hessian is measured; each has its own."""


class Case(NamedTuple):
    """A network to be measured."""

    config: Configuration
    network: Chain
    depth: int
    width: int
    trained: int
    diverged: bool


def survey(
    options: TheoryOptions, config: Configuration, report: Callable[[TheoryRecord], None]
) -> tuple[RunFolder, list[TheoryRecord]]:
    """Measure every case of a grid in float64, and write a folder.

    Args:
        options: the grid.
        config: how its networks are trained.
        report: is called with every record as soon as it is known.

    Raises:
        ConfigError, DataError, RunError: before anything is measured.
    """
    if config.network.settles or config.network.generates:
        raise ConfigError(
            f"`network` {config.network.kind} is not measured here: theory is of networks whose "
            "layers predict a target from an input"
        )
    grid = list(_grid(options, config))
    data = _check(options, config)
    tables = {"theory": options.values(), **_common(config, trained=any(n for _, n in grid))}
    regime = Regime(options.at_precision, None)
    folder = RunFolder.create(config.run.out, tables, environment(), regime, "theory")
    found: list[TheoryRecord] = []
    with _float64():
        for training, trained in grid:
            case = _trained(training, data, trained)
            record = measure(case, _batch(data.train, options.samples), options)
            folder.append(dataclasses.asdict(record))
            found.append(record)
            report(record)
    return folder, found


def measure(case: Case, batch: Batch, options: TheoryOptions) -> TheoryRecord:
    """Measure one network on a batch."""
    seen = _measure(case.network, batch, Gaussian(options.at_precision), options.hessians)
    optimiser = optax.adam(_RATE, eps=_EPS)
    if case.config.network.parameterisation.kind == "mupc":
        optimiser = optax.chain(optimiser, scale_adam(case.network))
    scale, moved = coordinate_check(case.network, batch, Backpropagation(), optimiser)
    values = {name: short(np.asarray(value, float)) for name, value in seen.items()}
    points = {name: values.pop(name) for name in ("eigenvalues", "weights")}
    return TheoryRecord(
        parameterisation=case.config.network.parameterisation.kind,
        depth=case.depth,
        width=case.width,
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


def _common(config: Configuration, *, trained: bool) -> dict[str, Any]:
    """Return the settings that act on all networks of a survey: sizes and laws are each one's own.

    As they are drawn, networks have no rule and no optimiser.
    """
    tables = config.tables()
    for name in config.network.sizes:
        del tables["network"][name]
    del tables["network"]["parameterisation"]["kind"]
    if not trained:
        del tables["optimiser"], tables["rule"]
        tables["training"] = {"seed": config.training.seed}
    return tables


def _grid(options: TheoryOptions, config: Configuration) -> Iterator[tuple[Configuration, int]]:
    """Yield the configuration of every network, and for how many batches it is trained."""
    for laws, depth, width, trained in itertools.product(
        options.parameterisations, options.depths, options.widths, sorted(options.train)
    ):
        sizes = dict(zip(config.network.sizes, (depth, width), strict=True))
        length = {"steps": max(trained, 1)}
        yield config.changed({"parameterisation": laws, **sizes, **length}), trained


def _trained(config: Configuration, data: Dataset, trained: int) -> Case:
    member, _ = set_up(config, data, max(trained, 1))
    depth, width = (getattr(config.network, name) for name in config.network.sizes)
    if trained == 0:
        return Case(config, cast(Chain, member.network), depth, width, 0, diverged=False)
    plan = Plan(steps=trained, batch_size=config.training.batch_size, log_every=trained)
    (result,) = fit_together([member], data, plan)
    network = cast(Chain, result.network)
    return Case(config, network, depth, width, trained, diverged=result.ended is Ended.DIVERGED)


def _check(options: TheoryOptions, config: Configuration) -> Dataset:
    """Return the data, with all that can be wrong checked before anything is written or measured.

    Raises:
        ConfigError: if something is.
    """
    if config.training.init_from is not None:
        raise unheeded("init_from", "networks of many sizes are drawn")
    if config.run.parts:
        raise unheeded("layout", "theory is measured on one device")
    data = load_data(config)
    config.network.check_data(data)
    for name, most in {"samples": len(data.train.x), "hessians": options.samples}.items():
        if (asked := getattr(options, name)) > most:
            raise ConfigError(f"`{name}` must be at most {most}, not {asked}")
    if max(options.train):
        config.training.length(len(data.train.x))
    return data


def _batch(split: Split, samples: int) -> Batch:
    x, y = (part[:samples] for part in split)
    return as_input(x), jnp.asarray(y, float)


@contextmanager
def _float64() -> Generator[None]:
    """Compute in float64 for a while: condition numbers need the digits."""
    before = bool(jax.config.read("jax_enable_x64"))
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
