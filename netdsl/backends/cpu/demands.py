"""What the readers of a tensor ask of its place: halos, thin inputs, room within a concatenation, blocked order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.views import NO_HALO, Halo
from netdsl.backends.cpu.winograd import winograd_halo, winograd_size
from netdsl.graph.ir import Graph, Node
from netdsl.ops.base import Input
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.dense import Dense
from netdsl.ops.join import Add, Concat
from netdsl.ops.shape import Flatten
from netdsl.tensor import TensorType


def winograd_sizes(graph: Graph, images: int, exact: bool) -> dict[int, int]:
    """For each convolution that Winograd's algorithm runs faster, its patch size m. None when `exact`."""
    if exact:
        return {}
    sizes = {
        i: winograd_size(node.op, graph.nodes[node.inputs[0]].type, images)
        for i, node in enumerate(graph.nodes)
        if isinstance(node.op, Conv)
    }
    return {i: m for i, m in sizes.items() if m}


def halos(graph: Graph, winograd: Mapping[int, int]) -> list[Halo]:
    """For each node, the zeros that its readers want around its result."""
    found = [NO_HALO] * len(graph.nodes)
    for i, node in enumerate(graph.nodes):
        if isinstance(node.op, Conv) and i in winograd:
            need = winograd_halo(node.op, winograd[i], graph.nodes[node.inputs[0]].type)
        elif isinstance(node.op, Conv):
            need = node.op.pad
        elif isinstance(node.op, Deconv):
            need = deconv_halo(node.op, graph.nodes[node.inputs[0]].type)
        else:
            continue
        source = node.inputs[0]
        top, left, bottom, right = (max(a, b) for a, b in zip(found[source], need, strict=True))
        found[source] = (top, left, bottom, right)
    return found


def deconv_phases(op: Deconv, axis: int, length: int, out: int) -> list[tuple[int, list[int], list[int]]]:
    """A transposed convolution along one axis as `stride` convolutions of stride 1.

    For each phase a (outputs a, a + stride, …): how many outputs, which kernel cells r meet them, and at which input
    cell relative to the output's number: the r with (a + pad - r * dilation) divisible by the stride.
    """
    stride, dilation, pad = op.stride[axis], op.dilation[axis], op.pad[axis]
    phases = []
    for a in range(stride):
        cells = [r for r in range(op.kernel[axis]) if (a + pad - r * dilation) % stride == 0]
        offsets = [(a + pad - r * dilation) // stride for r in cells]
        phases.append((len(range(a, out, stride)), cells, offsets))
    return phases


def deconv_halo(op: Deconv, x: TensorType) -> Halo:
    """Zeros around the input that the phases read."""
    y = op.infer(x)
    before, after = [0, 0], [0, 0]
    for axis in (0, 1):
        length = x.shape[1 + axis]
        for count, _, offsets in deconv_phases(op, axis, length, y.shape[1 + axis]):
            if count:
                before[axis] = max([before[axis], *(-o for o in offsets)])
                after[axis] = max([after[axis], *(count - 1 + o - (length - 1) for o in offsets)])
    return before[0], before[1], after[0], after[1]


def is_depthwise(op: Conv, channels: int) -> bool:
    """Whether each channel has a filter of its own and gives one output."""
    return 1 < op.groups == channels == op.features


def thin_inputs(graph: Graph) -> frozenset[int]:
    """Inputs of few channels read by ordinary convolutions alone: kept pixel by pixel, without empty lanes."""
    readers = graph.consumers()

    def suits(i: int, node: Node) -> bool:
        return (
            isinstance(node.op, Input)
            and node.type.is_map
            and 2 * node.type.channels <= WIDTH
            and not any(o.node == i for o in graph.outputs)
            and bool(readers[i])
            and all(
                isinstance(r.op, Conv) and r.op.groups == 1 and r.inputs == (i,)
                for r in (graph.nodes[j] for j in readers[i])
            )
        )

    return frozenset(i for i, node in enumerate(graph.nodes) if suits(i, node))


def flat_readers_only(graph: Graph, index: int) -> bool:
    """Whether a flattened map may stay in blocked order: only dense layers read it, and their weights are permuted."""
    node = graph.nodes[index]
    if not isinstance(node.op, Flatten) or any(o.node == index for o in graph.outputs):
        return False
    return all(
        isinstance(graph.nodes[j].op, Dense) and graph.nodes[j].inputs == (index,) for j in graph.consumers()[index]
    )


def homes(graph: Graph, halos: Sequence[Halo]) -> dict[int, tuple[int, int]]:
    """Results that may lie within the concatenation that reads them: {node: (concatenation, first channel)}.

    A result fits when it starts on a block of channels and fills its blocks (or is the last), and when the joined
    tensor has the halo that the result's other readers want. A result joined twice lies within the first.
    """
    found: dict[int, tuple[int, int]] = {}
    for i, node in enumerate(graph.nodes):
        if not isinstance(node.op, Concat) or not node.type.is_map:
            continue
        first = 0
        for place, j in enumerate(node.inputs):
            kind = graph.nodes[j].type
            fills = kind.channels % WIDTH == 0 or place == len(node.inputs) - 1
            halo = all(own <= joined for own, joined in zip(halos[j], halos[i], strict=True))
            if first % WIDTH == 0 and fills and halo and j not in found and not isinstance(graph.nodes[j].op, Input):
                found[j] = i, first
            first += kind.channels
    return found


def spent_residuals(graph: Graph, halos: Sequence[Halo], homes: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Results that may overwrite the residual they are added to: {node: residual}.

    A kernel reads each value of the residual just before it writes the result there. Precondition: the node is the
    residual's last reader, no other tensor shares the residual's memory, and its halo serves the result's readers too.
    """
    readers = graph.consumers()
    outputs = {o.node for o in graph.outputs}
    found: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        if not any(isinstance(op, Add) for op in node.fused) or i in homes:
            continue
        j = node.inputs[-1]
        alone = j not in homes and j not in outputs and not isinstance(graph.nodes[j].op, (Concat, Flatten, Input))
        last = max(readers[j]) == i and node.inputs.count(j) == 1
        shared = any(isinstance(graph.nodes[r].op, Flatten) for r in readers[j])
        halo = all(need <= has for need, has in zip(halos[i], halos[j], strict=True))
        if alone and last and not shared and halo:
            found[i] = j
    return found
