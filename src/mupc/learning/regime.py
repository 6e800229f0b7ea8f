r"""The regime number ρ: how far from backpropagation predictive coding is, sample by sample."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mupc.arrays import Readable, as_positive, over_rows, ratio, sample_norms
from mupc.energies import FreeEnergy, NudgedEnergy, Point
from mupc.networks import exact_errors, with_gradient

# Of the last sixteen batches, about: one has few samples that are still wrong.
_SHARE = 1 / 16


class Sensitivity(NamedTuple):
    r"""λ of each sample of a batch, and how much it teaches, both (batch,).

    Attributes:
        each: λ; zero for a sample whose output is right.
        learned: $\|\Pi^{-1/2} J^\top g\|^2$, as a fraction of the batch's largest: weight gradients
            are proportional to $J^\top g$ near backpropagation.
    """

    each: Float[Array, " batch"]
    learned: Float[Array, " batch"]

    def mean(self, factors: ArrayLike = 1.0) -> Float[Array, ""]:
        """Return the mean of λ, times factors, over what is learned; zero if nothing is."""
        sound = jnp.isfinite(self.each * self.learned)
        values, weights = (jnp.where(sound, v, 0) for v in (factors * self.each, self.learned))
        return ratio(jnp.sum(values * weights), jnp.sum(weights))


def sensitivity(energy: NudgedEnergy, point: Point) -> Sensitivity:
    r"""Measure $\lambda = \|\Pi^{-1/2} J^\top g\|^2 / \|g\|^2$ of each sample.

    g is the gradient of the output's loss at unit precision, J the Jacobian of the output by the
    hidden errors, Π their precisions (1 unless the energy has others). It costs one sweep.
    """
    if not energy.descends:
        energy = energy.with_parameters(exact_errors(energy.parameters))
    _, (g,) = with_gradient(energy.output_loss, energy.output(point))
    norms = sample_norms(energy.whiten(energy.adjoint(point)))
    # Squares of the smallest gradients would underflow.
    largest = jnp.max(jnp.abs(g), axis=tuple(range(1, g.ndim)))
    inverse = ratio(1.0, largest)
    unit = jnp.sum((over_rows(inverse, g) * g) ** 2, axis=tuple(range(1, g.ndim)))
    shares = ratio(norms, jnp.max(jnp.where(jnp.isfinite(norms), norms, 0)))
    return Sensitivity(ratio((norms * inverse) ** 2, unit), shares**2)


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
    point = energy.run() if point is None else point
    return jnp.abs(energy.precision) * sensitivity(energy, point).each


@eqx.filter_jit
def mean_regime_number(energy: FreeEnergy) -> Float[Array, ""]:
    r"""Return the mean of ρ at the feedforward pass, over what is learned.

    $\sum_i \rho_i s_i / \sum_i s_i$, with $s_i = \|J_i^\top g_i\|^2$: a sample that is right counts
    for nothing.
    """
    return sensitivity(energy, energy.run()).mean(jnp.abs(energy.precision))


@eqx.filter_jit
def precision_for(rho: ArrayLike, energy: FreeEnergy) -> Float[Array, ""]:
    """Return the precision π at which the batch's mean regime number is ρ."""
    return as_positive(rho) / sensitivity(energy, energy.run()).mean()


class Held(NamedTuple):
    """λ over what is learned, of the first batch and on average of the last ones; zero before."""

    first: Float[Array, ""]
    last: Float[Array, ""]

    def see(self, mean: Float[Array, ""]) -> "Held":
        """Return it after another batch, unless that had nothing to teach."""
        known = self.first > 0
        last = jnp.where(known, self.last + _SHARE * (mean - self.last), mean)
        return Held(jnp.where(known, self.first, mean), jnp.where(mean > 0, last, self.last))


class Regime(Readable):
    r"""The precision of every sample: from a regime number, and held to it.

    With λ of each sample (`sensitivity`), $\bar\lambda$ the mean over what is learned in the last
    batches, and $\lambda_0$ that of the first batch of a run, $\pi = \rho / \lambda_0$, and held

    $$\pi_i = \pi \min(1, \lambda_0 / \max(\lambda_i, \bar\lambda)),$$

    so that neither the mean regime number nor any sample's rises above what it was at first, though
    λ grows tenfold and more in training. Samples need their own, since λ has a heavy tail; and they
    need that of others, since a sample whose λ is small where inference begins may have to cross a
    region where it is as large as theirs. Learning divides a sample's part of the weight
    gradient by $\pi_i / \pi$: as if the output kept its precision and the sample's hidden errors
    weighed more, so that no learning rate is changed.

    Attributes:
        rho: ρ, or None for the likelihood's own precision in place of π.
        hold: whether it is held.
    """

    rho: Float[Array, ""] | None
    hold: bool = eqx.field(static=True)

    def begin(self) -> Held:
        """Return what is known before the first batch: nothing."""
        return Held(jnp.zeros(()), jnp.zeros(()))

    def measure(self, held: Held, energy: FreeEnergy, point: Point) -> tuple[Held, "Precisions"]:
        """Return what is known after this batch, and the precisions of its samples."""
        seen = sensitivity(energy, point)
        held = held.see(seen.mean())
        own = energy.likelihood.precision
        known = held.first > 0  # else the readout is zero, say, and there is no ρ to set
        common = own if self.rho is None else jnp.where(known, ratio(self.rho, held.first), own)
        if not self.hold:
            return held, Precisions(common, None)
        level = self.level(seen.each, held.last)
        above = known & (level > held.first)
        return held, Precisions(common, jnp.where(above, ratio(held.first, level), 1.0))

    def level(self, each: Float[Array, " batch"], mean: Float[Array, ""]) -> Float[Array, " batch"]:
        """Return what of every sample is held below λ₀."""
        return jnp.maximum(each, mean)


class Precisions(eqx.Module):
    """π for all samples, and the factor of each, if samples have their own."""

    common: Float[Array, ""]
    factors: Float[Array, " batch"] | None

    def of(self, energy: FreeEnergy) -> FreeEnergy:
        """Return the energy with these precisions, times the factors that it has."""
        energy = eqx.tree_at(lambda e: e.likelihood.precision, energy, self.common)
        return energy if self.factors is None else energy.times(self.factors)
