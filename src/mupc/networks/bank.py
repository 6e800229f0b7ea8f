"""A bank of repeated layers and the layer below it: neighbours, and sums along depth."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.networks.mesh import DEPTH, Axes, along_depth, devices_along, handed, passed, turn


def belows(
    below: Float[Array, "batch ..."], bank: Float[Array, "layer batch ..."]
) -> Float[Array, "layer batch ..."]:
    """Return what lies below each layer of a bank."""

    def own(bank: Array, below: Array) -> Array:
        return shifted(passed(bank[-1], below), bank)

    if devices_along(DEPTH) == 1:
        return shifted(below, bank)
    return along_depth(own, (Axes.BANKS, Axes.SAMPLES), Axes.BANKS, bank, below)


def sums(
    below: Float[Array, "batch ..."], bank: Float[Array, "layer batch ..."]
) -> Float[Array, "layer batch ..."]:
    """Sum along depth from the input on, beginning with what lies below the bank."""

    def own(bank: Array, below: Array) -> Array:
        done = _sums(bank.at[0].add(jnp.where(turn() == 0, below, 0)))
        return done + _of_others(done[-1], down=False)

    if devices_along(DEPTH) == 1:
        return _sums(bank.at[0].add(below))
    return along_depth(own, (Axes.BANKS, Axes.SAMPLES), Axes.BANKS, bank, below)


def sums_down(bank: Float[Array, "layer batch ..."]) -> Float[Array, "layer batch ..."]:
    """Sum along depth from the last layer of a bank on."""

    def own(bank: Array, _: Array) -> Array:
        done = _sums(bank, reverse=True)
        return done + _of_others(done[0], down=True)

    if devices_along(DEPTH) == 1:
        return _sums(bank, reverse=True)
    return along_depth(own, (Axes.BANKS, Axes.SAMPLES), Axes.BANKS, bank, bank[0])


def shifted(below: Array, bank: Array) -> Array:
    """Return what lies below each layer of a bank that is whole."""
    return jnp.concatenate([below[None], bank[:-1]])


def _sums(layers: Float[Array, "layer batch ..."], *, reverse: bool = False) -> Array:
    """Sum along depth, from the first layer on or from the last, in parallel."""
    # On a CPU four times as fast as `jnp.cumsum`.
    return jax.lax.associative_scan(jnp.add, layers, reverse=reverse)


def _of_others(total: Float[Array, "batch ..."], *, down: bool) -> Array:
    """Return the sum of the totals of all devices before this one, in 1 + log2 P messages."""
    before, by = handed(total, down=down), 1
    while by < devices_along(DEPTH):
        before = before + handed(before, down=down, by=by)
        by *= 2
    return before
