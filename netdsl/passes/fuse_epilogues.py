"""Residual additions and activations become epilogues of the kernel that makes their input."""

from __future__ import annotations

from dataclasses import replace

from netdsl.graph.ir import Graph
from netdsl.ops.activation import Elu, Gelu, HardSigmoid, HardSwish, Leaky, Relu, Relu6, Sigmoid, Silu, Tanh
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.dense import Dense
from netdsl.ops.join import Add, Mul
from netdsl.ops.norm import BatchNorm, Scale
from netdsl.ops.pool import MaxPool
from netdsl.passes.rewrite import rebuilt, sole_readers

LINEAR = (Conv, Deconv, Dense)
LIMITS = (Relu, Relu6)  # activations that only limit a range
ACTIVATIONS = (*LIMITS, Leaky, Elu, Gelu, HardSigmoid, HardSwish, Sigmoid, Silu, Tanh)


def fuse_additions(graph: Graph) -> Graph:
    """Add of two tensors into the linear layer that makes the later of them.

    Precondition: that layer has no epilogue yet and its result is read by the addition alone.
    """
    readers = sole_readers(graph)
    nodes = dict(enumerate(graph.nodes))
    moved: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        if not isinstance(node.op, Add) or len(node.inputs) != 2:
            continue
        earlier, later = sorted(node.inputs)
        maker = nodes[later]
        if earlier != later and isinstance(maker.op, LINEAR) and readers.get(later) == i and not maker.fused:
            nodes[later] = replace(maker, inputs=(*maker.inputs, earlier), fused=(node.op,))
            moved[i] = later
    return rebuilt(graph, {i: n for i, n in nodes.items() if i not in moved}, moved)


def fuse_activations(graph: Graph) -> Graph:
    """An activation into the layer that makes its input.

    Precondition: that layer is linear or a maximum pooling, or for activations that only limit a range also affine or a
    join of two; its epilogue holds no activation yet, and its result is read by the activation alone.
    """
    readers = sole_readers(graph)
    nodes = dict(enumerate(graph.nodes))
    moved: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        reader = readers.get(i)
        if reader is None:
            continue
        activation = graph.nodes[reader].op
        if not isinstance(activation, ACTIVATIONS) or any(isinstance(f, ACTIVATIONS) for f in node.fused):
            continue
        joins_two = isinstance(node.op, (Add, Mul)) and len(node.inputs) == 2
        limited = isinstance(activation, LIMITS) and (isinstance(node.op, (BatchNorm, Scale)) or joins_two)
        if isinstance(node.op, (*LINEAR, MaxPool)) or limited:
            nodes[i] = replace(nodes[i], fused=(*node.fused, activation))
            moved[reader] = i
    return rebuilt(graph, {i: n for i, n in nodes.items() if i not in moved}, moved)
