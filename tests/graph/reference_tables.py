"""The tables of docs/language.md, made from the library itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from netdsl.graph import elaborate, library, preprocess
from netdsl.graph.values import show
from netdsl.ops import LAYERS
from netdsl.ops.base import Layer, Option
from netdsl.tensor import MAX_ELEMENTS
from netdsl.text import parse, tree


def _default(value: Any) -> str:
    """A default as a text would write it."""
    if isinstance(value, tuple) and len(set(value)) == 1:
        return _default(value[0])
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else show(value)


def _written(option: Option) -> str:
    if option.required:
        return f"`{option.name}`"
    return f"`{option.name}={'' if option.default in (None, ()) else _default(option.default)}`"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [[*head], ["---" for _ in head], *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _words() -> list[Layer]:
    return list({layer.name: layer for layer in LAYERS.values()}.values())


def layers() -> str:
    rows = []
    for layer in _words():
        words = ", ".join(f"`{word}`" for word in (layer.name, *layer.aliases))
        given = [" ".join(map(_written, options)) for options in (layer.positional, layer.options)]
        rows.append((words, *given, layer.summary))
    return _table(("layer", "by position or by name", "by name", "what it does"), rows)


def arguments() -> str:
    """One row for each meaning of an argument, with the layers that take it."""
    users: dict[tuple[str, str, str], list[str]] = {}
    for layer in _words():
        for option in layer.arguments.values():
            users.setdefault((option.name, option.kind.expected, option.doc), []).append(layer.name)
    rows = [(f"`{name}`", f"`{'`, `'.join(words)}`", kind, doc) for (name, kind, doc), words in sorted(users.items())]
    return _table(("argument", "of", "value", "meaning"), rows)


def inputs() -> str:
    rows = [(_written(o), o.kind.expected, o.doc) for o in preprocess.OPTIONS.values()]
    return _table(("option", "value", "meaning"), rows)


def limits() -> str:
    rows = [
        ("characters of a text", tree.MAX_BYTES),
        ("words and signs of a text", parse.MAX_WORDS),
        ("files of a network", library.MAX_FILES),
        ("brackets inside each other; block calls and braces inside each other", parse.MAX_NESTING),
        ("statements run, each time they run; long ones count more", elaborate.MAX_STEPS),
        ("layers, inputs and joins of a network", elaborate.MAX_NODES),
        ("characters of a label", elaborate.MAX_LABEL),
        ("characters of a dotted name, before the last dot", elaborate.MAX_PATH),
        ("values of a tensor (for one image) or of a weight", MAX_ELEMENTS),
    ]
    return _table(("", "at most"), ((what, f"{count:,}") for what, count in rows))


TABLES: dict[str, Callable[[], str]] = {"layers": layers, "arguments": arguments, "inputs": inputs, "limits": limits}
