"""Records as loggers take them: numbers by name."""

import dataclasses
import math

from mupc.records.types import Record, TraceRecord

# Where a record stands, and what its cosine is with.
_NONE = ("step", "exact")


def scalars(record: Record) -> dict[str, float]:
    """Return the numbers of a record, by kind and name, as loggers take them.

    Of what there is for each layer, these are the least and the largest. What is not finite, or was
    not measured, is left out. A trace has no numbers of its own.
    """
    found: dict[str, float] = {}
    if isinstance(record, TraceRecord):
        return found
    values = dataclasses.asdict(record)
    values |= values.pop("diagnostics", {})
    for name, value in values.items():
        if isinstance(value, tuple):
            layers = [layer for layer in value if math.isfinite(layer)]
            if layers:
                found |= {f"{name}/least": min(layers), f"{name}/largest": max(layers)}
        elif isinstance(value, int | float) and name not in _NONE and math.isfinite(value):
            found[name] = float(value)
    return {f"{record.kind}/{name}": value for name, value in found.items()}
