"""Runs a graph node by node, each by its operator's definition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from netdsl.graph.ir import Graph, Node
from netdsl.ops.base import Array, Input
from netdsl.ops.join import Add, Mul


def run(
    graph: Graph, weights: Mapping[str, Array], inputs: Sequence[Array], dtype: DTypeLike = np.float64
) -> list[Array]:
    """Evaluate a graph, rewritten or not.

    weights  stored tensors by dotted name; each must have the shape that the graph states
    inputs   one array [N, *shape] for each input, in order
    dtype    float64 or float32: what everything is computed in

    Returns one array [N, *shape] of that dtype for each output, in order; it may share memory with an input or another
    output. Values are freed after their last use. Errors: KeyError for a missing tensor.
    """
    values: dict[int, Array] = {
        spec.node: np.asarray(x).astype(dtype, copy=False) for spec, x in zip(graph.inputs, inputs, strict=True)
    }
    last = _last_uses(graph)
    for i, node in enumerate(graph.nodes):
        if not isinstance(node.op, Input):
            values[i] = evaluate(node, weights, [values[j] for j in node.inputs], dtype)
        for j in {i, *node.inputs}:
            if last[j] == i:
                del values[j]
    return [values[spec.node] for spec in graph.outputs]


def evaluate(node: Node, weights: Mapping[str, Array], inputs: Sequence[Array], dtype: DTypeLike = np.float64) -> Array:
    """One node: its operation, then its epilogue. `inputs` are the values of node.inputs."""
    params = {
        role: weight.evaluate(lambda name: weights[name].astype(dtype)).astype(dtype)
        for role, weight in node.weights.items()
    }
    own = len(inputs) - sum(isinstance(op, (Add, Mul)) for op in node.fused)
    y = node.op.reference(params, *inputs[:own])
    extra: Iterator[Any] = iter(inputs[own:])
    for op in node.fused:
        y = op.reference(params, y, next(extra)) if isinstance(op, (Add, Mul)) else op.reference(params, y)
    return y


def _last_uses(graph: Graph) -> list[int]:
    """For each node, the node after which its value is not needed (past the end for outputs)."""
    last = list(range(len(graph.nodes)))
    for i, node in enumerate(graph.nodes):
        for j in node.inputs:
            last[j] = i
    for spec in graph.outputs:
        last[spec.node] = len(graph.nodes)
    return last
