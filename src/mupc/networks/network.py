"""What energies, solvers and rules ask of a network."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
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
