"""Whether every layer learns, and learns what predictive coding at equilibrium would teach it.

`cosines`: a tanh network, early and late in training with the default rule: the cosine, layer by
layer, between the weight gradient used and the gradient at an accurately solved minimum of the same
energy (float64, every sample at the precision that the rule gives it), in several batches of 64,
since late in training a batch's gradient is that of the few samples that are still wrong.
`frozen`: what is lost when the lower three quarters of the layers are frozen from the start. A rule
for which nothing is lost did not use them.

    python experiments/every_layer.py cosines
    python experiments/every_layer.py cosines --fixed-precision
    python experiments/every_layer.py cosines --network network=conv-resnet activation=tanh
    python experiments/every_layer.py cosines --network network=transformer --dataset shakespeare
    python experiments/every_layer.py frozen
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _tables import floats, header, line, percent

import mupc
from mupc.inference import InErrors
from mupc.learning import Batch, LearningRule, first_gradients
from mupc.networks import Chain, Network, scale_by
from mupc.runs import Run, train
from mupc.runs.setup import load_data, set_up
from mupc.settings import Configuration
from mupc.settings.files import preset, value_of
from mupc.theory import alignment, yardstick
from mupc.training.evaluate import as_input

# Gradients are called alike from this cosine on.
_ALIKE = 0.9
_KEY = jax.random.key(0)
_COSINES = (
    "batches trained",
    "accurate residual",
    "least layer's cosine: worst batch",
    "median batch",
    "share of batches >= 0.9",
    "to backpropagation",
)


def cosines(options: argparse.Namespace) -> dict[int, np.ndarray]:
    """Return the cosine of each layer, batch by batch, after several lengths of training."""
    print(header(_COSINES), flush=True)
    found: dict[int, np.ndarray] = {}
    network = dict(pair.split("=", 1) for pair in options.network) or {
        "depth": str(options.depth),
        "width": str(options.width),
        "activation": "tanh",
    }
    label = "-".join(network.values())
    for steps in options.train:
        settings = {
            **{name: value_of(text) for name, text in network.items()},
            "dataset": options.dataset,
            "rho": options.rho,
            "regime": "initial" if options.fixed_precision else "held",
            "steps": steps,
            "out": str(options.out / f"{label}-{steps}"),
        }
        run = train(Configuration().changed(settings))
        compared = [compare(run, first, 64) for first in range(0, 64 * options.batches, 64)]
        found[steps] = np.stack([batch.cosine for batch in compared])
        least = np.min(found[steps], axis=1)
        residual = max(batch.residual for batch in compared)
        figures = (np.min(least), np.median(least), np.mean(least >= _ALIKE))
        exact = np.median([batch.exact for batch in compared])
        shown = (f"{residual:.1e}", *(f"{figure:.3f}" for figure in figures), f"{exact:.3f}")
        print(line((str(steps), *shown)), flush=True)
    return found


class Compared(NamedTuple):
    """The gradient used on a batch, beside others: cosines of each layer.

    Attributes:
        cosine: with the gradient at an accurately solved minimum.
        exact: with backpropagation's.
        residual: the largest relative residual of that minimum.
    """

    cosine: np.ndarray
    exact: np.ndarray
    residual: np.ndarray


def compare(run: Run, first: int, size: int) -> Compared:
    """Compare gradients on `size` samples from number `first` on, with the state of the run."""
    with floats(bits=64):
        network, state = _double((run.result.network, run.result.state))
        x, y = (v[first : first + size] for v in run.data.train)
        batch = as_input(x), jnp.asarray(y, float)
        used = run.config.rule.build(run.config.network.hidden)
        accurate = mupc.PredictiveCoding(
            InErrors(mupc.LBFGS()),
            400,
            used.likelihood,
            rho=run.config.flat()["rho"],
            hold=run.config.rule.holds,
            nudge=cast(mupc.PredictiveCoding, used).nudge,
            stopping=mupc.Tolerance(1e-6),
        )
        return Compared(*map(np.asarray, _compare(network, batch, state, used, accurate)))


@eqx.filter_jit
def _compare(
    network: Chain, batch: Batch, state: Any, used: LearningRule, accurate: LearningRule
) -> tuple[jax.Array, ...]:
    gradients, _ = first_gradients(used, network, batch, state, _KEY, measure=False)
    minimum, info = first_gradients(accurate, network, batch, state, _KEY)
    exact, _ = first_gradients(yardstick(used, network), network, batch, None, _KEY)
    residual = jnp.max(info.phases["inference"].relative_residual)
    return alignment(gradients, minimum).cosine, alignment(gradients, exact).cosine, residual


def frozen(options: argparse.Namespace) -> dict[str, tuple[list[float], list[float]]]:
    """Return test accuracies with every layer learning, and with the upper quarter alone."""
    same = {name: getattr(options, name) for name in ("dataset", "depth", "width", "steps")}
    default = Configuration().changed(same)
    configs = {
        "default": default,
        "backpropagation": default.changed({"rule": "backpropagation"}),
        "paper preset": preset("paper").changed(same),
    }
    print(header(("rule", "all layers learn: %", "lower three quarters frozen: %")))
    table: dict[str, tuple[list[float], list[float]]] = {}
    for name, config in configs.items():
        free, held = (
            [_accuracy(config.changed({"seed": seed}), hold=hold) for seed in options.seeds]
            for hold in (False, True)
        )
        table[name] = free, held
        print(line((name, percent(free), percent(held))), flush=True)
    return table


def _accuracy(config: Configuration, *, hold: bool) -> float:
    data, training = load_data(config), config.training
    network, rule, optimiser, key, *_ = set_up(config, data, training.steps).member
    if hold:
        optimiser = optax.chain(optimiser, scale_by(mask(network)))
    result = mupc.fit(
        network,
        data,
        rule,
        optimiser,
        steps=training.steps,
        batch_size=training.batch_size,
        key=key,
    )
    assert data.test is not None
    accuracy = mupc.evaluate(result, data.test).accuracy
    assert accuracy is not None
    return accuracy


def mask(network: Network) -> Any:
    """Return factors of updates: 0 in the lower three quarters of the layers, else 1."""
    params = cast(Chain, eqx.filter(network, eqx.is_inexact_array))
    (stage,) = params.stages
    upper = jnp.arange(stage.depth) >= 3 * stage.depth // 4  # the entry is the first of them
    return eqx.tree_at(
        lambda n: (n.stages[0].entry.weights, n.stages[0].blocks[0].weights, n.readout.weights),
        params,
        (jnp.zeros(()), upper[1:, None, None].astype(float), jnp.ones(())),
    )


def _double(network: Any) -> Any:
    return jax.tree.map(lambda a: a.astype(float) if isinstance(a, jax.Array) else a, network)


_EXPERIMENTS = {"cosines": cosines, "frozen": frozen}
_DATA = {"cosines": ("mnist", 128), "frozen": ("digits", 64)}


def main(argv: Sequence[str] | None = None) -> object:
    """Run one experiment."""
    options = _options(argv)
    dataset, width = _DATA[options.experiment]
    options.dataset, options.width = options.dataset or dataset, options.width or width
    return _EXPERIMENTS[options.experiment](options)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("experiment", choices=list(_EXPERIMENTS))
    parser.add_argument("--dataset", help="(default: cosines mnist, frozen digits)")
    parser.add_argument(
        "--network",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings of cosines in place of depth and width: network=conv-resnet activation=tanh",
    )
    parser.add_argument("--depth", type=int, default=128)
    parser.add_argument("--width", type=int, help="(default: cosines 128, frozen 64)")
    parser.add_argument("--train", type=int, nargs="+", default=[10, 100, 900], help="of cosines")
    parser.add_argument("--batches", type=int, default=8, help="to compare gradients in")
    parser.add_argument("--rho", type=float, default=0.05, help="of cosines")
    parser.add_argument(
        "--fixed-precision", action="store_true", help="of cosines: do not hold the regime"
    )
    parser.add_argument("--steps", type=int, default=300, help="batches of frozen")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of frozen")
    parser.add_argument("--out", type=Path, default=Path("runs/every_layer"), help="run folders")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
