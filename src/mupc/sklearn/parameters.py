"""The parameters of estimators: scikit-learn's own, and every setting of what is trained."""

import inspect
from typing import Any, cast

from mupc.settings import Configuration
from mupc.settings.configuration import KINDS
from mupc.settings.files import on_top, packaged

DEFAULTS = on_top(Configuration(), packaged("mupc.sklearn", "defaults"))
"""What is not given as a parameter."""

# Of these an estimator has no use, or a parameter of scikit-learn's own.
_WITHOUT = ("dataset", "training", "run")
_OF_TRAINING = ("epochs", "batch_size")


def setting_names() -> list[str]:
    """Return the names of the settings that are parameters of an estimator."""
    names = list(_OF_TRAINING)
    for slot, kinds in KINDS.items():
        if slot not in _WITHOUT:
            names += [slot, *(name for kind in kinds.values() for name in kind.own_fields())]
    return list(dict.fromkeys(names))


def show_settings(*estimators: type) -> None:
    """Let a constructor's signature name the settings too, from which scikit-learn reads them.

    Args:
        estimators: the class of that constructor, and those to whose it hands parameters on.
    """
    keyword = inspect.Parameter.KEYWORD_ONLY
    named = {n: inspect.Parameter(n, keyword, default=None) for n in setting_names()}
    for one in reversed(estimators):
        own = inspect.signature(cast(Any, one).__init__).parameters
        named = {n: p for n, p in own.items() if p.kind is not p.VAR_KEYWORD} | named
    cast(Any, estimators[0]).__init__.__signature__ = inspect.Signature(list(named.values()))
