"""Lowering of operations that only move values, and of the network's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cuda.planner import Planner
from netdsl.backends.cuda.steps import Kernel, one_each
from netdsl.backends.cuda.views import Address, Argument, Data, Port, View, lanes_of, table
from netdsl.backends.cuda.views import padded as filled
from netdsl.graph.ir import Node
from netdsl.ops.shape import ChannelShuffle, Crop, Pad, PixelShuffle, Upsample, sources
from netdsl.plan.residence import flat_readers_only
from netdsl.plan.windows import padded

Indices = NDArray[np.int64]


def lower_input(plan: Planner, index: int, port: int) -> None:
    """The caller's NCHW array to channels last, with zeros to the end of the last channel's 16 bytes."""
    node = plan.graph.nodes[index]
    y = plan.output(index)
    lanes = filled(y.channels, lanes_of(y.dtype))
    values = plan.images * y.height * y.width * lanes
    plan.emit(
        Kernel("move", "pack").between(y), one_each(values // lanes_of(y.dtype)), node, values, source=Port(port),
        y=Address(y), images=plan.images, channels=y.channels, lanes=lanes, height=y.height, width=y.width,
        **y.strides("y"),
    )  # fmt: skip


def lower_output(plan: Planner, index: int, port: int) -> None:
    """A tensor into the caller's NCHW array."""
    node = plan.graph.nodes[index]
    x = plan.views[index]
    values = plan.images * node.type.elements
    plan.emit(
        Kernel("move", "unpack").between(x), one_each(values), node, values, target=Port(port, is_output=True),
        x=Address(x), images=plan.images, channels=x.channels, height=x.height, width=x.width, **x.strides("x"),
    )  # fmt: skip


def lower_flatten(plan: Planner, index: int) -> None:
    """No work for a map of one pixel, or where dense layers alone read the result; else a move into plain order."""
    node = plan.graph.nodes[index]
    x = plan.views[node.inputs[0]]
    if x.height == x.width == 1 or flat_readers_only(plan.graph, index):
        plan.views[index] = plan.flat_maps[index] = x
        return
    y = plan.output(index)
    plan.emit(
        Kernel("move", "flatten").between(x, y), one_each(plan.images * y.lanes), node, plan.images * y.lanes,
        x=Address(x), y=Address(y), images=plan.images, channels=x.channels, lanes=y.lanes, height=x.height,
        width=x.width, **x.strides("x"), y_image=y.image,
    )  # fmt: skip


def lower_concat(plan: Planner, index: int) -> None:
    """Only what does not lie within the joined tensor already is moved."""
    node = plan.graph.nodes[index]
    y = plan.output(index)
    moved, first = [], 0
    for j in node.inputs:
        x = plan.views[j]
        if plan.homes.get(j) != (index, first):
            moved.append((x, first))
        first += x.channels
    for x, first in moved:
        _copy_into(plan, node, x, y, first)


def _copy_into(plan: Planner, node: Node, x: View, y: View, first: int) -> None:
    """Copy a map into channels first … of another, with zeros to the last lane where it is the last."""
    is_last = first + x.channels == y.channels
    channels = np.concatenate([np.arange(x.channels), np.full(y.lanes - y.channels if is_last else 0, -1)])
    _gather(plan, node, x, y, channels, np.arange(x.height), np.arange(x.width), first=first)


def lower_pad(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Pad)
    x, y = plan.views[node.inputs[0]], plan.output(index)
    top, left, bottom, right = op.pad
    rows, columns = padded(x.height, top, bottom, op.mode), padded(x.width, left, right, op.mode)
    channels = _filled(padded(x.channels, *op.channels, "zero"), y)
    _gather(plan, node, x, y, channels, rows, columns, op.value if op.mode == "constant" else 0.0)


def lower_crop(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Crop)
    x, y = plan.views[node.inputs[0]], plan.output(index)
    rows, columns = op.top + np.arange(op.height), op.left + np.arange(op.width)
    _gather(plan, node, x, y, _filled(np.arange(x.channels), y), rows, columns)


def lower_channelshuffle(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    assert isinstance(node.op, ChannelShuffle)
    x, y = plan.views[node.inputs[0]], plan.output(index)
    channels = np.arange(x.channels).reshape(node.op.groups, -1).T.reshape(-1)
    _gather(plan, node, x, y, _filled(channels, y), np.arange(x.height), np.arange(x.width))


def lower_pixelshuffle(plan: Planner, index: int) -> None:
    """One gather for each of the factor x factor places that a pixel's channels go to."""
    node = plan.graph.nodes[index]
    assert isinstance(node.op, PixelShuffle)
    x, y, f = plan.views[node.inputs[0]], plan.output(index), node.op.factor
    for a in range(f):
        for b in range(f):
            start = y.start + a * y.row + b * y.pixel
            place = replace(y, start=start, height=x.height, width=x.width, pixel=f * y.pixel, row=f * y.row)
            channels = np.arange(y.channels) * f * f + a * f + b
            _gather(plan, node, x, place, _filled(channels, y), np.arange(x.height), np.arange(x.width))


def lower_upsample(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Upsample)
    x, y = plan.views[node.inputs[0]], plan.output(index)
    if op.mode == "nearest":
        rows, columns = np.arange(y.height) // op.scale[0], np.arange(y.width) // op.scale[1]
        _gather(plan, node, x, y, _filled(np.arange(x.channels), y), rows, columns)
        return
    low_h, high_h, part_h = sources(x.height, op.scale[0], op.corners)
    low_w, high_w, part_w = sources(x.width, op.scale[1], op.corners)
    tables: dict[str, Argument] = {
        "low_h": table(low_h), "high_h": table(high_h), "part_h": Data(part_h.astype(np.float32)),
        "low_w": table(low_w), "high_w": table(high_w), "part_w": Data(part_w.astype(np.float32)),
    }  # fmt: skip
    _emit_points(plan, Kernel("move", "bilinear"), node, x, y, y.lanes, tables, each=plan.multiple)


def _filled(channels: Indices, y: View) -> Indices:
    """Sources of channels, with none for the lanes past the last."""
    return np.concatenate([channels, np.full(y.lanes - y.channels, -1)])


def _gather(
    plan: Planner, node: Node, x: View, y: View, channels: Sequence[int] | Indices, rows: Indices, columns: Indices,
    fill: float = 0.0, first: int = 0,
) -> None:  # fmt: skip
    """y[first + i, p, q] = x[channels[i], rows[p], columns[q]] for every lane i that `channels` lists."""
    arguments: dict[str, Argument] = {
        "channel": table(channels), "row": table(rows), "column": table(columns), "fill": float(fill),
        "y": Address(y, first),
    }  # fmt: skip
    _emit_points(plan, Kernel("move", "gather"), node, x, y, len(channels), arguments)


def _emit_points(
    plan: Planner, kernel: Kernel, node: Node, x: View, y: View, lanes: int, more: dict[str, Argument],
    each: int = 1,
) -> None:  # fmt: skip
    """A thread for `each` lanes."""
    values = plan.images * y.height * y.width * lanes
    arguments: dict[str, Argument] = {
        "x": Address(x), "y": Address(y), "images": plan.images, "lanes": lanes, "height": y.height, "width": y.width,
        **x.strides("x"), **y.strides("y"), **more,
    }  # fmt: skip
    plan.emit(kernel.between(x, y), one_each(values // each), node, values, **arguments)
