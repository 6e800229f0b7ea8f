r"""The regime number ρ: how far from backpropagation predictive coding is, sample by sample."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mupc.arrays import as_positive, over_rows, ratio, sample_norms
from mupc.energies import FreeEnergy, Point
from mupc.networks import with_gradient


def sensitivity(energy: FreeEnergy, point: Point) -> Float[Array, " batch"]:
    r"""Return $\lambda = \|\Pi^{-1/2} J^\top g\|^2 / \|g\|^2$ of each sample.

    g is the gradient of the output's loss at unit precision, J the Jacobian of the output by the
    hidden errors, Π their precisions (1 unless the energy has others). It costs one sweep; a sample
    whose output is right has no g, and a λ of zero.
    """
    _, (g,) = with_gradient(energy.output_loss, energy.output(point))
    adjoint = energy.whiten(energy.adjoint(point))
    # Squares of the smallest gradients would underflow.
    largest = jnp.max(jnp.abs(g), axis=tuple(range(1, g.ndim)))
    inverse = ratio(1.0, largest)
    unit = jnp.sum((over_rows(inverse, g) * g) ** 2, axis=tuple(range(1, g.ndim)))
    return ratio((sample_norms(adjoint) * inverse) ** 2, unit)


@eqx.filter_jit
def regime_number(energy: FreeEnergy, point: Point | None = None) -> Float[Array, " batch"]:
    r"""Return each sample's regime number, $\rho = \pi \|J^\top g\|^2 / \|g\|^2$.

    With J the Jacobian of the output by the hidden errors and g the gradient of the output's loss
    at unit precision: how much of the output's residual the hidden activities take up at
    equilibrium, along the direction that is learned from. For $\rho \ll 1$ the equilibrium lies
    next to the feedforward activities, and learning is near backpropagation's; for
    $\rho \gtrsim 1$ inference really moves the activities. It is proportional to the precision π,
    and costs one sweep whatever the size of the output.

    Args:
        energy: of a batch.
        point: where to measure; at the feedforward pass unless given.
    """
    return energy.precision * sensitivity(energy, energy.run() if point is None else point)


def mean_of(each: Float[Array, " batch"]) -> Float[Array, ""]:
    """Return the mean of λ or ρ over the samples that have one; zero if none has."""
    sound = (each > 0) & jnp.isfinite(each)
    return ratio(jnp.sum(jnp.where(sound, each, 0)), jnp.sum(sound).astype(each.dtype))


@eqx.filter_jit
def precision_for(rho: ArrayLike, energy: FreeEnergy) -> Float[Array, ""]:
    """Return the precision π at which the batch average of the regime number is ρ."""
    return as_positive(rho) / mean_of(sensitivity(energy, energy.run()))


class Regime(eqx.Module):
    r"""The precision of every sample: from a regime number, and held to it.

    With λ of each sample of a batch (`sensitivity`) and $\lambda_0$ the mean over the first batch
    of a run, $\pi = \rho / \lambda_0$, and held

    $$\pi_i = \pi \min(1, \lambda_0 / \lambda_i),$$

    so that no sample's regime number rises above what it was on average at first, though λ grows
    tenfold and more in training. Learning divides a sample's part of the weight gradient by
    $\pi_i / \pi$: as if the output kept its precision and the sample's hidden errors weighed more,
    so that no learning rate is changed.

    Attributes:
        rho: ρ, or None for the likelihood's own precision in place of π.
        hold: whether it is held.
    """

    rho: Float[Array, ""] | None
    hold: bool = eqx.field(static=True)

    def begin(self) -> Float[Array, ""]:
        """Return λ₀ before the first batch: zero, as long as no batch had anything to teach."""
        return jnp.zeros(())

    def measure(
        self, first: Float[Array, ""], energy: FreeEnergy, point: Point
    ) -> tuple[Float[Array, ""], "Precisions"]:
        """Return λ₀, from this batch if there is none yet, and the precisions of its samples."""
        each = sensitivity(energy, point)
        first = jnp.where(first > 0, first, mean_of(each))
        own = energy.likelihood.precision
        common = own if self.rho is None else ratio(self.rho, first)
        return first, Precisions(common, self.held(first, each))

    def held(self, first: Float[Array, ""], each: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Return by what every sample's precision is multiplied."""
        above = self.hold & (each > first) & (first > 0)
        return jnp.where(above, ratio(first, each), 1.0)


class Precisions(eqx.Module):
    """π for all samples, and the factor of each."""

    common: Float[Array, ""]
    factors: Float[Array, " batch"]

    def of(self, energy: FreeEnergy) -> FreeEnergy:
        """Return the energy with these precisions."""
        where = lambda e: (e.likelihood.precision, e.factors)  # noqa: E731
        new = (self.common, self.factors)
        return eqx.tree_at(where, energy, new, is_leaf=lambda leaf: leaf is None)
