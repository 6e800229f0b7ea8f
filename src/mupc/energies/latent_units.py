"""Units in which latent variables matter alike."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.energies.prediction import FreeEnergy


class LatentUnits(eqx.Module):
    r"""A matrix $P = V\, \text{diag}(s)\, V^\top$, with latent variables $z_0 = P w_0$."""

    vectors: Float[Array, "latents latents"]
    scales: Float[Array, " latents"]

    def apply(self, bank: Float[Array, "1 batch ..."]) -> Float[Array, "1 batch ..."]:
        """Return P w, which is its own transpose's product, too."""
        return self._product(bank, self.scales)

    def undo(self, bank: Float[Array, "1 batch ..."]) -> Float[Array, "1 batch ..."]:
        """Return w from P w."""
        return self._product(bank, 1 / self.scales)

    def _product(
        self, bank: Float[Array, "1 batch ..."], scales: Float[Array, " latents"]
    ) -> Float[Array, "1 batch ..."]:
        with jax.default_matmul_precision("highest"):
            rows = bank.reshape(*bank.shape[:2], -1) @ self.vectors
            return ((rows * scales) @ self.vectors.T).reshape(bank.shape)


def latent_units(energy: FreeEnergy) -> LatentUnits:
    r"""Return $P = (I + J^\top B B^\top J)^{-1/2}$, J the output's Jacobian by latent variables.

    At latent variables of zero, where no sample differs from another: one P is for all of them.
    $B B^\top$ is the Hessian of the output's energy, where the data are known in part with the
    share of samples in which each number is.

    Raises:
        ValueError: if the input of the network is not free, or known in part.
    """
    if not energy.network.generates or energy.known is not None:
        raise ValueError(
            "whitened=True is for networks whose input is free, and not known in part, such as "
            "mupc.decoder(…)"
        )
    count = math.prod(energy.run().errors[0].shape[2:])
    if energy.observed is not None:
        shares = jnp.broadcast_to(jnp.mean(energy.observed, axis=0), energy.observed.shape)
        energy = eqx.tree_at(lambda e: e.observed, energy, shares)
    # One row for every latent variable. Regularisers are no part of the output's curvature.
    rows = eqx.tree_at(lambda e: e.regularisers, energy.taken(jnp.zeros(count, int)), ())
    point = rows.run()
    first, *others = point.errors
    each = jnp.eye(count, dtype=first.dtype).reshape(first.shape)
    turned = rows.gauss_newton(point).up((each, *others)).reshape(count, -1)
    with jax.default_matmul_precision("highest"):
        curvatures, vectors = jnp.linalg.eigh(turned @ turned.T)
    return LatentUnits(vectors, 1 / jnp.sqrt(1 + jnp.maximum(curvatures, 0)))
