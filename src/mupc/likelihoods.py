"""Likelihoods: the output's part of an energy."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mupc.arrays import AnyArray, Readable, as_positive


class Likelihood(Readable):
    r"""The output's part of the energy, $\ell(y, \hat y) = \pi \cdot \text{loss}(y, \hat y)$.

    An example's output may have axes of positions before its last one, over which a loss sums.
    """

    precision: eqx.AbstractVar[Float[Array, ""]]

    @abstractmethod
    def loss(self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]) -> Float[Array, ""]:
        """Return the loss of one example at unit precision."""

    def root(self, output: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""Return $B v$ for one example, with $B B^\top$ the loss's Hessian by the output.

        `mupc.GaussNewton` needs it, and nothing else does.
        """
        del output, v
        raise NotImplementedError(
            f"{type(self).__name__} has no root, the square root of its Hessian by the output, "
            "which mupc.GaussNewton needs: write one, or use mupc.InErrors(mupc.LBFGS())"
        )


class Gaussian(Likelihood):
    r"""$\ell = \tfrac{\pi}{2} \|y - \hat y\|^2$: a Gaussian of precision π about the output."""

    precision: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)

    def loss(self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]) -> Float[Array, ""]:
        """Return half the squared distance."""
        return 0.5 * jnp.sum((output - y) ** 2)

    def root(self, output: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return v: the Hessian is the identity."""
        return v


class Categorical(Likelihood):
    r"""$\ell = -\pi\, y^\top \log \text{softmax}(\hat y)$, with $y$ a distribution over classes.

    Classes are the last axis; of outputs with positions each one has its own distribution.
    """

    precision: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)

    def loss(self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]) -> Float[Array, ""]:
        """Return the cross-entropy, from logits (so it cannot overflow)."""
        return -jnp.sum(y * jax.nn.log_softmax(output))

    def root(self, output: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""Return $\sqrt p \odot (v - \sqrt p \sqrt p^\top v)$, $p = \text{softmax}(\hat y)$.

        The Hessian is $\text{diag}(p) - p p^\top$, whatever y.
        """
        root = jnp.sqrt(jax.nn.softmax(output))
        return root * (v - root * jnp.sum(root * v, axis=-1, keepdims=True))


def losses(
    likelihood: Likelihood, y: Num[AnyArray, "batch ..."], output: Float[Array, "batch ..."]
) -> Float[Array, " batch"]:
    """Return each sample's loss at unit precision.

    Raises:
        ValueError: if y is not shaped like the output.
    """
    if y.shape != output.shape:
        raise ValueError(
            f"y has shape {y.shape} but the network's output has shape {output.shape}: "
            "they must be equal (targets of classes are one-hot rows)"
        )
    # A plain function: of a module's method JAX would write down the module, whenever it is traced.
    one = lambda y, output: likelihood.loss(y, output)  # noqa: E731
    return jax.vmap(one)(jnp.asarray(y, output.dtype), output)
