"""Lowering of convolutions to Winograd's algorithm, and of the caller's array to the phases that one of them reads."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from netdsl.backends.cpu.bank import Rows
from netdsl.backends.cpu.epilogue import Epilogue, bias_of
from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.mailbox import LINE
from netdsl.backends.cpu.phases import in_lanes
from netdsl.backends.cpu.planner import Planner
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.tiles import tile_for
from netdsl.backends.cpu.views import Address, Data, Port, View, layout, table
from netdsl.backends.cpu.winograd import F32, depth_of, pack_winograd, phase_size, phases_of, winograd_cut
from netdsl.graph.ir import Node
from netdsl.ops.conv import Conv
from netdsl.tensor import TensorType

# measured (bench/choices.py) with a first-level cache of 48 KiB, which others may share
PANEL_BYTES = 32 * 1024  # of weights that are taken together, over all patches


def _whole_lines(size: int) -> int:
    """Bytes rounded up to cache lines, which every vector divides."""
    return -(-size // LINE) * LINE


def emit_winograd(
    plan: Planner, node: Node, op: Conv, weight: Callable[[], F32 | Rows], m: int, x: View, y: View, end: Epilogue,
    work: int, part: str = "",
) -> None:  # fmt: skip
    """A convolution by F(m x m, r x r): a node's, or that of a `part` of its outputs."""
    kind = plan.graph.nodes[node.inputs[0]].type
    phases, depth = phases_of(op), depth_of(op, kind, m)
    down, across, side = math.ceil(y.height / m), math.ceil(y.width / m), m + phases.taps - 1
    cut = winograd_cut(depth, y.blocks, plan.images * down * across, plan.threads)
    tile, patches = tile_for(cut.patches, y.blocks), cut.patches
    pieces, groups = math.ceil(plan.images * down * across / patches), math.ceil(y.blocks / tile.cols)
    data = plan.bank.pack(
        (node.path, part, "winograd", m, tile.cols),
        lambda: pack_winograd(weight(), phases, m, depth, tile.cols, plan.bank.empty),
    )
    cells, vector, r = side**2, 4 * WIDTH, end.residual
    # an odd number of cache lines from one to the next, so that they do not meet in the same sets of the caches
    v_block = patches * vector | LINE
    v_cell, o_cell = depth.blocks * v_block | LINE, tile.cols * cut.together * v_block | LINE
    room = LINE + _whole_lines(vector * (2 * cells + 32) + cells * (v_cell + o_cell))
    corner, stride, places = _phase_places(op, x, in_lanes(kind))
    products = [(*lanes, start * tile.cols * vector) for lanes, start in zip(depth.live, depth.starts, strict=False)]
    some = "blocks" if len(set(depth.live)) > 1 else None
    products_of = "lanes" if any(lane % WIDTH for lanes in depth.live for lane in lanes) else some
    tall_end, wide_begin, wide_end = (n * depth.own // WIDTH for n in phases.whole_ones)
    apart = y.pixel // vector if y.pixel != vector else None
    plan.emit(
        Kernel("winograd", "winograd", (m, phases.taps, tile.rows, tile.cols, end.function, products_of, apart)), node,
        work, pieces * cut.chunks, x=Address(x, corner), places=table(places), u=data,
        live=table([*products, (0, 0, 0)]), u_tile=depth.starts[-1] * tile.cols * vector,
        bias=plan.bank.pack((node.path, "bias", 1), lambda: bias_of(plan, node, y.channels, 1)),
        y=Address(y), r=Address(r) if r else 0, limits=end.limits, zeros=Data(np.zeros(tile.cols * WIDTH, np.float32)),
        scratch=Address(plan.thread_scratch(room)), scratch_bytes=room, images=plan.images, down=down, across=across,
        depth=depth.blocks, phases=1 if in_lanes(kind) else phases.stride**2, tall_end=tall_end, wide_begin=wide_begin,
        wide_end=wide_end, span=max(1, PANEL_BYTES // (tile.cols * 4 * WIDTH**2)), groups=groups, blocks=y.blocks,
        patches=patches, chunks=cut.chunks, together=cut.together, height=y.height, width=y.width, x_image=x.image,
        x_row=stride * x.row, x_pixel=stride * x.pixel, **y.strides("y"), r_image=r.image if r else 0,
        r_plane=r.plane if r else 0, r_row=r.row if r else 0, v_block=v_block, v_cell=v_cell, o_cell=o_cell,
    )  # fmt: skip


def _phase_places(op: Conv, x: View, laid_out: bool) -> tuple[int, int, list[int]]:
    """Where the first patch begins, pixels from one of a phase to the next, and from there each block of lanes (bytes).

    laid_out  whether x holds the phases in its lanes, and all zeros that patches read: then it is one phase itself
    """
    if laid_out:
        return 0, 1, [k * x.plane for k in range(x.blocks)]
    places = [a * x.row + b * x.pixel + k * x.plane for a, b in phases_of(op).order for k in range(x.blocks)]
    return -op.pad[0] * x.row - op.pad[1] * x.pixel, op.stride[0], places


def phases_reader(plan: Planner, index: int) -> int | None:
    """The convolution that wants the caller's array laid out by phases."""
    node = plan.graph.nodes[index]
    readers = plan.graph.consumers()[index]
    return next((i for i in readers if i in plan.winograd and in_lanes(node.type)), None)


def emit_phases(plan: Planner, index: int, port: int, reader: int) -> None:
    """The caller's NCHW array into the phases that a convolution reads, with all zeros that its patches meet."""
    node, op = plan.graph.nodes[index], plan.graph.nodes[reader].op
    assert isinstance(op, Conv)
    channels, x_height, x_width = node.type.shape
    s, (top, left) = op.stride[0], op.pad[:2]
    height, width = phase_size(op, plan.winograd[reader], op.infer(node.type))
    view, size = layout(TensorType((s * s * channels, height, max(width, WIDTH))))
    plan.views[index] = view = plan.buffer(view, size)
    line = _whole_lines(4 * max(left + x_width, s * (view.width + 1)))
    places = [(a * channels + c) * line + 4 * b for a, b in phases_of(op).order for c in range(channels)]
    places += [-1] * (view.blocks * WIDTH - len(places))
    room = _whole_lines(s * channels * line + 4 * WIDTH**2)
    plan.emit(
        Kernel("move", "phases", (s,)), node, view.channels * height * view.width * plan.images, x=Port(port),
        y=Address(view), places=table(places), scratch=Address(plan.thread_scratch(room)), scratch_bytes=room,
        line=line, images=plan.images, channels=channels, x_height=x_height, x_width=x_width, top=top, left=left,
        blocks=view.blocks, height=height, width=view.width, **view.strides("y"),
    )  # fmt: skip
