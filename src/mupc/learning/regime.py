"""The regime number of what is learned, and the precision that holds it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mupc.arrays import ratio, sample_norms
from mupc.energies import FreeEnergy
from mupc.networks import Feedforward, with_gradient

# The regime number is measured in every fifth batch, at a fifth of a sweep in the mean, and
# averaged over some four measurements: batches differ. One wild batch must not count for many.
_EVERY = 5
_SHARE = 0.3
_WILD = 10.0


class Held(NamedTuple):
    """The regime numbers of the first batch and of the last ones, at one and the same precision.

    They are 0 as long as no batch had anything to teach.
    """

    batches: Int[Array, ""]
    first: Float[Array, ""]
    last: Float[Array, ""]

    @classmethod
    def begin(cls) -> "Held":
        """Give what is known before the first batch: nothing."""
        return cls(jnp.zeros((), int), jnp.zeros(()), jnp.zeros(()))

    @property
    def factor(self) -> Float[Array, ""]:
        """By what the precision is multiplied, so that the regime number does not rise."""
        return jnp.where(self.last > self.first, ratio(self.first, self.last), 1.0)

    def see(self, energy: FreeEnergy, start: Feedforward) -> "Held":
        """Measure the regime number, if it is time to; `energy` always has the first precision."""

        def measured() -> Float[Array, ""]:
            seen = learned_regime_number(energy, start)
            seen = jnp.where((seen > 0) & jnp.isfinite(seen), seen, self.last)
            seen = jnp.where(self.last > 0, jnp.minimum(seen, _WILD * self.last), seen)
            mean = (1 - _SHARE) * self.last + _SHARE * seen
            return jnp.where(self.last > 0, mean, seen)

        last = jax.lax.cond(self.batches % _EVERY == 0, measured, lambda: self.last)
        first = jnp.where(self.first > 0, self.first, last)
        return Held(self.batches + 1, first, last)


def learned_regime_number(energy: FreeEnergy, start: Feedforward) -> Float[Array, ""]:
    r"""Give the regime number of a batch, each sample weighed by what it teaches.

    $$\rho = \frac{\sum_s \rho_s g_s}{\sum_s g_s}, \quad g_s = \|J_s^\top q_s\|^2, \quad
      \rho_s = \frac{\text{tr}(\Lambda_s)}{O} \frac{g_s}{\|q_s\|^2}, \quad
      q = -\frac{\partial \ell}{\partial \hat y}$$

    with J the Jacobian of the output by the hidden errors and Λ the Hessian of ℓ by the output
    (Gaussian: $\rho_s = \pi \|J^\top r\|^2 / \|r\|^2$, $r = y - \hat y$). Weight gradients are
    proportional to $J^\top q$ near backpropagation, hence the weights g. At initialisation, where
    one sample is like the next and q knows nothing of J, it is about the mean of
    `mupc.theory.regime_number`. Later a few samples are wrong, and J is large along their q. It
    costs one sweep.

    Args:
        energy: of the batch.
        start: its feedforward pass.
    """
    likelihood, output = energy.likelihood, start.output
    _, (q,) = with_gradient(energy.of_output, output)
    outputs = output[0].size
    units = jnp.eye(outputs).reshape(outputs, *output.shape[1:])
    root = jax.vmap(jax.vmap(likelihood.root, (None, 0)), (0, None))(output, units)
    trace = likelihood.precision * jnp.sum(root**2, axis=tuple(range(1, root.ndim)))
    learned = sample_norms(energy.network.pullback(energy.x, start.activities, q)) ** 2
    numbers = trace / outputs * ratio(learned, jnp.sum(q**2, axis=tuple(range(1, q.ndim))))
    return ratio(jnp.sum(numbers * learned), jnp.sum(learned))
