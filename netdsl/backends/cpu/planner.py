"""The state of lowering one graph for one batch size: views of tensors, buffers and the steps so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.views import NO_HALO, Address, Argument, Data, Halo, Step, View, aligned, layout
from netdsl.backends.cpu.winograd import winograd_halo, winograd_size
from netdsl.graph.ir import Graph, Node
from netdsl.ops.base import Input
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.dense import Dense
from netdsl.ops.shape import Flatten
from netdsl.tensor import TensorType


@dataclass
class WeightBank:
    """Stored tensors, and what was packed from them once for all batch sizes."""

    stored: Mapping[str, NDArray[Any]]
    packed: dict[tuple[Any, ...], Data] = field(default_factory=dict)

    def value(self, node: Node, role: str) -> NDArray[np.float32] | None:
        """A node's weight as float32, or None when it has none of that role."""
        weight = node.weights.get(role)
        return None if weight is None else np.asarray(weight.evaluate(self.stored.__getitem__), np.float32)

    def required(self, node: Node, role: str) -> NDArray[np.float32]:
        """A node's weight as float32, which it must have."""
        return np.asarray(node.weights[role].evaluate(self.stored.__getitem__), np.float32)

    def pack(self, key: tuple[Any, ...], make: Callable[[], NDArray[np.float32]]) -> Data:
        """The packed form under `key`, made on first use, on a cache line."""
        if key not in self.packed:
            made = make()
            place = aligned(made.size)
            place[:] = made.reshape(-1)
            self.packed[key] = Data(place)
        return self.packed[key]


class Planner:
    """Collects the steps of one graph for `images` images and up to `threads` threads."""

    def __init__(self, graph: Graph, bank: WeightBank, images: int, threads: int, exact: bool = False) -> None:
        self.graph, self.bank, self.images, self.threads = graph, bank, images, threads
        self.views: dict[int, View] = {}
        self.flat_maps: dict[int, TensorType] = {}  # vectors that are maps left in blocked order, by node
        self.bytes: list[int] = []  # of each buffer
        self.steps: list[Step] = []
        self.winograd = winograd_sizes(graph, images, exact)
        self.halos = halos(graph, self.winograd)
        self.thin = thin_inputs(graph)

    def input_views(self, node: Node) -> list[View]:
        return [self.views[i] for i in node.inputs]

    def buffer(self, view: View, image_bytes: int) -> View:
        """Give a fresh view a buffer of its own."""
        self.bytes.append(image_bytes * self.images)
        return replace(view, buffer=len(self.bytes) - 1)

    def output(self, index: int, work: int) -> View:
        """The place of a node's result, with the halo its readers need (cleared by a step of its own)."""
        node = self.graph.nodes[index]
        block = node.type.channels if index in self.thin else WIDTH
        halo = self.halos[index]
        view = self.buffer(*layout(node.type, block, halo))
        self.views[index] = view
        if halo != NO_HALO:
            top, left, bottom, right = halo
            self.emit(
                Kernel("move", "halo"), node, work,
                x=Address(view, -view.start), planes=self.images * view.blocks, plane=view.plane, row=view.row,
                pixel=view.pixel, top=top, bottom=bottom, left=left, right=right, height=view.height,
            )  # fmt: skip
        return view

    def scratch(self, channels: int, pixels: int) -> View:
        """A map of channels x 1 x pixels, shared by all images of the batch."""
        view, size = layout(TensorType((channels, 1, pixels)))
        self.bytes.append(size)
        return replace(view, buffer=len(self.bytes) - 1)

    def thread_scratch(self, size: int) -> View:
        """`size` bytes for each thread, a multiple of a cache line."""
        self.bytes.append(size * self.threads)
        return View(len(self.bytes) - 1, 0, 1, 1, 1, WIDTH, 0, 0, 0)

    def emit(self, kernel: Kernel, node: Node, work: int, **arguments: Argument) -> None:
        self.steps.append(Step(kernel, arguments, max(1, work), node.path))


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
