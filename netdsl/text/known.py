"""Syntax trees kept between processes: a text that was read before takes neither Lark nor its tables.

The tree of a file without faults is kept as JSON under the file's name, with a digest of its text and of everything
that makes trees of texts. A file that changes is parsed again, and takes the place of what it was. Whoever keeps a tree
removes the oldest beyond MOST_TREES and MOST_BYTES.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from netdsl import kept
from netdsl.errors import Diagnostic, Source, Span
from netdsl.text import tree

MOST_TREES, MOST_BYTES = 500, 16 << 20  # chosen: all that ship are 49, of 200 KB
_SOURCES = ("known", "parse", "transform", "tree")  # what decides which tree a text has, besides the grammar


@cache
def grammar() -> str:
    """The grammar of .net files."""
    folder = import_module("netdsl.grammars").__path__[0]  # without importlib.resources, which loads a dozen modules
    return (Path(folder) / "netdsl.lark").read_text("utf-8")


def syntax_tree(source: Source) -> tuple[tree.File, list[Diagnostic]]:
    """The syntax tree of what could be read of a text, and its syntax errors; kept where it has none."""
    path, digest = _path(source.name), _digest(source.text)
    found = _read(path, digest, source)
    if found is not None:
        return found, []
    from netdsl.text.parse import parse_tolerant  # loads Lark

    file, faults = parse_tolerant(source)
    if not faults and source.name != "<text>":
        with suppress(OSError, RecursionError):  # then the next process parses it too
            kept.write(path, json.dumps([digest, file], default=_plain, separators=(",", ":")).encode())
            kept.thin_out(path.parent, MOST_TREES, MOST_BYTES)
    return file, faults


def _path(name: str) -> Path:
    return kept.folder("trees") / f"{sha256(name.encode('utf-8', 'replace')).hexdigest()[:24]}.json"


@cache
def ways() -> bytes:
    """Digest of how texts become trees."""
    digest = sha256(grammar().encode())
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.digest()


def _digest(text: str) -> str:
    return sha256(ways() + text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(node: Any) -> dict[str, Any]:
    """A node as JSON: the name of its class, and its fields in order. Of a span, not the source."""
    fields = ("start", "end") if isinstance(node, Span) else type(node).__match_args__
    return {type(node).__name__: [getattr(node, name) for name in fields]}


def _read(path: Path, digest: str, source: Source) -> tree.File | None:
    content = kept.read(path)
    if content is None or not content.startswith(f'["{digest}"'.encode()):
        return None

    def node(made: dict[str, list[Any]]) -> Any:
        ((name, values),) = made.items()
        if name == "Span":
            return Span(source, *values)
        return getattr(tree, name)(*map(_fixed, values))

    with suppress(RecursionError):  # JSON's, which nests several times as deep as the text
        _, file = json.loads(content, object_hook=node)
        assert isinstance(file, tree.File)
        return file
    return None


def _fixed(value: Any) -> Any:
    """JSON's lists are tuples in a tree."""
    return tuple(map(_fixed, value)) if isinstance(value, list) else value
