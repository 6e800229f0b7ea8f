"""`mupc doctor`: versions, devices, data, and whether numbers come out right."""

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mupc.arrays import sample_products
from mupc.commands.options import parse
from mupc.commands.terminal import prepare_backend
from mupc.data import available
from mupc.energies import FreeEnergy
from mupc.inference import GradientDescent, StableStep, Tolerance, infer
from mupc.likelihoods import Gaussian
from mupc.networks import residual_mlp
from mupc.records import environment
from mupc.settings.setting import Place, Setting
from mupc.settings.training import RunKeeping


class DoctorOptions(Setting):
    """Report versions, devices and data, and check in a few seconds that the numbers are right."""

    data_dir: Place | None = None
    """Folder of data files to look in, which comes before MUPC_DATA."""


def run(words: Sequence[str]) -> int:
    """Print a report; return 0 if every check passed, else 1."""
    options = parse("doctor", words, DoctorOptions).own
    prepare_backend(RunKeeping())
    return examine(options.data_dir)


def examine(data_dir: str | None) -> int:
    """Print a report; return 0 if every check passed, else 1."""
    for name, version in environment().items():
        print(f"{name:<14}{version}")
    for device in jax.devices():
        print(f"{'device':<14}{device.platform}: {device.device_kind}")
    print(f"{'float':<14}{jnp.result_type(float)} (JAX_ENABLE_X64=1 for float64)")
    for name, state in available(data_dir).items():
        print(f"{name:<14}{state}")
    checks = {
        "products": _check_products,
        "gradients": _check_gradients,
        "inference": _check_energy,
    }
    passed = True
    for name, check in checks.items():
        began = time.perf_counter()
        good, sentence = check()
        passed &= good
        seconds = time.perf_counter() - began
        print(f"{name:<14}{'good' if good else 'BAD'}: {sentence} ({seconds:.1f} s)")
    return 0 if passed else 1


def _batch(width: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(8, width)), np.eye(8)[:, :4]


def _check_products() -> tuple[bool, str]:
    """Compare a feedforward pass with NumPy's in float64: TF32 would be off by a thousandth."""
    network = residual_mlp(256, 4, width=256, depth=2, key=jax.random.key(0))
    x, _ = _batch(256)
    first, second, _ = (np.asarray(w, np.float64) for w in jax.tree.leaves(network))
    z = x @ first.T / 16
    z = z + np.maximum(z, 0) @ second[0].T / np.sqrt(256 * 3)
    seen = network.feedforward(jnp.asarray(x, float)).activities[-1][-1]
    error = float(np.max(np.abs(seen - z)))
    return error < 1e-4, f"matrix products, at precision highest, are off by at most {error:.1e}"


def _check_gradients() -> tuple[bool, str]:
    """Compare an activity gradient with a central difference of the energy."""
    network = residual_mlp(16, 4, width=16, depth=32, activation=jnp.tanh, key=jax.random.key(0))
    x, y = (jnp.asarray(v, float) for v in _batch(16))
    energy = FreeEnergy(network, x, y, Gaussian())
    z, direction = (
        network.in_banks(jax.random.normal(jax.random.key(seed), (32, 8, 16))) for seed in (1, 2)
    )
    step = 1e-2
    above, below = (
        energy.samples(energy.at(jax.tree.map(lambda a, d, s=s: a + s * d, z, direction)))
        for s in (step, -step)
    )
    rise = above - below
    slope = sample_products(energy.activity_gradient(energy.at(z)), direction)
    error = float(jnp.max(jnp.abs(rise / (2 * step) - slope) / jnp.abs(slope).max()))
    return error < 1e-2, f"activity gradients agree with differences to {error:.1e}"


def _check_energy() -> tuple[bool, str]:
    """Let a small network settle."""
    network = residual_mlp(16, 4, width=16, depth=4, activation=jnp.tanh, key=jax.random.key(0))
    x, y = (jnp.asarray(v, float) for v in _batch(16))
    energy = FreeEnergy(network, x, y, Gaussian())
    solver = GradientDescent(StableStep())
    solution = infer(energy, solver, energy.run(), max_steps=500, stopping=Tolerance(1e-2))
    residual = float(jnp.max(solution.relative_residual))
    return (
        residual <= 1e-2,
        f"a network of 4 layers settles to a relative residual of {residual:.1e}",
    )
