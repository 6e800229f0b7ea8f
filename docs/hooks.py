"""What the site is built with beside its pages: formulas, and references that the code knows.

Formulas become MathML, which browsers draw by themselves: the site loads nothing from elsewhere.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

import mupc.training.config

_MODULES = ("mupc", "mupc.arrays", "mupc.data", "mupc.theory", "mupc.plots", "mupc.sklearn")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the references where a page asks for them."""
    markdown = markdown.replace("<!-- configuration -->", configuration())
    return markdown.replace("<!-- api -->", api())


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


def configuration() -> str:
    """Give a table of every setting, from the source of the dataclass."""
    module = mupc.training.config
    (made,) = (
        node
        for node in ast.parse(Path(inspect.getfile(module)).read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "TrainConfig"
    )
    defaults = dataclasses.asdict(module.TrainConfig())
    hints = typing.get_type_hints(module.TrainConfig)
    rows = ["| setting | values | default | |", "| --- | --- | --- | --- |"]
    for field, text in zip(made.body, made.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)):
            continue
        name = ast.unparse(field.target)
        values = _values(hints[name])
        default = "" if defaults[name] is None else f"`{defaults[name]}`"
        words = " ".join(ast.literal_eval(text.value).split())
        option = name.replace("_", "-")
        cells = (f"`--{option}`", values, default, words.replace("|", "\\|"))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _values(hint: Any) -> str:
    """Say in words what a type allows."""
    words = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(map(str, parts))
    if typing.get_origin(hint) is tuple:
        return f"some of {_values(parts[0])}"
    if parts:
        return " or ".join(_values(part) for part in parts if part is not type(None))
    return words[hint]


def api() -> str:
    """Give the directives that document every public name."""
    lines: list[str] = []
    for name in _MODULES:
        module = importlib.import_module(name)
        lines += [f"## {name}", "", inspect.getdoc(module) or "", ""]
        for public in public_names(name):
            lines += [f"::: {name}.{public}", "    options:", "      heading_level: 3", ""]
    return "\n".join(lines)


def public_names(name: str) -> list[str]:
    """Give the names that a module means for its users: those that are not modules."""
    module = importlib.import_module(name)
    return sorted(
        public
        for public, value in vars(module).items()
        if not public.startswith("_") and not inspect.ismodule(value) and _is_own(value)
    )


def _is_own(value: Any) -> bool:
    # An alias of a type, such as mupc.Batch, has the module of the type: it is named here alone.
    if isinstance(value, types.GenericAlias):
        return True
    return getattr(value, "__module__", "mupc").startswith("mupc")
