"""The layers of a network by name, from one line of text that says how it is built.

`entry, 3 × (attention, perceptron); readout` is a stage of an entry and three repetitions of two
blocks, then the readout: `;` parts stages.
"""

import functools
import re


@functools.cache
def layer_names(structure: str) -> tuple[str, ...]:
    """Return a name for every weight layer, from input to output.

    A block's number counts the repetitions in its stage; where there are several stages, that of
    the stage comes first: `block 2.7`.
    """
    *stages, last = structure.split("; ")
    names: list[str] = []
    for i, stage in enumerate(stages, 1):
        entry, _, rest = stage.partition(", ")
        several = len(stages) > 1
        names.append(f"{entry} {i}" if several else entry)
        count, _, blocks = rest.partition(" × ")
        places = re.split(", ", blocks.strip("()")) if blocks else []
        before = f"{i}." if several else ""
        names += [f"{p} {before}{n}" for n in range(1, int(count or 0) + 1) for p in places]
    return (*names, last) if structure else ()


def kind_of(name: str) -> str:
    """Return what a layer is, without its number."""
    return name.partition(" ")[0]
