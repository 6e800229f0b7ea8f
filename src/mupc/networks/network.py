"""What energies, solvers and rules ask of a network."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mupc.networks.layers import Activities
from mupc.networks.stage import Term


class Feedforward(NamedTuple):
    """What a feedforward pass gives: all hidden activities, and the output (batch, ...)."""

    activities: Activities
    output: Float[Array, "batch ..."]


class Network(eqx.Module):
    """A network that can be run forwards, and whose layers can be predicted one by one."""

    @property
    @abstractmethod
    def linear(self) -> bool:
        """Whether every layer is affine."""

    @abstractmethod
    def feedforward(
        self, x: Float[Array, "batch ..."], errors: Activities | None = None
    ) -> Feedforward:
        r"""Run the network forwards: $z_l = u_l(z_{l-1}) + e_l$, with $e = 0$ unless given.

        Args:
            x: the input, (batch, ...).
            errors: hidden errors, shaped like activities.
        """

    @abstractmethod
    def predictions(
        self, x: Float[Array, "batch ..."], activities: Activities
    ) -> tuple[Activities, Float[Array, "batch ..."]]:
        r"""Predict each activity from the one below, $u_l(z_{l-1})$, $z_0 = x$, and the output."""

    def pushforward(
        self, x: Float[Array, "batch ..."], activities: Activities, changes: Activities
    ) -> Float[Array, "batch ..."]:
        r"""Give $J d$: how the output of `feedforward(x, errors)` changes with its errors.

        $$\delta_l = \frac{\partial u_l}{\partial z_{l-1}} \delta_{l-1} + d_l, \quad
          J d = \frac{\partial \hat y}{\partial z_H} \delta_H, \quad \delta_0 = 0$$

        It is linearised at known activities, so nothing has to be run forwards first.

        Args:
            x: the input, (batch, ...).
            activities: where to linearise.
            changes: d, shaped like the activities.
        """
        run = lambda errors: self.feedforward(x, errors).output  # noqa: E731
        return jax.jvp(run, (self._errors(x, activities),), (changes,))[1]

    def pullback(
        self,
        x: Float[Array, "batch ..."],
        activities: Activities,
        output: Float[Array, "batch ..."],
        gradients: Activities | None = None,
    ) -> Activities:
        r"""Give $J^\top v$: gradients by the errors of `feedforward(x, errors)`.

        $$a_H = g_H + \frac{\partial \hat y}{\partial z_H}^\top v, \quad
          a_l = g_l + \frac{\partial u_{l+1}}{\partial z_l}^\top a_{l+1}$$

        Args:
            x: the input, (batch, ...).
            activities: where to linearise.
            output: v, the gradient by the output.
            gradients: g, by the activities themselves; zero unless given.
        """
        run = lambda errors: self.feedforward(x, errors)  # noqa: E731
        _, down = jax.vjp(run, self._errors(x, activities))
        zeros = jax.tree.map(jnp.zeros_like, activities)
        return down(Feedforward(zeros if gradients is None else gradients, output))[0]

    def _errors(self, x: Float[Array, "batch ..."], activities: Activities) -> Activities:
        return jax.tree.map(jnp.subtract, activities, self.predictions(x, activities)[0])

    def local_gradient(
        self, hidden: Term, output: Term, x: Float[Array, "batch ..."], activities: Activities
    ) -> tuple[Float[Array, " batch"], Activities] | None:
        r"""Sum local terms, and differentiate the sum over the batch by the activities.

        $$\sum_l \text{hidden}(u_l(z_{l-1}), z_l) + \text{output}(\hat y)$$

        Returns:
            Each sample's sum, (batch,), and the gradient; None where layer by layer is no faster
            than automatic differentiation of all predictions at once.
        """
        del hidden, output, x, activities
        return None
