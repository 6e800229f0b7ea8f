"""Hold ρ for every sample, for the batch, or for both? Accuracy, and how exact the gradient is.

λ, which grows in training, has a heavy tail over samples: one precision for the whole batch lets
the samples of the largest λ go beyond ρ. One for each sample alone does not see that of others,
whose steep region it may have to cross. Trains with the default of `mupc train` but for ρ, for how
it is held, and for the nudge, which is positive; then compares, layer by layer, the weight gradient
used with that at an accurately solved minimum of the same energy (L-BFGS in errors, at most 400
steps), in several batches of 64.

    python experiments/held.py --dataset mnist --steps 900
"""

import argparse
from collections.abc import Sequence
from statistics import mean
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _tables import header, line, percent
from jaxtyping import Array, Float

import mupc
from mupc.learning import Batch, LearningRule, Regime, first_gradients
from mupc.networks import Network
from mupc.runs.setup import load_data, set_up
from mupc.settings import Configuration
from mupc.theory import alignment

_COLUMNS = ("ρ", "held", "test accuracy %", "least layer's cosine", "median layer's cosine")


class BySample(Regime):
    """The factor of a sample from its own λ alone."""

    def level(self, each: Float[Array, " batch"], mean: Float[Array, ""]) -> Float[Array, " batch"]:
        """Return λ of each."""
        return each


class ByBatch(Regime):
    """One factor for the batch, from the mean λ."""

    def level(self, each: Float[Array, " batch"], mean: Float[Array, ""]) -> Float[Array, " batch"]:
        """Return the mean for every sample."""
        return jnp.broadcast_to(mean, each.shape)


WAYS = {"both": Regime, "per sample": BySample, "per batch": ByBatch}


class Outcome(NamedTuple):
    """Test accuracy, and the least and the median layer's cosine to the accurate gradient."""

    accuracy: float
    least: float
    median: float


def rule_of(way: str, rho: float, **options: Any) -> mupc.PredictiveCoding:
    """Return predictive coding whose ρ is held in one of the ways."""
    rule = mupc.PredictiveCoding(rho=rho, nudge="positive", **options)
    return eqx.tree_at(lambda r: r.regime, rule, WAYS[way](jnp.asarray(rho), hold=True))


def outcome(way: str, rho: float, seed: int, options: argparse.Namespace) -> Outcome:
    """Train one network, and look at its gradient."""
    iterations, cg_steps = options.solver
    used = rule_of(
        way,
        rho,
        solver=mupc.GaussNewton(cg_steps),
        max_steps=iterations,
        stopping=mupc.FixedSteps(),
    )
    accurate = rule_of(
        way,
        rho,
        solver=mupc.InErrors(mupc.LBFGS()),
        max_steps=400,
        stopping=mupc.Tolerance(1e-4, patience=50),
    )
    result, data = _trained(used, seed, options)
    assert data.test is not None
    accuracy = mupc.evaluate(result, data.test).accuracy
    parts = [slice(first, first + 64) for first in range(0, 64 * options.batches, 64)]
    x, y = map(jnp.asarray, data.train)
    rules, model = (used, accurate), (result.network, result.state)
    cosines = [_cosine(rules, *model, (x[part], y[part])) for part in parts]
    return Outcome(float(accuracy or 0), float(np.min(cosines)), float(np.median(cosines)))


def _trained(
    rule: LearningRule, seed: int, options: argparse.Namespace
) -> tuple[mupc.FitResult, mupc.data.Dataset]:
    names = ("dataset", "depth", "width", "activation", "steps")
    given = {name: getattr(options, name) for name in names}
    config = Configuration().changed({**given, "seed": seed})
    data = load_data(config)
    network, _, optimiser, key, *_ = set_up(config, data, options.steps).member
    result = mupc.fit(network, data, rule, optimiser, steps=options.steps, log_every=100, key=key)
    return result, data


@eqx.filter_jit
def _cosine(rules: Sequence[LearningRule], network: Network, state: Any, batch: Batch) -> Array:
    """Return the cosine of every layer between the gradients of two rules."""
    ours, theirs = (
        first_gradients(rule, network, batch, state, jax.random.key(0))[0] for rule in rules
    )
    return alignment(ours, theirs).cosine


def main(argv: Sequence[str] | None = None) -> dict[tuple[float, str], list[Outcome]]:
    """Train every case with every seed; print a row as soon as it is known."""
    options = _options(argv)
    print(header(_COLUMNS), flush=True)
    found: dict[tuple[float, str], list[Outcome]] = {}
    for rho in options.regimes:
        for way in options.ways:
            seen = [outcome(way, rho, seed, options) for seed in options.seeds]
            found[rho, way] = seen
            figures = (
                percent([one.accuracy for one in seen]),
                f"{min(one.least for one in seen):.3f}",
                f"{mean(one.median for one in seen):.3f}",
            )
            print(line((f"{rho:g}", way, *figures)), flush=True)
    return found


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--depth", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--activation", default="relu")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--regimes", type=float, nargs="+", default=[0.05, 0.2, 0.6])
    parser.add_argument(
        "--solver", type=int, nargs=2, default=[1, 1], help="iterations and CG steps"
    )
    parser.add_argument("--steps", type=int, default=300, help="batches to train on")
    parser.add_argument("--batches", type=int, default=4, help="to compare gradients in")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
