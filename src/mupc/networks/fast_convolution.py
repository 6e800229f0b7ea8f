r"""Convolutions whose derivatives are as fast as they are, on a CPU and inside a loop over layers.

Of a convolution in a loop, XLA for CPUs runs the default derivatives at 2 to 3 GF/s: windows that
are reversed or transposed have no fast kernel there. Written as forward convolutions again they run
at 60 to 200. On accelerators the default derivatives are used.

A convolution $y = x * w$ is one of three maps of one trilinear form, $\langle g, x * w \rangle$:
the output is its gradient by g, what reaches the input is that by x, and what a kernel learns that
by w. So each is the other two's derivative, and one primitive, told which of the three it is, has
derivatives of any order and direction, and maps over examples at no cost.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Pair = tuple[int, int]
Place = Literal["x", "w", "g"]
_PLACES: tuple[Place, ...] = ("x", "w", "g")
_NUMBERS = ("NHWC", "HWIO", "NHWC")


class Window(NamedTuple):
    """What a kernel sees: how it steps, what is put around the input, and its gaps."""

    strides: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    size: Pair
    """Height and width of the input."""
    kernel: Pair
    """Height and width of the kernel."""

    @property
    def output(self) -> Pair:
        """Height and width of the output."""
        height, width = (
            (n + sum(pad) - (k - 1) * d - 1) // s + 1
            for n, k, s, d, pad in zip(
                self.size, self.kernel, self.strides, self.dilation, self.padding, strict=True
            )
        )
        return height, width


def convolve(
    x: Float[Array, "batch height width channels"],
    w: Float[Array, "rows columns channels out"],
    strides: Pair = (1, 1),
    padding: Literal["SAME", "VALID"] | tuple[Pair, Pair] = "SAME",
    dilation: Pair = (1, 1),
) -> Float[Array, "batch height_out width_out out"]:
    r"""Return $y_{bpqo} = \sum_{ijc} x_{b, ps + id, qs + jd, c}\, w_{ijco}$, a convolution.

    As `jax.lax.conv_general_dilated` at full precision, with fast derivatives on a CPU.

    Args:
        x: images.
        w: kernels.
        strides: steps of the kernel.
        padding: zeros around an image: `SAME`, `VALID`, or before and after each axis.
        dilation: steps within the kernel.

    Raises:
        ValueError: if the kernels do not fit the images.
    """
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2]:
        raise ValueError(
            f"kernels (rows, columns, {x.shape[-1]}, out) fit images of shape {x.shape}, and not "
            f"kernels of shape {w.shape}"
        )
    size, kernel = (x.shape[1], x.shape[2]), (w.shape[0], w.shape[1])
    if isinstance(padding, str):
        seen = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        before, after = jax.lax.padtype_to_pads(size, seen, strides, padding)
        padding = before, after
    window = Window(strides, padding, dilation, size, kernel)
    if min(window.output) < 1:
        raise ValueError(
            f"kernels of {kernel[0]} × {kernel[1]} pixels do not fit into images of {size[0]} × "
            f"{size[1]}"
        )
    return _bind(x, w, of="g", window=window)


def _bind(a: Array, b: Array, *, of: Place, window: Window) -> Array:
    """Return the form's gradient by one place, from what stands in the two others, in order."""
    return _form_p.bind(a, b, of=of, window=window)


def _others(of: Place) -> list[Place]:
    return [place for place in _PLACES if place != of]


# What each of the three computes, as a forward convolution


def _forward(x: Array, w: Array, window: Window) -> Array:
    return _convolution(x, w, window.strides, padding=window.padding, rhs_dilation=window.dilation)


def _by_input(w: Array, g: Array, window: Window) -> Array:
    """Convolve g, its pixels as far apart as they are in x, with the turned kernel."""
    gaps = [(0, 0, 0), *((0, 0, s - 1) for s in window.strides), (0, 0, 0)]
    g = jax.lax.pad(g, jnp.zeros((), g.dtype), gaps)
    # The barrier keeps XLA from reversing the window in place of the kernel.
    turned = jax.lax.optimization_barrier(jnp.flip(w, (0, 1)).swapaxes(2, 3))
    padding: list[Pair] = []
    for n, seen, k, d, (before, _) in zip(
        window.size, g.shape[1:3], window.kernel, window.dilation, window.padding, strict=True
    ):
        low = (k - 1) * d - before
        padding.append((low, n - seen - low + (k - 1) * d))
    return _convolution(g, turned, (1, 1), padding=padding, rhs_dilation=window.dilation)


def _by_kernel(x: Array, g: Array, window: Window) -> Array:
    """Convolve x with g as the kernel, samples and channels in each other's place."""
    padding: list[Pair] = []
    for n, m, k, s, d, (before, _) in zip(
        window.size,
        g.shape[1:3],
        window.kernel,
        window.strides,
        window.dilation,
        window.padding,
        strict=True,
    ):
        padding.append((before, (k - 1) * d + (m - 1) * s + 1 - n - before))
    y = _convolution(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        window.dilation,
        padding=padding,
        rhs_dilation=window.strides,
    )
    return y.transpose(1, 2, 0, 3)


def _convolution(lhs: Array, rhs: Array, strides: Pair, **how: Any) -> Array:
    return jax.lax.conv_general_dilated(
        lhs, rhs, strides, dimension_numbers=_NUMBERS, precision="highest", **how
    )


_FAST = {"g": _forward, "x": _by_input, "w": _by_kernel}


def _fast(a: Array, b: Array, *, of: Place, window: Window) -> Array:
    return _FAST[of](a, b, window)


def _default(a: Array, b: Array, *, of: Place, window: Window) -> Array:
    """Let JAX transpose the forward convolution."""
    if of == "g":
        return _forward(a, b, window)
    like = jax.ShapeDtypeStruct(_shape(a.shape, b.shape, of, window), a.dtype)
    if of == "x":
        (found,) = jax.linear_transpose(lambda x: _forward(x, a, window), like)(b)
    else:
        (found,) = jax.linear_transpose(lambda w: _forward(a, w, window), like)(b)
    return found


def _shape(a: tuple[int, ...], b: tuple[int, ...], of: Place, window: Window) -> tuple[int, ...]:
    if of == "g":
        return (a[0], *window.output, b[3])
    if of == "x":
        return (b[0], *window.size, a[2])
    return (*window.kernel, a[3], b[3])


# The primitive


def _abstract(a: ShapedArray, b: ShapedArray, *, of: Place, window: Window) -> ShapedArray:
    # With all else that the operand's type says: the mesh that it is on, where there is one.
    return a.update(shape=_shape(a.shape, b.shape, of, window))


def _transposed(which: int, cotangent: Any, a: Any, b: Any, *, of: Place, window: Window) -> Array:
    """Return what reaches one operand: the gradient of the same form by its place."""
    place = _others(of)[which]
    known = {of: cotangent, _others(of)[1 - which]: (a, b)[1 - which]}
    return _bind(*(known[other] for other in _others(place)), of=place, window=window)


# Which axis of each place takes the examples of a map, as it is no part of a sum there.
_FREE: dict[tuple[Place, Place], Pair] = {
    ("g", "x"): (0, 0),
    ("g", "w"): (3, 3),
    ("x", "g"): (0, 0),
    ("x", "w"): (2, 3),
    ("w", "x"): (3, 2),
    ("w", "g"): (3, 3),
}


def _batched(
    operands: tuple[Array, Array],
    axes: tuple[int | None, int | None],
    *,
    of: Place,
    window: Window,
) -> tuple[Array, int]:
    """Map over examples: in an axis that is free in one operand, or else one after the other."""
    places = _others(of)
    fronted = [
        operand if axis is None else jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    ]
    if None not in axes:
        one = lambda pair: _bind(*pair, of=of, window=window)  # noqa: E731
        return jax.lax.map(one, tuple(fronted)), 0
    which = 0 if axes[1] is None else 1
    into, out = _FREE[of, places[which]]
    count = fronted[which].shape[0]
    fronted[which] = _merged(fronted[which], into)
    return _parted(_bind(*fronted, of=of, window=window), out, count), 0


def _merged(array: Array, axis: int) -> Array:
    """Put the leading axis into another, as its slower part."""
    array = jnp.moveaxis(array, 0, axis)
    return array.reshape(*array.shape[:axis], -1, *array.shape[axis + 2 :])


def _parted(array: Array, axis: int, count: int) -> Array:
    """Take a leading axis out again."""
    array = array.reshape(*array.shape[:axis], count, -1, *array.shape[axis + 1 :])
    return jnp.moveaxis(array, axis, 0)


_form_p = Primitive("convolution_form")
_form_p.def_impl(jax.jit(_default, static_argnames=("of", "window")))
_form_p.def_abstract_eval(_abstract)
ad.defbilinear(
    _form_p,
    lambda *operands, **how: _transposed(0, *operands, **how),
    lambda *operands, **how: _transposed(1, *operands, **how),
)
batching.primitive_batchers[_form_p] = _batched
mlir.register_lowering(_form_p, mlir.lower_fun(_default, multiple_results=False))
mlir.register_lowering(_form_p, mlir.lower_fun(_fast, multiple_results=False), platform="cpu")
