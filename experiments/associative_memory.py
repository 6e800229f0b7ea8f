"""Associative memory: images are stored in a network, and recalled from a part of them, or noise.

A decoder is trained on a few images until it knows them (arXiv 2109.08063). Then a part of each is
hidden, or noise is added, and the rest is inferred: by L-BFGS in errors, and by gradient descent on
activities with the best of several step sizes. Both find a minimum of one energy; the table says
how many sweeps each took, and how far the images are from those stored.

    python experiments/associative_memory.py --dataset cifar10 --images 50
    python experiments/associative_memory.py --dataset FILE.npz --images 10 50 250 1000 --descent 0
    python experiments/associative_memory.py --quick            (digits, seconds)
"""

import argparse
import time
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import jax
import numpy as np
import optax
from _tables import header, line
from jaxtyping import Float

import mupc
from mupc.data import Dataset, hidden_part, with_noise

# Of latent variables the prior is weak: errors of all else are a thousand times as precise.
_PRECISION = 1000.0
_NOISE = 0.2
# Of gradient descent on activities, in units of the inverse precision: at 0.3 it diverges.
_STEPS = (0.05, 0.1, 0.2)
_COLUMNS = ("images", "recalled from", "solver", "steps", "sweeps", "seconds", "mse", "residual")


class Outcome(NamedTuple):
    """How one solver recalled."""

    images: int
    task: str
    solver: str
    steps: int
    sweeps: float
    seconds: float
    error: float
    residual: float

    @property
    def row(self) -> str:
        """A line of the table."""
        numbers = (f"{self.seconds:.1f}", f"{self.error:.2e}", f"{self.residual:.1e}")
        cells = (f"{self.images}", self.task, self.solver, f"{self.steps}", f"{self.sweeps:.0f}")
        return line((*cells, *numbers))


def rule_of(
    solver: mupc.Solver, steps: int, precision: float = _PRECISION
) -> mupc.PredictiveCoding:
    """Return the rule that stores and recalls with a solver, at a precision of the output."""
    return mupc.PredictiveCoding(
        solver,
        steps,
        mupc.Gaussian(precision),
        hidden_precision=_PRECISION,
        stopping=mupc.Tolerance(1e-5, patience=steps),
    )


def stored(
    images: Float[np.ndarray, "n pixels"], width: int, steps: int, seed: int
) -> mupc.FitResult:
    """Train a decoder of three layers of a width until it knows the images."""
    key = jax.random.key(seed)
    network = mupc.decoder(
        width, images.shape[1], width=width, depth=2, skips=False, parameterisation=mupc.ntk(),
        key=key,
    )  # fmt: skip
    optimiser = optax.chain(
        optax.adam(optax.cosine_decay_schedule(0.003, steps), eps=1e-12),
        mupc.scale_uniform(network),
    )
    rule = rule_of(mupc.InErrors(mupc.LBFGS(4)), 20)
    data = Dataset.from_arrays(images, images)
    return mupc.fit(network, data, rule, optimiser, steps=steps, batch_size=len(images), key=key)


def recalled(
    trained: mupc.FitResult,
    images: Float[np.ndarray, "n pixels"],
    task: str,
    shape: tuple[int, ...],
    solver: tuple[str, mupc.Solver, int],
) -> Outcome:
    """Recall the images with one solver, and time it without its compilation."""
    name, method, steps = solver
    count = len(images)
    if task == "noise":
        given, known, precision = with_noise(images, _NOISE), None, 1 / _NOISE**2
    else:
        hidden = hidden_part(shape, "lower", count=count).reshape(images.shape)
        given, known = np.where(hidden, 0, images), ~hidden
        precision = _PRECISION
    mupc.recall(trained, given, known, rule=rule_of(method, 1, precision))
    begin = time.perf_counter()
    seen = mupc.recall(trained, given, known, rule=rule_of(method, steps, precision))
    seconds = time.perf_counter() - begin
    wrong = (seen.generated if known is None else seen.completed) - images
    error = float(np.mean(wrong**2 if known is None else wrong[~known] ** 2))
    sweeps = np.full(count, np.nan) if seen.sweeps is None else seen.sweeps
    residual = median(seen.relative_residual.tolist())
    return Outcome(count, task, name, steps, float(np.mean(sweeps)), seconds, error, residual)


def main(words: Sequence[str] | None = None) -> list[Outcome]:
    """Store, recall, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="cifar10", help="a name, or an .npz file")
    parser.add_argument("--images", type=int, nargs="+", default=[50])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--storing", type=int, default=1000, help="steps of training")
    parser.add_argument("--descent", type=int, default=10_000, help="steps of gradient descent")
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 50, 100], help="of L-BFGS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(words)
    if options.quick:
        options.dataset, options.images, options.width = "digits", [8], 32
        options.storing, options.descent, options.steps = 60, 200, [25]
    data = mupc.data.load(options.dataset, scale="unit")
    found: list[Outcome] = []
    print(header(_COLUMNS), flush=True)
    solvers = [("L-BFGS in errors", mupc.InErrors(mupc.LBFGS(8)), n) for n in options.steps]
    if options.descent:
        solvers += [
            (f"gradient descent, {eta:g}", mupc.GradientDescent(eta / _PRECISION), options.descent)
            for eta in _STEPS
        ]
    for count in options.images:
        images = 2 * data.train.x[:count].reshape(count, -1) - 1
        trained = stored(images, options.width, options.storing, options.seed)
        for task in ("upper half", "noise"):
            for solver in solvers:
                found.append(recalled(trained, images, task, data.shape, solver))
                print(found[-1].row, flush=True)
    return found


if __name__ == "__main__":
    main()
