"""What energies, solvers and rules ask of a network."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PyTree

from mupc.arrays import AnyArray, layer_square_norms
from mupc.networks.block import Activities, Block, Known
from mupc.networks.repetition import Term, with_gradient


class Feedforward(NamedTuple):
    """What a feedforward pass gives: all hidden activities, and the output (batch, ...)."""

    activities: Activities
    output: Float[Array, "batch ..."]


class Layer(NamedTuple):
    """A block of a network, and whether its arrays have a leading layer axis."""

    block: Block
    stacked: bool


class Network(eqx.Module):
    """A network that can be run forwards, and whose layers can be predicted one by one.

    What is not abstract follows from what is, by automatic differentiation; a network that knows
    its layers does the same faster.
    """

    @property
    @abstractmethod
    def linear(self) -> bool:
        """Whether every layer is affine."""

    @property
    @abstractmethod
    def layers(self) -> list[Layer]:
        """The blocks in the order of the banks of activities, and last the readout."""

    @property
    def exact(self) -> bool:
        """Whether errors go back by the derivatives of the predictions."""
        return all(layer.block.exact for layer in self.layers)

    @property
    def generates(self) -> bool:
        """Whether its input is not given, but inferred from its output."""
        return False

    @property
    def about_input(self) -> bool:
        """Whether, of a network that generates, x gives the mean of the prior of its input."""
        return False

    @property
    def classes(self) -> int:
        """How many classes there are, if it generates data of x, a class, one-hot; else 0."""
        return 0

    def known(self, x: Num[AnyArray, "batch ..."]) -> Known | None:
        """Return what x says of the input of a network that generates; None if nothing."""
        del x
        return None

    @property
    def structure(self) -> str:
        """How it is built, by which reports name its layers; see `mupc.records.layers`."""
        return ""

    @abstractmethod
    def in_order(self, banks: Sequence[Array]) -> Array:
        """Join one array (layer, ...) per bank to one of all layers, from input to output."""

    @abstractmethod
    def in_banks(self, layers: AnyArray) -> tuple[Array, ...]:
        """Part an array of all layers, from input to output, into one for each bank."""

    @abstractmethod
    def feedforward(
        self, x: Num[AnyArray, "batch ..."], errors: Activities | None = None
    ) -> Feedforward:
        r"""Run the network forwards: $z_l = u_l(z_{l-1}) + e_l$, with $e = 0$ unless given.

        Args:
            x: the input, (batch, ...).
            errors: hidden errors, shaped like activities.
        """

    @abstractmethod
    def predictions(
        self, x: Num[AnyArray, "batch ..."], activities: Activities
    ) -> tuple[Activities, Float[Array, "batch ..."]]:
        r"""Predict each activity from the one below, $u_l(z_{l-1})$, $z_0 = x$, and the output."""

    def pushforward(
        self, x: Num[AnyArray, "batch ..."], activities: Activities, changes: Activities
    ) -> Float[Array, "batch ..."]:
        r"""Return $J d$: how the output of `feedforward(x, errors)` changes with its errors.

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
        x: Num[AnyArray, "batch ..."],
        activities: Activities,
        output: Float[Array, "batch ..."],
        gradients: Activities | None = None,
    ) -> Activities:
        r"""Return $J^\top v$: gradients by the errors of `feedforward(x, errors)`.

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

    def local_gradient(
        self,
        hidden: Term,
        output: Term,
        x: Num[AnyArray, "batch ..."],
        activities: Activities,
        numbers: Sequence[PyTree[Float[Array, "_layer ..."]]],
    ) -> tuple[Float[Array, " batch"], Activities]:
        r"""Sum local terms, and differentiate the sum over the batch by the activities.

        $$\sum_l \text{hidden}(u_l(z_{l-1}), z_l, n_l) + \text{output}(\hat y)$$

        Args:
            hidden: each sample's term of one layer: of its prediction, activity and number.
            output: each sample's term of the output.
            x: the input, (batch, ...).
            activities: where to differentiate.
            numbers: n, for each bank one for each layer (or None).

        Returns:
            Each sample's sum, (batch,), and the gradient.
        """

        def total(*activities: Array) -> Float[Array, " batch"]:
            predicted, y = self.predictions(x, activities)
            term = jax.vmap(lambda *layer: hidden(*layer))
            banks = zip(predicted, activities, numbers, strict=True)
            return sum((jnp.sum(term(*bank), axis=0) for bank in banks), output(y))

        return with_gradient(total, *activities)

    def parameter_gradient(
        self,
        x: Num[AnyArray, "batch ..."],
        activities: Activities,
        cotangents: Activities,
        output: Float[Array, "batch ..."],
    ) -> "Network":
        r"""Return the gradient of $\sum_l c_l^\top u_l + v^\top \hat y$ by the parameters.

        Activities are fixed, so that a layer's part depends on the activity below it and on its
        own cotangent: it is local.

        Args:
            x: the input, (batch, ...).
            activities: z, below every layer.
            cotangents: c, shaped like the activities.
            output: v, shaped like the output.
        """
        params, rest = eqx.partition(self, eqx.is_inexact_array)

        def run(params: Any) -> tuple[Activities, Array]:
            return eqx.combine(params, rest).predictions(x, activities)

        return jax.vjp(run, params)[1]((cotangents, output))[0]

    def _errors(self, x: Num[AnyArray, "batch ..."], activities: Activities) -> Activities:
        return jax.tree.map(jnp.subtract, activities, self.predictions(x, activities)[0])


def exact_errors(network: Network) -> Network:
    """Return a network whose errors go back by the derivatives of its predictions."""
    own = lambda node: node.with_exact_errors() if _is_block(node) else node  # noqa: E731
    return network if network.exact else jax.tree.map(own, network, is_leaf=_is_block)


def gradient_as_of(network: Network, gradient: Network) -> Network:
    """Return a gradient of `exact_errors(network)` as one of the network."""
    own = lambda node, its: node.with_gradient(its) if _is_block(node) else its  # noqa: E731
    return gradient if network.exact else jax.tree.map(own, network, gradient, is_leaf=_is_block)


def _is_block(node: object) -> TypeGuard[Block]:
    return isinstance(node, Block)


def layer_scales(network: Network, seen: Feedforward) -> Float[Array, " layers"]:
    """Return the root mean square of each activity and of the output, (H + 1,).

    Along depth it is the scale of the residual stream.
    """
    squares = [jnp.mean(layer_square_norms(z), axis=1) / z[0, 0].size for z in seen.activities]
    hidden = network.in_order(squares)
    return jnp.sqrt(jnp.concatenate([hidden, jnp.mean(seen.output**2)[None]]))


def check_network(network: object) -> None:
    """Check that something is a network.

    Raises:
        TypeError: if not.
    """
    if not isinstance(network, Network):
        what = network.__name__ if isinstance(network, type) else type(network).__name__
        raise TypeError(
            f"expected a network such as mupc.residual_mlp(…), got {what}; mupc.chain_from_modules "
            "makes one of Equinox modules"
        )
