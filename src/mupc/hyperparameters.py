"""Optimisers whose numbers are traced arguments of a compiled program, not constants in it."""

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from mupc.arrays import as_scalar


class _Method(eqx.Module):
    """The `init` or `update` of the transformation that `factory` makes of `numbers`."""

    factory: Callable[..., optax.GradientTransformation] = eqx.field(static=True)
    name: Literal["init", "update"] = eqx.field(static=True)
    numbers: dict[str, PyTree[Any]]

    def __call__(self, *args: Any, **extra: Any) -> Any:
        made = optax.with_extra_args_support(self.factory(**self.numbers))
        return getattr(made, self.name)(*args, **extra)


def traced(
    factory: Callable[..., optax.GradientTransformation], **numbers: PyTree[ArrayLike]
) -> optax.GradientTransformationExtraArgs:
    """Build an optax transformation whose numbers may change without compiling again.

    `mupc.traced(optax.adam, learning_rate=0.1)` does what `optax.adam(0.1)` does. But its `init`
    and `update` are modules that hold the numbers as arrays, so that `mupc.fit` and `mupc.step`
    share one compiled training step between all values of them, through `optax.chain` too.
    (`optax.inject_hyperparams` keeps them in the state, where they can be changed during a run; yet
    each call of it makes new functions, which compile again.)

    Args:
        factory: makes the transformation from keyword arguments; pass the same object each time.
        numbers: its hyperparameters, each a number or a tree of numbers.
    """
    scalars = jax.tree.map(as_scalar, numbers)
    return optax.GradientTransformationExtraArgs(
        cast(optax.TransformInitFn, _Method(factory, "init", scalars)),
        cast(Any, _Method(factory, "update", scalars)),
    )


def update_with(
    optimiser: optax.GradientTransformation,
    gradients: PyTree[Any],
    moments: PyTree[Any],
    params: PyTree[Any],
    loss: Float[Array, ""],
) -> tuple[PyTree[Any], PyTree[Any]]:
    """Return an optimiser's updates and its next state; it may ask for the loss as its `value`.

    Raises:
        ValueError: if it asks for more than a local rule has, such as a function to search along.
    """
    method = optax.with_extra_args_support(optimiser)
    try:
        return method.update(gradients, moments, params, value=loss, grad=gradients)
    except TypeError as error:
        if "keyword-only argument" not in str(error):
            raise
        raise ValueError(
            f"this optimiser needs more than gradients, weights and the loss of a batch ({error}), "
            "and a local learning rule has no loss as a function of the weights: use one such as "
            "optax.adam"
        ) from error


def as_module(optimiser: optax.GradientTransformation) -> optax.GradientTransformation:
    """Make the arrays that an optimiser's functions hold arguments of a compiled program.

    `optax.chain` makes new functions at each call, which hold what it was given. As a function is
    its code and what it holds, two calls with other arrays are one program with other arguments.
    """
    return jax.tree.map(lambda leaf: _opened(leaf, frozenset()), optimiser)


@dataclass(frozen=True)
class _Code:
    """What is the same in all functions of one definition."""

    code: types.CodeType
    namespace: int


class _Closure(eqx.Module):
    """A function as a tree: its code, what it holds of the function that made it, its defaults."""

    definition: _Code = eqx.field(static=True)
    held: tuple[Any, ...]
    defaults: tuple[Any, ...] | None
    keywords: dict[str, Any] | None

    def __call__(self, *args: Any, **options: Any) -> Any:
        code, (namespace, name) = self.definition.code, _NAMESPACES[self.definition]
        cells = tuple(types.CellType(value) for value in self.held)
        function = types.FunctionType(code, namespace, name, self.defaults, cells)
        function.__kwdefaults__ = self.keywords
        return function(*args, **options)


# A namespace (of a module) has no hash, and is needed to call a function again.
_NAMESPACES: dict[_Code, tuple[dict[str, Any], str]] = {}


def _opened(leaf: Any, within: frozenset[int]) -> Any:
    """Return a function that holds something as a tree; anything else as it is."""
    if isinstance(leaf, np.bool_):  # a choice, not a number
        return bool(leaf)
    if not isinstance(leaf, types.FunctionType) or not leaf.__closure__ or id(leaf) in within:
        return leaf
    try:
        held = tuple(cell.cell_contents for cell in leaf.__closure__)
    except ValueError:  # a cell that is still empty
        return leaf
    definition = _Code(leaf.__code__, id(leaf.__globals__))
    _NAMESPACES[definition] = (leaf.__globals__, leaf.__name__)
    inner = within | {id(leaf)}
    parts = (held, leaf.__defaults__, leaf.__kwdefaults__)
    opened = jax.tree.map(lambda value: _opened(value, inner), parts)
    try:
        hash(tuple(jax.tree.leaves(eqx.filter(opened, eqx.is_array, inverse=True))))
    except TypeError:  # it holds a set, say, by which no program can be told from another
        return leaf
    return _Closure(definition, *opened)
