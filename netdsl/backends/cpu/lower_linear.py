"""Lowering of convolutions, transposed convolutions and dense layers to the register-tiled kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.bank import Rows
from netdsl.backends.cpu.epilogue import Epilogue, bias_of, epilogue
from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.lower_depthwise import emit_depthwise
from netdsl.backends.cpu.lower_planes import emit_conv_planes
from netdsl.backends.cpu.lower_winograd import emit_winograd
from netdsl.backends.cpu.planner import Planner
from netdsl.backends.cpu.precision import halved
from netdsl.backends.cpu.taps import Taps, taps_of
from netdsl.backends.cpu.target import FMA_FROM_MEMORY, WIDTH
from netdsl.backends.cpu.tiles import Share, TileShape, share_for, tile_for, wanted
from netdsl.backends.cpu.views import Address, Data, View, table
from netdsl.graph.ir import Node
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.dense import Dense
from netdsl.plan.windows import deconv_convs, deconv_phases

F32 = NDArray[np.float32]

# Both measured (bench/choices.py) with a first-level cache of 48 KiB, which others may share:
SPAN_BYTES = 24 * 1024  # of weights that are taken together while sums wait
WHOLE_BYTES = 32 * 1024  # of weights that are taken whole, so that none waits
AHEAD = 4096  # bytes; measured (bench/choices.py), where weights come from beyond the second-level cache


@dataclass(frozen=True, eq=False)
class LazyWeight:
    """A weight [K, C / groups, R, S] whose values are computed only if they are not packed yet."""

    shape: tuple[int, ...]
    values: Callable[[], F32 | Rows]


def lower_conv(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Conv)
    if index in plan.streamed:
        return  # its reader makes it
    work = plan.graph.node_macs(node) * plan.images
    if node.inputs[0] in plan.streamed:
        _lower_streamed(plan, index, work)
        return
    x = plan.views[node.inputs[0]]
    y = plan.output(index, work)
    end = epilogue(plan, node)
    if y.block == 1:
        emit_conv_planes(plan, node, op, x, y, end, work)
        return
    if op.is_depthwise(x.channels):
        emit_depthwise(plan, node, op, x, y, end, work)
        return
    if index in plan.winograd:
        rows = partial(plan.bank.rows, node, "weight")
        emit_winograd(plan, node, op, rows, plan.winograd[index], x, y, end, work)
        return
    weight = LazyWeight(node.weights["weight"].shape, lambda: plan.bank.rows(node, "weight"))
    _emit_conv(plan, node, weight, op.groups, op.stride, x, y, taps_of(op), end, work)


def _lower_streamed(plan: Planner, index: int, work: int) -> None:
    """A depthwise convolution together with the one before: some channels of the map between them at a time."""
    node, source = plan.graph.nodes[index], plan.graph.nodes[index - 1]
    assert isinstance(node.op, Conv) and isinstance(source.op, Conv)
    most, count = plan.streamed[index - 1] * WIDTH, node.type.channels
    x, y = plan.views[source.inputs[0]], plan.output(index, work)
    before, end = epilogue(plan, source), epilogue(plan, node)
    source_work = plan.graph.node_macs(source) * plan.images
    between = plan.room(index - 1, source_work, most)
    for first in range(0, count, most):
        channels = min(most, count - first)
        rows = slice(first, first + channels)
        weight = LazyWeight((channels, *source.weights["weight"].shape[1:]), partial(_rows, plan, source, rows))
        made = between.part(0, channels)
        _emit_conv(plan, source, weight, 1, source.op.stride, x, made, taps_of(source.op),
                   before.part(first, channels), source_work * channels // count, first=first)  # fmt: skip
        emit_depthwise(plan, node, node.op, made, y.part(first, channels), end.part(first, channels),
                       work * channels // count, first)  # fmt: skip


def _rows(plan: Planner, node: Node, rows: slice) -> F32:
    return plan.bank.rows(node, "weight")[rows]


def lower_deconv(plan: Planner, index: int) -> None:
    """One convolution of stride 1 for each phase of the output (Xilinx onnx-mlir, "phased" transposed convolution)."""
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Deconv)
    x = plan.views[node.inputs[0]]
    k, per_group = op.features, x.channels // op.groups
    work = plan.graph.node_macs(node) * plan.images
    y = plan.output(index, work)
    end = epilogue(plan, node)
    convs = deconv_convs(op, plan.graph.nodes[node.inputs[0]].type)
    down = deconv_phases(op, 0, y.height)
    across = deconv_phases(op, 1, y.width)
    for a, (height, cells_h, offsets_h) in enumerate(down):
        for b, (width, cells_w, offsets_w) in enumerate(across):
            if height and width:
                cells = partial(_phase_weight, plan, node, op, cells_h, cells_w)
                phase = _every(y, op.stride, a, b, height, width)
                moved = replace(end, residual=end.residual and _every(end.residual, op.stride, a, b, height, width))
                share = work // (op.stride[0] * op.stride[1])
                if m := plan.winograd.get(index):
                    emit_winograd(plan, node, convs[a, b], cells, m, x, phase, moved, share, f"{a}.{b}")
                    continue
                part = LazyWeight((k, per_group, len(cells_h), len(cells_w)), cells)
                taps = Taps(tuple(offsets_h), tuple(offsets_w))
                _emit_conv(plan, node, part, op.groups, (1, 1), x, phase, taps, moved, share, f"{a}.{b}")


def _phase_weight(plan: Planner, node: Node, op: Deconv, cells_h: list[int], cells_w: list[int]) -> F32:
    """The cells of one phase, from [C, K / groups, R, S] to the order of a convolution, [K, C / groups, …]."""
    stored = plan.bank.required(node, "weight")
    c, k, g = len(stored), op.features, op.groups
    weight = stored.reshape(g, c // g, k // g, *op.kernel).swapaxes(1, 2).reshape(k, c // g, *op.kernel)
    return weight[:, :, cells_h][:, :, :, cells_w]


def _every(y: View, stride: tuple[int, int], a: int, b: int, height: int, width: int) -> View:
    """The pixels (a + i stride, b + j stride) of a map, as a map. Its `pixel` no longer follows from `block`."""
    start = y.start + a * y.row + b * y.pixel
    return SparseView(
        y.buffer, start, y.channels, height, width, y.block, y.image, y.plane, stride[0] * y.row, y.halo,
        step=stride[1] * y.pixel,
    )  # fmt: skip


@dataclass(frozen=True)
class SparseView(View):
    """A view whose pixels lie `step` bytes apart."""

    step: int = 0

    @property
    def pixel(self) -> int:
        return self.step


def _emit_conv(
    plan: Planner, node: Node, weight: LazyWeight, groups: int, stride: tuple[int, int], x: View, y: View, taps: Taps,
    end: Epilogue, work: int, part: str = "", first: int = 0,
) -> None:  # fmt: skip
    """`part` of a node's work: what `weight` gives, its outputs from `first` on."""
    pointwise = taps == Taps((0,), (0,)) and stride == (1, 1)
    pixels, outputs = y.height * y.width, [y, end.residual] if end.residual else [y]
    by_rows, through = tile_for(y.width, y.blocks, y.height), tile_for(pixels, y.blocks)
    touch, uneven = all(v.rows_touch for v in outputs), y.width % by_rows.rows > 0
    flat = pointwise and x.rows_touch and (touch or (uneven and y.width >= through.rows))
    tile = through if flat else by_rows
    height, width, last = y.height, y.width, y.width
    rows = {"x": stride[0] * x.row, "y": y.row, "r": end.residual.row if end.residual else 0}
    if flat:  # count pixels through, in lines of a few tiles, or of one where there would be too few lines
        tiles = max(1, min(4, plan.images * pixels // (tile.rows * wanted(plan.threads))))
        width = min(pixels, tiles * tile.rows)
        height = math.ceil(pixels / width)
        last = pixels - (height - 1) * width
        rows = {"x": width * x.pixel, "y": width * y.pixel, "r": width * end.residual.pixel if end.residual else 0}
    turn = y.width if flat and not touch else 0
    packed = pack_conv(weight, groups, x, tile.cols, taps)
    key = (node.path, first, y.channels, tile.cols)  # other batch sizes may cut the outputs in another way
    data = plan.bank.pack((*key, part, packed.lanes), lambda: packed.values(plan.bank.empty))
    bias = plan.bank.pack((*key, "bias"), lambda: bias_of(plan, node, y.channels, tile.cols, first))
    tile_groups = math.ceil(y.blocks / tile.cols)
    share = share_for(
        plan.images * math.ceil(height / tile.lines),
        math.ceil(width / tile.rows),
        tile_groups,
        plan.images * _read_bytes(x, stride, taps),
        packed.nbytes,
        min(plan.threads, 64),
    )
    _emit_tiles(plan, node, tile, x, y, end, work, stride[1] * x.block, packed, data, bias, share, rows,
                (plan.images, height, width, last), turn)  # fmt: skip


def _read_bytes(x: View, stride: tuple[int, int], taps: Taps) -> int:
    """Of an image, without the pixels that a stride passes over."""
    rows, columns = (min(1.0, len(t) / s) for t, s in zip((taps.rows, taps.columns), stride, strict=True))
    return math.ceil(x.image * rows * columns)


def _emit_tiles(
    plan: Planner, node: Node, tile: TileShape, x: View, y: View, end: Epilogue, work: int, pixel: int,
    packed: PackedConv, data: Data, bias: Data, share: Share, rows: dict[str, int], size: tuple[int, int, int, int],
    turn: int = 0,
) -> None:  # fmt: skip
    images, height, width, last = size
    r = end.residual
    shape = tile.lines, tile.rows, tile.cols, pixel
    span, ahead = _span(packed, images * height * width > tile.rows * tile.lines)
    plan.emit(
        Kernel("conv", "conv", (*shape, end.function, packed.stored, "turns" if turn else None)), node, work,
        share.bands * share.chunks, x=Address(x), w=data, bias=bias, taps=table(packed.offsets),
        n_taps=len(packed.offsets), run=packed.run, span=span, ahead=ahead,
        group_offsets=table(packed.group_offsets), y=Address(y), r=Address(r) if r else 0, limits=end.limits,
        images=images, groups=len(packed.group_offsets), blocks=y.blocks, bands=share.bands, chunks=share.chunks,
        together=share.together, height=height, width=width, last_width=last, turn=turn, x_image=x.image,
        x_row=rows["x"], w_group=len(packed.offsets) * packed.run * packed.outputs * packed.weight_bytes,
        y_image=y.image, y_plane=y.plane, y_row=rows["y"], y_pixel=y.pixel, y_gap=_gap(y),
        r_image=r.image if r else 0, r_plane=r.plane if r else 0, r_row=rows["r"], r_pixel=r.pixel if r else 0,
        r_gap=_gap(r) if r else 0,
    )  # fmt: skip


def _gap(view: View) -> int:
    """Bytes from a row's end to the next row's start."""
    return view.row - view.width * view.pixel


def _span(packed: PackedConv, passes: bool) -> tuple[int, int]:
    """The most taps to take together, and how early weights are asked for (0: in the course of those before).

    Weights that are read once are taken whole, and so are those of up to WHOLE_BYTES.
    """
    taps, tap_bytes = len(packed.offsets), packed.run * packed.outputs * packed.weight_bytes
    if not passes:
        return max(1, taps), AHEAD
    return max(1, taps if taps * tap_bytes <= WHOLE_BYTES else SPAN_BYTES // tap_bytes), 0


@dataclass(frozen=True, eq=False)
class PackedConv:
    """Weights in the order the kernel reads them: [tile of outputs][tap][run][outputs of the tile].

    offsets          of each tap from an output's origin, bytes
    run              consecutive floats at a tap
    group_offsets    for each tile of outputs, where its first input channel block lies, bytes
    """

    weight: LazyWeight
    groups: int
    offsets: list[int]
    run: int
    group_offsets: list[int]
    lanes: int  # channels that are packed together: a block, or a part of it
    depth: int  # parts that one tile of outputs reads
    first: list[int]  # for each tile of outputs, its first part
    outputs: int  # of one tile
    stored: str | None = None  # "float16" or "bfloat16"; None: float32

    @property
    def weight_bytes(self) -> int:
        """Of one weight."""
        return 4 if self.stored is None else 2

    @property
    def nbytes(self) -> int:
        """Of all weights, packed."""
        return len(self.group_offsets) * len(self.offsets) * self.run * self.outputs * self.weight_bytes

    def values(self, empty: Callable[[int], F32]) -> F32:
        """The weights, a tile of outputs at a time, so that little memory is used twice. empty: room for floats."""
        k, _, height, width = self.weight.shape
        weight, depth = self.weight.values(), self.depth * self.lanes
        size = len(self.first) * depth * height * width * self.outputs
        packed = empty(size).reshape(len(self.first), self.depth, height, width, self.lanes, self.outputs)
        for t, place in enumerate(packed):
            rows = weight[t * self.outputs : (t + 1) * self.outputs]
            if rows.shape[:2] != (self.outputs, depth):
                rows = self._dense(rows, t, k // self.groups)
            place[:] = rows.reshape(self.outputs, *place.shape[:1], self.lanes, height, width).transpose(1, 3, 4, 2, 0)
        return packed

    def _dense(self, rows: F32, tile: int, per_group: int) -> F32:
        """The rows of a tile over all inputs that it reads, zeros where a row reads none. per_group  outputs of one."""
        out = np.zeros((self.outputs, self.depth * self.lanes, *rows.shape[2:]), np.float32)
        for i, row in enumerate(rows, tile * self.outputs):
            at = i // per_group * len(row) - self.first[tile] * self.lanes
            out[i - tile * self.outputs, at : at + len(row)] = row
        return out


def pack_conv(weight: LazyWeight, groups: int, x: View, cols: int, taps: Taps) -> PackedConv:
    """The order of weights [K, C / groups, R, S] and the taps that go with it, for an input view."""
    outputs = cols * WIDTH
    for lanes in (_lanes(x), min(x.block, x.channels)):
        depth, first = _parts_read(weight, groups, x, outputs, lanes)
        if depth == 1 or all(part * lanes % x.block == 0 for part in first):
            break  # what follows a tile's first part lies as far from it everywhere
    joined = taps.columns_touch and lanes == x.block and len(taps.columns) > 0
    columns: Sequence[int] = taps.columns[:1] if joined else taps.columns
    offsets = [_part(x, lanes, b) + h * x.row + w * x.pixel for b in range(depth) for h in taps.rows for w in columns]
    run = lanes * (len(taps.columns) if joined else 1)
    starts = [_part(x, lanes, f) for f in first]
    return PackedConv(weight, groups, offsets, run, starts, lanes, depth, first, outputs)


def _parts_read(weight: LazyWeight, groups: int, x: View, outputs: int, lanes: int) -> tuple[int, list[int]]:
    """How many parts of `lanes` channels one tile of `outputs` reads, and for each tile the first."""
    k, per_group = weight.shape[:2]
    ranges = []
    for t in range(math.ceil(k / outputs)):
        low, high = t * outputs // (k // groups), (min(k, (t + 1) * outputs) - 1) // (k // groups)
        ranges.append((low * per_group // lanes, math.ceil((high + 1) * per_group / lanes)))
    depth = max(b - a for a, b in ranges)
    return depth, [min(a, math.ceil(x.channels / lanes) - depth) for a, _ in ranges]


def _lanes(x: View) -> int:
    """Channels to take together: whole blocks, or halves of them where the last block is less than half full."""
    half = x.block // 2
    spared = x.blocks * x.block - half * math.ceil(x.channels / max(1, half))
    return half if half > 1 and x.channels > x.block and 10 * spared > x.channels else min(x.block, x.channels)


def _part(x: View, lanes: int, index: int) -> int:
    """Where a part of so many channels lies, bytes from the first."""
    parts = x.block // lanes if x.channels > lanes else 1
    return index // parts * x.plane + index % parts * lanes * 4


def lower_dense(plan: Planner, index: int) -> None:
    """A 1x1 convolution whose pixels are the images of the batch."""
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Dense)
    x = plan.views[node.inputs[0]]
    work = plan.graph.node_macs(node) * plan.images
    y = plan.output(index, work)
    end = epilogue(plan, node)
    stored = plan.stored.get(index)
    tile = tile_for(plan.images, y.blocks, folds=FMA_FROM_MEMORY and stored is None)
    flat_map = plan.flat_maps.get(node.inputs[0])
    data = plan.bank.pack((node.path, tile.cols), lambda: _pack_dense(plan, node, x, tile.cols, flat_map, stored))
    bias = plan.bank.pack((node.path, "bias", tile.cols), lambda: bias_of(plan, node, y.channels, tile.cols))
    if plan.images > 1:
        pixels = plan.scratch(x.channels, plan.images)
        plan.emit(
            Kernel("move", "batch_pixels"), node, plan.images * x.channels,
            x=Address(x), y=Address(pixels), images=plan.images, blocks=x.blocks, x_image=x.image,
        )  # fmt: skip
        x, offsets, run = pixels, [b * pixels.plane for b in range(pixels.blocks)], WIDTH
    else:
        offsets, run = [0], x.blocks * WIDTH
    tile_groups = math.ceil(y.blocks / tile.cols)
    nothing = LazyWeight((y.channels, x.channels, 1, 1), lambda: np.zeros(0, np.float32))  # packed above
    packed = PackedConv(nothing, 1, offsets, run, [0] * tile_groups, WIDTH, x.blocks, [0] * tile_groups,
                        tile.cols * WIDTH, stored)  # fmt: skip
    r = end.residual
    across = SparseView(y.buffer, y.start, y.channels, 1, plan.images, WIDTH, 0, y.plane, 0, step=y.image)
    beside = r and SparseView(r.buffer, r.start, r.channels, 1, plan.images, WIDTH, 0, r.plane, 0, step=r.image)
    share = Share(1, min(wanted(plan.threads), tile_groups), 1)
    _emit_tiles(plan, node, tile, x, across, replace(end, residual=beside), work, WIDTH, packed, data, bias, share,
                {"x": 0, "y": 0, "r": 0}, (1, 1, plan.images, plan.images))  # fmt: skip


def _pack_dense(plan: Planner, node: Node, x: View, cols: int, flat_map: Any, stored: str | None) -> F32:
    """[K, F] into [tile of outputs][F][outputs of the tile], a tile at a time so that little memory is used twice.

    Where weights are `stored` in 16 bits, the result is float32 in name; its bits are what counts.
    """
    weight = plan.bank.rows(node, "weight")
    k, outputs = len(weight), cols * WIDTH
    shape = math.ceil(k / outputs), x.blocks * WIDTH, outputs
    room = plan.bank.empty(math.prod(shape) // (1 if stored is None else 2))  # where it stays: the largest, held once
    packed: Any = (room if stored is None else room.view(np.uint16)).reshape(shape)
    for t, place in enumerate(packed):
        rows = weight[t * outputs : (t + 1) * outputs]
        if flat_map is not None:
            rows = _blocked_columns(rows, *flat_map.shape)
        place[: rows.shape[1], : len(rows)] = rows.T if stored is None else halved(rows, stored, node.path).T
        place[rows.shape[1] :] = 0
        place[:, len(rows) :] = 0
    return room


def _blocked_columns(rows: F32, channels: int, height: int, width: int) -> F32:
    """Columns in channel, row, column order into the order of a blocked map: block, row, column, lane."""
    blocks = math.ceil(channels / WIDTH)
    full = np.zeros((len(rows), blocks * WIDTH, height, width), np.float32)
    full[:, :channels] = rows.reshape(len(rows), channels, height, width)
    return full.reshape(len(rows), blocks, WIDTH, height, width).transpose(0, 1, 3, 4, 2).reshape(len(rows), -1)
