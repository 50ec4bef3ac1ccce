"""What the readers of a tensor ask of its place: halos, planes, room within a concatenation, blocked order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.views import NO_HALO, Halo
from netdsl.backends.cpu.winograd import winograd_halo, winograd_size
from netdsl.graph.ir import Graph
from netdsl.ops.base import Input
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.dense import Dense
from netdsl.ops.join import Add, Concat, Mul
from netdsl.ops.shape import Flatten, Pad
from netdsl.passes.fuse_epilogues import ACTIVATIONS
from netdsl.tensor import TensorType

MOST_PLANES = 12  # chosen: outputs of one group that a planar convolution makes at once; two vectors each fit registers


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


def planar_maps(graph: Graph, halos: Sequence[Halo]) -> frozenset[int]:
    """Maps of few channels that are kept plane by plane (block 1), vectors along their rows: no lane stands empty.

    The largest set in which every map is made by a kernel that writes planes and read by kernels that read them.
    """
    readers = graph.consumers()
    kept = {i for i, n in enumerate(graph.nodes) if n.type.is_map and 2 * n.type.channels <= WIDTH}
    while True:
        dropped = {
            i for i in kept
            if not _makes_planes(graph, i, kept, halos) or not all(_reads_planes(graph, j, i, kept) for j in readers[i])
        }  # fmt: skip
        if not dropped:
            return frozenset(kept)
        kept -= dropped


def _makes_planes(graph: Graph, index: int, planar: Set[int], halos: Sequence[Halo]) -> bool:
    node = graph.nodes[index]
    op = node.op
    if not all(j in planar for j in node.inputs):
        return False
    if isinstance(op, (Add, Mul, *ACTIVATIONS)):  # point by point over whole buffers: equal shapes, nothing around them
        places = (index, *node.inputs)
        return all(graph.nodes[j].type == node.type and halos[j] == NO_HALO for j in places)
    if isinstance(op, Conv):
        return op.stride[1] == 1 and op.features <= MOST_PLANES * op.groups
    return isinstance(op, Input) or (isinstance(op, Pad) and op.channels == (0, 0))


def _reads_planes(graph: Graph, reader: int, index: int, planar: Set[int]) -> bool:
    node = graph.nodes[reader]
    blocked = isinstance(node.op, Conv) and node.op.groups == 1 and index not in node.inputs[1:]
    return reader in planar or blocked


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
