"""What the readers of a tensor ask of its place: room in a joined tensor, a residual's memory, order of features."""

from __future__ import annotations

from collections.abc import Mapping

from netdsl.backends.cuda.views import LANES
from netdsl.graph.ir import Graph
from netdsl.ops.base import Input
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.dense import Dense
from netdsl.ops.join import Add, Concat
from netdsl.ops.shape import Flatten


def is_depthwise(op: Conv, channels: int) -> bool:
    """Whether each output sees one channel alone."""
    return 1 < op.groups == channels == op.features


def deconv_phases(op: Deconv, axis: int, out: int) -> list[tuple[int, list[int], list[int]]]:
    """A transposed convolution along one axis as `stride` convolutions of stride 1.

    For each phase a (outputs a, a + stride, …): how many outputs, which kernel cells r meet them, and at which input
    cell relative to the output's number: the r with (a + pad - r dilation) divisible by the stride. Cells are listed so
    that those input cells rise; they lie equally far apart.
    """
    stride, dilation, pad = op.stride[axis], op.dilation[axis], op.pad[axis]
    phases = []
    for a in range(stride):
        cells = [r for r in reversed(range(op.kernel[axis])) if (a + pad - r * dilation) % stride == 0]
        offsets = [(a + pad - r * dilation) // stride for r in cells]
        phases.append((len(range(a, out, stride)), cells, offsets))
    return phases


def flat_readers_only(graph: Graph, index: int) -> bool:
    """Whether a flattened map may stay channels last: only dense layers read it, and their weights are permuted."""
    node = graph.nodes[index]
    if not isinstance(node.op, Flatten) or any(o.node == index for o in graph.outputs):
        return False
    return all(
        isinstance(graph.nodes[j].op, Dense) and graph.nodes[j].inputs == (index,) for j in graph.consumers()[index]
    )


def homes(graph: Graph) -> dict[int, tuple[int, int]]:
    """Results that may lie within the concatenation that reads them: {node: (concatenation, first channel)}.

    A result fits when it starts on 16 bytes and fills them (or is the last). A result joined twice lies within the
    first.
    """
    found: dict[int, tuple[int, int]] = {}
    for i, node in enumerate(graph.nodes):
        if not isinstance(node.op, Concat) or not node.type.is_map:
            continue
        first = 0
        for place, j in enumerate(node.inputs):
            channels = graph.nodes[j].type.channels
            fills = channels % LANES == 0 or place == len(node.inputs) - 1
            if first % LANES == 0 and fills and j not in found and not isinstance(graph.nodes[j].op, Input):
                found[j] = i, first
            first += channels
    return found


def spent_residuals(graph: Graph, homes: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Results that may overwrite the residual they are added to: {node: residual}.

    A thread reads a value of the residual just before it writes the result there. Precondition: the node is the
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
        if alone and last and not shared:
            found[i] = j
    return found
