"""Maximum pooling before an activation instead of after it: max(f(a), f(b)) = f(max(a, b)) for f that never falls.

The activation then has as many fewer values to work on as the windows have cells.
"""

from __future__ import annotations

from dataclasses import replace

from netdsl.graph.ir import Graph
from netdsl.ops.activation import Elu, HardSigmoid, Leaky, Sigmoid, Tanh
from netdsl.ops.base import Op
from netdsl.ops.pool import AdaptiveMaxPool, MaxPool
from netdsl.passes.rewrite import rebuilt, sole_readers


def pool_first(graph: Graph) -> Graph:
    """Precondition: the activation never falls, costs more than a limit, and is read by the pooling alone.

    Every window holds a cell of the map (dilation 1), so that no window's maximum is that of nothing.
    """
    readers = sole_readers(graph)
    changed = {}
    for i, node in enumerate(graph.nodes):
        pool = graph.nodes[readers[i]] if i in readers else None
        if pool is not None and _never_falls(node.op) and not node.fused and _pools(pool.op):
            changed[i] = replace(pool, inputs=node.inputs)
            changed[readers[i]] = replace(node, inputs=(i,), type=pool.type)
    return rebuilt(graph, changed, {})


def _never_falls(op: Op) -> bool:
    if isinstance(op, Leaky):
        return op.slope >= 0
    if isinstance(op, Elu):
        return op.alpha >= 0
    return isinstance(op, (HardSigmoid, Sigmoid, Tanh))


def _pools(op: Op) -> bool:
    return isinstance(op, AdaptiveMaxPool) or (isinstance(op, MaxPool) and op.dilation == (1, 1))
