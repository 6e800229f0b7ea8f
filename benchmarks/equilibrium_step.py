"""A gradient of equilibrium propagation against a plain one with a fixed number of iterations.

The plain one has the same energy, of a residual Hopfield chain, written out in one function, and
settles all three phases by as many steps of descent with momentum, preconditioned by the chain's
Laplacian (two cumulative sums along depth). Ours is `mupc.EquilibriumPropagation()`, which stops
when a sample has converged. What each left of the free phase's residual is printed with its time.

    python benchmarks/equilibrium_step.py --sizes 128x64
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from _problems import CLASSES, DIGITS_PIXELS, Size, random_batch
from _timing import Ratio, Report, interleave, medians, parser, show
from jaxtyping import Array

import mupc
from mupc.arrays import sample_norms
from mupc.learning import first_gradients

_LIMIT = 0.5


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure every size."""
    options = _options(argv)
    report = Report(options)
    for size in options.sizes:
        measure(size, options, report)
    return report.finish()


def measure(size: Size, options: argparse.Namespace, report: Report) -> None:
    """Measure one size."""
    print(f"depth {size.depth}, width {size.width}")
    network = mupc.residual_hopfield(
        DIGITS_PIXELS, CLASSES, width=size.width, depth=size.depth, key=jax.random.key(options.seed)
    )
    x, y = random_batch(DIGITS_PIXELS, options.batch, options.seed)
    batch = jnp.asarray(x), jnp.asarray(y)
    cases = {"ours": ours(network, batch), "plain": plain(network, batch, options.iterations)}
    times = interleave(cases, options.rounds)
    left: dict[str, float] = {}
    for name, seconds in times.items():
        show(name, seconds)
        left[name] = float(cases[name]()[1])
        print(f"  {'':<34}free residual {left[name]:.1e} of its start (median sample)")
    middle = medians(times)
    ratio = Ratio("ours / plain", middle["ours"], middle["plain"], _LIMIT)
    figures = {"depth": size.depth, "width": size.width, "seconds": middle, "left": left}
    report.add([ratio], **figures)


def ours(network: mupc.Hopfield, batch: tuple[Array, Array]) -> Callable[[], tuple[Any, Array]]:
    """Return what computes the default rule's gradient, and what its free phase left."""
    rule = mupc.EquilibriumPropagation()

    @eqx.filter_jit
    def gradient(network: mupc.Hopfield, batch: tuple[Array, Array]) -> tuple[Any, Array]:
        found, info = first_gradients(rule, network, batch, None, jax.random.key(0))
        return found, jnp.median(info.phases["free"].relative_residual)

    return lambda: gradient(network, batch)


def plain(
    network: mupc.Hopfield,
    batch: tuple[Array, Array],
    iterations: int,
    step: float = 0.6,
    momentum: float = 0.3,
) -> Callable[[], tuple[Any, Array]]:
    """Return what computes a centred gradient at β = 0.3 by a plain relaxation."""
    (stage,) = network.chain.stages
    layers = stage.entry, stage.blocks[0], network.chain.top
    entry, block, top = (cast(mupc.Dense, layer) for layer in layers)
    weights = entry.weights, block.weights, top.weights
    first, hidden, last = entry.multiplier, block.multiplier, top.multiplier

    def energy(weights: Any, s: Array, x: Array) -> Array:
        f = jnp.tanh(s)
        drives = hidden * jnp.einsum("lbi,loi->lbo", f[:-1], weights[1])
        springs = jnp.sum((s[0] - first * x @ weights[0].T) ** 2) + jnp.sum((s[1:] - s[:-1]) ** 2)
        return 0.5 * springs - jnp.sum(f[1:] * drives)

    def cost(weights: Any, s: Array, y: Array) -> Array:
        return 0.5 * jnp.sum((y - last * jnp.tanh(s[-1]) @ weights[2].T) ** 2)

    def relax(
        weights: Any, s: Array, batch: tuple[Array, Array], beta: float
    ) -> tuple[Array, Array]:
        x, y = batch
        total = lambda s: energy(weights, s, x) + beta * cost(weights, s, y)  # noqa: E731

        def descend(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
            s, velocity = carry
            force = jnp.cumsum(jax.grad(total)(s)[::-1], axis=0)[::-1]
            velocity = momentum * velocity - step * jnp.cumsum(force, axis=0)
            return (s + velocity, velocity), sample_norms([force])

        (s, _), norms = jax.lax.scan(descend, (s, jnp.zeros_like(s)), None, iterations)
        return s, jnp.median(norms[-1] / norms[0])

    @jax.jit
    def gradient(weights: Any, batch: tuple[Array, Array], beta: float = 0.3) -> tuple[Any, Array]:
        x, y = batch
        start = jnp.broadcast_to(first * x @ weights[0].T, (network.depth, len(x), len(weights[0])))
        free, left = relax(weights, start, batch, 0.0)
        ends = [(sign, relax(weights, free, batch, sign * beta)[0]) for sign in (1, -1)]
        slopes = [
            jax.grad(
                lambda w, s=s, sign=sign: energy(w, s, x) + sign * beta * cost(w, s, y)
            )(weights)
            for sign, s in ends
        ]  # fmt: skip
        scale = 2 * beta * len(x)
        return jax.tree.map(lambda a, b: (a - b) / scale, *slopes), left

    return lambda: gradient(weights, batch)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser((__doc__ or "").splitlines()[0])
    options.add_argument("--sizes", type=Size.parse, nargs="+", default=[Size(128, 64)])
    options.add_argument("--iterations", type=int, default=20, help="of each plain phase")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args(argv)


if __name__ == "__main__":
    main()
