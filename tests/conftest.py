import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

# XLA's older way to emit a loop compiles three times as fast. A version that has lost it would
# abort at the flag's name, so another process tries. Test processes inherit what was found.
if "XLA_FLAGS" not in os.environ:
    faster = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false"}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    tried = subprocess.run(command, env=os.environ | faster, capture_output=True, check=False)
    os.environ |= faster if tried.returncode == 0 else {"XLA_FLAGS": ""}

# Compiled programs that the command keeps are kept for these tests alone, all processes of them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="mupc-tests-", ignore_cleanup_errors=True)
    os.environ["MUPC_CACHE"] = _cache.name

# For layouts over several of them; all else runs on the first.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jax
import jaxtyping
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Every annotation of these rooms, shapes included, is checked when a function of theirs is called.
CHECKED = (
    "arrays data energies hyperparameters inference learning likelihoods networks "
    "parameterisations regularisers theory training.evaluate training.metrics training.step"
)
if "MUPC_CHECKED" in os.environ:
    install_import_hook([f"mupc.{room}" for room in CHECKED.split()], "checked_types.checked")

# Programs that several tests, or test processes, need are compiled once.
jax.config.update("jax_compilation_cache_dir", os.path.join(os.environ["MUPC_CACHE"], "compiled"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# Most of the time goes into compiling small programs that run once: XLA need not polish them.
# (.ci/full runs the benchmarks and experiments as they are compiled for everyone.)
jax.config.update("jax_disable_most_optimizations", True)

# How long an example takes depends on what else the machine does.
settings.register_profile("mupc", deadline=None)
settings.load_profile("mupc")

FULL = "MUPC_FULL" in os.environ


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is marked as a part of the full set, unless that is asked for."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("few"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for own in cases.values():
        marker = own[0].get_closest_marker("few")
        count = min(marker.args[0], len(own)) if marker else 0
        chosen = {round(i * (len(own) - 1) / max(count - 1, 1)) for i in range(count)}
        for i, item in enumerate(own):
            if i not in chosen:
                item.add_marker(pytest.mark.full)
    left_out = pytest.mark.skip(reason="a part of the full set, which MUPC_FULL=1 runs")
    for item in items:
        if not FULL and item.get_closest_marker("full"):
            item.add_marker(left_out)


def pytest_configure(config: pytest.Config) -> None:
    """Let beartype draw which item of a list it checks, which Hypothesis takes for a test's own."""
    if "MUPC_CHECKED" in os.environ:
        config.addinivalue_line("filterwarnings", "ignore:Do not use the .random. module")


@pytest.fixture(scope="module", autouse=True)
def _few_programs() -> Iterator[None]:
    """Unload compiled programs: each maps memory, and the system allows a process only so many."""
    yield
    jax.clear_caches()


@pytest.fixture
def float64() -> Iterator[None]:
    """Run a test in double precision: mathematics is checked to round-off."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Run a test that gives what no annotation allows, to see what the library itself says."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
