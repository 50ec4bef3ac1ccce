"""Lowering to the kernels over planar maps: moves of rows, and convolutions from planes to planes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.epilogue import Epilogue
from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.planner import Planner
from netdsl.backends.cpu.target import WIDTH, host
from netdsl.backends.cpu.tiles import wanted
from netdsl.backends.cpu.views import Address, Port, View, floats, table
from netdsl.graph.ir import Node
from netdsl.ops.conv import Conv

Indices = NDArray[np.int64]


def tight(node: Node) -> View:
    """The place of a map within a caller's NCHW array."""
    channels, height, width = node.type.shape
    return View(0, 0, channels, height, width, 1, 4 * node.type.elements, 4 * height * width, 4 * width)


def move_rows(
    plan: Planner, node: Node, x_place: Address | Port, x: View, y_place: Address | Port, y: View, rows: Indices,
    columns: Indices, start: int = 0, fill: float = 0.0,
) -> None:  # fmt: skip
    """y[c, p, q] = x[c, rows[p], columns[q]], -1 for `fill`; from `start` on, columns follow each other for a while."""
    follow = [q for q in range(start + 1, len(columns)) if columns[q] != columns[q - 1] + 1]
    stop = min([*follow, len(columns)])
    plan.emit(
        Kernel("planes", "rows"), node, 16 * x.channels * len(rows) * len(columns) * plan.images,
        x=x_place, y=y_place, row=table(rows), column=table([*columns, 0]), fill=floats(fill), start=start, stop=stop,
        images=plan.images, planes=x.channels, height=len(rows), width=len(columns),
        x_image=x.image, x_plane=x.plane, x_row=x.row, y_image=y.image, y_plane=y.plane, y_row=y.row,
    )  # fmt: skip


def emit_conv_planes(plan: Planner, node: Node, op: Conv, x: View, y: View, end: Epilogue, work: int) -> None:
    """A convolution whose input and output are planar, of stride 1 along rows."""
    outputs, per_group = op.features // op.groups, x.channels // op.groups
    vectors = _vectors(outputs, y.width)
    touch = op.dilation[1] == 1
    columns = range(1 if touch else op.kernel[1])
    taps = [
        c * x.plane + (r * op.dilation[0] - op.pad[0]) * x.row + 4 * (s * op.dilation[1] - op.pad[1])
        for c in range(per_group) for r in range(op.kernel[0]) for s in columns
    ]  # fmt: skip
    data = plan.bank.pack((node.path, "planes"), lambda: _pack(plan, node, op.groups))
    bias = plan.bank.pack((node.path, "bias", 0), lambda: _bias(plan, node, op.features))
    bands = min(y.height, max(1, math.ceil(wanted(plan.threads) / (plan.images * op.groups))))
    r = end.residual
    plan.emit(
        Kernel("planes", "conv_planes", (outputs, vectors, end.function)), node, 4 * work,
        x=Address(x), w=data, bias=bias, taps=table(taps), n_taps=len(taps), run=op.kernel[1] if touch else 1,
        x_group=per_group * x.plane, y=Address(y), r=Address(r) if r else 0, limits=end.limits, images=plan.images,
        groups=op.groups, bands=bands, height=y.height, width=y.width, x_image=x.image, x_row=op.stride[0] * x.row,
        y_image=y.image, y_plane=y.plane, y_row=y.row,
        r_image=r.image if r else 0, r_plane=r.plane if r else 0, r_row=r.row if r else 0,
    )  # fmt: skip


def _vectors(outputs: int, width: int) -> int:
    """Vectors of a row that go together: as the registers and the row allow, in few variants."""
    most = max(1, (host().registers - 4) // (outputs + 1))
    return next(n for n in (8, 4, 2, 1) if n == 1 or (n <= most and (n - 1) * WIDTH < width))


def _pack(plan: Planner, node: Node, groups: int) -> NDArray[np.float32]:
    """[K, C / groups, R, S] into [group][C / groups][R][S][K / groups]."""
    weight = plan.bank.required(node, "weight")
    k, per_group, height, width = weight.shape
    return weight.reshape(groups, k // groups, per_group, height, width).transpose(0, 2, 3, 4, 1)


def _bias(plan: Planner, node: Node, features: int) -> NDArray[np.float32]:
    values = plan.bank.value(node, "bias")
    return np.zeros(features, np.float32) if values is None else values
