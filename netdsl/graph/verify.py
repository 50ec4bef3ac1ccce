"""What every Graph promises, checked at the borders between stages.

A broken promise is a defect of netdsl, never of a text.
"""

from __future__ import annotations

from netdsl.graph.ir import Graph, Node, Stored
from netdsl.ops.base import Input, ShapeFault
from netdsl.ops.join import Add, Mul


def verify(graph: Graph) -> None:
    """Raises AssertionError with the node's path when the graph breaks a promise of `ir`."""
    paths: set[str] = set()
    for i, node in enumerate(graph.nodes):
        _check(node.path not in paths, node, "the path is taken")
        paths.add(node.path)
        _check(all(0 <= j < i for j in node.inputs), node, "an input stands behind it")
        _verify_types(graph, node)
    for spec in graph.inputs:
        node = graph.nodes[spec.node]
        _check(isinstance(node.op, Input) and node.type == spec.type, node, "not the input that is specified")
    if sum(isinstance(n.op, Input) for n in graph.nodes) != len(graph.inputs):
        raise AssertionError("input nodes and specified inputs differ in number")
    if not all(0 <= o.node < len(graph.nodes) for o in graph.outputs) or not graph.outputs:
        raise AssertionError("outputs are missing or name no node")


def _verify_types(graph: Graph, node: Node) -> None:
    types = tuple(graph.nodes[i].type for i in node.inputs)
    extra = sum(isinstance(op, Add | Mul) for op in node.fused)
    own = types[: len(types) - extra]
    rest = list(types[len(types) - extra :])
    try:
        made = node.op.infer(*own)
        for op in node.fused:
            made = op.infer(made, rest.pop(0)) if isinstance(op, Add | Mul) else op.infer(made)
    except ShapeFault as fault:
        raise AssertionError(f"{node.path}: {fault.message}") from None
    _check(made == node.type, node, f"type {node.type}, but the operation gives {made}")
    for role, weight in node.weights.items():
        params = node.op.params(*own)
        if isinstance(weight, Stored) and role in params:
            _check(weight.shape == params[role].shape, node, f"{role} of shape {weight.shape}")


def _check(holds: bool, node: Node, what: str) -> None:
    if not holds:
        raise AssertionError(f"{node.path}: {what}")
