"""Lowering of operations that only move values, and of the network's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.lower_planes import move_rows, tight
from netdsl.backends.cpu.lower_points import clear_tail
from netdsl.backends.cpu.lower_winograd import emit_phases, phases_reader
from netdsl.backends.cpu.planner import Planner
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.views import NO_HALO, Address, Port, View, floats, table
from netdsl.graph.ir import Node
from netdsl.ops.shape import ChannelShuffle, Crop, Pad, PixelShuffle, Upsample, sources
from netdsl.plan.residence import flat_readers_only
from netdsl.plan.windows import padded

Indices = NDArray[np.int64]


def lower_input(plan: Planner, index: int, port: int) -> None:
    """The caller's NCHW array into blocks, planes or phases."""
    node = plan.graph.nodes[index]
    if (reader := phases_reader(plan, index)) is not None:
        emit_phases(plan, index, port, reader)
        return
    work = node.type.elements * plan.images
    y = plan.output(index, work)
    if y.block == 1:
        move_rows(plan, node, Port(port), tight(node), Address(y), y, np.arange(y.height), np.arange(y.width))
        return
    plan.emit(
        Kernel("move", "pack"), node, work, x=Port(port), y=Address(y), images=plan.images, channels=y.channels,
        height=y.height, width=y.width, **y.strides("y"),
    )  # fmt: skip


def lower_output(plan: Planner, index: int, port: int) -> None:
    """A tensor into the caller's NCHW array."""
    node = plan.graph.nodes[index]
    x, y = plan.views[index], Port(port, is_output=True)
    if x.block == 1:
        move_rows(plan, node, Address(x), x, y, tight(node), np.arange(x.height), np.arange(x.width))
        return
    _unpack(plan, node, x, y, 4 * node.type.elements)


def lower_flatten(plan: Planner, index: int) -> None:
    """No work where dense layers alone read the result and the map lies without gaps; else a move into plain order."""
    node = plan.graph.nodes[index]
    x = plan.views[node.inputs[0]]
    if x.halo == NO_HALO and x.block == WIDTH and flat_readers_only(plan.graph, index):
        count = x.blocks * x.height * x.width * WIDTH
        plan.views[index] = View(x.buffer, x.start, count, 1, 1, WIDTH, x.image, 4 * WIDTH, 4 * WIDTH)
        plan.flat_maps[index] = plan.graph.nodes[node.inputs[0]].type
        return
    y = plan.output(index, node.type.elements * plan.images)
    clear_tail(plan, node, y)
    _unpack(plan, node, x, Address(y), y.image)


def _unpack(plan: Planner, node: Node, x: View, y: Address | Port, y_image: int) -> None:
    plan.emit(
        Kernel("move", "unpack"), node, 2 * x.channels * x.height * x.width * plan.images, x=Address(x), y=y,
        images=plan.images, channels=x.channels, height=x.height, width=x.width, **x.strides("x"), y_image=y_image,
    )  # fmt: skip


def lower_concat(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    y = plan.output(index, node.type.elements * plan.images)
    moves, first = [], 0
    for j in node.inputs:
        x = plan.views[j]
        if plan.homes.get(j) != (index, first):
            moves.append((x, first))
        first += x.channels
    if moves and moves[-1][1] + moves[-1][0].channels == y.channels:  # the last block is filled here, lane by lane
        clear_tail(plan, node, y)
    for x, first in moves:
        _gather(plan, node, x, y, np.arange(x.channels), np.arange(x.height), np.arange(x.width), first=first)


def lower_pad(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Pad)
    x = plan.views[node.inputs[0]]
    y = plan.output(index, node.type.elements * plan.images)
    top, left, bottom, right = op.pad
    rows, columns = padded(x.height, top, bottom, op.mode), padded(x.width, left, right, op.mode)
    fill = op.value if op.mode == "constant" else 0.0
    if y.block == 1:
        move_rows(plan, node, Address(x), x, Address(y), y, rows, columns, left, fill)
        return
    channels = padded(x.channels, *op.channels, "zero")
    _clear(plan, node, y, channels)
    _gather(plan, node, x, y, channels, rows, columns, fill=fill)


def lower_crop(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Crop)
    x = plan.views[node.inputs[0]]
    y = plan.output(index, node.type.elements * plan.images)
    _clear(plan, node, y, np.arange(x.channels))
    rows, columns = op.top + np.arange(op.height), op.left + np.arange(op.width)
    _gather(plan, node, x, y, np.arange(x.channels), rows, columns)


def lower_channelshuffle(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    assert isinstance(node.op, ChannelShuffle)
    x = plan.views[node.inputs[0]]
    y = plan.output(index, node.type.elements * plan.images)
    clear_tail(plan, node, y)
    channels = np.arange(x.channels).reshape(node.op.groups, -1).T.reshape(-1)
    _gather(plan, node, x, y, channels, np.arange(x.height), np.arange(x.width))


def lower_pixelshuffle(plan: Planner, index: int) -> None:
    """One gather for each of the factor x factor places that a pixel's channels go to."""
    node = plan.graph.nodes[index]
    assert isinstance(node.op, PixelShuffle)
    x, f = plan.views[node.inputs[0]], node.op.factor
    y = plan.output(index, node.type.elements * plan.images)
    clear_tail(plan, node, y)
    for a in range(f):
        for b in range(f):
            place = View(y.buffer, y.start + a * y.row + b * y.pixel, y.channels, x.height, x.width, y.block, y.image,
                         y.plane, f * y.row, y.halo)  # fmt: skip
            channels = np.arange(y.channels) * f * f + a * f + b
            _gather(plan, node, x, place, channels, np.arange(x.height), np.arange(x.width), step=f * y.pixel)


def lower_upsample(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Upsample)
    x = plan.views[node.inputs[0]]
    work = node.type.elements * plan.images
    y = plan.output(index, work)
    if op.mode == "nearest":
        _clear(plan, node, y, np.arange(x.channels))
        rows, columns = np.arange(y.height) // op.scale[0], np.arange(y.width) // op.scale[1]
        _gather(plan, node, x, y, np.arange(x.channels), rows, columns)
        return
    low_h, high_h, part_h = sources(x.height, op.scale[0], op.corners)
    low_w, high_w, part_w = sources(x.width, op.scale[1], op.corners)
    plan.emit(
        Kernel("norm", "bilinear"), node, 4 * work, x=Address(x), y=Address(y), low_h=table(low_h),
        high_h=table(high_h),
        part_h=floats(*part_h), low_w=table(low_w), high_w=table(high_w), part_w=floats(*part_w),
        images=plan.images, blocks=y.blocks, height=y.height, width=y.width, **x.strides("x"), **y.strides("y"),
    )  # fmt: skip


def _gather(
    plan: Planner, node: Node, x: View, y: View, channels: Indices, rows: Indices, columns: Indices, *,
    first: int = 0, fill: float = 0.0, step: int | None = None,
) -> None:  # fmt: skip
    """y[first + i, p, q] = x[channels[i], rows[p], columns[q]]; pixels of y lie `step` bytes apart."""
    plan.emit(
        Kernel("move", "gather"), node, len(channels) * len(rows) * len(columns) * plan.images,
        x=Address(x), y=Address(y), channel=table(channels), whole=table(_whole(channels, first, y.channels)),
        row=table(rows), column=table(columns), fill=floats(fill), images=plan.images, channels=len(channels),
        first=first, height=len(rows), width=len(columns), x_image=x.image, x_plane=x.plane, x_row=x.row,
        y_image=y.image, y_plane=y.plane, y_row=y.row, y_pixel=y.pixel if step is None else step,
    )  # fmt: skip


def _clear(plan: Planner, node: Node, y: View, channels: Indices) -> None:
    """Clear the last block unless a gather of these channels fills it as a whole."""
    if not _whole(channels, 0, y.channels)[(y.blocks - 1) * WIDTH]:
        clear_tail(plan, node, y)


def _whole(channels: Sequence[int] | Indices, first: int, total: int) -> list[int]:
    """1 where a whole block of y comes from one block of x in order, so that it moves as one vector.

    The last block may be short on both sides: its empty lanes are moved along.
    """
    found = [0] * len(channels)
    for i, source in enumerate(channels):
        here = channels[i : i + WIDTH]
        ends = len(here) == WIDTH or first + i + len(here) == total
        starts = (first + i) % WIDTH == 0 and source >= 0 and source % WIDTH == 0
        if starts and ends and all(int(c) == int(source) + j for j, c in enumerate(here)):
            found[i] = 1
    return found
