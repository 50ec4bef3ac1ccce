"""Operations that do nothing at inference vanish: dropout, flattening a vector, joining a single tensor."""

from __future__ import annotations

from netdsl.graph.ir import Graph, Node
from netdsl.ops.base import Input
from netdsl.ops.join import Add, Concat, Mul
from netdsl.ops.shape import Dropout, Flatten
from netdsl.passes.rewrite import rebuilt


def drop_identities(graph: Graph) -> Graph:
    """Readers of an identity read its input instead. Precondition: none."""
    return rebuilt(graph, {}, {i: n.inputs[0] for i, n in enumerate(graph.nodes) if _is_identity(graph, n)})


def _is_identity(graph: Graph, node: Node) -> bool:
    if isinstance(node.op, Input) or len(node.inputs) != 1 or node.fused:
        return False
    if isinstance(node.op, (Dropout, Add, Mul, Concat)):
        return True
    return isinstance(node.op, Flatten) and not graph.nodes[node.inputs[0]].type.is_map
