"""Repetitions parted along the depth of a mesh: what needs neighbours only, and sweeps in turn.

Each of P devices along depth holds n/P repetitions, with their banks. A layer's prediction, local
gradient and weight gradient need the activity below and the error above: of these one array goes to
the neighbour. A sweep through all layers (feedforward, pushforward, pullback) is sequential; the
samples that a device has go through it in M microbatches, so that a device works on one while the
next works on the one before. It takes M + P − 1 turns of 1/(M P) of the work: the share
(P − 1)/(M + P − 1) of a device's time is idle.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mupc.networks.block import Activities, Block
from mupc.networks.mesh import (
    DATA,
    DEPTH,
    Axes,
    along_depth,
    check_divides,
    data_axis,
    devices_along,
    handed,
    passed,
    to_all,
    turn,
)
from mupc.networks.repetition import LocalGradient, Repetition, Term

# Microbatches for each device along depth, at most: with two, a third of the time is idle.
_EACH = 2


def microbatches(samples: int, devices: int) -> int:
    """Return into how many microbatches a device's samples go, of as many devices along depth."""
    return max(m for m in range(1, _EACH * devices + 1) if not samples % m)


def parted(repetition: Repetition) -> "Repetition | Pipeline":
    """Return repetitions as they are computed under the present mesh.

    Raises:
        ValueError: if the mesh does not divide them.
    """
    devices = devices_along(DEPTH)
    if devices == 1 or not repetition.blocks:
        return repetition
    check_divides(devices, repetition.count)
    return Pipeline(repetition)


class Pipeline(eqx.Module):
    """Repetitions, of which each of the devices along depth holds its part.

    Its methods are those of `Repetition`, and give the same.
    """

    repetition: Repetition

    def feedforward(
        self, below: Float[Array, "batch ..."], errors: Activities | None
    ) -> tuple[Float[Array, "batch ..."], Activities]:
        """Run the layers in turn, adding to each prediction its error if there are errors."""

        def own(blocks: Repetition, z: Array, errors: Any) -> Any:
            # Differentiated, each turn's layers are computed again, as GPipe does (arXiv
            # 1811.06965): to keep what they made, idle turns included, takes more room.
            again = eqx.filter_checkpoint(blocks.feedforward, prevent_cse=False)  # it is in a loop
            return _in_turn(again, z, (errors,))

        kinds, result = (Axes.SAMPLES, Axes.BANKS), (Axes.SAMPLES, Axes.BANKS)
        return self._shared(own, kinds, result, below, errors)

    def predictions(self, below: Float[Array, "batch ..."], activities: Activities) -> Activities:
        """Predict every activity from the one below it."""

        def own(blocks: Repetition, below: Array, z: Activities) -> Activities:
            return blocks.predictions(_under(below, z), z)

        return self._shared(own, (Axes.SAMPLES, Axes.BANKS), Axes.BANKS, below, activities)

    def pushforward(
        self,
        below: Float[Array, "batch ..."],
        activities: Activities,
        change: Float[Array, "batch ..."],
        changes: Activities,
    ) -> Float[Array, "batch ..."]:
        """Return how the last activity changes with `below` and with the errors."""

        def own(blocks: Repetition, below: Array, z: Activities, change: Array, d: Any) -> Array:
            def part(change: Array, under: Array, z: Activities, d: Activities) -> Any:
                return blocks.pushforward(under[0], z, change, d), ()

            return _in_turn(part, change, (_under(below, z)[None], z, d))[0]

        kinds = (Axes.SAMPLES, Axes.BANKS, Axes.SAMPLES, Axes.BANKS)
        return self._shared(own, kinds, Axes.SAMPLES, below, activities, change, changes)

    def pullback(
        self,
        below: Float[Array, "batch ..."],
        activities: Activities,
        above: Float[Array, "batch ..."],
        gradients: Activities | None,
    ) -> tuple[Float[Array, "batch ..."], Activities]:
        """Propagate a gradient from above down to `below`, adding each activity's own."""

        def own(blocks: Repetition, below: Array, z: Activities, above: Array, g: Any) -> Any:
            def part(above: Array, under: Array, z: Activities, g: Any) -> Any:
                return blocks.pullback(under[0], z, above, g)

            return _in_turn(part, above, (_under(below, z)[None], z, g), down=True)

        kinds, result = (
            (Axes.SAMPLES, Axes.BANKS, Axes.SAMPLES, Axes.BANKS),
            (Axes.SAMPLES, Axes.BANKS),
        )
        return self._shared(own, kinds, result, below, activities, above, gradients)

    def local_gradient(
        self,
        term: Term,
        below: Float[Array, "batch ..."],
        activities: Activities,
        above: Float[Array, "batch ..."],
        numbers: PyTree[Float[Array, "_layer ..."]],
    ) -> LocalGradient:
        """Differentiate the sum of every layer's term by `below` and the activities."""

        def own(blocks: Repetition, below: Array, z: Activities, above: Array, n: Any) -> Any:
            under = _under(below, z)
            part = blocks.local_gradient(term, under, z, jnp.zeros_like(above), n)
            # What the neighbour's first layer says of the last activity here.
            beyond = passed(part.before, above, down=True)
            *others, last = part.activities
            banks = (*others, last.at[-1].add(beyond))
            return jax.lax.psum(part.samples, DEPTH), to_all(part.before, 0), banks

        kinds, result = (
            (Axes.SAMPLES, Axes.BANKS, Axes.SAMPLES, Axes.BANKS),
            (Axes.SAMPLES, Axes.SAMPLES, Axes.BANKS),
        )
        found = self._shared(own, kinds, result, below, activities, above, numbers)
        return LocalGradient(*found)

    def parameter_gradient(
        self, below: Float[Array, "batch ..."], activities: Activities, cotangents: Activities
    ) -> tuple[Block, ...]:
        """Return every layer's own gradient, of the activity below it and of its cotangent."""
        shares = data_axis(below) is not None

        def own(blocks: Repetition, below: Array, z: Activities, c: Activities) -> Any:
            gradient = blocks.parameter_gradient(_under(below, z), z, c)
            return jax.lax.psum(gradient, DATA) if shares else gradient

        kinds = (Axes.SAMPLES, Axes.BANKS, Axes.BANKS)
        return self._shared(own, kinds, Axes.LAYERS, below, activities, cotangents)

    def loops_on(self, activities: Activities) -> tuple[str, ...]:
        """Return the platforms on which a block asks for a loop over layers."""
        return self.repetition.loops_on(activities)

    def _shared(
        self, own: Callable[..., Any], kinds: tuple[Any, ...], result: Any, *given: Any
    ) -> Any:
        """Let every device compute its own part, of its repetitions and of what is given."""
        arrays, rest = eqx.partition(self.repetition, eqx.is_array)
        run = lambda arrays, *given: own(eqx.combine(arrays, rest), *given)  # noqa: E731
        return along_depth(run, (Axes.LAYERS, *kinds), result, arrays, *given)


def _in_turn(
    part: Callable[..., tuple[Array, Any]],
    first: Float[Array, "batch ..."],
    banks: PyTree[Float[Array, "_layer batch ..."]],
    *,
    down: bool = False,
) -> tuple[Float[Array, "batch ..."], Any]:
    """Let the devices compute in turn, each going on from what the one before hands to it.

    `part` computes of one microbatch, from what is handed on and from its part of the banks, what
    is to be handed on, and banks.
    """
    devices, mine, size = devices_along(DEPTH), turn(down=down), len(first)
    count = microbatches(size, devices)
    split = lambda z: z.reshape(len(z), count, -1, *z.shape[2:])  # noqa: E731
    starts, banks = split(first[None]), jax.tree.map(split, banks)

    def tick(received: Array, t: Array) -> tuple[Array, tuple[Array, Any]]:
        m = jnp.clip(t - mine, 0, count - 1)
        at = lambda z: jax.lax.dynamic_index_in_dim(z, m, 1, keepdims=False)  # noqa: E731
        waits = (mine == 0) | (t < mine)
        z = jnp.where(waits, at(starts)[0], received)
        z, own = part(z, *jax.tree.map(at, banks))
        return handed(z, down=down), (z, own)

    ticks = jnp.arange(count + devices - 1)
    # Before its turn, and after it, a device computes what nobody reads, but of a true microbatch:
    # where blocks have no derivative, at zero say, a gradient would have none either.
    every = jax.lax.scan(tick, starts[0, 0], ticks)[1]
    last, own = jax.tree.map(lambda z: jax.lax.dynamic_slice_in_dim(z, mine, count), every)
    join = lambda z: jnp.moveaxis(z, 0, 1).reshape(z.shape[1], size, *z.shape[3:])  # noqa: E731
    return to_all(join(last[:, None])[0], 0 if down else devices - 1), jax.tree.map(join, own)


def _under(below: Array, activities: Activities) -> Array:
    """Return what lies below the first layer here."""
    return passed(activities[-1][-1], below)
