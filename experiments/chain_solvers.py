"""Solvers of a residual Hopfield chain side by side, at initialisation and after training.

All of them move increments, in which the chain's springs are the identity, from where nothing
couples the states. Prints the relative residual of the free phase, the median over samples and the
largest, after so many gradients, and the time of the largest number of them. A product with the
Hessian counts as a gradient, and Newton's energies do not count.

- descent with momentum, and L-BFGS, are the library's;
- Anderson mixes the last four steps of descent, with whatever weights make their residual least;
- Newton makes four conjugate gradient steps for each of its own, which is halved until a sample's
  energy does not rise.

    python experiments/chain_solvers.py --size 64x64 --batches 250
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _tables import header, line, size
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

import mupc
from mupc.arrays import sample_norms
from mupc.energies import HopfieldEnergy

_STEP, _MEMORY, _CG, _HALVINGS = 0.6, 4, 4, 4
_SAMPLES = 64
# In gradients: of the start, and of a step.
COSTS = {"descent": (0, 1), "l-bfgs": (2, 1), "anderson": (0, 1), "newton-cg": (0, 1 + _CG)}


class Sample(NamedTuple):
    """The energy of one sample as a function of its increments, as a vector."""

    start: Array
    energy: Callable[[Array], Array]
    gradient: Callable[[Array], Array]


def anderson(one: Sample, steps: Array) -> Array:
    """Mix steps of descent (type II: least squares over differences of the last residuals)."""

    def step(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        vector, points, residuals = carry
        residual = -_STEP * one.gradient(vector)
        near, differences = residuals - residual, points - vector
        gram = near @ near.T
        scale = jnp.trace(gram) + 1e-30  # with no history, no weights
        weights = jnp.linalg.solve(gram + 1e-6 * scale * jnp.eye(_MEMORY), -near @ residual)
        moved = vector + residual + weights @ (differences + near)
        kept = jnp.roll(points, 1, axis=0).at[0].set(vector)
        seen = jnp.roll(residuals, 1, axis=0).at[0].set(residual)
        return moved, kept, seen

    first = -_STEP * one.gradient(one.start)
    history = jnp.tile(one.start, (_MEMORY, 1)), jnp.tile(first, (_MEMORY, 1))
    return jax.lax.fori_loop(0, steps, step, (one.start, *history))[0]


def newton(one: Sample, steps: Array) -> Array:
    """Make Newton's steps by a few conjugate gradient steps, halved while the energy rises."""

    def step(_: Array, vector: Array) -> Array:
        slope, curved = jax.linearize(one.gradient, vector)
        way = cast(Array, jax.scipy.sparse.linalg.cg(curved, -slope, maxiter=_CG)[0])
        tries = vector + 0.5 ** jnp.arange(_HALVINGS)[:, None] * way
        lower = jax.vmap(one.energy)(tries) <= one.energy(vector)
        first = jnp.argmax(lower)
        return jnp.where(jnp.any(lower), tries[first], vector)

    return jax.lax.fori_loop(0, steps, step, one.start)


def library(solver: mupc.inference.Solver) -> Callable[[HopfieldEnergy, Array], Array]:
    """Return what infers by a solver of the library, and gives the relative residuals."""

    def residuals(energy: HopfieldEnergy, steps: Array) -> Array:
        begin = energy.run()
        stopping = mupc.FixedSteps()
        end = mupc.infer(energy, mupc.InErrors(solver), begin, max_steps=steps, stopping=stopping)
        first, last = (sample_norms(energy.error_gradient(point)) for point in (begin, end.point))
        return last / first

    return residuals


def each(solve: Callable[[Sample, Array], Array]) -> Callable[[HopfieldEnergy, Array], Array]:
    """Return what solves every sample by itself, and gives the relative residuals."""

    def residuals(energy: HopfieldEnergy, steps: Array) -> Array:
        def alone(i: Array) -> Array:
            own = energy.of_sample(i)
            start, unravel = ravel_pytree(own.run().errors)

            def slope(vector: Array) -> Array:
                return ravel_pytree(own.error_gradient(own.run(unravel(vector))))[0]

            def level(vector: Array) -> Array:
                return own.samples(own.run(unravel(vector)))[0]

            end = solve(Sample(start, level, slope), steps)
            return jnp.linalg.norm(slope(end)) / jnp.linalg.norm(slope(start))

        return jax.vmap(alone)(jnp.arange(len(energy.x)))

    return residuals


SOLVERS = {
    "descent": library(mupc.GradientDescent(_STEP, momentum=0.3)),
    "l-bfgs": library(mupc.LBFGS(4)),
    "anderson": each(anderson),
    "newton-cg": each(newton),
}


def trained(shape: tuple[int, int], batches: int, seed: int) -> HopfieldEnergy:
    """Train a chain on the digits, and return its free energy of the first test samples."""
    depth, width = shape
    data = mupc.data.load("digits").flattened()
    network = mupc.residual_hopfield(
        data.shape[0], data.outputs, width=width, depth=depth, key=jax.random.key(seed)
    )
    if batches:
        falling = optax.cosine_decay_schedule(0.02, batches)
        optimiser = optax.chain(optax.adam(falling, eps=1e-12), mupc.scale_uniform(network))
        rule, key = mupc.EquilibriumPropagation(), jax.random.key(seed + 1)
        result = mupc.fit(network, data, rule, optimiser, steps=batches, key=key)
        network = cast(mupc.Hopfield, result.network)
    assert data.test is not None  # the digits have one
    x, y = data.test.x[:_SAMPLES], data.test.y[:_SAMPLES]
    return HopfieldEnergy(network, x, y, mupc.Gaussian()).times(jnp.zeros(_SAMPLES))


def main(argv: Sequence[str] | None = None) -> dict[tuple[int, str, int], np.ndarray]:
    """Return the relative residuals of all samples, by batches, solver and gradients."""
    options = _options(argv)
    columns = [f"{count} gradients" for count in options.gradients]
    print(header(("batches", "solver", *columns, "ms")), flush=True)
    found: dict[tuple[int, str, int], np.ndarray] = {}
    for batches in options.batches:
        energy = trained(options.size, batches, options.seed)
        for name, residuals in SOLVERS.items():
            cells: list[str] = []
            run, ms = eqx.filter_jit(residuals), 0.0
            for count in options.gradients:
                steps = jnp.asarray(_steps(name, count))
                left = found[batches, name, count] = np.asarray(run(energy, steps))
                cells.append(f"{np.median(left):.1g} ({np.max(left):.1g})")
                begin = time.perf_counter()
                jax.block_until_ready(run(energy, steps))
                ms = 1000 * (time.perf_counter() - begin)
            print(line((str(batches), name, *cells, f"{ms:.0f}")), flush=True)
    return found


def _steps(name: str, gradients: int) -> int:
    """Return how many steps so many gradients make."""
    first, each = COSTS[name]
    return max((gradients - first) // each, 1)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--size", type=size, default=(64, 64), help="DEPTHxWIDTH")
    parser.add_argument("--batches", type=int, nargs="+", default=[0, 250], help="of training")
    parser.add_argument("--gradients", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
