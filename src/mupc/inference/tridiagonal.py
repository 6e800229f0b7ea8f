"""Symmetric positive definite block tridiagonal matrices, whose blocks run along depth."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
from jaxtyping import Array, Float


class BlockTridiagonal(NamedTuple):
    r"""A matrix A with $A_{l,l}$ = `diagonal[l]` and $A_{l+1,l} = A_{l,l+1}^\top$ = `lower[l]`."""

    diagonal: Float[Array, "layer width width"]
    lower: Float[Array, "layer-1 width width"]

    def __matmul__(self, z: Float[Array, "layer batch width"]) -> Float[Array, "layer batch width"]:
        """Apply the matrix to the activities of every sample."""
        with jax.default_matmul_precision("highest"):
            product = jnp.einsum("loi,lbi->lbo", self.diagonal, z)
            product = product.at[1:].add(jnp.einsum("loi,lbi->lbo", self.lower, z[:-1]))
            return product.at[:-1].add(jnp.einsum("loi,lbo->lbi", self.lower, z[1:]))

    def dense(self) -> Float[Array, "n n"]:
        """Write it out, (layers · width) squared: for small ones."""
        layers, width, _ = self.diagonal.shape
        blocks = jnp.zeros((layers, layers, width, width), self.diagonal.dtype)
        here, above = jnp.arange(layers), jnp.arange(1, layers)
        blocks = blocks.at[here, here].set(self.diagonal)
        blocks = blocks.at[above, above - 1].set(self.lower)
        blocks = blocks.at[above - 1, above].set(self.lower.transpose(0, 2, 1))
        return blocks.transpose(0, 2, 1, 3).reshape(layers * width, layers * width)

    def solve(self, b: Float[Array, "layer batch width"]) -> Float[Array, "layer batch width"]:
        """Solve A z = b for every sample by block Cholesky: O(HN³) time and O(HN²) memory."""

        def eliminate(
            carry: tuple[Array, Array], layer: tuple[Array, Array, Array]
        ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            (factor, below), (lower, block, target) = carry, layer
            # D_l = A_ll − C D⁻¹ Cᵀ and f_l = b_l − C D⁻¹ f, with C = A_{l,l−1}.
            half = linalg.solve_triangular(factor, lower.T, lower=True)
            factor_l = jnp.linalg.cholesky(block - half.T @ half)
            below_l = target - _solve(factor, below) @ lower.T
            return (factor_l, below_l), (factor_l, below_l)

        def substitute(above: Array, layer: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            factor, right, lower = layer
            z = _solve(factor, right - above @ lower)
            return z, z

        with jax.default_matmul_precision("highest"):
            begin = (jnp.linalg.cholesky(self.diagonal[0]), b[0])
            layers = (self.lower, self.diagonal[1:], b[1:])
            end, (factors, rights) = jax.lax.scan(eliminate, begin, layers)
            factors = jnp.concatenate([begin[0][None], factors])
            rights = jnp.concatenate([begin[1][None], rights])
            top = _solve(*end)
            layers = (factors[:-1], rights[:-1], self.lower)
            _, z = jax.lax.scan(substitute, top, layers, reverse=True)
            return jnp.concatenate([z, top[None]])


def _solve(factor: Float[Array, "n n"], rows: Float[Array, "batch n"]) -> Array:
    """Solve L Lᵀ v = row for every row."""
    return linalg.cho_solve((factor, True), rows.T).T
