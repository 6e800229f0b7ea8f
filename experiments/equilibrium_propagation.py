"""Equilibrium propagation at depth: the scale of a residual Hopfield chain's states.

The root mean square of the free phase's states at initialisation, smallest and largest over layers,
at widths and depths, for several exponents of the branch multiplier L^−p; the library has p = 3/2.
(What such chains learn: experiments/rules.py.)

    python experiments/equilibrium_propagation.py
    python experiments/equilibrium_propagation.py --sizes 8x64 1024x64 --exponents 1.5 1
"""

import argparse
import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _tables import header, line, size

import mupc
from mupc.parameterisations import Law


def main(argv: Sequence[str] | None = None) -> dict[tuple[float, int, int], np.ndarray]:
    """Return the scale of every layer's state, by exponent, depth and width."""
    options = _options(argv)
    print(header(("exponent", "depth", "width", "smallest rms", "largest rms")), flush=True)
    found: dict[tuple[float, int, int], np.ndarray] = {}
    for exponent in options.exponents:
        for depth, width in options.sizes:
            scales = _scales(exponent, depth, width)
            found[exponent, depth, width] = scales
            ends = f"{np.min(scales):.3g}", f"{np.max(scales):.3g}"
            print(line((f"{exponent:g}", str(depth), str(width), *ends)), flush=True)
    return found


def _scales(exponent: float, depth: int, width: int) -> np.ndarray:
    laws = dataclasses.replace(mupc.hopfield(), depth=Law(depth=-exponent))
    network = mupc.residual_hopfield(
        64, 10, width=width, depth=depth, parameterisation=laws, key=jax.random.key(0)
    )
    x = jax.random.normal(jax.random.key(1), (32, 64))
    settled = eqx.filter_jit(lambda network: network.feedforward(x).activities)(network)
    return np.asarray(jnp.sqrt(jnp.mean(network.in_order(settled) ** 2, axis=(1, 2))))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sizes = [(8, 64), (8, 512), (128, 64), (128, 512)]
    parser.add_argument("--sizes", type=size, nargs="+", default=sizes, help="DEPTHxWIDTH")
    parser.add_argument("--exponents", type=float, nargs="+", default=[1.5, 1.0, 0.5, 2.0])
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
