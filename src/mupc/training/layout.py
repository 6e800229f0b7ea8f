"""On several devices: samples, layers or runs parted along the axes of a device mesh."""

import math
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Integral
from typing import Any, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from mupc.networks import (
    DATA,
    DEPTH,
    Network,
    Stage,
    check_divides,
    devices_along,
    microbatches,
)
from mupc.training.trees import fill, named_arrays

_Tree = TypeVar("_Tree")

RUNS = "runs"
"""The axis of a mesh along which the members of an ensemble are parted."""

AXES = (DATA, DEPTH, RUNS)


class Layout:
    """How training is parted over devices: batches, depth and runs along the axes of a mesh.

    Every device has 1/`data` of a batch, 1/`depth` of the layers of each stage (their weights, the
    state of the optimiser, and their activities) and 1/`runs` of the members of an ensemble; the
    results are those of one device, to round-off. XLA puts in the communication.

    Args:
        data: into how many parts batches go.
        depth: into how many parts the repeated layers of every stage go. What needs neighbours
            only (predictions, local gradients, weight gradients) is computed by all devices at
            once, a sweep through all layers as a pipeline of microbatches.
        runs: into how many parts runs that are trained together go (`mupc sweep --together`).
        devices: of which it is made; the first ones of `jax.devices()` unless given. After
            `jax.distributed.initialize` these are of all processes, and all must do the same.

    Raises:
        TypeError: if a number is none.
        ValueError: if one is below 1, there are not as many devices, or some process has none of
            them.
    """

    def __init__(
        self,
        *,
        data: int = 1,
        depth: int = 1,
        runs: int = 1,
        devices: Sequence[Any] | None = None,
    ) -> None:
        self.sizes = {RUNS: runs, DEPTH: depth, DATA: data}
        for name, size in self.sizes.items():
            if isinstance(size, bool) or not isinstance(size, Integral):
                raise TypeError(f"{name} must be a whole number, got {size!r}")
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        wanted, there = runs * depth * data, jax.devices() if devices is None else list(devices)
        if wanted > len(there):
            hint = "; JAX_NUM_CPU_DEVICES makes more of a CPU" if _on_cpu(there) else ""
            raise ValueError(
                f"a layout of {self} needs {wanted} devices, and there are {len(there)}{hint}"
            )
        # Along an axis of one device XLA would send what nobody else needs.
        axes = {name: size for name, size in self.sizes.items() if size > 1} or {DATA: 1}
        self._check_processes(there[:wanted], named=devices is not None)
        devices_of = np.asarray(there[:wanted], dtype=object).reshape(tuple(axes.values()))
        axis_types = (AxisType.Auto,) * len(axes)
        self.mesh = Mesh(devices_of, tuple(axes), axis_types=axis_types)

    @property
    def processes(self) -> int:
        """How many processes have a part."""
        return len(_processes_of(self.mesh.devices.flat))

    def _check_processes(self, devices: Sequence[Any], *, named: bool) -> None:
        """Check that all processes have a part, or this one alone, if its devices were named."""
        taking_part = _processes_of(devices)
        alone = named and taking_part == {jax.process_index()}
        if len(taking_part) < jax.process_count() and not alone:
            raise ValueError(
                f"a layout of {self} leaves processes without a device: there are "
                f"{jax.device_count()} devices of {jax.process_count()} processes, so take all "
                f"{jax.device_count()}"
            )

    def __str__(self) -> str:
        """Return it as it is typed, such as `data=4,depth=2`."""
        return ",".join(f"{name}={n}" for name, n in reversed(self.sizes.items()) if n > 1) or "1"

    __repr__ = __str__

    @contextmanager
    def active(self) -> Generator[None]:
        """Let what is computed meanwhile be parted so."""
        # JAX 0.6 has it by another name.
        use = getattr(jax, "set_mesh", None) or cast(Any, jax.sharding).use_mesh
        with use(self.mesh):
            yield

    def check(self, network: Network) -> None:
        """Check that the devices along depth divide every stage of a network.

        Raises:
            ValueError: if they do not, or have nothing to divide.
        """
        if (devices := self.sizes[DEPTH]) == 1:
            return
        repeated = [stage.repetitions for stage in _stages(network) if stage.blocks]
        if not repeated:
            raise ValueError(
                "this network has no repeated layers, and nothing to be parted along depth: leave "
                "depth out, and part its batches"
            )
        for repetitions in repeated:
            check_divides(devices, repetitions, math.gcd(*repeated))

    def check_batch(self, size: int) -> None:
        """Check that the devices along data divide a batch, and warn where those along depth wait.

        Raises:
            ValueError: if they do not.
        """
        devices, along = self.sizes[DATA], self.sizes[DEPTH]
        if size % devices:
            near = [n for n in (size - size % devices, size + devices - size % devices) if n]
            raise ValueError(
                f"{devices} devices along data do not divide a batch of {size}: take "
                f"{' or '.join(map(str, near))} samples"
            )
        count = microbatches(size // devices, along)
        if count < along:
            idle = (along - 1) / (count + along - 1)
            warnings.warn(
                f"{size // devices} samples go through {along} devices along depth in {count} part"
                f"{'s' * (count > 1)}, so that a device waits {idle:.0%} of a sweep's time: a "
                f"batch size that {2 * along * devices} divides makes {2 * along} of them",
                stacklevel=1,  # so that it is said once, whoever asks
            )

    def check_members(self, count: int) -> None:
        """Check that the devices along runs divide the members of an ensemble.

        Raises:
            ValueError: if they do not.
        """
        if count % (devices := self.sizes[RUNS]):
            fewer, more = max(d for d in range(1, devices) if not count % d), devices
            raise ValueError(
                f"{devices} devices along runs do not divide {count} run{'s' * (count > 1)}: "
                f"give runs={fewer}, or train {count - count % devices + more} together"
            )

    def placed(self, tree: _Tree, *, runs: bool = False) -> _Tree:
        """Return a tree on the devices: repeated layers parted along depth, all else on every one.

        Args:
            tree: of arrays, networks and what is shaped like them.
            runs: whether it is that of an ensemble, stacked.
        """
        first = (RUNS,) if runs else ()

        def place(leaf: Any, repeated: bool) -> Any:
            if not eqx.is_array(leaf):
                return leaf
            along = repeated and _divides(self.sizes[DEPTH], leaf.shape[len(first) :])
            return _put(leaf, self._along(*first, *((DEPTH,) if along else ())))

        return jax.tree.map(place, tree, _repeated(tree))

    def parted(self, batch: _Tree) -> _Tree:
        """Return a batch on the devices, its samples parted along data."""
        return jax.tree.map(lambda leaf: _put(leaf, self._along(DATA)), batch)

    def _along(self, *axes: str) -> NamedSharding:
        """Return where an array lies whose first axes are parted along these of the mesh."""
        there = (axis if self.sizes[axis] > 1 else None for axis in axes)
        return NamedSharding(self.mesh, PartitionSpec(*there))


def _put(leaf: Any, sharding: NamedSharding) -> Any:
    """Return an array on devices, which may be those of several processes."""
    leaf = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if not leaf.is_fully_addressable:
        return jax.jit(lambda x: x, out_shardings=sharding)(leaf)
    # Every process has all of it, and gives its own devices their parts.
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    content = np.asarray(leaf)
    return jax.make_array_from_callback(content.shape, sharding, lambda place: content[place])


def processes_of(layout: Layout | None) -> int:
    """Return how many processes train by a layout."""
    return 1 if layout is None else layout.processes


def within(layout: Layout | None) -> AbstractContextManager[None]:
    """Return a context in which what is computed is parted as a layout says, if there is one."""
    return nullcontext() if layout is None else layout.active()


def samples_parted(batch: _Tree) -> _Tree:
    """Part samples along data within a compiled program, if the mesh has devices that divide them.

    Else every device has all of them.
    """
    devices = devices_along(DATA)

    def part(leaf: Any) -> Any:
        parts = devices > 1 and not len(leaf) % devices
        spec = PartitionSpec(DATA)
        return jax.lax.with_sharding_constraint(leaf, spec) if parts else leaf

    return jax.tree.map(part, batch)


def kept_placed(tree: _Tree) -> _Tree:
    """Keep a tree placed as `Layout.placed` does, within a compiled program; else as it is."""
    if all(devices_along(axis) == 1 for axis in AXES):
        return tree

    devices = devices_along(DEPTH)

    def keep(leaf: Any, repeated: bool) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        along = repeated and devices > 1 and _divides(devices, leaf.shape)
        spec = PartitionSpec(*((DEPTH,) if along else ()))
        return jax.lax.with_sharding_constraint(leaf, spec)

    return jax.tree.map(keep, tree, _repeated(tree))


def over_members(step: Callable[..., _Tree]) -> Callable[..., _Tree]:
    """Map a step over the members of an ensemble, which lie along runs if there is a mesh."""
    return jax.vmap(step, spmd_axis_name=RUNS if devices_along(RUNS) > 1 else None)


def _repeated(tree: PyTree[Any]) -> PyTree[bool]:
    """Return of every leaf of a tree whether it is of repeated layers."""

    def of(node: Any) -> Any:
        if not _is_stage(node):
            return False
        entry = jax.tree.map(lambda _: False, node.entry)
        blocks = jax.tree.map(lambda _: True, node.blocks)
        return jax.tree.unflatten(jax.tree.structure(node), jax.tree.leaves((entry, blocks)))

    return jax.tree.map(of, tree, is_leaf=_is_stage)


def _divides(devices: int, shape: tuple[int, ...]) -> bool:
    """Return whether devices divide a first axis: what optimisers keep may have another shape."""
    return bool(shape) and shape[0] % devices == 0


def on_one(tree: _Tree) -> _Tree:
    """Return a tree whose arrays are whole, on the device where JAX puts new ones."""
    return fill(tree, named_arrays(tree), "not the same tree")


def _is_stage(node: Any) -> bool:
    return isinstance(node, Stage)


def _stages(tree: PyTree[Any]) -> list[Stage]:
    return [node for node in jax.tree.leaves(tree, is_leaf=_is_stage) if _is_stage(node)]


def _processes_of(devices: Iterable[Any]) -> set[int]:
    return {device.process_index for device in devices}


def _on_cpu(devices: Sequence[Any]) -> bool:
    return all(device.platform == "cpu" for device in devices)
