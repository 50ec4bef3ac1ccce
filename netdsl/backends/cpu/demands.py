"""What the readers of a tensor ask of its place: halos, and planes instead of blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType

from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.tuned import geometry
from netdsl.backends.cpu.turns import images_together
from netdsl.backends.cpu.views import NO_HALO, Halo
from netdsl.backends.cpu.winograd import ways_to_run, winograd_halo, winograd_size
from netdsl.graph.ir import Graph
from netdsl.ops.base import Input
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.join import Add, Mul
from netdsl.ops.pool import MaxPool
from netdsl.ops.shape import Pad
from netdsl.passes.fuse_epilogues import ACTIVATIONS
from netdsl.plan.windows import deconv_phases
from netdsl.tensor import TensorType

MOST_PLANES = 12  # chosen: outputs of one group that a planar convolution makes at once; two vectors each fit registers


def winograd_sizes(
    graph: Graph, images: int, exact: bool, measured: Mapping[str, int] = MappingProxyType({})
) -> dict[int, int]:
    """For each convolution that Winograd's algorithm runs faster, its patch size m. None when `exact`.

    measured  what was found fastest, by geometry; other convolutions go by a model
    """
    if exact:
        return {}
    sizes = _sizes(graph, [images] * len(graph.nodes), images, measured)
    if images == 1:
        return sizes
    return _sizes(graph, images_together(graph, images, sizes), images, measured)


def _sizes(graph: Graph, together: Sequence[int], images: int, measured: Mapping[str, int]) -> dict[int, int]:
    """As `winograd_sizes`, where so many images go through each node together and its weights are read each time."""
    sizes = {}
    for i, node in enumerate(graph.nodes):
        if isinstance(node.op, Conv | Deconv):
            x, alone = graph.nodes[node.inputs[0]].type, reads_alone(graph, i)
            m = measured.get(geometry(node.op, x, images))
            known = m in ways_to_run(node.op, x, alone)
            sizes[i] = m if known else winograd_size(node.op, x, together[i], alone)
    return {i: m for i, m in sizes.items() if m}


def reads_alone(graph: Graph, index: int) -> bool:
    """Whether a node's input is the caller's array and nothing else reads it."""
    source = graph.nodes[index].inputs[0]
    if not isinstance(graph.nodes[source].op, Input):
        return False
    return graph.consumers()[source] == [index] and all(o.node != source for o in graph.outputs)


def halos(graph: Graph, winograd: Mapping[int, int]) -> list[Halo]:
    """For each node, the zeros that its readers want around its result."""
    found = [NO_HALO] * len(graph.nodes)
    for i, node in enumerate(graph.nodes):
        if isinstance(node.op, Conv | Deconv) and i in winograd:
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


def deconv_halo(op: Deconv, x: TensorType) -> Halo:
    """Zeros around the input that the phases read."""
    y = op.infer(x)
    before, after = [0, 0], [0, 0]
    for axis in (0, 1):
        length = x.shape[1 + axis]
        for count, _, offsets in deconv_phases(op, axis, y.shape[1 + axis]):
            if count:
                before[axis] = max([before[axis], *(-o for o in offsets)])
                after[axis] = max([after[axis], *(count - 1 + o - (length - 1) for o in offsets)])
    return before[0], before[1], after[0], after[1]


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
    if isinstance(op, MaxPool):
        return _pools_planes(op, graph.nodes[node.inputs[0]].type, node.type)
    return isinstance(op, Input) or (isinstance(op, Pad) and op.channels == (0, 0))


def _pools_planes(op: MaxPool, x: TensorType, y: TensorType) -> bool:
    """Whether windows of stride 2 along rows lie within the map, none of them dilated."""
    within = (y.height - 1) * op.stride[0] + op.kernel[0] <= x.height and 2 * (y.width - 1) + op.kernel[1] <= x.width
    return op.stride[1] == 2 and op.dilation == (1, 1) and not any(op.pad) and within


def _reads_planes(graph: Graph, reader: int, index: int, planar: Set[int]) -> bool:
    node = graph.nodes[reader]
    blocked = isinstance(node.op, Conv) and node.op.groups == 1 and index not in node.inputs[1:]
    return reader in planar or blocked


def may_lie(graph: Graph, halos: Sequence[Halo], index: int, place: int) -> bool:
    """Whether a result may lie where another tensor does: what is around that serves the result's readers too."""
    return all(own <= there for own, there in zip(halos[index], halos[place], strict=True))
