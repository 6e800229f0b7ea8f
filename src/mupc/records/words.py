"""Numbers in words, and words for any terminal."""

import codecs
import math
import unicodedata
from collections.abc import Sequence

SPELT = "mupc.spelt"
"""Error handler of encodings: what one does not have is spelt out, such as rho for ρ."""

_SPELT = {
    "→": ">",
    "–": "-",
    "−": "-",
    "…": "...",
    "×": "x",
    "·": "*",
    "≤": "<=",
    "≥": ">=",
    "±": "+-",
    "√": "sqrt",
    "½": "1/2",
    "‖": "|",
    "⁻": "^-",
    "λ": "lambda",
    "∂": "d",
}


def printable(text: str, encoding: str) -> str:
    """Return a text whose characters an encoding has: others are spelt out, or replaced."""
    return text.encode(encoding, SPELT).decode(encoding)


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(map(_spelt, missing)), error.end


def _spelt(character: str) -> str:
    if character in _SPELT:
        return _SPELT[character]
    kind, _, letter = unicodedata.name(character, "").partition(" LETTER ")
    if letter and kind.startswith("GREEK"):
        return letter.lower() if kind.endswith("SMALL") else letter.capitalize()
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or "?"


codecs.register_error(SPELT, _spell)


def figure(value: float | None, form: str = ".4g", unit: float = 1) -> str:
    """Return a number as people read it; empty for what was not measured."""
    if value is None:
        return ""
    return format(unit * value, form) if math.isfinite(value) else "not finite"


def scores(
    accuracy: float | None,
    loss: float,
    perplexity: float | None = None,
    error: float | None = None,
) -> str:
    """Return what a network scored: loss in nats, and its perplexity, where it predicts text."""
    right = "" if accuracy is None else f"accuracy {figure(accuracy, '.2f', 100)} %, "
    right += "" if error is None else f"mean squared error {figure(error)}, "
    if perplexity is None:
        return f"{right}loss {figure(loss)}"
    return f"{right}{figure(loss)} nats, perplexity {figure(perplexity)}"


def span(values: float | tuple[float, ...] | None) -> str:
    """Return a number, or the smallest and the largest of those of the layers."""
    layers = values if isinstance(values, tuple) else () if values is None else (values,)
    known = [value for value in layers if math.isfinite(value)]
    if not known:
        return "not finite" if layers else "unknown"
    low, high = f"{min(known):.2g}", f"{max(known):.2g}"
    return f"{low}–{high}" if isinstance(values, tuple) else low


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names in a row, the first few of many."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def counted(number: float, noun: str) -> str:
    """Return how many: 1 step, 2 steps."""
    if not math.isfinite(number):
        return f"an unknown number of {noun}s"
    written = f"{number:,.0f}" if number == round(number) else f"{number:.3g}"
    return f"{written} {noun}{'' if number == 1 else 's'}"
