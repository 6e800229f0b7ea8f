"""A chain: stages one after the other, and a readout."""

import jax
from jaxtyping import Array, Float

from mupc.networks.layers import Activities, Block
from mupc.networks.network import Feedforward, Network
from mupc.networks.stage import Stage, Term, loop_pays, with_gradient


class Chain(Network):
    """A network: `stages`, each reading the last activity of the one before, then a `readout`.

    Matrix products are traced at full float32 precision on every backend, and their derivatives
    inherit it: with TF32 products μPC stays at chance (its small gradients drown in round-off).
    """

    stages: tuple[Stage, ...]
    readout: Block

    @property
    def depth(self) -> int:
        """H, the number of hidden activities."""
        return sum(stage.size for stage in self.stages)

    @property
    def linear(self) -> bool:
        """Whether every layer is affine."""
        layers = [layer for stage in self.stages for layer in (stage.entry, stage.blocks)]
        return all(layer.linear for layer in (*layers, self.readout))

    def feedforward(
        self, x: Float[Array, "batch ..."], errors: Activities | None = None
    ) -> Feedforward:
        r"""Run the network forwards: $z_l = u_l(z_{l-1}) + e_l$, with $e = 0$ unless given.

        Args:
            x: the input, (batch, ...).
            errors: hidden errors, shaped like activities.
        """
        if errors is not None:
            self._check(x, errors)
        with jax.default_matmul_precision("highest"):
            activities: Activities = ()
            before = x
            for i, stage in enumerate(self.stages):
                z = stage.feedforward(before, None if errors is None else errors[i])
                activities, before = (*activities, z), z[-1]
            return Feedforward(activities, jax.vmap(self.readout)(before))

    def predictions(
        self, x: Float[Array, "batch ..."], activities: Activities
    ) -> tuple[Activities, Float[Array, "batch ..."]]:
        r"""Predict each activity from the one below, $u_l(z_{l-1})$, $z_0 = x$, and the output.

        Raises:
            ValueError: if the activities are not those of this network for this x.
        """
        self._check(x, activities)
        with jax.default_matmul_precision("highest"):
            befores = (x, *(z[-1] for z in activities))
            predicted = tuple(
                stage.predictions(before, z)
                for stage, before, z in zip(self.stages, befores[:-1], activities, strict=True)
            )
            return predicted, jax.vmap(self.readout)(befores[-1])

    def pushforward(
        self, x: Float[Array, "batch ..."], activities: Activities, changes: Activities
    ) -> Float[Array, "batch ..."]:
        r"""Give $J d$: how the output of `feedforward(x, errors)` changes with its errors."""
        self._check(x, activities)
        self._check(x, changes)
        with jax.default_matmul_precision("highest"):
            befores, change = (x, *(z[-1] for z in activities)), None
            for stage, before, z, own in zip(
                self.stages, befores[:-1], activities, changes, strict=True
            ):
                change = stage.pushforward(before, z, change, own)
            return jax.jvp(jax.vmap(self.readout), (befores[-1],), (change,))[1]

    def pullback(
        self,
        x: Float[Array, "batch ..."],
        activities: Activities,
        output: Float[Array, "batch ..."],
        gradients: Activities | None = None,
    ) -> Activities:
        r"""Give $J^\top v$: gradients by the errors of `feedforward(x, errors)`."""
        self._check(x, activities)
        with jax.default_matmul_precision("highest"):
            above, from_above, adjoints = self.readout, output, ()
            for i in reversed(range(len(self.stages))):
                (last,) = jax.vjp(jax.vmap(above), activities[i][-1])[1](from_above)
                own = None if gradients is None else gradients[i]
                adjoints = (self.stages[i].pullback(activities[i], last, own), *adjoints)
                above, from_above = self.stages[i].entry, adjoints[0][0]
            return adjoints

    def local_gradient(
        self, hidden: Term, output: Term, x: Float[Array, "batch ..."], activities: Activities
    ) -> tuple[Float[Array, " batch"], Activities] | None:
        """Sum local terms and differentiate them in one loop over layers, where that is faster."""
        self._check(x, activities)
        if not any(loop_pays(z) for z in activities):
            return None
        with jax.default_matmul_precision("highest"):
            befores = (x, *(z[-1] for z in activities))
            samples, (down,) = with_gradient(
                lambda z: output(jax.vmap(self.readout)(z)), befores[-1]
            )
            gradient: Activities = ()
            for stage, before, z in reversed(
                [*zip(self.stages, befores[:-1], activities, strict=True)]
            ):
                part = stage.local_gradient(hidden, before, z)
                gradient = (part.activities.at[-1].add(down), *gradient)
                samples, down = samples + part.samples, part.before
            return samples, gradient

    def _check(self, x: Float[Array, "batch ..."], activities: Activities) -> None:
        wanted = [(stage.size, x.shape[0]) for stage in self.stages]
        if (given := [z.shape[:2] for z in activities]) != wanted:
            raise ValueError(
                f"activities (or errors) must be one array (layer, batch, ...) per stage, "
                f"beginning with {wanted} for this network and x of shape {x.shape}, not {given}"
            )
