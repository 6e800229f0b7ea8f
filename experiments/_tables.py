"""What the experiments share: Markdown tables, seeds summarised, and the precision of floats."""

import statistics
from argparse import ArgumentTypeError
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Literal

import jax


@contextmanager
def floats(*, bits: Literal[32, 64]) -> Generator[None]:
    """Let JAX's floats have so many bits for a while."""
    before = bool(jax.config.read("jax_enable_x64"))
    jax.config.update("jax_enable_x64", bits == 64)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def line(cells: Iterable[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def header(columns: Sequence[str]) -> str:
    """Return the two lines that begin a Markdown table."""
    return f"{line(columns)}\n{line('---' for _ in columns)}"


def percent(values: Sequence[float]) -> str:
    """Return the mean of fractions in per cent, with the standard deviation of several."""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def size(text: str) -> tuple[int, int]:
    """Read "128x64" (depth × width)."""
    try:
        depth, width = map(int, text.split("x"))
    except ValueError:
        raise ArgumentTypeError(f"must be DEPTHxWIDTH, e.g. 128x64, not {text!r}") from None
    return depth, width
