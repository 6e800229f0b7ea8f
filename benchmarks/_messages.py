"""What the devices of a compiled program send one another, read from the program itself."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_KINDS = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?(\S+?)[,\s)]"
)


class Messages(NamedTuple):
    """How many messages of a kind a device takes part in, and how many bytes they bring it."""

    number: int
    bytes: int


def messages(text: str) -> dict[str, Messages]:
    """Return what each device sends in one run of an optimised program, by kind.

    A loop counts as often as the compiler knows that it runs. One whose length is decided as it
    runs (the steps of a solver, the tries of a step) counts once, and so do both branches of a
    condition.
    """
    bodies = dict(_computations(text))
    entry = next(name for name in bodies if name.startswith("ENTRY "))
    found: dict[str, Messages] = {}
    for kind, size, times in _walk(entry, 1, bodies):
        number, total = found.get(kind, Messages(0, 0))
        found[kind] = Messages(number + times, total + times * size)
    return found


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    """Return the lines of every computation, by its name."""
    name, lines = "", list[str]()
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?(\S+) \(.*\{$", line):
            name, lines = f"{head[1] or ''}{head[2]}", []
        elif line.startswith("}"):
            yield name, lines
        else:
            lines.append(line)


def _walk(name: str, times: int, bodies: dict[str, list[str]]) -> Iterator[tuple[str, int, int]]:
    """Yield the kind, the bytes and the number of times of every message."""
    for line in bodies[name]:
        if message := re.search(rf"= (\S.*?) ({_KINDS})(-start)?\(", line):
            size = _size(message[1])
            # A message that is begun lists what is sent beside what comes.
            yield message[2], size // 2 if message[3] else size, times
        known = re.search(r'known_trip_count"?:\s*\{"?n"?:\s*"(\d+)"', line)
        inside = times * (int(known[1]) if known and " while(" in line else 1)
        called = _CALLED.findall(line)
        called += [
            one.strip(" %")
            for group in re.findall(r"branch_computations=\{(.*?)\}", line)
            for one in group.split(",")
        ]
        for one in called:
            if one in bodies:
                yield from _walk(one, inside, bodies)


def _size(result: str) -> int:
    """Return the bytes of what a message brings."""
    shapes = re.findall(r"(\w+)\[([\d,]*)\]", result)
    return sum(
        _BYTES.get(kind, 4) * math.prod(int(n) for n in shape.split(",") if n)
        for kind, shape in shapes
    )
