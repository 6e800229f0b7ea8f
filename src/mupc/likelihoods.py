"""Likelihoods: the output's part of an energy."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.arrays import as_positive


class Likelihood(eqx.Module):
    r"""The output's part of the energy, $\ell(y, \hat y) = \pi \cdot \text{loss}(y, \hat y)$."""

    precision: eqx.AbstractVar[Float[Array, ""]]

    @abstractmethod
    def loss(self, y: Float[Array, "..."], output: Float[Array, "..."]) -> Float[Array, ""]:
        """Give the loss of one example at unit precision."""

    @abstractmethod
    def root(self, output: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""Give $B v$ for one example, with $B B^\top$ the loss's Hessian by the output."""


class Gaussian(Likelihood):
    r"""$\ell = \tfrac{\pi}{2} \|y - \hat y\|^2$: a Gaussian of precision π about the output."""

    precision: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)

    def loss(self, y: Float[Array, "..."], output: Float[Array, "..."]) -> Float[Array, ""]:
        """Give half the squared distance."""
        return 0.5 * jnp.sum((output - y) ** 2)

    def root(self, output: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        """Give v: the Hessian is the identity."""
        return v


class Categorical(Likelihood):
    r"""$\ell = -\pi\, y^\top \log \text{softmax}(\hat y)$, with $y$ a distribution over classes."""

    precision: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)

    def loss(self, y: Float[Array, "..."], output: Float[Array, "..."]) -> Float[Array, ""]:
        """Give the cross-entropy, from logits (so it cannot overflow)."""
        return -jnp.sum(y * jax.nn.log_softmax(output))

    def root(self, output: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""Give $\sqrt p \odot (v - \sqrt p \sqrt p^\top v)$, $p = \text{softmax}(\hat y)$.

        The Hessian is $\text{diag}(p) - p p^\top$, whatever y.
        """
        root = jnp.sqrt(jax.nn.softmax(output))
        return root * (v - root * jnp.sum(root * v))


def losses(
    likelihood: Likelihood, y: Float[Array, "batch ..."], output: Float[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """Give each sample's loss at unit precision.

    Raises:
        ValueError: if y is not shaped like the output.
    """
    if y.shape != output.shape:
        raise ValueError(
            f"y has shape {y.shape} but the network's output has shape {output.shape}: "
            "they must be equal (targets of classes are one-hot rows)"
        )
    return jax.vmap(likelihood.loss)(y, output)
