"""Where inference starts from."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mupc.arrays import Readable, as_positive
from mupc.energies import Energy, Point
from mupc.networks import Activities


class Start(Readable):
    """Makes the point that inference starts from."""

    @abstractmethod
    def __call__(self, energy: Energy, feedforward: Point, key: PRNGKeyArray) -> Point:
        """Return the first point, from that of the feedforward pass."""


class FeedforwardStart(Start):
    """Start at the feedforward activities, where every hidden error is zero."""

    def __call__(self, energy: Energy, feedforward: Point, key: PRNGKeyArray) -> Point:
        """Return the point of the feedforward pass."""
        return feedforward


class ZeroStart(Start):
    """Start with all activities at zero."""

    def __call__(self, energy: Energy, feedforward: Point, key: PRNGKeyArray) -> Point:
        """Return the point of zeros."""
        return energy.at(jax.tree.map(jnp.zeros_like, feedforward.activities))


class NormalStart(Start):
    """Start from independent Gaussian activities of mean 0 and standard deviation `std`.

    A sample draws with a key of its own, so that it draws the same in any batch that it leads.
    """

    std: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)

    def __call__(self, energy: Energy, feedforward: Point, key: PRNGKeyArray) -> Point:
        """Draw activities."""
        return energy.at(drawn_like(feedforward.activities, self.std, key))


def drawn_like(activities: Activities, std: Float[Array, ""], key: PRNGKeyArray) -> Activities:
    """Draw activities of mean 0 and a standard deviation, sample by sample."""

    def draw(z: Array, key: PRNGKeyArray) -> Array:
        own = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(z.shape[1]))
        one = lambda key: jax.random.normal(key, (z.shape[0], *z.shape[2:]), z.dtype)  # noqa: E731
        return std * jax.vmap(one, out_axes=1)(own)

    keys = jax.random.split(key, len(activities))
    return tuple(draw(z, key) for z, key in zip(activities, keys, strict=True))
