"""Small texts for the tests of the graph."""

from __future__ import annotations

from typing import Any

from netdsl.errors import SourceError
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.ops.base import Input


def net(body: str, blocks: str = "", size: str = "3x8x8", params: str = "") -> str:
    """The text of a net with one input, `image`."""
    return f"netdsl 1\n{blocks}\nnet n({params}) {{\n  input image {size}\n{body}\n}}\n"


def built(body: str, blocks: str = "", size: str = "3x8x8", **params: Any) -> Graph:
    """The graph of `net(body)`; keyword arguments become parameters with these defaults."""
    texts = {True: "yes", False: "no"}
    listed = ", ".join(f"{k}={texts.get(v, v) if isinstance(v, bool) else v}" for k, v in params.items())
    return build(net(body, blocks, size, listed))


def paths(body: str, blocks: str = "") -> list[str]:
    """Paths of all nodes but the inputs, in order."""
    return [n.path for n in built(body, blocks) if not isinstance(n.op, Input)]


def ops(body: str, blocks: str = "", **params: Any) -> list[str]:
    """Names of all operations but the inputs, in order."""
    return [n.op.name for n in built(body, blocks, **params) if not isinstance(n.op, Input)]


def shape(body: str, blocks: str = "", size: str = "3x8x8", **params: Any) -> str:
    """Shape of the first output."""
    graph = built(body, blocks, size, **params)
    return str(graph.nodes[graph.outputs[0].node].type)


def codes(body: str, blocks: str = "", size: str = "3x8x8", params: str = "") -> list[str]:
    """Codes of all faults, in order of place; none when the text is right."""
    return [code for code, _ in faults(net(body, blocks, size, params))]


def faults(text: str) -> list[tuple[str, str]]:
    """Code and message of all faults of a text."""
    try:
        build(text)
    except SourceError as error:
        return [(d.code, d.message) for d in error.diagnostics]
    return []
