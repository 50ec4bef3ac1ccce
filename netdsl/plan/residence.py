"""Tensors without memory of their own: within a joined tensor, over a spent residual, or a map left unflattened.

What a backend asks besides is given as a function: `fits(i, j)` says whether the result of node i may lie where the
tensor of node j lies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from netdsl.graph.ir import Graph
from netdsl.ops.base import Input
from netdsl.ops.dense import Dense
from netdsl.ops.join import Add, Concat
from netdsl.ops.shape import Flatten

Fits = Callable[[int, int], bool]


def flat_readers_only(graph: Graph, index: int) -> bool:
    """Whether a flattened map may stay in its own order: only dense layers read it, and their weights are permuted."""
    node = graph.nodes[index]
    if not isinstance(node.op, Flatten) or any(o.node == index for o in graph.outputs):
        return False
    return all(
        isinstance(graph.nodes[j].op, Dense) and graph.nodes[j].inputs == (index,) for j in graph.consumers()[index]
    )


def homes(graph: Graph, block: int, fits: Fits = lambda i, j: True) -> dict[int, tuple[int, int]]:
    """Results that may lie within the concatenation that reads them: {node: (concatenation, first channel)}.

    A result fits when it starts on a block of so many channels and fills its blocks (or is the last). A result joined
    twice lies within the first.
    """
    found: dict[int, tuple[int, int]] = {}
    for i, node in enumerate(graph.nodes):
        if not isinstance(node.op, Concat) or not node.type.is_map:
            continue
        first = 0
        for place, j in enumerate(node.inputs):
            channels = graph.nodes[j].type.channels
            whole = first % block == 0 and (channels % block == 0 or place == len(node.inputs) - 1)
            if whole and fits(j, i) and j not in found and not isinstance(graph.nodes[j].op, Input):
                found[j] = i, first
            first += channels
    return found


def spent_residuals(
    graph: Graph, homes: Mapping[int, tuple[int, int]], fits: Fits = lambda i, j: True
) -> dict[int, int]:
    """Results that may overwrite the residual they are added to: {node: residual}.

    A kernel reads each value of the residual just before it writes the result there. Precondition: the node is the
    residual's last reader, and no other tensor shares the residual's memory.
    """
    readers = graph.consumers()
    outputs = {o.node for o in graph.outputs}
    found: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        if not any(isinstance(op, Add) for op in node.fused) or i in homes:
            continue
        j = node.inputs[-1]
        alone = j not in homes and j not in outputs and not isinstance(graph.nodes[j].op, (Concat, Flatten))
        last = max(readers[j]) == i and node.inputs.count(j) == 1
        shared = any(isinstance(graph.nodes[r].op, Flatten) for r in readers[j])
        if alone and last and not shared and fits(i, j):
            found[i] = j
    return found
