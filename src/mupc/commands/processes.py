"""Other processes that a command shares its work with, on this host or on several."""

import os
import re
import sys
import threading
from typing import Any

import jax

from mupc.settings.setting import ConfigError

_FORM = re.compile(r"address=(?P<address>\S+:\d+),processes=(?P<count>\d+),process=(?P<own>\d+)")


_PATIENCE = 15.0
"""Seconds in which processes usually find each other."""


def check_processes(text: str) -> str:
    """Return what was typed, if it says how processes find each other.

    Raises:
        ValueError: if it does not.
    """
    _arguments(text)
    return text


def join(text: str) -> None:
    """Find the other processes, before JAX is used.

    Raises:
        ConfigError: if they are not found.
    """
    patience = threading.Timer(_PATIENCE, _say_who_waits, [text])
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(**_arguments(text))
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        how = (
            "nothing that JAX knows has started this process: give "
            "address=HOST:PORT,processes=4,process=0"
            if text == "auto" and "coordinator_address" in reason
            else f"the other processes were not found ({reason})"
        )
        raise ConfigError(f"`distributed`: {how}") from error
    finally:
        patience.cancel()
    if jax.default_backend() == "cpu":
        # A program that comes from the cache sends its messages in another order than one that was
        # compiled, or than itself in another process: they wait for each other for ever.
        jax.config.update("jax_enable_compilation_cache", False)


def _say_who_waits(text: str) -> None:
    print(
        f"mupc: waiting for the other processes ({text}); it ends after five minutes",
        file=sys.stderr,
        flush=True,
    )


def joined() -> bool:
    """Return whether there are others."""
    return jax.distributed.is_initialized()


def left(status: int) -> int:
    """Return the status of an error, or end this process at once with it, if there are others.

    The usual end would wait for them, and they for this one.
    """
    if joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def is_first() -> bool:
    """Return whether this process is the one that prints."""
    return jax.process_index() == 0


def _arguments(text: str) -> dict[str, Any]:
    """Return the arguments of `jax.distributed.initialize`."""
    if text == "auto":
        return {}
    found = _FORM.fullmatch(text.replace(" ", ""))
    if found is None or not int(found["own"]) < int(found["count"]):
        raise ValueError(
            "expected auto, or address=HOST:PORT,processes=4,process=0 with a process from 0 to "
            f"one less than there are, not {text}"
        )
    return {
        "coordinator_address": found["address"],
        "num_processes": int(found["count"]),
        "process_id": int(found["own"]),
    }
