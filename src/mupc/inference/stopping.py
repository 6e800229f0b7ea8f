"""When inference is done with a sample."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mupc.arrays import Readable, as_count, as_not_negative

# A sample whose energy ends this much above where it began has diverged; less is round-off.
_RISE = 1e-3


class Stopping(Readable):
    """Says when a sample is done: it moves no more then."""

    measures: ClassVar[bool] = True
    """Whether it needs residuals on the way."""

    @abstractmethod
    def tolerance(self, initial: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Return the residual at which a sample has converged, from its residual at the start."""

    @abstractmethod
    def stalled(self, since: Int[Array, " batch"]) -> Bool[Array, " batch"]:
        """Return whether a sample is done, so many steps after its lowest energy."""

    def rose(
        self, start: Float[Array, " batch"], end: Float[Array, " batch"]
    ) -> Bool[Array, " batch"]:
        """Return whether a sample counts as diverged, as its energy ends above where it began."""
        return end > start + _RISE * jnp.abs(start)


class Tolerance(Stopping):
    r"""Done when the residual is small, or the energy no longer falls.

    A sample has converged when $\|\partial F / \partial z\|_2 \le \text{atol} +
    \text{rtol} \cdot \|\partial F / \partial z\|_2^{(0)}$, and has stalled when its energy has
    reached no new low for `patience` steps.

    Args:
        rtol: relative tolerance.
        atol: absolute tolerance, added to it.
        patience: see above; 0 never calls a sample stalled.
    """

    rtol: Float[Array, ""] = eqx.field(default=1e-3, converter=as_not_negative)
    atol: Float[Array, ""] = eqx.field(default=0.0, converter=as_not_negative)
    patience: Int[Array, ""] = eqx.field(default=10, converter=as_count)

    def tolerance(self, initial: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Return atol + rtol · residual."""
        return self.atol + self.rtol * initial

    def stalled(self, since: Int[Array, " batch"]) -> Bool[Array, " batch"]:
        """Return whether the patience is at its end."""
        return (self.patience > 0) & (since >= self.patience)


class FixedSteps(Stopping):
    """Never done before all steps are made; no residual is measured on the way."""

    measures: ClassVar[bool] = False

    def tolerance(self, initial: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Return zero: what has a residual of zero is at rest."""
        return jnp.zeros_like(initial)

    def stalled(self, since: Int[Array, " batch"]) -> Bool[Array, " batch"]:
        """Return false."""
        return jnp.zeros_like(since, bool)


class Endless(FixedSteps):
    """Never done, at rest or above where it began: for a sampler, whose energy goes up and down."""

    def tolerance(self, initial: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Return less than any residual."""
        return jnp.full_like(initial, -1)

    def rose(
        self, start: Float[Array, " batch"], end: Float[Array, " batch"]
    ) -> Bool[Array, " batch"]:
        """Return false: the energy of a sample goes up and down."""
        return jnp.zeros_like(start, bool)
