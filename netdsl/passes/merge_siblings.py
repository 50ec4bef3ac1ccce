"""Linear layers over one input whose results are joined become one wider layer: [A x, B x] = [A, B] x.

The input is then read once, and the outputs fill the register tiles better.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from netdsl.graph.ir import Derived, Graph, Node, Weight
from netdsl.ops.base import Array, Op
from netdsl.ops.conv import Conv
from netdsl.ops.dense import Dense
from netdsl.ops.join import Concat
from netdsl.passes.rewrite import joint_path, rebuilt, sole_readers


def merge_siblings(graph: Graph) -> Graph:
    """Precondition: they stand side by side in the concatenation, their only reader, and are no outputs.

    Only their features and biases differ; kernel, stride, padding, dilation, epilogue and input are the same, there are
    no groups, and no tensor is added.
    """
    readers = sole_readers(graph)
    nodes = dict(enumerate(graph.nodes))
    moved: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        if not isinstance(node.op, Concat):
            continue
        places: list[int] = []
        for j in node.inputs:
            before = places[-1] if places else j
            if places and readers.get(before) == readers.get(j) == i and _alike(nodes[before], nodes[j]):
                low, high = sorted((before, j))
                nodes[high] = _wider(nodes[before], nodes[j])
                moved[low] = places[-1] = high
            else:
                places.append(j)
        if len(places) < len(node.inputs):
            nodes[i] = replace(node, inputs=tuple(places))
        if len(places) == 1:
            moved[i] = places[0]
    return rebuilt(graph, {i: n for i, n in nodes.items() if i not in moved}, moved)


def _alike(a: Node, b: Node) -> bool:
    alone = len(a.inputs) == 1 and a.inputs == b.inputs and a.fused == b.fused
    return alone and _geometry(a.op) is not None and _geometry(a.op) == _geometry(b.op)


def _geometry(op: Op) -> Op | None:
    """A linear layer but for its features and bias; None for any other, and for one with groups."""
    if isinstance(op, Dense) or (isinstance(op, Conv) and op.groups == 1):
        return replace(op, features=1, bias=True)
    return None


def _wider(a: Node, b: Node) -> Node:
    assert isinstance(a.op, (Conv, Dense)) and isinstance(b.op, (Conv, Dense))
    features, bias = a.op.features + b.op.features, a.op.bias or b.op.bias
    first, second = a.weights["weight"], b.weights["weight"]
    weights: dict[str, Weight] = {"weight": Derived(_stacked, (first, second), (features, *first.shape[1:]))}
    if bias:
        parts = (a.weights.get("bias"), b.weights.get("bias"), first, second)
        weights["bias"] = Derived(_biases, parts, (features,))
    kind = replace(a.type, shape=(features, *a.type.shape[1:]))
    op = replace(a.op, features=features, bias=bias)
    return replace(a, path=joint_path(a.path, b.path), op=op, type=kind, weights=weights)


def _stacked(first: Array, second: Array) -> Array:
    return np.concatenate((first, second))


def _biases(a: Array | None, b: Array | None, first: Array, second: Array) -> Array:
    """Of both; the weights say how many zeros stand for a missing one."""
    zeros = (np.zeros(len(first)), np.zeros(len(second)))
    return np.concatenate([z if x is None else x for x, z in zip((a, b), zeros, strict=True)])
