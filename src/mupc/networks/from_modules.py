"""Networks from what a user has: Equinox modules, or the matrices of a trained MLP."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mupc.networks.activations import Activation, identity
from mupc.networks.block import Block, Dense, Scaled
from mupc.networks.chain import Chain
from mupc.networks.stage import Stage
from mupc.parameterisations import Role, Scale

Layer = Callable[..., Float[Array, "..."]]


class _Sequence(eqx.Module):
    """Functions one after the other."""

    functions: tuple[Layer, ...]

    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        for function in self.functions:
            z = function(z)
        return z


def chain_from_modules(layers: Sequence[Layer], example: ArrayLike) -> Chain:
    r"""Build a network from Equinox modules: each predicts one activity from the one before.

    What has no arrays, such as `jax.nn.relu`, goes with the module after it, so that
    `[Linear, relu, Linear, relu, Linear]` has two hidden activities, $u_1 = W_1 x + b_1$ and
    $u_2 = W_2\,\phi(z_1) + b_2$, and the output $W_3\,\phi(z_2) + b_3$. Neighbours of one kind and
    one shape become a stack, which compiles once whatever its depth. A skip connection is the
    module's own business: write one that returns `z + f(z)`.

    Modules keep the values that they have, with multipliers and learning-rate factors of 1. A
    `mupc.Block` is taken as it is, and no function is put with it: give what
    `mupc.Scaled.initialise` returns for the scales of a parameterisation.

    Args:
        layers: modules and functions of one example, the readout last.
        example: one example of x, or zeros of its shape.

    Raises:
        ValueError: if there are fewer than two modules with arrays, they do not fit together, or
            one needs more than its input, such as a random key.
    """
    groups = _groups(layers)
    if len(groups) < 2:
        raise ValueError(
            f"a chain needs two modules with arrays or more, the readout last, not {len(groups)}"
        )
    blocks = [
        _block(group, "input" if i == 0 else "readout" if i == len(groups) - 1 else "hidden")
        for i, group in enumerate(groups)
    ]
    shapes, z = list[tuple[int, ...]](), jax.eval_shape(lambda: jnp.asarray(example))
    for group, block in zip(groups, blocks, strict=True):
        z = _predicted(group, block, z)
        shapes.append(z.shape)
    *hidden, readout = blocks
    return Chain(stages=tuple(_stages(hidden, shapes)), readout=readout)


def chain_from_mlp(
    weights: Sequence[ArrayLike],
    biases: Sequence[ArrayLike | None] | None = None,
    *,
    activation: Activation = jax.nn.relu,
) -> Chain:
    r"""Build a network from the matrices of an MLP, such as one trained in PyTorch.

    $$u_1 = W_1 x + b_1, \quad u_l = W_l\,\phi(z_{l-1}) + b_l, \quad
    \hat y = W_L\,\phi(z_{L-1}) + b_L$$

    Of a `torch.nn.Sequential` of `Linear` layers with one activation between them, `weights` are
    `layer.weight.detach().numpy()`, (out, in), and `biases` likewise; run forwards, the network
    gives what that model gives.

    Args:
        weights: of every layer, the first one first.
        biases: of every layer; None where a layer has none, or for all.
        activation: φ.

    Raises:
        ValueError: if there are fewer than two layers, shapes do not fit together, or the
            activation is not a function.
    """
    if not callable(activation):
        raise ValueError(f"activation must be a function such as jax.nn.relu, not {activation!r}")
    matrices = [_numbers(matrix, f"weights {i}") for i, matrix in enumerate(weights, 1)]
    given = [None] * len(matrices) if biases is None else list(biases)
    if len(given) != len(matrices):
        raise ValueError(f"there are {len(matrices)} weights and {len(given)} biases")
    vectors = [
        None if bias is None else _numbers(bias, f"biases {i}") for i, bias in enumerate(given, 1)
    ]
    _check_shapes(matrices, vectors)
    roles: list[Role] = ["hidden"] * len(matrices)
    roles[0], roles[-1] = "input", "readout"
    layers = [
        Dense(
            weights=matrix,
            biases=bias,
            scales=(Scale(role),) if bias is None else (Scale(role), Scale(role, "bias")),
            activation=identity if i == 0 else activation,
        )
        for i, (matrix, bias, role) in enumerate(zip(matrices, vectors, roles, strict=True))
    ]
    return chain_from_modules(layers, jnp.zeros(matrices[0].shape[1:]))


def _check_shapes(matrices: Sequence[Array], biases: Sequence[Array | None]) -> None:
    """Check that every layer reads what the one before it makes."""
    if len(matrices) < 2:
        raise ValueError(
            f"a network needs two weights or more, the readout's last, not {len(matrices)}"
        )
    for i, (matrix, bias) in enumerate(zip(matrices, biases, strict=True), 1):
        if matrix.ndim != 2:
            raise ValueError(f"weights {i} must be a matrix (out, in), not of shape {matrix.shape}")
        if i > 1 and matrix.shape[1] != (rows := len(matrices[i - 2])):
            raise ValueError(
                f"weights {i} must have {rows} columns, one for each row of weights {i - 1}, not "
                f"{matrix.shape[1]}"
            )
        if bias is not None and bias.shape != matrix.shape[:1]:
            raise ValueError(
                f"biases {i} must be of shape {matrix.shape[:1]}, like the rows of weights {i}, "
                f"not {bias.shape}"
            )


def _numbers(values: ArrayLike, name: str) -> Array:
    """Give an array of finite real numbers.

    Raises:
        ValueError: if it cannot be one.
    """
    array = np.asarray(values)
    real = jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
    if not (real and np.all(np.isfinite(array))):
        raise ValueError(f"{name} must hold finite real numbers")
    return jnp.asarray(array, jnp.result_type(float))


class _Group(NamedTuple):
    """Neighbours that predict one activity, and the place of the first among what was given."""

    layers: list[Layer]
    first: int


def _groups(layers: Sequence[Layer]) -> list[_Group]:
    """Join what has no arrays with the next module that has."""
    given: Any = layers
    if not isinstance(given, Sequence):
        raise ValueError(
            f"layers must be a list of modules and functions, not {type(given).__name__}"
        )
    groups, pending = list[_Group](), _Group([], 0)
    for i, layer in enumerate(layers):
        if not callable(layer):
            kind = type(layer).__name__
            raise ValueError(f"layers[{i}] must be a function, or a module to call, not {kind}")
        pending.layers.append(layer)
        if any(map(eqx.is_inexact_array, jax.tree.leaves(layer))):
            groups.append(pending)
            pending = _Group([], i + 1)
    if groups:
        groups[-1].layers.extend(pending.layers)  # such as a last softmax
    return groups


def _predicted(group: _Group, block: Block, z: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Give the shape that a block predicts for the next activity.

    Raises:
        ValueError: if it cannot take the one before, or gives something else than an array.
    """
    try:
        u: Any = eqx.filter_eval_shape(block, z)
    except Exception as error:  # a module of a user's may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        sentence = f"{_named(group)} cannot take one input of shape {z.shape}: {reason}"
        raise ValueError(sentence) from error
    if not isinstance(u, jax.ShapeDtypeStruct):
        raise ValueError(f"{_named(group)} must give one array, not {type(u).__name__}")
    return u


def _named(group: _Group) -> str:
    last = group.first + len(group.layers) - 1
    places = f"{group.first}" if last == group.first else f"{group.first}:{last + 1}"
    names = [getattr(layer, "__name__", type(layer).__name__) for layer in group.layers]
    return f"layers[{places}] ({', '.join(names)})"


def _block(group: _Group, role: Role) -> Block:
    """Make a block of neighbours; a block stands for itself."""
    first, *others = group.layers
    if not others and isinstance(first, Block):
        return first
    if any(isinstance(layer, Block) for layer in group.layers):
        raise ValueError(
            f"{_named(group)} holds a block, which stands for itself: put the functions beside it "
            "into its own module"
        )
    module = _Sequence(tuple(group.layers)) if others else first
    return Scaled.keep(module, role, linear=isinstance(module, eqx.nn.Linear))


def _stages(blocks: Sequence[Block], shapes: Sequence[tuple[int, ...]]) -> list[Stage]:
    """Let each stage be an entry and as many blocks after it as are alike and keep its shape."""
    stages: list[Stage] = []
    at = 0
    while at < len(blocks):
        entry, stack = blocks[at], list[Block]()
        for block, shape in zip(blocks[at + 1 :], shapes[at + 1 :], strict=False):
            if shape != shapes[at] or (stack and not _alike(block, stack[0])):
                break
            stack.append(block)
        stages.append(Stage(entry, (_stacked(stack),) if stack else ()))
        at += 1 + len(stack)
    return stages


def _alike(one: Block, other: Block) -> bool:
    """Say whether two blocks differ in the values of their arrays alone."""
    arrays, rest = zip(*(eqx.partition(block, eqx.is_array) for block in (one, other)), strict=True)
    kinds = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in arrays]
    return bool(eqx.tree_equal(*rest)) and kinds[0] == kinds[1]


def _stacked(blocks: Sequence[Block]) -> Block:
    """Stack blocks along a leading axis."""
    arrays, rest = zip(*(eqx.partition(block, eqx.is_array) for block in blocks), strict=True)
    stack: Any = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
    return cast(Block, eqx.combine(stack, rest[0]))
