"""Layers, written for one example: each predicts the next activity from the one before."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray, PyTree

from mupc import parameterisations
from mupc.networks.activations import Activation, identity
from mupc.parameterisations import ROLES, Parameterisation, Role, Scale, Shape

Activities = tuple[Float[Array, "_layer batch ..."], ...]
"""Hidden activities: one array (a bank) for each place in a network, the batch on axis 1."""


class Known(NamedTuple):
    """What is known of a free input.

    Attributes:
        where: 1 where it is known, and 0 where it is inferred.
        values: what it is where it is known.
    """

    where: Float[Array, "..."]
    values: Float[Array, "..."]


# Elements of a layer's activity from which a loop over layers pays on a CPU: at batch 64 an
# inference step takes a tenth less time at width 128, but a fifth more at width 64.
_LARGE_LAYER = 64 * 128

EVERYWHERE = frozenset({"cpu", "cuda", "rocm", "tpu"})
"""The platforms of JAX."""


class Block(eqx.Module):
    """A layer. It maps one example's activity to the prediction of the next one.

    A block owns its skip connection and its multipliers: networks only call it.
    """

    title: ClassVar[str] = "block"
    """What reports call it."""
    free: ClassVar[bool] = False
    """Whether it stands for an input that is not given, but inferred."""
    about_input: ClassVar[bool] = False
    """Whether, of such an input, x gives the mean of its prior."""

    @property
    @abstractmethod
    def linear(self) -> bool:
        """Whether the map is affine; closed-form solutions ask it."""

    @abstractmethod
    def __call__(self, z: Num[Array, "..."]) -> Float[Array, "..."]:
        """Predict the next activity of one example."""

    @property
    def classes(self) -> int:
        """How many classes there are, if x is one of them, one-hot; else 0."""
        return 0

    def known(self, x: Num[Array, "..."]) -> Known | None:
        """Return what x says of such an input, of one example; None if nothing."""
        del x
        return None

    @property
    def exact(self) -> bool:
        """Whether errors go back by the derivative of the prediction."""
        return True

    def with_exact_errors(self) -> "Block":
        """Return the block whose errors do."""
        return self

    def with_gradient(self, gradient: Any) -> Any:
        """Return a gradient of `with_exact_errors()` as one of this block."""
        return gradient

    def loops_on(self, size: int, *, local: bool) -> tuple[str, ...]:
        """Return the platforms on which a stage should loop over its layers ("cpu", "cuda", …).

        On all others it takes all layers at once; with "cpu", "cuda", "rocm" and "tpu" on none.

        Args:
            size: how many numbers a layer's activity has, over the whole batch.
            local: whether a layer's prediction, energy and gradient are computed in one go, where a
                loop pays if a layer stays in the cache; else it is the prediction alone, or the
                gradient by the parameters.
        """
        del size, local
        return ()


def over_batch(block: Block) -> Callable[[Array], Float[Array, "batch ..."]]:
    """Return a block as a map of a whole batch."""
    # A plain function: of a module JAX would write down all that is in it, whenever it is traced.
    return jax.vmap(lambda z: block(z))


class Parameter(NamedTuple):
    """A trainable array of a block, its scale, and what it is multiplied by when it is used."""

    array: Float[Array, "..."]
    scale: Scale
    multiplier: float


class ScaledBlock(Block):
    """A block whose every trainable array has a `Scale`, in the order of its leaves.

    Multipliers, learning-rate factors and what regularisers see are found here and nowhere else.
    """

    scales: eqx.AbstractVar[tuple[Scale, ...]]

    @property
    def multipliers(self) -> tuple[float, ...]:
        """What the trainable arrays are multiplied by when they are used."""
        return tuple(scale.multiplier for scale in self.scales)

    @property
    def parameters(self) -> list[Parameter]:
        """The trainable arrays with their scales and multipliers."""
        leaves = jax.tree.leaves(eqx.filter(self, eqx.is_inexact_array))
        return [Parameter(*own) for own in zip(leaves, self.scales, self.multipliers, strict=True)]


def is_scaled(node: object) -> TypeGuard[ScaledBlock]:
    """Return whether a node of a network is where scales stand."""
    return isinstance(node, ScaledBlock)


class Dense(ScaledBlock):
    r"""A fully connected layer, $u = s z + a b W \phi(z) + c$, with $s = 1$ if `skip` else 0.

    The activation stands before the matrix (arXiv 2505.13124, Eq. 1), so that the residual stream
    passes through unchanged; b is the branch multiplier of a residual layer, and 1 in others. The
    bias c is multiplied by neither.
    """

    weights: Float[Array, "*layer out in"]
    biases: Float[Array, "*layer out"] | None
    scales: tuple[Scale, ...] = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)
    skip: bool = eqx.field(static=True, default=False)
    branch: float = eqx.field(static=True, default=1.0)

    @property
    def multiplier(self) -> float:
        """What the weights are multiplied by: a b."""
        return self.scales[0].multiplier * self.branch

    @property
    def multipliers(self) -> tuple[float, ...]:
        """That of the weights, and 1 for the biases."""
        return (self.multiplier, 1.0)[: len(self.scales)]

    @property
    def linear(self) -> bool:
        """Whether the activation is the identity."""
        return self.activation is identity

    @classmethod
    def initialise(
        cls,
        size: tuple[int, int],
        role: Role,
        activation: Activation,
        parameterisation: Parameterisation,
        shape: Shape,
        *,
        skip: bool,
        biases: bool,
        key: PRNGKeyArray,
    ) -> "Dense":
        """Draw a layer of `size` (out, in) for a network of a `shape`."""
        scale = parameterisation.scale(role, shape, size[1], skip=skip)
        bias = parameterisation.bias_scale(role, shape, skip=skip, beside=True)
        return cls(
            weights=parameterisation.initialise(key, size, scale.std),
            biases=jnp.zeros(size[0]) if biases else None,
            scales=(scale, bias) if biases else (scale,),
            activation=activation,
            skip=skip,
            branch=parameterisation.branch_multiplier(shape.length) if skip else 1.0,
        )

    def __call__(self, z: Num[Array, "..."]) -> Float[Array, " out"]:
        """Predict the next activity of one example.

        Raises:
            ValueError: if z is no vector of as many numbers as the weights have columns.
        """
        if z.shape != (inputs := self.weights.shape[1:]):
            rows = ": give it rows, as data.flattened() makes of a data set of images"
            raise ValueError(
                f"the {self.scales[0].role} layer takes an input of shape {inputs} per sample, "
                f"not {z.shape}{rows if z.size == inputs[0] else ''}"
            )
        u = self.multiplier * (self.weights @ self.activation(z))
        if self.biases is not None:
            u = u + self.biases
        return z + u if self.skip else u

    def loops_on(self, size: int, *, local: bool) -> tuple[str, ...]:
        """Loop on a CPU if a layer is large: there, work between products is bound by memory."""
        return ("cpu",) if local and size >= _LARGE_LAYER else ()


class Scaled(ScaledBlock):
    r"""Any Equinox module as a block: every array has the numbers of a parameterisation.

    $$u = f(z) \quad\text{or, as a residual branch,}\quad u = z + b f(z)$$

    where f is the module with each of its weights multiplied by its own multiplier a, and b the
    depth multiplier of the branch. Build it with `Scaled.initialise`, or from a module whose values
    are to be kept.

    Args:
        module: f, a map of one example; without its skip connection, if it is a branch.
        scales: of its trainable arrays, in the order of its leaves.
        branch: b, or None for a block without a skip connection.
        linear: whether the module is affine.
    """

    module: PyTree[Any]
    scales: tuple[Scale, ...] = eqx.field(static=True)
    branch: float | None = eqx.field(static=True, default=None)
    affine: bool = eqx.field(static=True, default=False)

    @classmethod
    def keep(cls, module: PyTree[Any], role: Role, *, linear: bool = False) -> "Scaled":
        """Take a module as it is: every multiplier and rate factor is 1."""
        _check_role(role)
        scales = tuple(Scale(role, "weight" if n else "bias") for n in _fan_ins(module))
        return cls(module, scales, None, linear)

    @classmethod
    def initialise(
        cls,
        module: PyTree[Any],
        role: Role = "hidden",
        parameterisation: Parameterisation | None = None,
        *,
        shape: Shape | tuple[int, int],
        skip: bool | None = None,
        linear: bool = False,
        key: PRNGKeyArray,
    ) -> "Scaled":
        """Draw a module's weights anew, and give each parameter its scale.

        Weights are arrays of two or more dimensions, (out, in, ...): each output sums over all
        axes but the first, k²C numbers in a convolution. The rows of an `equinox.nn.Embedding` are
        looked up, so that theirs is a fan-in of 1. All else (biases, the gains of norms) is left as
        it is. Build stacked blocks one at a time under `equinox.filter_vmap`.

        Args:
            module: f, of one example, without its skip connection.
            role: `input` for an entry, `hidden`, or `readout`.
            parameterisation: `mupc.mupc()` unless given.
            shape: the width N and the number L of weight layers of the network that it is for, or
                the number of its branches.
            skip: whether it is a residual branch; a hidden layer is, unless told.
            linear: whether the module is affine.
            key: draws the weights.
        """
        _check_role(role)
        parameterisation = parameterisation or parameterisations.mupc()
        shape = shape if isinstance(shape, Shape) else Shape(*shape)
        skip = role == "hidden" if skip is None else skip
        leaves, structure = jax.tree.flatten(eqx.filter(module, eqx.is_inexact_array))
        keys, drawn, scales = jax.random.split(key, len(leaves)), list[Array](), list[Scale]()
        for leaf, fan_in, one in zip(leaves, _fan_ins(module), keys, strict=True):
            if not fan_in:
                scales.append(parameterisation.bias_scale(role, shape, skip=skip))
                drawn.append(leaf)
                continue
            scale = parameterisation.scale(role, shape, fan_in, skip=skip)
            matrix = parameterisation.initialise(
                one, (leaf.shape[0], leaf.size // leaf.shape[0]), scale.std
            )
            scales.append(scale)
            drawn.append(matrix.reshape(leaf.shape).astype(leaf.dtype))
        rest = eqx.filter(module, eqx.is_inexact_array, inverse=True)
        module = eqx.combine(jax.tree.unflatten(structure, drawn), rest)
        branch = parameterisation.branch_multiplier(shape.length) if skip else None
        return cls(module, tuple(scales), branch, linear)

    @property
    def linear(self) -> bool:
        """Whether the module is affine."""
        return self.affine

    def __call__(self, z: Num[Array, "..."]) -> Float[Array, "..."]:
        """Predict the next activity of one example."""
        params, rest = eqx.partition(self.module, eqx.is_inexact_array)
        leaves, structure = jax.tree.flatten(params)
        scaled = [s.multiplier * leaf for s, leaf in zip(self.scales, leaves, strict=True)]
        f: Any = eqx.combine(jax.tree.unflatten(structure, scaled), rest)
        return f(z) if self.branch is None else z + self.branch * f(z)


def _check_role(role: object) -> None:
    if role not in ROLES:
        raise ValueError(f"role must be one of {', '.join(ROLES)}, not {role!r}")


def _fan_ins(module: PyTree[Any]) -> list[int]:
    """Return how many inputs an output of each trainable array sums over; 0 for what is no weight.

    In the order of the module's leaves.
    """
    fan_ins: list[int] = []
    for node in jax.tree.leaves(module, is_leaf=lambda node: isinstance(node, _KNOWN)):
        for leaf in jax.tree.leaves(eqx.filter(node, eqx.is_inexact_array)):
            offset = isinstance(node, _CONVOLUTIONS) and leaf is node.bias
            if isinstance(node, eqx.nn.Embedding):
                fan_ins.append(1)
            elif offset or isinstance(node, _NORMS):
                fan_ins.append(0)
            else:
                fan_ins.append(leaf.size // leaf.shape[0] if leaf.ndim >= 2 and leaf.size else 0)
    return fan_ins


_NORMS = (eqx.nn.LayerNorm, eqx.nn.RMSNorm, eqx.nn.GroupNorm, eqx.nn.BatchNorm)
_CONVOLUTIONS = (eqx.nn.Conv, eqx.nn.ConvTranspose)
_KNOWN = (eqx.nn.Embedding, *_NORMS, *_CONVOLUTIONS)
