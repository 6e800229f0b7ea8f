"""Likelihoods: the output's part of an energy."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from mupc.arrays import AnyArray, Readable, as_positive, as_positive_array


class Likelihood(Readable):
    r"""The output's part of the energy, $\ell(y, \hat y) = \pi \sum_i t_i(y, \hat y)$.

    An example's output may have axes of positions before its last one. Of what is not observed of
    y (see `mupc.FreeEnergy`), terms are left out.
    """

    precision: eqx.AbstractVar[Float[Array, ""]]

    @abstractmethod
    def terms(
        self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]
    ) -> Float[Array, "..."]:
        """Return the terms of one example at unit precision: of every number, or every position."""

    needs: ClassVar[str] = "numbers"
    """What targets it takes."""

    def takes(self, y: Num[np.ndarray, "n ..."]) -> bool:
        """Return whether targets are such."""
        del y
        return True

    def loss(self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]) -> Float[Array, ""]:
        """Return the loss of one example at unit precision, the sum of its terms."""
        return jnp.sum(self.terms(y, output))

    def mean(self, output: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the y that an output expects: itself, unless outputs are of another kind."""
        return output

    def root(self, output: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""Return $B v$ for one example, with $B B^\top$ the loss's Hessian by the output.

        Or, where it has none, the Fisher information. `mupc.GaussNewton` needs it. Where a term is
        left out, so are the rows of B that belong to it.
        """
        del output, v
        raise NotImplementedError(
            f"{type(self).__name__} has no root, the square root of its Hessian by the output, "
            "which mupc.GaussNewton needs: write one, or use mupc.InErrors(mupc.LBFGS())"
        )

    def pearson_residual(
        self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]
    ) -> Float[Array, "..."]:
        r"""Return r with $B r$ the loss's gradient by the output, the shortest, for one example.

        An output's deviation in units of its standard deviation. `mupc.GaussNewton` begins with it,
        as $J^\top B r$ is known from the gradient by the errors, and nothing else needs it.
        """
        del y, output
        raise NotImplementedError(
            f"{type(self).__name__} has no pearson_residual, r with B r the gradient of its loss "
            "and B its root, which mupc.GaussNewton needs: write one, or use "
            "mupc.InErrors(mupc.LBFGS())"
        )


# By a smaller root a gradient is not divided: r² could overflow. Where it is as small, the loss has
# no curvature to speak of, and Gauss–Newton steps are those of the gradient with either.
_LEAST = 1e-6


class Gaussian(Likelihood):
    r"""$\ell = \tfrac{\pi}{2} \sum_i p_i (y_i - \hat y_i)^2$: a Gaussian about the output.

    Args:
        precision: π.
        precisions: p, shaped like an example's output: what each output's own precision is to π;
            all 1 unless given. `mupc.Gaussian.fitted` estimates them.
    """

    precision: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)
    precisions: Float[Array, "..."] | None = eqx.field(
        default=None, converter=as_positive_array, kw_only=True
    )

    @classmethod
    def fitted(
        cls, y: Float[AnyArray, "batch ..."], output: Float[AnyArray, "batch ..."]
    ) -> "Gaussian":
        r"""Return the likeliest precisions, with π their geometric mean.

        $$\pi p_i = 1 / \langle (y_i - \hat y_i)^2 \rangle$$

        Raises:
            ValueError: if y is not shaped like the output, or an output has no error at all, so
                that its precision would be infinite.
        """
        if y.shape != output.shape:
            raise ValueError(f"y has shape {y.shape} and the output {output.shape}")
        squares = jnp.mean((jnp.asarray(y) - jnp.asarray(output)) ** 2, axis=0)
        if not np.all(np.asarray(squares) > 0):
            raise ValueError(
                "an output has no error over this batch, so that its precision would be infinite: "
                "give a larger batch, or precisions of your own"
            )
        precision = jnp.exp(-jnp.mean(jnp.log(squares)))
        return cls(precision, precisions=1 / (squares * precision))

    def terms(
        self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]
    ) -> Float[Array, "..."]:
        """Return half the squared differences."""
        squares = 0.5 * jnp.square(output - y)
        if self.precisions is not None and self.precisions.shape != squares.shape:
            raise ValueError(
                f"precisions must have the shape of an example's output, {squares.shape}, not "
                f"{self.precisions.shape}"
            )
        return squares if self.precisions is None else self.precisions * squares

    def root(self, output: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""Return $\sqrt p\, v$."""
        return v if self.precisions is None else jnp.sqrt(self.precisions) * v

    def pearson_residual(
        self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]
    ) -> Float[Array, "..."]:
        r"""Return $\sqrt p\, (\hat y - y)$."""
        return self.root(jnp.asarray(output), jnp.asarray(output - y))


class Laplace(Likelihood):
    r"""$\ell = \pi \sum_i |y_i - \hat y_i|$: outliers pull no harder than other numbers.

    Its Hessian is zero wherever it exists, so that Gauss–Newton steps take its Fisher information,
    1 at unit precision.
    """

    precision: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)

    def terms(
        self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]
    ) -> Float[Array, "..."]:
        """Return the absolute differences."""
        return jnp.abs(output - y)

    def root(self, output: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return v, a root of the Fisher information at unit precision."""
        return v

    def pearson_residual(
        self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]
    ) -> Float[Array, "..."]:
        """Return the sign of the difference."""
        return jnp.sign(jnp.asarray(output - y))


class Bernoulli(Likelihood):
    r"""$\ell = \pi \sum_i \log(1 + e^{\hat y_i}) - y_i \hat y_i$: independent coins, from logits.

    y is from 0 to 1.
    """

    needs: ClassVar[str] = "numbers from 0 to 1"
    precision: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)

    def takes(self, y: Num[np.ndarray, "n ..."]) -> bool:
        """Return whether targets are from 0 to 1."""
        return bool(np.all((y >= 0) & (y <= 1)))

    def terms(
        self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]
    ) -> Float[Array, "..."]:
        """Return the cross-entropies, from logits (so they cannot overflow)."""
        return jax.nn.softplus(output) - y * output

    def mean(self, output: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the probabilities of 1."""
        return jax.nn.sigmoid(output)

    def root(self, output: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""Return $\sqrt{p (1 - p)}\, v$, p the probability of 1."""
        # A product of sigmoids: 1 − p would be 0 from logits of 17 on.
        return jnp.sqrt(jax.nn.sigmoid(output) * jax.nn.sigmoid(-output)) * v

    def pearson_residual(
        self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]
    ) -> Float[Array, "..."]:
        r"""Return $(p - y) / \sqrt{p (1 - p)}$."""
        root = self.root(jnp.asarray(output), jnp.ones_like(output))
        return (self.mean(jnp.asarray(output)) - y) / jnp.maximum(root, _LEAST)


class Categorical(Likelihood):
    r"""$\ell = -\pi\, y^\top \log \text{softmax}(\hat y)$, with $y$ a distribution over classes.

    Classes are the last axis; of outputs with positions each one has its own distribution.
    """

    needs: ClassVar[str] = "distributions over classes"
    precision: Float[Array, ""] = eqx.field(default=1.0, converter=as_positive)

    def takes(self, y: Num[np.ndarray, "n ..."]) -> bool:
        """Return whether targets are distributions."""
        return is_distribution(y)

    def terms(
        self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]
    ) -> Float[Array, "..."]:
        """Return the cross-entropy of each position, from logits (so it cannot overflow)."""
        return -jnp.sum(y * jax.nn.log_softmax(output), axis=-1)

    def mean(self, output: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the probabilities of the classes."""
        return jax.nn.softmax(output)

    def root(self, output: Float[Array, "..."], v: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""Return $\sqrt p \odot (v - \sqrt p \sqrt p^\top v)$, $p = \text{softmax}(\hat y)$.

        The Hessian is $\text{diag}(p) - p p^\top$, whatever y.
        """
        root = jnp.sqrt(jax.nn.softmax(output))
        return root * (v - root * jnp.sum(root * v, axis=-1, keepdims=True))

    def pearson_residual(
        self, y: Float[AnyArray, "..."], output: Float[AnyArray, "..."]
    ) -> Float[Array, "..."]:
        r"""Return $(p - y) / \sqrt p$, for a y whose sum is 1."""
        p = self.mean(jnp.asarray(output))
        return (p - y) / jnp.maximum(jnp.sqrt(p), _LEAST)


def is_distribution(y: Num[np.ndarray, "n ..."]) -> bool:
    """Return whether every row of targets is a distribution: none negative, and their sum 1."""
    return bool(np.all(y >= 0) and np.allclose(np.sum(y, axis=-1), 1, atol=1e-5))


def losses(
    likelihood: Likelihood,
    y: Num[AnyArray, "batch ..."],
    output: Float[Array, "batch ..."],
    observed: Num[AnyArray, "batch ..."] | None = None,
) -> Float[Array, " batch"]:
    """Return each sample's loss at unit precision, of what is observed: all, unless told.

    Raises:
        ValueError: if y is not shaped like the output, or what is observed not like the terms.
    """
    if y.shape != output.shape:
        raise ValueError(
            f"y has shape {y.shape} but the network's output has shape {output.shape}: "
            "they must be equal (targets of classes are one-hot rows)"
        )
    # A plain function: of a module's method JAX would write down the module, whenever it is traced.
    one = lambda y, output: likelihood.terms(y, output)  # noqa: E731
    y = jnp.asarray(y, output.dtype)
    if observed is not None:
        terms = jax.eval_shape(jax.vmap(one), y, output)
        if observed.shape != terms.shape:
            raise ValueError(
                f"observed must be shaped like the terms of the likelihood, {terms.shape}, not "
                f"{observed.shape}"
            )
    y, _ = known_part(y, observed, output)
    terms = jax.vmap(one)(y, output)
    if observed is not None:
        terms = observed * terms
    return jnp.sum(terms.reshape(len(terms), -1), axis=1)


def known_part(
    y: Num[AnyArray, "batch ..."],
    observed: Num[AnyArray, "batch ..."] | None,
    output: Float[Array, "batch ..."],
) -> tuple[Float[Array, "batch ..."], Float[Array, "..."]]:
    """Return y, zero where it is not observed, and what is observed, to multiply an output by.

    What is not known may be anything, also not a number.
    """
    y = jnp.asarray(y, output.dtype)
    if observed is None:
        return y, jnp.ones((), output.dtype)
    known = observed.reshape(*observed.shape, *([1] * (output.ndim - observed.ndim)))
    return jnp.where(known > 0, y, 0), jnp.asarray(known, output.dtype)
