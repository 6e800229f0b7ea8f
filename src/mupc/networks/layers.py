"""Layers, written for one example: each predicts the next activity from the one before."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mupc.parameterisations import Parameterisation, Role, Scale

Activation = Callable[[Float[Array, "..."]], Float[Array, "..."]]

Activities = tuple[Float[Array, "layer batch ..."], ...]
"""The hidden activities of a network: one array per stage, the batch on axis 1."""


def identity(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return `z`: the activation of a linear layer."""
    return z


class Block(eqx.Module):
    """A layer. It maps one example's activity to the prediction of the next one.

    A block owns its skip connection and its multipliers: networks only call it.
    """

    @property
    @abstractmethod
    def linear(self) -> bool:
        """Whether the map is affine; closed-form solutions ask it."""

    @abstractmethod
    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """Predict the next activity of one example."""


class ScaledBlock(Block):
    """A block whose parameters share one `Scale`.

    `weights` are the leaves that the multiplier scales and that weight regularisers see, `biases`
    all other parameters. Learning-rate factors are found here and nowhere else.
    """

    weights: eqx.AbstractVar[PyTree[Any]]
    biases: eqx.AbstractVar[PyTree[Any]]
    scale: eqx.AbstractVar[Scale]


def scaled_blocks(network: PyTree[Any]) -> list[tuple[ScaledBlock, bool]]:
    """List the scaled blocks of a network, and whether their arrays have a leading layer axis.

    They have it where they are the `blocks` of a stage.
    """
    leaves = jax.tree_util.tree_leaves_with_path(network, is_leaf=is_scaled)
    return [
        (leaf, any(getattr(key, "name", None) == "blocks" for key in path))
        for path, leaf in leaves
        if is_scaled(leaf)
    ]


def is_scaled(node: object) -> TypeGuard[ScaledBlock]:
    """Say whether a node of a network is where a scale stands."""
    return isinstance(node, ScaledBlock)


class Dense(ScaledBlock):
    r"""A fully connected layer, $u = s z + a W \phi(z) + b$, with $s = 1$ if `skip` else 0.

    The activation stands before the matrix (arXiv 2505.13124, Eq. 1), so that the residual stream
    passes through unchanged.
    """

    weights: Float[Array, "out in"]
    biases: Float[Array, " out"] | None
    scale: Scale = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)
    skip: bool = eqx.field(static=True)

    @property
    def linear(self) -> bool:
        """Whether the activation is the identity."""
        return self.activation is identity

    @classmethod
    def initialise(
        cls,
        shape: tuple[int, int],
        role: Role,
        activation: Activation,
        parameterisation: Parameterisation,
        *,
        width: int,
        length: int,
        skips: bool,
        biases: bool,
        key: PRNGKeyArray,
    ) -> "Dense":
        """Draw a layer of `shape` (out, in) for a network of `width` and `length` weight layers."""
        scale = parameterisation.scale(role, shape[1], width=width, length=length, skips=skips)
        weights = parameterisation.initialise(key, shape, scale.std)
        return cls(
            weights=weights,
            biases=jnp.zeros(shape[0]) if biases else None,
            scale=scale,
            activation=activation,
            skip=skips and role == "hidden",
        )

    def __call__(self, z: Float[Array, " in"]) -> Float[Array, " out"]:
        """Predict the next activity of one example."""
        if z.shape != (inputs := self.weights.shape[1:]):
            raise ValueError(
                f"the {self.scale.role} layer takes an input of shape {inputs} per sample, "
                f"not {z.shape}"
            )
        u = self.scale.multiplier * (self.weights @ self.activation(z))
        if self.biases is not None:
            u = u + self.biases
        return z + u if self.skip else u


class Scaled(ScaledBlock):
    """Any Equinox module as a block: its leaves of two or more dimensions are multiplied.

    The module keeps its own initial values; multiply them by `scale.std` when building it. Build
    stacked blocks one at a time under `equinox.filter_vmap`, so that the dimensions counted are
    those of one block.

    Args:
        module: maps one example's activity to the next prediction, its skip connection included.
        scale: the layer's multiplier and learning-rate factors.
        linear: whether `module` is affine.
    """

    weights: PyTree[Any]
    biases: PyTree[Any]
    scale: Scale = eqx.field(static=True)
    affine: bool = eqx.field(static=True)

    def __init__(self, module: Callable[..., Array], scale: Scale, *, linear: bool = False) -> None:
        self.weights, self.biases = eqx.partition(
            module, lambda leaf: eqx.is_inexact_array(leaf) and leaf.ndim >= 2
        )
        self.scale = scale
        self.affine = linear

    @property
    def linear(self) -> bool:
        """Whether the module is affine."""
        return self.affine

    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """Predict the next activity of one example."""
        multiplied = jax.tree.map(lambda leaf: self.scale.multiplier * leaf, self.weights)
        return eqx.combine(multiplied, self.biases)(z)
