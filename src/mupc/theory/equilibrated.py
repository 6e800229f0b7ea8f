"""Deep linear networks at equilibrium: activities and energy in closed form."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.energies import FreeEnergy
from mupc.inference.linear import affine_layers, check_closed_form
from mupc.networks import Chain
from mupc.regularisers import activity_terms


class Equilibrated(NamedTuple):
    """The energy at equilibrium, (batch,), and the matrix S that makes it of the residual."""

    energy: Float[Array, " batch"]
    S: Float[Array, "output output"]


def equilibrated_energy(energy: FreeEnergy) -> Equilibrated:
    r"""Return the energy of a deep linear network at equilibrium.

    $$F^* = \tfrac12 r^\top S^{-1} r, \quad r = y - \hat y, \quad
      S = I / \pi + \sum_{l=1}^{H} P_l P_l^\top, \quad P_l = M_L M_H \cdots M_{l+1}$$

    with $\hat y$ the feedforward output and $M_l$ the matrix of layer l, skip and multiplier
    included (arXiv 2408.11979, Theorem 1, for networks without skips and π = 1). As
    $S \to I/\pi$, F* becomes the loss, and predictive coding's gradients π times
    backpropagation's. It can be differentiated: its gradient by the weights is the local one at
    equilibrium.

    Raises:
        ValueError: if there is no such form: a network that is not linear, activity decay, another
            likelihood, several stages.
    """
    check_closed_form(energy)
    activities, output = energy.network.feedforward(energy.x)
    decays = activity_terms(energy.regularisers, activities) is not None
    if decays or energy.precisions is not None:
        raise ValueError(
            "with activity decay or hidden precisions the energy at equilibrium is not this "
            "function of the output's residual: use energy.samples(energy.at(equilibrium(energy)))"
        )
    layers = affine_layers(cast(Chain, energy.network), activities[0].shape[-1])

    def layer(carry: tuple[Array, Array], M: Array) -> tuple[tuple[Array, Array], None]:
        above, total = carry
        P = above @ M
        return (P, total + P @ P.T), None

    with jax.default_matmul_precision("highest"):
        top = layers.readout
        begin = jnp.eye(len(top)) / energy.precision + top @ top.T
        (_, S), _ = jax.lax.scan(layer, (top, begin), layers.M, reverse=True)
        r = energy.y - output
        return Equilibrated(0.5 * jnp.sum(r * jnp.linalg.solve(S, r.T).T, axis=1), S)
