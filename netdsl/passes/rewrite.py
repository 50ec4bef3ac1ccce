"""The one tool of rewrites: build a new graph from an edited list of nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from netdsl.graph.ir import Graph, Node

Pass = Callable[[Graph], Graph]


def rebuilt(graph: Graph, changed: Mapping[int, Node], moved: Mapping[int, int]) -> Graph:
    """The graph with some nodes changed and others dropped; the graph itself when none is.

    changed   new nodes by index; their `inputs` are still old indices
    moved     dropped nodes: whoever read `i` now reads `moved[i]` (which may itself be dropped)
    """
    if not moved and all(node is graph.nodes[i] for i, node in changed.items()):
        return graph

    def target(i: int) -> int:
        while i in moved:
            i = moved[i]
        return i

    kept = [i for i in range(len(graph.nodes)) if i not in moved]
    position = {old: new for new, old in enumerate(kept)}
    nodes = []
    for i in kept:
        node = changed.get(i, graph.nodes[i])
        inputs = tuple(position[target(j)] for j in node.inputs)
        nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
    return replace(
        graph,
        nodes=tuple(nodes),
        inputs=tuple(replace(s, node=position[s.node]) for s in graph.inputs),
        outputs=tuple(replace(s, node=position[target(s.node)]) for s in graph.outputs),
    )


def sole_readers(graph: Graph) -> dict[int, int]:
    """Nodes read by exactly one other node and by no output: {node: its reader}."""
    outputs = {o.node for o in graph.outputs}
    return {i: r[0] for i, r in enumerate(graph.consumers()) if len(r) == 1 and i not in outputs}


def joint_path(first: str, last: str) -> str:
    """The name of a layer made of two: both names, or where those were merged before, the outermost: `a+b`, `a+...+d`.

    No two nodes get the same, as a layer is merged into one node only.
    """
    ends = f"{first.partition('+')[0]}+{last.rpartition('+')[2]}"
    return ends.replace("+", "+...+") if "+" in first + last else ends
