"""Lowering of depthwise convolutions: one filter for each channel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.epilogue import Epilogue, bias_of
from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.planner import Planner
from netdsl.backends.cpu.taps import taps_of
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.tiles import tile_for, wanted
from netdsl.backends.cpu.views import Address, View, table
from netdsl.graph.ir import Node
from netdsl.ops.conv import Conv


def emit_depthwise(
    plan: Planner, node: Node, op: Conv, x: View, y: View, end: Epilogue, work: int, first: int = 0
) -> None:  # fmt: skip
    """The steps of a depthwise convolution for the channels of `y`, which are the node's from `first` on."""
    taps = taps_of(op)
    rows = tile_for(y.width, 1).rows
    key = (node.path, first, y.channels)  # other batch sizes may cut the channels in another way
    data = plan.bank.pack((*key, "depthwise"), lambda: _pack_depthwise(plan, node, y, first))
    bias = plan.bank.pack((*key, "bias"), lambda: bias_of(plan, node, y.channels, 1, first))
    lines = [h * x.row + taps.columns[0] * x.pixel for h in taps.rows]
    r = end.residual
    # rows of an image that a thread made by the convolution before are best read by the same thread
    bands = 1
    if plan.images % plan.threads:
        bands = plan.threads * math.ceil(wanted(plan.threads) / (plan.images * x.blocks * plan.threads))
        bands = max(1, min(bands, y.height // 8))
    plan.emit(
        Kernel("conv", "depthwise", (rows, op.stride[1] * WIDTH, op.kernel[1], op.dilation[1], end.function)), node,
        work * WIDTH // 4, x=Address(x), w=data, bias=bias, lines=table(lines), n_lines=len(lines),
        y=Address(y), r=Address(r) if r else 0, limits=end.limits, images=plan.images, blocks=y.blocks, bands=bands,
        height=y.height, width=y.width, x_image=x.image, x_plane=x.plane, x_row=op.stride[0] * x.row,
        **y.strides("y"), r_image=r.image if r else 0, r_plane=r.plane if r else 0, r_row=r.row if r else 0,
        r_pixel=r.pixel if r else 0,
    )  # fmt: skip


def _pack_depthwise(plan: Planner, node: Node, y: View, first: int) -> NDArray[np.float32]:
    """[C, 1, R, S] into [block][tap][lane], for the channels of `y`, the node's from `first` on."""
    weight = plan.bank.required(node, "weight")[first : first + y.channels]
    full = np.zeros((y.blocks * WIDTH, weight.shape[2] * weight.shape[3]), np.float32)
    full[: len(weight)] = weight.reshape(len(weight), -1)
    return full.reshape(y.blocks, WIDTH, -1).transpose(0, 2, 1)
