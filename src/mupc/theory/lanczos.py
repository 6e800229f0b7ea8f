"""Lanczos iteration: a symmetric operator, seen from a start, as a small tridiagonal matrix."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Krylov(NamedTuple):
    r"""An orthonormal basis of $\{v, Av, A^2 v, \ldots\}$, in which A is tridiagonal."""

    basis: Float[Array, "steps n"]
    diagonal: Float[Array, " steps"]
    beside: Float[Array, " steps-1"]
    last: Float[Array, ""]
    """The β that leads out of the space."""

    def matrix(self) -> Float[Array, "steps steps"]:
        """Write the tridiagonal matrix out."""
        return jnp.diag(self.diagonal) + jnp.diag(self.beside, 1) + jnp.diag(self.beside, -1)


def lanczos(
    operator: Callable[[Float[Array, " n"]], Float[Array, " n"]],
    start: Float[Array, " n"],
    steps: int,
) -> Krylov:
    r"""Iterate $\beta_{k+1} q_{k+1} = A q_k - \alpha_k q_k - \beta_k q_{k-1}$.

    Every vector is made orthogonal to all before it, twice: otherwise round-off brings converged
    eigenvalues back as copies. Where the space is exhausted (β = 0) the basis goes on with zeros,
    and the matrix with uncoupled copies of the first Rayleigh quotient, which lies inside the
    spectrum and has no weight.

    Args:
        operator: A, symmetric.
        start: v, not zero.
        steps: the size of the basis, at most n.
    """
    size = jnp.linalg.norm(start)
    basis = jnp.zeros((steps, start.size), start.dtype).at[0].set(start / size)
    zeros = jnp.zeros(steps, start.dtype)

    def step(k: Int[Array, ""], carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        basis, diagonal, beside = carry
        q = basis[k]
        product = operator(q)
        exhausted = (k > 0) & ~jnp.any(q)
        diagonal = diagonal.at[k].set(jnp.where(exhausted, diagonal[0], q @ product))
        scale = jnp.linalg.norm(product)
        for _ in range(2):
            product = product - (basis @ product) @ basis
        norm = jnp.linalg.norm(product)
        more = norm > 10 * jnp.finfo(norm.dtype).eps * scale
        following = jnp.where(more, product / jnp.where(more, norm, 1), 0)
        # The last vector would be one too many: it is dropped.
        basis = basis.at[k + 1].set(following, mode="drop")
        return basis, diagonal, beside.at[k].set(jnp.where(more, norm, 0))

    with jax.default_matmul_precision("highest"):
        basis, diagonal, beside = jax.lax.fori_loop(0, steps, step, (basis, zeros, zeros))
    return Krylov(basis, diagonal, beside[:-1], beside[-1])
