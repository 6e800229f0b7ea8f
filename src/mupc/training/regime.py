"""The regime of a run before it begins, and whether the solver is accurate enough for it."""

from typing import NamedTuple

import equinox as eqx
from jaxtyping import Array, Float

from mupc.energies import FreeEnergy
from mupc.learning import Batch, sensitivity
from mupc.likelihoods import Likelihood
from mupc.networks import Network
from mupc.training.build import build_likelihood
from mupc.training.config import ConfigError, TrainConfig

# Up to the first one Gauss–Newton iteration trains as well as accurate inference, and up to the
# second several do (experiments/regimes.py; the tables are in docs/solvers.md). A regime that is
# not held goes further away in training.
_LIMITS, _LIMITS_IF_HELD = (0.25, 1.0), (0.75, 2.5)


class Regime(NamedTuple):
    """The precision, and the regime number at the start (None where there is no inference)."""

    precision: float
    rho: float | None


@eqx.filter_jit
def _unit_regime(network: Network, batch: Batch, likelihood: Likelihood) -> Float[Array, ""]:
    energy = FreeEnergy(network, *batch, likelihood)
    return sensitivity(energy, energy.run()).mean()


def measure_regime(config: TrainConfig, network: Network, batch: Batch) -> Regime:
    """Measure the regime number on the first batch, or the precision at which it is as asked for.

    It is what the rule will measure there: one sweep.

    Raises:
        ConfigError: if no precision does.
    """
    if config.rule == "backpropagation":
        return Regime(config.precision or 1.0, None)
    unit = float(_unit_regime(network, batch, build_likelihood(config)))
    if config.rho is not None and not unit > 0:
        raise ConfigError(
            "no precision gives this --rho, since no hidden activity bears on the output of the "
            "first batch: if its inputs are all zero, shuffle the data; or give --precision"
        )
    if config.rho is not None:
        return Regime(config.rho / unit, config.rho)
    precision = config.precision or 1.0
    return Regime(precision, precision * unit)


def enough(config: TrainConfig, regime: Regime) -> str | None:
    """Say in one sentence if the solver is not accurate enough for the regime, else nothing."""
    if regime.rho is None or config.preset == "paper":
        return None
    steps = config.max_steps or 1
    if config.solver == "gauss-newton":
        one, several = _LIMITS_IF_HELD if config.hold_regime else _LIMITS
        limit = one if steps < 3 else several
        if regime.rho > limit:
            return (
                f"at ρ = {regime.rho:.2g} inference must be accurate, and {steps} Gauss–Newton "
                f"iteration{'s are' if steps > 1 else ' is'} not enough: take --solver l-bfgs"
                + (" or --max-steps 3 --cg-steps 4" if steps < 3 and regime.rho <= several else "")
            )
    if config.solver == "gradient-flow" and config.activation == "relu":
        return (
            "the gradient flow follows every kink of relu: it takes very long, and ends short of "
            "the minimum: take --solver l-bfgs"
        )
    truncated = config.coordinates == "activities" and steps < 4 * config.depth
    if truncated and config.solver in ("gradient-descent", "adam"):
        return (
            f"{steps} steps on activities do not carry the error through {config.depth} layers, so "
            "the lower ones hardly learn: take --solver gauss-newton"
        )
    return None
