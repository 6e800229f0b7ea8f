"""Zero-divergence inference learning: predictive coding that is backpropagation, step by step."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from mupc.energies import FreeEnergy, Point
from mupc.learning.rule import Batch, Info, LearningRule, check_terms
from mupc.likelihoods import Gaussian, Likelihood
from mupc.networks import Activities, Network
from mupc.regularisers import Regulariser


class ZeroDivergence(LearningRule):
    r"""Zero-divergence inference learning (arXiv 2103.03725, Algorithm 2).

    Inference starts at the feedforward pass, where all hidden errors are zero, and makes unit steps
    down the energy, $z \leftarrow z - \partial F / \partial z$. A layer's error is zero until step
    $H + 1 - l$, and then

    $$e_H = -\frac{\partial \hat y}{\partial z_H}^\top \frac{\partial \ell}{\partial \hat y},
      \quad e_l = \frac{\partial u_{l+1}}{\partial z_l}^\top e_{l+1}$$

    at activities that have not moved yet: the error of backpropagation. The weights of layer l
    learn at that step alone, so that the gradient is backpropagation's to rounding. It takes H
    steps of all layers.

    Args:
        likelihood: the output's energy; `mupc.Gaussian()` unless given.
        regularisers: further terms of the energy, on the weights.

    Raises:
        TypeError: if one is not what it should be.
        ValueError: in `gradients`, if a regulariser sees the activities.
    """

    likelihood: Likelihood = eqx.field(default_factory=Gaussian)
    regularisers: tuple[Regulariser, ...] = eqx.field(default=(), converter=tuple)

    def __check_init__(self) -> None:
        check_terms(self.likelihood, self.regularisers)

    def gradients(
        self,
        network: Network,
        batch: Batch,
        carry: None,
        key: PRNGKeyArray,
        *,
        measure: bool | Bool[Array, ""] = True,
    ) -> tuple[Network, None, Info]:
        """Step from the feedforward pass, and let each layer learn when its error arrives."""
        energy = FreeEnergy(network, *batch, self.likelihood, self.regularisers)
        if not energy.rests:
            raise ValueError(
                "zero-divergence learning takes no activity decay, with which errors would not be "
                "zero where inference starts"
            )
        start = energy.run()
        point = Point(start.activities, self._arriving(energy, start.activities))
        before, layers = (jnp.mean(energy.layers(at), axis=1) for at in (start, point))
        size = len(batch[0])
        info = Info(
            energy.output(start),
            before,
            layers,
            self.likelihood.precision,
            {},
            jnp.full(size, 3.0 * _depth(start.activities)),
        )
        return energy.weight_gradient(point), carry, info

    def _arriving(self, energy: FreeEnergy, start: Activities) -> Activities:
        """Return the error of each layer at the step at which it is first other than zero."""
        depth = _depth(start)
        numbers = energy.network.in_banks(jnp.arange(depth))

        def step(
            carry: tuple[Activities, Activities], at: Int[Array, ""]
        ) -> tuple[tuple[Activities, Activities], None]:
            activities, kept = carry
            _, gradient = energy.samples_and_gradient(activities)
            activities = jax.tree.map(jnp.subtract, activities, gradient)
            errors = energy.at(activities).errors

            def choose(number: Array, now: Array, was: Array) -> Array:
                due = (number == at).reshape(-1, *(1,) * (now.ndim - 1))
                return jnp.where(due, now, was)

            return (activities, jax.tree.map(choose, numbers, errors, kept)), None

        zeros = jax.tree.map(jnp.zeros_like, start)
        (_, kept), _ = jax.lax.scan(step, (start, zeros), jnp.arange(depth)[::-1])
        return kept


def _depth(activities: Activities) -> int:
    return sum(len(bank) for bank in activities)
