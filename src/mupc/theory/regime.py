"""How far from backpropagation predictive coding is: the regime number ρ."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mupc.arrays import as_positive, sample_norms
from mupc.energies import FreeEnergy


@eqx.filter_jit
def regime_number(energy: FreeEnergy) -> Float[Array, " batch"]:
    r"""Give each sample's regime number, at the feedforward activities.

    $$\rho = \frac{1}{O} \text{tr}(B^\top J J^\top B)$$

    with J the Jacobian of the output by the hidden errors, $B B^\top$ the likelihood's Hessian by
    the output (Gaussian: $\rho = \pi\, \text{tr}(J J^\top) / O$) and O the number of outputs. For
    $\rho \ll 1$ the equilibrium lies next to the feedforward activities, and learning is near
    backpropagation's; for $\rho \gtrsim 1$ inference really moves the activities. It is
    proportional to the precision π, and costs O sweeps.
    """
    activities, output = energy.network.feedforward(energy.x)
    down = energy.gauss_newton(activities).down
    outputs = output[0].size
    units = jnp.eye(outputs).reshape(outputs, *output.shape[1:])

    def square(unit: Float[Array, "..."]) -> Float[Array, " batch"]:
        return sample_norms(down(jnp.broadcast_to(unit, output.shape))) ** 2

    return jnp.sum(jax.lax.map(square, units), axis=0) / outputs


def precision_for(rho: ArrayLike, energy: FreeEnergy) -> Float[Array, ""]:
    """Give the precision π at which the batch average of the regime number is ρ."""
    likelihood = energy.likelihood
    return as_positive(rho) * likelihood.precision / jnp.mean(regime_number(energy))
