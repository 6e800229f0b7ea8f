"""The equilibrium of a deep linear network, in closed form."""

from typing import ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.arrays import choose, sample_norms
from mupc.energies import Energy, FreeEnergy
from mupc.inference.solver import Keys, Move, Progress, Solver
from mupc.inference.tridiagonal import BlockTridiagonal
from mupc.likelihoods import Gaussian
from mupc.networks import Activities, Chain
from mupc.networks.block import Block, over_batch
from mupc.regularisers import ActivityDecay, Regulariser


class LinearSolve(Solver):
    r"""Jump to the equilibrium of a deep linear network, in one step.

    With $u_l = M_l z_{l-1} + c_l$ the energy is quadratic, and its minimum solves $A z = b$, A the
    activity Hessian (`mupc.theory.linear_hessian`) and

    $$b_l = c_l - M_{l+1}^\top c_{l+1}, \quad b_1 = u_1(x) - M_2^\top c_2, \quad
      b_H = c_H + \pi M_L^\top (y - c_L)$$

    A is block tridiagonal and positive definite: block Cholesky along depth solves it in O(HN³)
    time and O(HN²) memory, for all samples at once. $M_l$ is whatever the block does (skip
    connection, multiplier and all).
    """

    takes: ClassVar[type[Energy]] = FreeEnergy

    def init(self, energy: FreeEnergy, position: Activities) -> None:
        """Check that there is a closed form.

        Raises:
            ValueError: if the network is not linear, or the energy not quadratic.
        """
        check_closed_form(energy)

    def step(
        self, energy: FreeEnergy, position: Activities, state: None, keys: Keys
    ) -> tuple[Move, None, Progress]:
        """Return the equilibrium."""
        samples, gradient = energy.samples_and_gradient(position)
        moved = equilibrium(energy)
        move = lambda active: choose(active, moved, position)  # noqa: E731
        return move, state, Progress(samples, sample_norms(gradient))


class AffineLayers(NamedTuple):
    """A linear network as matrices: u = M z + c for its blocks, and for the readout."""

    M: Float[Array, "layer-1 width width"]
    c: Float[Array, "layer-1 width"]
    readout: Float[Array, "output width"]
    offset: Float[Array, " output"]


def check_closed_form(energy: FreeEnergy) -> None:
    """Check that the equilibrium has a closed form.

    Raises:
        ValueError: if the network is not linear or of several stages, or the energy not quadratic.
    """
    network = energy.network
    if not network.linear:
        raise ValueError(
            "the closed form is for linear networks (activation mupc.identity); use "
            "mupc.GaussNewton or mupc.InErrors(mupc.LBFGS()) for this one"
        )
    if not isinstance(energy.likelihood, Gaussian):
        raise ValueError(
            "the closed form is for the Gaussian likelihood: with another one the energy is not "
            "quadratic; use mupc.GaussNewton"
        )
    stages = network.stages if isinstance(network, Chain) else ()
    if not isinstance(network, Chain) or [len(s.blocks) > 1 for s in stages] != [False]:
        raise ValueError(
            "the closed form is for a chain of one stage with one kind of block, whose activities "
            "have one width; use mupc.GaussNewton for several"
        )
    shapes = jax.eval_shape(network.feedforward, energy.x)
    if any(z.ndim != 3 for z in shapes.activities) or shapes.output.ndim != 2:
        raise ValueError(
            "the closed form is for activities and outputs that are vectors, without positions; "
            "use mupc.GaussNewton for others"
        )
    if type(energy).hidden is not FreeEnergy.hidden or energy.factors is not None:
        raise ValueError(
            "the closed form is for the terms of mupc.FreeEnergy, with one output precision for "
            "all samples; use mupc.GaussNewton for others"
        )
    if energy.observed is not None or energy.likelihood.precisions is not None:
        raise ValueError(
            "the closed form is for outputs of which all are known, with one precision; use "
            "mupc.GaussNewton for others"
        )
    if energy.given is not None:
        raise ValueError("the closed form knows no input that is given in part: use GaussNewton")
    if energy.multipliers is not None:
        raise ValueError("the closed form knows no multipliers; use mupc.GaussNewton with them")
    decay_strengths(energy.regularisers, network.depth)


def affine_layers(network: Chain, width: int) -> AffineLayers:
    """Read a linear network's matrices and offsets off its layers, of one width."""
    zero = jnp.zeros(width)
    with jax.default_matmul_precision("highest"):
        hidden = [jax.vmap(lambda b: _affine(b, width))(b) for b in network.stages[0].blocks]
        M, c = hidden[0] if hidden else (jnp.zeros((0, width, width)), jnp.zeros((0, width)))
        return AffineLayers(M.astype(zero.dtype), c, *_affine(network.readout, width))


def linear_hessian(energy: FreeEnergy) -> BlockTridiagonal:
    r"""Return the activity Hessian A of a deep linear network, the same for every sample.

    $$A_{ll} = (\pi_l + \lambda_l) I + \pi_{l+1} M_{l+1}^\top M_{l+1}, \quad
      A_{HH} = (\pi_H + \lambda_H) I + \pi M_L^\top M_L, \quad
      A_{l,l+1} = -\pi_{l+1} M_{l+1}^\top$$

    with $u_l = M_l z_{l-1} + c_l$ (so $M_l = I + a W_l$ with skips, $a W_l$ without), $\pi_l$ the
    hidden precisions (1 unless the energy has others) and λ the activity decay (arXiv 2505.13124,
    appendix on the activity Hessian).

    Raises:
        ValueError: if the network is not linear or of several stages, or the energy not quadratic.
    """
    check_closed_form(energy)
    network = cast(Chain, energy.network)
    seen = jax.eval_shape(network.feedforward, energy.x)
    return _hessian(energy, affine_layers(network, seen.activities[0].shape[-1]))


def equilibrium(energy: FreeEnergy) -> Activities:
    r"""Return the equilibrium of a deep linear network, $z^* = A^{-1} b$ (see `mupc.LinearSolve`).

    It can be differentiated, by weights, input, target and precision.

    Raises:
        ValueError: if the network is not linear or of several stages, or the energy not quadratic.
    """
    check_closed_form(energy)
    network = cast(Chain, energy.network)
    first = over_batch(network.stages[0].entry)(energy.x)
    layers, precisions = affine_layers(network, first.shape[1]), _precisions(energy)
    with jax.default_matmul_precision("highest"):
        pull = jnp.einsum("l,loi,lo->li", precisions[1:], layers.M, layers.c)
        own = precisions[1:, None] * layers.c
        b = jnp.zeros((network.depth, *first.shape), first.dtype)
        b = b.at[0].set(precisions[0] * first)
        b = b.at[1:].add(own[:, None]).at[:-1].add(-pull[:, None])
        missing = energy.y - layers.offset
        b = b.at[-1].add(energy.precision * missing @ layers.readout)
    return network.in_banks(_hessian(energy, layers).solve(b))


def _precisions(energy: FreeEnergy) -> Float[Array, " layers"]:
    one = jnp.ones(()) if energy.precisions is None else energy.precisions
    return jnp.broadcast_to(one, (cast(Chain, energy.network).depth,))


def _hessian(energy: FreeEnergy, layers: AffineLayers) -> BlockTridiagonal:
    depth, width = len(layers.M) + 1, layers.M.shape[-1]
    precisions = _precisions(energy)
    diagonal = precisions + decay_strengths(energy.regularisers, depth)
    with jax.default_matmul_precision("highest"):
        inner = jnp.einsum("l,loi,loj->lij", precisions[1:], layers.M, layers.M)
        last = energy.precision * layers.readout.T @ layers.readout
    own = diagonal[:, None, None] * jnp.eye(width, dtype=last.dtype)
    lower = -precisions[1:, None, None] * layers.M
    return BlockTridiagonal(own + jnp.concatenate([inner, last[None]]), lower)


def decay_strengths(regularisers: tuple[Regulariser, ...], depth: int) -> Float[Array, " depth"]:
    """Sum the activity decays on each layer.

    Raises:
        ValueError: if another regulariser sees the activities.
    """
    total = jnp.zeros(depth)
    for regulariser in regularisers:
        if isinstance(regulariser, ActivityDecay):
            total = total + regulariser.strengths(depth)
        elif regulariser.of_activities((jnp.zeros((depth, 1, 1)),)) is not None:
            raise ValueError(
                f"the closed form knows one term on the activities, mupc.ActivityDecay, and "
                f"{type(regulariser).__name__} is another"
            )
    return total


def _affine(block: Block, width: int) -> tuple[Float[Array, "out in"], Float[Array, " out"]]:
    """Return the matrix and the offset of a block that is affine."""
    zero = jnp.zeros(width)
    return jax.jacobian(block)(zero), block(zero)
