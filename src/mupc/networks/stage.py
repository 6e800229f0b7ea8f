"""A stage: an entry, and repetitions of a pattern of blocks after it."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, Num, PyTree

from mupc.networks.block import Activities, Block, over_batch
from mupc.networks.pipeline import Pipeline, parted
from mupc.networks.repetition import (
    LocalGradient,
    Repetition,
    Term,
    by_parameters,
    local_gradient,
)


class Stage(eqx.Module):
    """An entry, and n repetitions of a pattern of blocks after it.

    Each place in the pattern has a bank of activities of its own, (n, batch, ...), of its own
    shape; the entry's bank holds one layer. The last place has the shape of the entry.

    Args:
        entry: reads the activity before the stage.
        blocks: one for each place of the pattern, whose arrays carry a leading axis of length n (as
            `equinox.filter_vmap` of a constructor gives); a single block is a pattern of one; none
            make a stage of the entry alone.
    """

    entry: Block
    blocks: tuple[Block, ...] = eqx.field(
        default=(), converter=lambda given: (given,) if isinstance(given, Block) else tuple(given)
    )

    def __check_init__(self) -> None:
        Repetition(self.blocks)

    @property
    def repetitions(self) -> int:
        """n, how often the pattern is repeated."""
        return Repetition(self.blocks).count

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many layers each of the stage's banks holds."""
        return (1, *(self.repetitions for _ in self.blocks))

    @property
    def depth(self) -> int:
        """How many activities the stage holds."""
        return sum(self.sizes)

    @property
    def linear(self) -> bool:
        """Whether every layer is affine."""
        return all(block.linear for block in (self.entry, *self.blocks))

    def feedforward(
        self, before: Num[Array, "batch ..."], errors: Activities | None
    ) -> tuple[Float[Array, "batch ..."], Activities]:
        """Run the layers in turn, adding to each prediction its error if there are errors.

        Returns the last activity, and all of them. Whoever goes on from the last one of a bank
        instead has a gradient by the whole bank.
        """
        z = over_batch(self.entry)(before)
        if errors is not None:
            z = z + errors[0][0]
        if not self.blocks:
            return z, (z[None],)
        last, banks = self._repeated.feedforward(z, None if errors is None else errors[1:])
        return last, (z[None], *banks)

    def predictions(self, before: Num[Array, "batch ..."], activities: Activities) -> Activities:
        """Predict every activity from the one below it."""
        first = over_batch(self.entry)(before)[None]
        if not self.blocks:
            return (first,)
        return (first, *self._repeated.predictions(activities[0][0], activities[1:]))

    def pushforward(
        self,
        before: Num[Array, "batch ..."],
        activities: Activities,
        change: Array | None,
        changes: Activities,
    ) -> Float[Array, "batch ..."]:
        r"""Return how the last activity changes with those before it and with its errors.

        $$\delta_l = (\partial u_l / \partial z_{l-1})\, \delta_{l-1} + d_l$$

        `change` is $\delta_0$, of the activity before the stage (None for zero), `changes` is d.
        """
        first = changes[0][0]
        if change is not None:
            first = first + jax.jvp(over_batch(self.entry), (before,), (change,))[1]
        if not self.blocks:
            return first
        own = activities[0][0], activities[1:]
        return self._repeated.pushforward(*own, first, changes[1:])

    def pullback(
        self, activities: Activities, last: Float[Array, "batch ..."], gradients: Activities | None
    ) -> Activities:
        r"""Propagate a gradient down: $a_l = (\partial u_{l+1} / \partial z_l)^\top a_{l+1} + g_l$.

        `last` is what reaches the last activity from beyond the stage, `gradients` is g.
        """
        first, banks = last, ()
        if self.blocks:
            own = None if gradients is None else gradients[1:]
            first, banks = self._repeated.pullback(activities[0][0], activities[1:], last, own)
        first = first if gradients is None else first + gradients[0][0]
        return (first[None], *banks)

    def local_gradient(
        self,
        term: Term,
        before: Num[Array, "batch ..."],
        activities: Activities,
        above: Float[Array, "batch ..."],
        numbers: PyTree[Float[Array, "_layer ..."]],
    ) -> LocalGradient:
        r"""Differentiate $\sum_l \text{term}(u_l(z_{l-1}), z_l)$ by the activities, in one loop.

        A term is local: its gradient by z_l and by z_{l-1} is known as soon as the layer has been
        predicted. So nothing but the gradient leaves the loop, and a layer stays in the cache.

        Args:
            term: of a layer's prediction, its activity, and one of the numbers.
            before: what the stage reads.
            activities: of the stage.
            above: the gradient by its last activity of what lies beyond the stage.
            numbers: for each bank, one for each layer (or None).
        """
        z = activities[0][0]
        own = jax.tree.map(lambda values: values[0], numbers[0])
        first = local_gradient(term, self.entry, before, z, own)
        samples, banks = first.samples, ()
        if self.blocks:
            rest = self._repeated.local_gradient(term, z, activities[1:], above, numbers[1:])
            samples, above, banks = samples + rest.samples, rest.before, rest.activities
        by_first = first.activities[0] + above
        return LocalGradient(samples, first.before, (by_first[None], *banks))

    def parameter_gradient(
        self, before: Num[Array, "batch ..."], activities: Activities, cotangents: Activities
    ) -> "Stage":
        r"""Return $\sum_l (\partial u_l / \partial W_l)^\top c_l$ at fixed activities.

        Every layer's part is its own: of the activity below it and of its cotangent c.
        """
        entry, blocks = by_parameters(self.entry, before, cotangents[0][0]), ()
        if self.blocks:
            own = activities[0][0], activities[1:], cotangents[1:]
            blocks = self._repeated.parameter_gradient(*own)
        like = eqx.filter(self, eqx.is_inexact_array)
        return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves((entry, blocks)))

    def loops_on(self, activities: Activities) -> tuple[str, ...]:
        """Return the platforms on which a block of the stage asks for a loop over layers."""
        return self._repeated.loops_on(activities[1:])

    @property
    def _repeated(self) -> Repetition | Pipeline:
        return parted(Repetition(self.blocks))
