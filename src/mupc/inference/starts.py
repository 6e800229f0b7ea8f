"""Where inference starts from."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mupc.arrays import as_positive
from mupc.networks import Activities


class Beginning(NamedTuple):
    """Activities that inference starts from, and their errors z − u if they are known."""

    activities: Activities
    errors: Activities | None


class Start(eqx.Module):
    """Gives the activities that inference starts from."""

    @abstractmethod
    def __call__(self, feedforward: Activities, key: PRNGKeyArray) -> Beginning:
        """Give initial activities, shaped like those of the feedforward pass."""


class FeedforwardStart(Start):
    """Start at the feedforward activities, where every hidden error is zero."""

    def __call__(self, feedforward: Activities, key: PRNGKeyArray) -> Beginning:
        """Give the feedforward activities."""
        return Beginning(feedforward, jax.tree.map(jnp.zeros_like, feedforward))


class ZeroStart(Start):
    """Start with all activities at zero."""

    def __call__(self, feedforward: Activities, key: PRNGKeyArray) -> Beginning:
        """Give zeros."""
        return Beginning(jax.tree.map(jnp.zeros_like, feedforward), None)


class NormalStart(Start):
    """Start from independent Gaussian activities of mean 0 and standard deviation `std`."""

    std: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)

    def __call__(self, feedforward: Activities, key: PRNGKeyArray) -> Beginning:
        """Draw activities."""
        keys = jax.random.split(key, len(feedforward))
        drawn = tuple(
            self.std * jax.random.normal(key, z.shape, z.dtype)
            for key, z in zip(keys, feedforward, strict=True)
        )
        return Beginning(drawn, None)
