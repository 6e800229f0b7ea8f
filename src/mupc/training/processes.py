"""Several processes that train one network: what one of them decides or writes for all."""

import json
from collections.abc import Callable
from typing import TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from mupc.records import RunError

_Value = TypeVar("_Value")


def of_first(value: _Value) -> _Value:
    """Return what the first process has, on every one: numbers, words and lists of them.

    All must ask.
    """
    words = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(words), np.int32)))
    padded = np.zeros(size, np.uint8)
    padded[: len(words)] = words[:size]
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)))


def done_by_first(do: Callable[[], _Value]) -> _Value:
    """Let the first process do something when all have come here; return on every one what it gave.

    Raises:
        RunError: on the others, if it raises anything on the first.
    """
    multihost_utils.sync_global_devices("before the first does it")
    given, wrong = None, None
    if jax.process_index() == 0:
        try:
            given = do()
        except Exception as error:
            of_first((None, str(error) or type(error).__name__))
            raise
    given, wrong = of_first((given, wrong))
    if wrong is not None:
        raise RunError(wrong)
    return cast(_Value, given)
