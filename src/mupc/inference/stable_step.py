"""A step size that nobody has to guess: from the largest eigenvalue of the activity Hessian."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mupc.arrays import over_samples, sample_norms, scalar_that_is
from mupc.energies import Energy
from mupc.inference.gradient_descent import StepSize
from mupc.networks import Activities


def largest_eigenvalue(
    energy: Energy, activities: Activities, iterations: int
) -> Float[Array, " batch"]:
    r"""Estimate $|\lambda|_{\max}$ of each sample's activity Hessian, by power iteration.

    The estimate $\|Hv\| / \|v\|$ approaches the eigenvalue from below. Samples do not interact, so
    the Hessian of the batch sum is block diagonal and one product serves all of them; they share
    one random start, so that a sample's estimate does not depend on its batch. An iteration costs
    about two sweeps.
    """
    _, hessian = jax.linearize(lambda z: energy.samples_and_gradient(z)[1], activities)
    keys = jax.random.split(jax.random.key(0), len(activities))
    start = tuple(
        jnp.broadcast_to(jax.random.normal(key, (z.shape[0], 1, *z.shape[2:]), z.dtype), z.shape)
        for key, z in zip(keys, activities, strict=True)
    )

    def iterate(
        _: Int[Array, ""], carry: tuple[Activities, Float[Array, " batch"]]
    ) -> tuple[Activities, Float[Array, " batch"]]:
        product = hessian(_unit(carry[0]))
        return product, sample_norms(product)

    batch = activities[0].shape[1]
    first = (start, jnp.zeros(batch, activities[0].dtype))
    return jax.lax.fori_loop(0, iterations, iterate, first)[1]


def _unit(v: Activities) -> Activities:
    norms = sample_norms(v)
    return jax.tree.map(lambda leaf: leaf / over_samples(norms, leaf), v)


class StableStep(StepSize):
    r"""$\eta = \text{fraction} / \lambda$, with λ the largest eigenvalue of the sample's Hessian.

    Gradient descent on a quadratic is stable below $2/\lambda$, so the default leaves a factor of
    two for the estimate (from below) and for a Hessian that changes on the way.

    Args:
        fraction: the step in units of 1 / λ, above 0 and below 2.
        iterations: power iterations, about two sweeps each, once per inference.
    """

    fraction: Float[Array, ""] = eqx.field(
        default=1.0, converter=scalar_that_is("above 0 and below 2", lambda value: 0 < value < 2)
    )
    iterations: int = eqx.field(default=8, static=True)

    def __check_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {self.iterations}")

    @property
    def sweeps(self) -> float:
        """Two for every power iteration, and one to linearise."""
        return 1.0 + 2.0 * self.iterations

    def __call__(self, energy: Energy, activities: Activities) -> Float[Array, " batch"]:
        """Measure λ at the start of inference."""
        return self.fraction / largest_eigenvalue(energy, activities, self.iterations)
