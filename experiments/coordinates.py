"""Coordinate check: whether activities, and what updates do to them, are alike at any size.

For every parameterisation, width and depth: root mean square of the last activity before training,
and of its change and the output's by three updates of Adam with backpropagation's gradient. `mupc`
has its own learning-rate factors (the rule `mup`); `standard`, the control, has none. `hopfield` is
a residual Hopfield chain with the factors of its own, settled, by equilibrium propagation.

    python experiments/coordinates.py
    python experiments/coordinates.py hopfield --widths 64 256 --depths 8 32 128
    python experiments/coordinates.py --widths 64 256 --depths 4 64
"""

import argparse
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _tables import header, line

import mupc
from mupc.theory import coordinate_check

# A figure is flat if its largest value over all sizes is below this many times its smallest.
_FLAT = 2.5


def main(argv: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Measure every size; print the spread of every figure, with the target."""
    options = _options(argv)
    data = mupc.data.load("digits").flattened()
    batch = (jnp.asarray(data.train.x[:32]), jnp.asarray(data.train.y[:32]))
    found: dict[str, np.ndarray] = {}
    for name in options.cases:
        print(
            header(
                (f"{name}: depth", "width", "last activity", "its change", "the output's change")
            )
        )
        rows: list[tuple[float, ...]] = []
        for depth, width in itertools.product(options.depths, options.widths):
            rows.append(measure(name, depth, width, batch, data))
            print(line((str(depth), str(width), *(f"{v:.3g}" for v in rows[-1]))), flush=True)
        found[name] = np.array(rows)
        spread = np.max(found[name], axis=0) / np.min(found[name], axis=0)
        shown = ", ".join(f"{v:.3g}" for v in spread)
        print(f"largest over smallest: {shown}{_verdict(name, spread)}", flush=True)
    return found


def measure(
    name: str, depth: int, width: int, batch: tuple[jax.Array, jax.Array], data: mupc.data.Dataset
) -> tuple[float, ...]:
    """Return the last activity's root mean square, its change, and the output's change."""
    build = mupc.residual_hopfield if name == "hopfield" else mupc.residual_mlp
    network = build(
        data.inputs,
        data.outputs,
        width=width,
        depth=depth,
        parameterisation=getattr(mupc, name)(),
        key=jax.random.key(0),
    )
    optimiser = optax.adam(0.01, eps=1e-12)
    if name != "standard":
        optimiser = optax.chain(optimiser, mupc.scale_adam(network))
    settles = name == "hopfield"
    rule = mupc.EquilibriumPropagation() if settles else mupc.Backpropagation()
    seen = coordinate_check(network, batch, rule, optimiser)
    return float(seen.scales[-2]), float(seen.changes[-2]), float(seen.changes[-1])


def _verdict(name: str, spread: np.ndarray) -> str:
    if name == "standard":
        return ""
    met = "met" if np.all(spread < _FLAT) else "missed"
    return f" (target: below {_FLAT:g}; {met})"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    cases = ("mupc", "standard", "hopfield")
    parser.add_argument("cases", nargs="*", default=cases[:2], help=", ".join(cases))
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 32, 256])
    options = parser.parse_args(argv)
    if unknown := [case for case in options.cases if case not in cases]:
        parser.error(f"there is no case {unknown[0]}: choose of {', '.join(cases)}")
    return options


if __name__ == "__main__":
    main()
