"""A fixed filter is a depthwise convolution whose weights are constants: one kernel serves both."""

from __future__ import annotations

from dataclasses import replace

from netdsl.graph.ir import Constant, Graph, Node
from netdsl.ops.conv import Conv
from netdsl.ops.filter import Filter
from netdsl.passes.rewrite import rebuilt


def filters_to_depthwise(graph: Graph) -> Graph:
    """Precondition: none. `flip=yes` turns the filter by 180 degrees here, once."""
    changed = {i: _depthwise(n, n.op) for i, n in enumerate(graph.nodes) if isinstance(n.op, Filter)}
    return rebuilt(graph, changed, {})


def _depthwise(node: Node, op: Filter) -> Node:
    rows = tuple(tuple(reversed(r)) for r in reversed(op.kernel)) if op.flip else op.kernel
    channels, size = node.type.channels, (len(rows), len(rows[0]))
    weight = Constant((rows,) * channels, (channels, 1, *size))
    conv = Conv(channels, size, op.stride, op.pad, op.dilation, groups=channels, bias=False)
    return replace(node, op=conv, weights={"weight": weight})
