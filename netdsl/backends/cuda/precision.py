"""The type in memory of each tensor between layers: decided here, for the whole plan."""

from __future__ import annotations

from netdsl.graph.ir import Graph
from netdsl.ops.join import Concat
from netdsl.ops.shape import Flatten
from netdsl.ops.softmax import LogSoftmax, Softmax

HALVES = ("float16", "bfloat16")


def map_type(precision: str) -> str:
    """The type of maps between layers: that of the factors where it has half the bytes, else float32."""
    return precision if precision in HALVES else "float32"


def tensor_types(graph: Graph, precision: str) -> tuple[str, ...]:
    """The type in memory of each node's result.

    Maps have the type that the precision names, but stay float32 where nothing but the network's border reads them, or
    softmax, whose exponential would make of a rounding relative to a large value one of its result; nor is such a
    result rounded only to be flattened or joined first. So what float32 tensors lead to is float32 too, and whatever
    multiplies reads maps of the precision's type.
    """
    made = map_type(precision)
    readers, types = graph.consumers(), [made] * len(graph.nodes)
    for i in reversed(range(len(types))):
        if all(_keeps(graph, j, types[j]) for j in readers[i]):
            types[i] = "float32"
    return tuple(types)


def _keeps(graph: Graph, reader: int, dtype: str) -> bool:
    """Whether a reader, whose result has that type, wants float32 if it can have it."""
    node = graph.nodes[reader]
    if isinstance(node.op, (Softmax, LogSoftmax)):
        return True
    return isinstance(node.op, (Flatten, Concat)) and dtype == "float32"
