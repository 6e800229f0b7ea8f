"""What the site is built with beside its pages: formulas, and references that the code knows.

Formulas become MathML, which browsers draw by themselves: the site loads nothing from elsewhere.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from latex2mathml.converter import convert
from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from mupc.settings.configuration import KINDS, Configuration
from mupc.settings.setting import Kind, Setting, group_of, option

_ABOUT = re.compile(r"<!-- (settings|api|module|names)(?:: ([^>]*?))? -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put references where a page asks for them by a comment.

    `settings` is every setting; `api: networks` the names of `mupc` that come from its module
    `networks`; `module: mupc.data` every public name of a module; `names: mupc.learning.explain`
    these names.
    """
    return _ABOUT.sub(lambda found: _reference(found[1], (found[2] or "").split()), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Turn formulas, as the extension arithmatex marks them, into MathML."""
    html = re.sub(
        r'<span class="arithmatex">\\\((.*?)\\\)</span>',
        lambda found: _formula(found[1], "inline"),
        html,
        flags=re.DOTALL,
    )
    return re.sub(
        r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>',
        lambda found: f'<div class="formula">{_formula(found[1], "block")}</div>',
        html,
        flags=re.DOTALL,
    )


def _formula(text: str, display: str) -> str:
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(entity, character)
    return convert(" ".join(text.split()), display=display)


def _reference(what: str, words: list[str]) -> str:
    if what == "settings":
        return configuration()
    if what == "api":
        sources = exports("mupc")
        found = [f"mupc.{n}" for n in public_names("mupc") if _is_in(sources[n], words)]
    elif what == "module":
        found = [f"{module}.{name}" for module in words for name in public_names(module)]
    else:
        found = words
    return directives(found)


def _is_in(source: str, modules: Iterable[str]) -> bool:
    return any(f"{source}.".startswith(f"mupc.{module}.") for module in modules)


def configuration() -> str:
    """Return a section for every group of settings, and for every kind, from their declarations."""
    lines: list[str] = []
    for place, field in _groups(Configuration):
        group = group_of(field)
        assert group is not None
        title = place.rpartition(".")[2]
        lines += [f"## {title}", "", _text(inspect.getdoc(group) or ""), ""]
        lines += [f"In a file: `[{place}]`{', its kind as `kind`' * issubclass(group, Kind)}.", ""]
        if not issubclass(group, Kind):
            lines += [*_table(group), ""]
            continue
        kinds = KINDS[group.slot]
        default = type(field.default).kind
        choices = ", ".join(f"`{kind}`" for kind in kinds)
        several = f"one of {choices}; the default is `{default}`"
        lines += [f"`{option(title)}` is {several if len(kinds) > 1 else choices}.", ""]
        for name, kind in kinds.items():
            text = _text((inspect.getdoc(kind) or "").splitlines()[0])
            lines += [f"### `{option(title)} {name}`", "", text, "", *_table(kind), ""]
    return "\n".join(lines)


def _groups(group: type[Setting], place: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the groups of settings in one, and in its kinds, by their tables in a file."""
    for name, field in group.model_fields.items():
        if (inner := group_of(field)) is None:
            continue
        table = f"{place}.{name}" if place else name
        yield table, field
        kinds = KINDS[inner.slot].values() if issubclass(inner, Kind) else [inner]
        found: dict[str, FieldInfo] = {}
        for kind in kinds:
            found |= dict(_groups(kind, table))
        yield from found.items()


def _table(group: type[Setting]) -> list[str]:
    """Return the table of the settings of a group; none if it has none of its own."""
    fields = group.own_fields()
    if not fields:
        return []
    rows = ["| setting | values | default | |", "| --- | --- | --- | --- |"]
    for name, field in fields.items():
        default = "must be given" if field.is_required() else _default(field.default)
        cells = (f"`{option(name)}`", values(field), default, _text(field.description or ""))
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _default(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    words = " ".join(map(str, value)) if isinstance(value, tuple) else value
    return f"`{words}`"


def values(field: FieldInfo) -> str:
    """Return in words what a field takes."""
    return _values(field.annotation, field.metadata)


def _values(hint: Any, marks: Iterable[Any]) -> str:
    marks = list(marks)
    if hasattr(hint, "__metadata__"):  # Annotated
        return _values(get_args(hint)[0], [*hint.__metadata__, *marks])
    parts = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if get_origin(hint) is tuple:
        return f"some of {_values(parts[0], [])}"
    if parts:
        return ", or ".join(_values(part, marks) for part in parts)
    if hint is str:
        return "path" if any(isinstance(mark, AfterValidator) for mark in marks) else "text"
    words = {int: "whole number", float: "number", bool: "true or false"}[hint]
    return f"{words} {range_of(marks)}".strip()


def range_of(marks: Iterable[Any]) -> str:
    """Return in words the range that the marks of a field set."""
    words: list[str] = []
    for mark in marks:
        if isinstance(mark, Ge):
            words.append(f"from {mark.ge}")
        elif isinstance(mark, Gt):
            words.append(f"above {mark.gt}")
        elif isinstance(mark, Le):
            words.append(f"to {mark.le}")
        elif isinstance(mark, Lt):
            words.append(f"below {mark.lt}")
    return " and ".join(words)


def _text(words: str) -> str:
    """Return words on one line, as a cell of a table takes them."""
    return " ".join(words.split()).replace("|", "\\|")


def directives(names: Iterable[str]) -> str:
    """Return what documents names."""
    lines: list[str] = []
    for name in names:
        lines += [f"::: {name}", "    options:", "      heading_level: 3", ""]
    return "\n".join(lines)


def public_names(name: str) -> list[str]:
    """Return the names that a module means for its users: those that are not modules."""
    module = importlib.import_module(name)
    return sorted(n for n in exports(name) if not inspect.ismodule(getattr(module, n)))


def exports(name: str) -> dict[str, str]:
    """Return where each name comes from that a module exports, by `import X as X` or its own."""
    module = importlib.import_module(name)
    tree = ast.parse(inspect.getsource(module))
    found = {
        alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    own = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return found or {n.name: name for n in own if not n.name.startswith("_")}
