"""What the benchmarks share: interleaved timing, ratios judged against a target, and reports."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from mupc.records import environment


@dataclass(frozen=True)
class Ratio:
    """What we measured over what it is compared with, and how large the quotient may be."""

    name: str
    """What is compared."""
    ours: float
    """Our figure."""
    yardstick: float
    """The other figure, in the same unit."""
    limit: float | None = None
    """The target, or None if there is none."""

    @property
    def value(self) -> float:
        """The quotient."""
        return self.ours / self.yardstick

    @property
    def verdict(self) -> str | None:
        """Whether the target is met, in a word; None without a target."""
        if self.limit is None:
            return None
        if min(self.ours, self.yardstick) <= 0:  # a difference of two times can be
            return "lost in noise, take more --rounds"
        return "met" if self.value <= self.limit else "missed"

    def __str__(self) -> str:
        target = "" if self.limit is None else f" (target: at most {self.limit:g}; {self.verdict})"
        return f"{self.name}: {self.value:.3f}{target}"

    def record(self) -> dict[str, Any]:
        """Return what a report stores."""
        return {
            "name": self.name,
            "ours": self.ours,
            "yardstick": self.yardstick,
            "ratio": self.value,
            "limit": self.limit,
            "verdict": self.verdict,
        }


def interleave(cases: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Time every case once a round, in seconds, after a warm-up that compiles.

    A busy machine is busy for seconds at a time. Cases that take turns share its bad moments, and
    the order is reversed in every other round, so that none always runs in another one's wake.
    """
    for run in cases.values():
        jax.block_until_ready(run())
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name in list(cases)[:: -1 if turn % 2 else 1]:
            began = time.perf_counter()
            jax.block_until_ready(cases[name]())
            times[name].append(time.perf_counter() - began)
    return times


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each case."""
    return {name: statistics.median(values) for name, values in times.items()}


def show(name: str, seconds: Sequence[float]) -> None:
    """Print a median with the smallest and the largest of its rounds, in milliseconds."""
    median, low, high = (1e3 * f(seconds) for f in (statistics.median, min, max))
    print(f"  {name:<34}{median:10.3f} ms  ({low:.3f} to {high:.3f})")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser with the options that all benchmarks have."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--batch", type=int, default=64, help="samples a batch")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the report here as well")
    return options


class Report:
    """Prints where and how a benchmark runs, and stores that and what it finds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.path: Path | None = options.json
        settings = {name: _plain(value) for name, value in vars(options).items() if name != "json"}
        devices = [device.device_kind for device in jax.devices()]
        self.content: dict[str, Any] = {
            "environment": {**environment(), "devices": devices},
            "settings": settings,
            "results": [],
        }
        print(f"jax {jax.__version__} on {', '.join(devices)}; ", end="")
        print(", ".join(f"{name} {value}" for name, value in settings.items()))

    def add(self, ratios: Sequence[Ratio] = (), **figures: Any) -> None:
        """Print the ratios of a case, and store them with its other figures."""
        for ratio in ratios:
            print(f"  {ratio}", flush=True)
        stored = [ratio.record() for ratio in ratios]
        self.content["results"].append({**figures, "ratios": stored})

    def finish(self) -> dict[str, Any]:
        """Write the file if one was named; give the report."""
        if self.path is not None:
            self.path.write_text(json.dumps(self.content, indent=2) + "\n")
        return self.content


def _plain(value: Any) -> Any:
    """Turn what JSON lacks (sizes) into text."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | float | str) else str(value)
