"""Monte Carlo predictive coding: activities are sampled, not settled."""

from collections.abc import Callable, Sequence
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Int, PRNGKeyArray

from mupc.arrays import as_count
from mupc.energies import Energy, FreeEnergy, Point
from mupc.inference import LBFGS, Endless, InErrors, Langevin, Solution, Solver, Start, infer
from mupc.kinds import check_kind, check_sizes
from mupc.learning.predictive_coding import Carry, PredictiveCoding
from mupc.learning.rule import LearningRule
from mupc.likelihoods import Gaussian, Likelihood
from mupc.networks import Network
from mupc.regularisers import Regulariser

# What infers the likeliest latent variables.
_PAIRS, _STEPS = 8, 30


class MonteCarloPredictiveCoding(PredictiveCoding):
    r"""Monte Carlo predictive coding (doi 10.1371/journal.pcbi.1012532).

    The energy is a negative log probability, $p(z \mid x, y) \propto \exp(-F(z))$, and activities
    are drawn from it. Learning averages the weight gradient over S samples of a batch,

    $$\hat g = \frac1S \sum_{s=1}^{S} \frac{\partial F}{\partial W}(z^{(s)})
      \approx -\frac{\partial}{\partial W} \log p(y \mid x)$$

    by Fisher's identity: the gradient of the marginal likelihood, not of its largest summand, as at
    an equilibrium. It holds where exp(−F) is normalised whatever the weights: for `mupc.Gaussian`
    and `mupc.Laplace`, and `mupc.Categorical` and `mupc.Bernoulli` of precision 1, at a temperature
    of 1 and without activity decay; and as far as the step is short, below 2 / λ of the largest
    curvature (`mupc.Langevin`), which grows with learning.

    Of a network that generates, the latent variables are sampled like all activities, so that they
    come to follow their prior. At an equilibrium they shrink instead, while the weights grow. What
    such a network is asked to restore is read from the likeliest latent variables (`reads`).

    Args:
        solver: draws; `mupc.InErrors(mupc.Langevin(0.02))` unless given. In errors the dynamics
            reach all layers in a step, and the map to activities keeps volumes, so that they have
            the same distribution.
        burn_in: steps before the first sample.
        samples: S.
        thinning: steps from one sample to the next.
        likelihood: the output's; `mupc.Gaussian()` unless given.
        hidden_precision: precision of the errors of all hidden layers, latent variables apart; 1
            unless given, where hidden noise leaves latent variables nothing to explain.
        regularisers: further terms of the energy.
        start: where the dynamics start; `mupc.FeedforwardStart()` unless given.
        energy: builds F, of network, x, y, likelihood and regularisers: `mupc.FreeEnergy` unless
            given.

    Raises:
        ValueError: if an argument is impossible.
        TypeError: if one is not what it should be.
    """

    samples: int = eqx.field(static=True)
    thinning: Int[Array, ""]

    def __init__(
        self,
        solver: Solver | None = None,
        burn_in: Int[ArrayLike, ""] = 50,
        samples: int = 10,
        thinning: Int[ArrayLike, ""] = 5,
        likelihood: Likelihood | None = None,
        *,
        hidden_precision: ArrayLike | None = None,
        regularisers: Sequence[Regulariser] = (),
        start: Start | None = None,
        energy: Callable[..., Energy] = FreeEnergy,
    ) -> None:
        check_sizes(samples=samples)
        solver = InErrors(Langevin(0.02)) if solver is None else solver
        check_kind("solver", solver, Solver, "a mupc.Solver, e.g. mupc.Langevin(0.05)")
        self.samples = samples
        self.thinning = as_count(thinning, least=1)
        super().__init__(
            solver,
            burn_in,
            Gaussian() if likelihood is None else likelihood,
            hidden_precision=hidden_precision,
            regularisers=regularisers,
            stopping=Endless(),
            start=start,
            energy=energy,
        )

    @property
    def reads(self) -> PredictiveCoding:
        """The rule that infers what is likeliest, without noise."""
        return PredictiveCoding(
            InErrors(LBFGS(_PAIRS)),
            _STEPS,
            self.likelihood,
            hidden_precision=self.hidden_precision,
            regularisers=self.regularisers,
            start=self.start,
            energy=self.energy,
        )

    def exact(self, network: Network) -> LearningRule | None:
        """Return backpropagation (None); of a network that generates, a chain ten times as long."""
        if not network.generates:
            return None
        return MonteCarloPredictiveCoding(
            cast(Solver, self.solver),
            self.limit,
            10 * self.samples,
            self.thinning,
            self.likelihood,
            hidden_precision=self.hidden_precision,
            regularisers=self.regularisers,
            start=self.start,
            energy=self.energy,
        )

    def learn(
        self, carry: Carry, key: PRNGKeyArray, *, measure: bool | Bool[Array, ""] = True
    ) -> tuple[Solution, Network]:
        """Return where the dynamics ended, and what the weights would lower on average."""
        # Chains of other lengths, such as the yardstick's, have other samples.
        burn_key, keys = jax.random.split(jax.random.fold_in(key, self.samples))
        begun = self._infer(carry, burn_key, measure=measure)

        def draw(point: Point, key: PRNGKeyArray) -> tuple[Point, tuple[Solution, Network]]:
            solution = infer(
                carry.energy,
                self.solver,
                point,
                max_steps=self.thinning,
                stopping=self.stopping,
                key=key,
                measure=measure,
            )
            gradient = carry.energy.weight_gradient(solution.point, unit=carry.factors)
            return solution.point, (solution._replace(point=Point((), ())), gradient)

        end, (drawn, gradients) = jax.lax.scan(
            draw, begun.point, jax.random.split(keys, self.samples)
        )
        last = jax.tree.map(lambda v: v[-1], drawn)
        steps = begun.steps + jnp.sum(drawn.steps, axis=0)
        solution = last._replace(point=end, steps=steps, initial=begun.initial)
        return solution, jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)
