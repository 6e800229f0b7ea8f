"""The equilibrium of a deep linear network, in closed form."""

from typing import cast

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
from jaxtyping import Array, Float

from mupc.arrays import choose
from mupc.energies import Energy, FreeEnergy
from mupc.inference.errors import free
from mupc.inference.solver import Move, Progress, Solver
from mupc.likelihoods import Gaussian
from mupc.networks import Activities, Chain
from mupc.networks.layers import Block


class LinearSolve(Solver):
    r"""Jump to the equilibrium of a deep linear network, in one step.

    With $u_l = M_l z_{l-1} + c_l$ the energy is quadratic, and its minimum solves $A z = b$:

    $$A_{ll} = I + M_{l+1}^\top M_{l+1}, \quad A_{HH} = I + \pi M_L^\top M_L, \quad
      A_{l,l+1} = -M_{l+1}^\top$$

    $$b_l = c_l - M_{l+1}^\top c_{l+1}, \quad b_1 = u_1(x) - M_2^\top c_2, \quad
      b_H = c_H + \pi M_L^\top (y - c_L)$$

    A is block tridiagonal and positive definite: block Cholesky along depth solves it in O(HN³)
    time and O(HN²) memory, for all samples at once. $M_l$ is whatever the block does (skip
    connection, multiplier and all).
    """

    def init(self, energy: Energy, position: Activities) -> None:
        """Check that there is a closed form.

        Raises:
            ValueError: if the network is not linear, or the energy not quadratic.
        """
        energy = free(energy)
        if not energy.network.linear:
            raise ValueError(
                "LinearSolve needs a linear network (activation mupc.identity); take "
                "mupc.GaussNewton or mupc.InErrors for this one"
            )
        if not isinstance(energy.likelihood, Gaussian) or not energy.hidden_is_errors:
            raise ValueError(
                "LinearSolve needs a Gaussian likelihood and no activity decay: the energy of "
                "anything else has no closed form here; take mupc.GaussNewton or mupc.InErrors"
            )
        if not isinstance(energy.network, Chain) or len(energy.network.stages) != 1:
            raise ValueError(
                "LinearSolve needs a chain of one stage, whose activities have one width; take "
                "mupc.GaussNewton for several stages"
            )

    def step(
        self, energy: Energy, position: Activities, state: None
    ) -> tuple[Move, None, Progress]:
        """Give the equilibrium."""
        energy = free(energy)
        samples, gradient = energy.samples_and_gradient(position)
        residual = jnp.sqrt(jnp.sum(gradient[0] ** 2, axis=(0, 2)))
        moved = (_equilibrium(energy, cast(Chain, energy.network)),)
        move = lambda active: choose(active, moved, position)  # noqa: E731
        return move, state, Progress(samples, residual)


def _equilibrium(energy: FreeEnergy, network: Chain) -> Float[Array, "layer batch width"]:
    stage, readout = network.stages[0], network.readout
    first = jax.vmap(stage.entry)(energy.x)
    width, depth = first.shape[1], stage.size
    with jax.default_matmul_precision("highest"):
        M, c = jax.vmap(lambda block: _affine(block, width))(stage.blocks)
        top, offset = _affine(readout, width)
        eye, precision = jnp.eye(width), energy.likelihood.precision
        # The diagonal, and b for every layer: what a layer predicts, less what it is to predict.
        last = eye + precision * top.T @ top
        inner = eye + jnp.einsum("loi,loj->lij", M, M)
        diagonal = jnp.concatenate([inner, last[None]])
        pull = jnp.einsum("loi,lo->li", M, c)
        targets = jnp.broadcast_to(jnp.zeros_like(first), (depth, *first.shape))
        targets = targets.at[0].set(first).at[1:].add(c[:, None])
        targets = targets.at[:-1].add(-pull[:, None])
        targets = targets.at[-1].add(precision * (energy.y - offset) @ top)

        def eliminate(
            carry: tuple[Array, Array], layer: tuple[Array, Array, Array]
        ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            (factor, below), (matrix, block, target) = carry, layer
            # D_l = A_ll − M D⁻¹ Mᵀ and f_l = b_l + M D⁻¹ f, of the layer below.
            half = linalg.solve_triangular(factor, matrix.T, lower=True)
            factor_l = jnp.linalg.cholesky(block - half.T @ half)
            below_l = target + _solve(factor, below) @ matrix.T
            return (factor_l, below_l), (factor_l, below_l)

        begin = (jnp.linalg.cholesky(diagonal[0]), targets[0])
        end, (factors, rights) = jax.lax.scan(eliminate, begin, (M, diagonal[1:], targets[1:]))
        factors = jnp.concatenate([begin[0][None], factors])
        rights = jnp.concatenate([begin[1][None], rights])

        def substitute(above: Array, layer: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            factor, right, matrix = layer
            z = _solve(factor, right + above @ matrix)
            return z, z

        z_last = _solve(*end)
        _, z = jax.lax.scan(substitute, z_last, (factors[:-1], rights[:-1], M), reverse=True)
        return jnp.concatenate([z, z_last[None]])


def _affine(block: Block, width: int) -> tuple[Float[Array, "out in"], Float[Array, " out"]]:
    """Give the matrix and the offset of a block that is affine."""
    zero = jnp.zeros(width)
    return jax.jacobian(block)(zero), block(zero)


def _solve(factor: Float[Array, "n n"], rows: Float[Array, "batch n"]) -> Array:
    """Solve L Lᵀ v = row for every row."""
    return linalg.cho_solve((factor, True), rows.T).T
