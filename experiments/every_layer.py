"""Whether every layer learns, and learns what predictive coding at equilibrium would teach it.

`cosines`: a tanh network, early and late in training with the default rule: the cosine, layer by
layer, between the weight gradient used and the gradient at an accurately solved minimum (float64),
in several batches of 64, since late in training a batch's gradient is that of the few samples that
are still wrong.
`frozen`: what is lost when the lower three quarters of the layers are frozen from the start. A rule
for which nothing is lost did not use them.

    python experiments/every_layer.py cosines
    python experiments/every_layer.py cosines --fixed-precision
    python experiments/every_layer.py frozen
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _tables import floats, header, line, percent

import mupc
from mupc.inference import InErrors
from mupc.networks import Chain, scale_by
from mupc.theory import gradient_alignment
from mupc.training.build import build_network, build_optimiser, build_rule
from mupc.training.config import PRESETS, TrainConfig
from mupc.training.regime import measure_regime
from mupc.training.resolution import resolve
from mupc.training.run import train
from mupc.training.setup import load_data

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
    """Give the cosine of each layer, batch by batch, after several lengths of training."""
    print(header(_COSINES), flush=True)
    found: dict[int, np.ndarray] = {}
    for steps in options.train:
        config = TrainConfig(
            dataset=options.dataset,
            validation=0.0,
            depth=options.depth,
            width=options.width,
            activation="tanh",
            rho=options.rho,
            hold_regime=not options.fixed_precision,
            steps=steps,
            out=str(options.out / f"tanh-{options.depth}x{options.width}-{steps}"),
        )
        run = train(config)
        data = load_data(run.config)
        held = replace(run.config, hold_regime=None)
        assert run.regime is not None
        default = build_rule(held, run.regime.precision)
        accurate = mupc.PredictiveCoding(
            solver=InErrors(mupc.LBFGS()), max_steps=400, likelihood=default.likelihood, rtol=1e-6
        )
        residuals: list[float] = []
        exact: list[np.ndarray] = []
        each: list[np.ndarray] = []
        with floats(bits=64):
            network: Any = _double(run.result.network)
            for first in range(0, 64 * options.batches, 64):
                x, y = (jnp.asarray(v[first : first + 64], float) for v in data.train)
                _, _, info = eqx.filter_jit(accurate.gradients)(network, (x, y), None, _KEY)
                assert info.inference is not None
                residuals.append(float(jnp.max(info.inference.relative_residual)))
                each.append(
                    np.asarray(gradient_alignment(network, (x, y), default, accurate).cosine)
                )
                exact.append(np.asarray(gradient_alignment(network, (x, y), default).cosine))
        found[steps] = np.stack(each)
        least = np.min(found[steps], axis=1)
        figures = (np.min(least), np.median(least), np.mean(least >= _ALIKE))
        shown = (f"{max(residuals):.1e}", *(f"{figure:.3f}" for figure in figures))
        print(line((str(steps), *shown, f"{np.median(exact):.3f}")), flush=True)
    return found


def frozen(options: argparse.Namespace) -> dict[str, tuple[list[float], list[float]]]:
    """Give test accuracies with every layer learning, and with the upper quarter alone."""
    base = TrainConfig(
        dataset=options.dataset,
        validation=0.0,
        depth=options.depth,
        width=options.width,
        steps=options.steps,
    )
    paper = replace(
        PRESETS["paper"],
        dataset=options.dataset,
        depth=options.depth,
        width=options.width,
        steps=options.steps,
    )
    configs = {
        "default": base,
        "backpropagation": replace(base, rule="backpropagation"),
        "paper preset": paper,
    }
    print(header(("rule", "all layers learn: %", "lower three quarters frozen: %")))
    table: dict[str, tuple[list[float], list[float]]] = {}
    for name, config in configs.items():
        free, held = (
            [_accuracy(replace(config, seed=seed), hold=hold) for seed in options.seeds]
            for hold in (False, True)
        )
        table[name] = free, held
        print(line((name, percent(free), percent(held))), flush=True)
    return table


def _accuracy(config: TrainConfig, *, hold: bool) -> float:
    config = resolve(config)
    data = load_data(config)
    network_key, fit_key = jax.random.split(jax.random.key(config.seed))
    network = build_network(config, data.inputs, data.outputs, network_key)
    rule = build_rule(config, measure_regime(config, network, data).precision)
    optimiser = build_optimiser(config, network, config.steps or 0)
    if hold:
        optimiser = optax.chain(optimiser, scale_by(mask(network)))
    result = mupc.fit(
        network,
        data,
        rule,
        optimiser,
        steps=config.steps,
        batch_size=config.batch_size,
        key=fit_key,
    )
    assert data.test is not None
    accuracy = mupc.evaluate(result.network, data.test).accuracy
    assert accuracy is not None
    return accuracy


def mask(network: Chain) -> Any:
    """Give factors of updates: 0 in the lower three quarters of the layers, else 1."""
    params = eqx.filter(network, eqx.is_inexact_array)
    (stage,) = params.stages
    blocks = len(stage.blocks.weights)
    upper = jnp.arange(blocks + 1) >= 3 * (blocks + 1) // 4  # the entry is the first of them
    return eqx.tree_at(
        lambda n: (n.stages[0].entry.weights, n.stages[0].blocks.weights, n.readout.weights),
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
