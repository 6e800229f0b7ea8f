"""What the command prints, and where: text that any terminal takes."""

import os
import sys
import warnings
from pathlib import Path

import jax
import platformdirs

from mupc.records import Evaluation
from mupc.records.words import SPELT
from mupc.settings.setting import ConfigError
from mupc.settings.training import RunKeeping


def prepare() -> None:
    """Let text be printed whatever the streams are: closed, or of an encoding without Greek."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (it stays open)
        elif hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors=SPELT)
    warnings.showwarning = _warn


def _warn(message: Warning | str, *_: object) -> None:
    print(f"mupc: warning: {message}", file=sys.stderr, flush=True)


def sentence(text: str) -> None:
    """Print what is wrong."""
    print(f"mupc: {text}", file=sys.stderr)


def figures(evaluation: Evaluation) -> str:
    """Return accuracy and loss in words."""
    return f"{evaluation.words} over {evaluation.samples} samples"


def prepare_backend(keeping: RunKeeping) -> None:
    """Start JAX, and let it keep compiled programs from one run of the command to the next.

    Args:
        keeping: says whether it does.

    Raises:
        ConfigError: if there is no device of the kind that the environment asks for.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise ConfigError(
            f"JAX finds no device for JAX_PLATFORMS={asked}: unset it, or install JAX for that "
            f"platform ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error
    if keeping.compilation_cache and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def cache_folder() -> Path:
    """Return the user's cache folder: MUPC_CACHE, or the system's place for caches."""
    named = os.environ.get("MUPC_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("mupc"))
