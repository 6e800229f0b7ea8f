"""A chain: stages one after the other, and a readout."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from mupc.arrays import AnyArray
from mupc.networks.block import Activities, Block, Known, over_batch
from mupc.networks.network import Feedforward, Layer, Network
from mupc.networks.repetition import Term, by_parameters, on_platforms, with_gradient
from mupc.networks.stage import Stage


class Chain(Network):
    """A network: `stages`, each reading the last activity of the one before, then a `readout`.

    Activities have a bank for every entry and every place of a pattern. Matrix products are traced
    at full float32 precision on every backend, and their derivatives inherit it: with TF32 products
    μPC stays at chance (its small gradients drown in round-off).
    """

    stages: tuple[Stage, ...]
    readout: Block

    @property
    def top(self) -> Block:
        """The block of the output: the readout, with what a network may lend it."""
        return self.readout

    @property
    def depth(self) -> int:
        """H, the number of hidden activities."""
        return sum(stage.depth for stage in self.stages)

    @property
    def linear(self) -> bool:
        """Whether every layer is affine."""
        return all(layer.linear for layer in (*self.stages, self.top))

    @property
    def layers(self) -> list[Layer]:
        """The blocks in the order of the banks, and the readout."""
        hidden = [
            Layer(block, stacked=i > 0)
            for stage in self.stages
            for i, block in enumerate((stage.entry, *stage.blocks))
        ]
        return [*hidden, Layer(self.top, stacked=False)]

    @property
    def generates(self) -> bool:
        """Whether its first entry stands for a free input."""
        return self.stages[0].entry.free

    @property
    def about_input(self) -> bool:
        """Whether x gives the mean of a free input's prior."""
        return self.stages[0].entry.about_input

    @property
    def classes(self) -> int:
        """How many classes there are, if the first entry stands for an input of these; else 0."""
        return self.stages[0].entry.classes

    def known(self, x: Num[AnyArray, "batch ..."]) -> Known | None:
        """Return what x says of a free input; None if nothing."""
        return jax.vmap(self.stages[0].entry.known)(jnp.asarray(x))

    @property
    def structure(self) -> str:
        """Its stages, such as `entry, 3 × (attention, perceptron); readout`."""
        parts: list[str] = []
        for stage in self.stages:
            titles = [block.title for block in stage.blocks]
            pattern = titles[0] if len(titles) == 1 else f"({', '.join(titles)})"
            parts.append(f"entry, {stage.repetitions} × {pattern}" if titles else "entry")
        return "; ".join((*parts, "readout"))

    def in_order(self, banks: Sequence[Array]) -> Array:
        """Join one array (layer, ...) per bank to one of all layers, from input to output."""
        joined = jnp.concatenate(list(banks))
        order = self._order()
        return joined if np.all(order == np.arange(len(order))) else joined[np.argsort(order)]

    def in_banks(self, layers: AnyArray) -> tuple[Array, ...]:
        """Part an array of all layers, from input to output, into one for each bank."""
        layers = jnp.asarray(layers)
        order, sizes = self._order(), [n for stage in self.stages for n in stage.sizes]
        return tuple(layers[part] for part in np.split(order, np.cumsum(sizes)[:-1]))

    def feedforward(
        self, x: Num[AnyArray, "batch ..."], errors: Activities | None = None
    ) -> Feedforward:
        r"""Run the network forwards: $z_l = u_l(z_{l-1}) + e_l$, with $e = 0$ unless given.

        Args:
            x: the input, (batch, ...).
            errors: hidden errors, shaped like activities.
        """
        own = [None] * len(self.stages) if errors is None else self._parted(x, errors)
        with jax.default_matmul_precision("highest"):
            activities: Activities = ()
            before = jnp.asarray(x)
            for stage, e in zip(self.stages, own, strict=True):
                before, z = stage.feedforward(before, e)
                activities = (*activities, *z)
            return Feedforward(activities, over_batch(self.top)(before))

    def predictions(
        self, x: Num[AnyArray, "batch ..."], activities: Activities
    ) -> tuple[Activities, Float[Array, "batch ..."]]:
        r"""Predict each activity from the one below, $u_l(z_{l-1})$, $z_0 = x$, and the output.

        Raises:
            ValueError: if the activities are not those of this network for this x.
        """
        with jax.default_matmul_precision("highest"):
            walk = self._walk(x, activities)
            predicted = [stage.predictions(before, z) for stage, before, z in walk]
            return sum(predicted, ()), over_batch(self.top)(activities[-1][-1])

    def pushforward(
        self, x: Num[AnyArray, "batch ..."], activities: Activities, changes: Activities
    ) -> Float[Array, "batch ..."]:
        r"""Return $J d$: how the output of `feedforward(x, errors)` changes with its errors."""
        with jax.default_matmul_precision("highest"):
            change = None
            for stage, before, z, d in self._walk(x, activities, changes):
                change = stage.pushforward(before, z, change, d)
            return jax.jvp(over_batch(self.top), (activities[-1][-1],), (change,))[1]

    def pullback(
        self,
        x: Num[AnyArray, "batch ..."],
        activities: Activities,
        output: Float[Array, "batch ..."],
        gradients: Activities | None = None,
    ) -> Activities:
        r"""Return $J^\top v$: gradients by the errors of `feedforward(x, errors)`."""
        parts = self._parted(x, activities)
        own = [None] * len(parts) if gradients is None else self._parted(x, gradients)
        with jax.default_matmul_precision("highest"):
            above, adjoint, adjoints = self.top, output, ()
            for stage, z, g in reversed([*zip(self.stages, parts, own, strict=True)]):
                (last,) = jax.vjp(over_batch(above), z[-1][-1])[1](adjoint)
                adjoints = (*stage.pullback(z, last, g), *adjoints)
                above, adjoint = stage.entry, adjoints[0][0]
            return adjoints

    def local_gradient(
        self,
        hidden: Term,
        output: Term,
        x: Num[AnyArray, "batch ..."],
        activities: Activities,
        numbers: Sequence[PyTree[Float[Array, "_layer ..."]]],
    ) -> tuple[Float[Array, " batch"], Activities]:
        """Sum local terms and differentiate the sum, in one loop over layers where that pays."""
        parts = self._parted(x, activities)
        pairs = zip(self.stages, parts, strict=True)
        platforms = {p for stage, z in pairs for p in stage.loops_on(z)}

        def loop(activities: Activities) -> tuple[Float[Array, " batch"], Activities]:
            return self._looped(hidden, output, x, activities, numbers)

        def together(activities: Activities) -> tuple[Float[Array, " batch"], Activities]:
            every = super(Chain, self).local_gradient
            return every(hidden, output, x, activities, numbers)

        return on_platforms(tuple(sorted(platforms)), loop, together, activities)

    def parameter_gradient(
        self,
        x: Num[AnyArray, "batch ..."],
        activities: Activities,
        cotangents: Activities,
        output: Float[Array, "batch ..."],
    ) -> "Chain":
        r"""Return $\sum_l (\partial u_l / \partial W)^\top c_l$, and that of the output."""
        with jax.default_matmul_precision("highest"):
            walk = self._walk(x, activities, cotangents)
            stages = [stage.parameter_gradient(before, z, c) for stage, before, z, c in walk]
            readout = by_parameters(self.top, activities[-1][-1], output)
            return self._joined(stages, readout)

    def _joined(self, stages: Sequence[Any], readout: Any) -> "Chain":
        """Return gradients of the parts in the form of the network."""
        like = eqx.filter(self, eqx.is_inexact_array)
        return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves((stages, readout)))

    def _looped(
        self,
        hidden: Term,
        output: Term,
        x: Num[AnyArray, "batch ..."],
        activities: Activities,
        numbers: Sequence[PyTree[Float[Array, "_layer ..."]]],
    ) -> tuple[Float[Array, " batch"], Activities]:
        given = _grouped(self.stages, numbers)
        with jax.default_matmul_precision("highest"):
            run = lambda z: output(over_batch(self.top)(z))  # noqa: E731
            samples, (above,) = with_gradient(run, activities[-1][-1])
            gradient: Activities = ()
            walk = zip(self._walk(x, activities), given, strict=True)
            for (stage, before, z), own in reversed([*walk]):
                part = stage.local_gradient(hidden, before, z, above, own)
                gradient = (*part.activities, *gradient)
                samples, above = samples + part.samples, part.before
            return samples, gradient

    def _walk(self, x: AnyArray, activities: Activities, *others: Activities) -> list[Any]:
        """Return each stage, what it reads, and its own banks."""
        parts = self._parted(x, activities)
        # It reads x, or the last activity of the stage before.
        befores = [jnp.asarray(x), *(z[-1][-1] for z in parts[:-1])]
        own = (self._parted(x, other) for other in others)
        return [*zip(self.stages, befores, parts, *own, strict=True)]

    def _order(self) -> np.ndarray:
        """Return for each layer of the joined banks its place from input to output."""
        places: list[np.ndarray] = []
        begin = 0
        for stage in self.stages:
            pattern = len(stage.blocks)
            hidden = begin + 1 + np.arange(stage.depth - 1).reshape(-1, max(pattern, 1))
            places += [np.array([begin]), *(hidden[:, p] for p in range(pattern))]
            begin += stage.depth
        return np.concatenate(places)

    def _parted(self, x: Num[AnyArray, "batch ..."], activities: Activities) -> list[Activities]:
        """Return the banks of each stage.

        Raises:
            ValueError: if there are not as many banks, layers and samples as there should be.
        """
        wanted = [(n, x.shape[0]) for stage in self.stages for n in stage.sizes]
        if (given := [z.shape[:2] for z in activities]) != wanted:
            raise ValueError(
                "activities (or errors) must be one array (layer, batch, ...) per bank, "
                f"beginning with {wanted} for this network and x of shape {x.shape}, not {given}"
            )
        return _grouped(self.stages, activities)


def _grouped(stages: Sequence[Stage], banks: Sequence[PyTree[Array]]) -> list[PyTree[Array]]:
    ends = np.cumsum([len(stage.sizes) for stage in stages])
    return [tuple(banks[end - len(s.sizes) : end]) for s, end in zip(stages, ends, strict=True)]
