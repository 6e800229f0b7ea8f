"""Optimisers whose numbers are traced arguments of a compiled program, not constants in it."""

from collections.abc import Callable
from typing import Any, Literal, cast

import equinox as eqx
import jax
import optax
from jaxtyping import ArrayLike, PyTree

from mupc.arrays import as_scalar


class _Method(eqx.Module):
    """The `init` or `update` of the transformation that `factory` makes of `numbers`."""

    factory: Callable[..., optax.GradientTransformation] = eqx.field(static=True)
    name: Literal["init", "update"] = eqx.field(static=True)
    numbers: dict[str, PyTree[Any]]

    def __call__(self, *args: Any) -> Any:
        return getattr(self.factory(**self.numbers), self.name)(*args)


def traced(
    factory: Callable[..., optax.GradientTransformation], **numbers: PyTree[ArrayLike]
) -> optax.GradientTransformation:
    """Build an optax transformation whose numbers may change without compiling again.

    `mupc.traced(optax.adam, learning_rate=0.1)` does what `optax.adam(0.1)` does. But its `init`
    and `update` are modules that hold the numbers as arrays, so that `mupc.fit` shares one compiled
    training step between all values of them. (`optax.inject_hyperparams` keeps them in the state,
    where they can be changed during a run; yet each call of it makes new functions, which compile
    again.)

    Args:
        factory: makes the transformation from keyword arguments; pass the same object each time.
        numbers: its hyperparameters, each a number or a tree of numbers.
    """
    scalars = jax.tree.map(as_scalar, numbers)
    return optax.GradientTransformation(
        cast(optax.TransformInitFn, _Method(factory, "init", scalars)),
        cast(optax.TransformUpdateFn, _Method(factory, "update", scalars)),
    )
