"""Lowering of pooling."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.planner import Planner
from netdsl.backends.cpu.tiles import wanted
from netdsl.backends.cpu.views import Address, Data, View, floats, table
from netdsl.ops.pool import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, LpPool, MaxPool, bins
from netdsl.plan.activations import elementwise
from netdsl.plan.windows import Ranges, clipped


def lower_maxpool(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, MaxPool)
    x = plan.views[node.inputs[0]]
    work = node.type.elements * plan.images * op.kernel[0] * op.kernel[1]
    y = plan.output(index, work)
    function, parameter = elementwise(node.fused[0]) if node.fused else (None, 0.0)
    if y.block == 1:
        plan.emit(
            Kernel("planes", "maxpool_planes", (*op.kernel, function)), node, work, x=Address(x), y=Address(y),
            parameter=floats(parameter), images=plan.images, planes=y.channels, height=y.height, width=y.width,
            x_image=x.image, x_plane=x.plane, x_row=x.row, y_image=y.image, y_plane=y.plane, y_row=y.row,
            stride=op.stride[0],
        )  # fmt: skip
        return
    inner0 = min(y.width, math.ceil(op.pad[1] / op.stride[1]))
    reach = (op.kernel[1] - 1) * op.dilation[1] + 1
    inner1 = max(inner0, min(y.width, (x.width + op.pad[1] - reach) // op.stride[1] + 1))
    plan.emit(
        Kernel("pool", "maxpool", (*op.kernel, function)), node, work, x=Address(x), y=Address(y),
        parameter=floats(parameter), images=plan.images, blocks=y.blocks, bands=min(y.height, wanted(plan.threads)),
        height=y.height, width=y.width, inner0=inner0, inner1=inner1, in_height=x.height, in_width=x.width,
        stride_h=op.stride[0], stride_w=op.stride[1], top=op.pad[0], left=op.pad[1], dilation_h=op.dilation[0],
        dilation_w=op.dilation[1], **x.strides("x"), **y.strides("y"),
    )  # fmt: skip


def lower_avgpool(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, AvgPool)
    kind = plan.graph.nodes[node.inputs[0]].type
    size = node.type.height, node.type.width
    rows, columns = clipped(op, 0, kind.height, size[0]), clipped(op, 1, kind.width, size[1])
    _emit_windows(plan, index, Kernel("pool", "avgpool"), rows, columns, 1.0 / op.counts(kind))


def lower_lppool(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, LpPool)
    kind = plan.graph.nodes[node.inputs[0]].type
    mean = AvgPool(op.kernel, op.stride, ceil=op.ceil)
    rows = clipped(mean, 0, kind.height, node.type.height)
    columns = clipped(mean, 1, kind.width, node.type.width)
    scale = op.kernel[0] * op.kernel[1] / mean.counts(kind)
    _emit_windows(plan, index, Kernel("pool", "lppool", (op.norm,)), rows, columns, scale)


def lower_adaptive_avgpool(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    assert isinstance(node.op, AdaptiveAvgPool)
    x = plan.views[node.inputs[0]]
    rows, columns = bins(x.height, node.op.size[0]), bins(x.width, node.op.size[1])
    counts = np.multiply.outer([b - a for a, b in rows], [b - a for a, b in columns])
    _emit_windows(plan, index, Kernel("pool", "avgpool"), rows, columns, 1.0 / counts)


def lower_adaptive_maxpool(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    assert isinstance(node.op, AdaptiveMaxPool)
    x = plan.views[node.inputs[0]]
    rows, columns = bins(x.height, node.op.size[0]), bins(x.width, node.op.size[1])
    _emit_windows(plan, index, Kernel("pool", "adaptive_maxpool"), rows, columns, None)


def _emit_windows(
    plan: Planner, index: int, kernel: Kernel, rows: Ranges, columns: Ranges, scale: NDArray[np.float64] | None
) -> None:
    node = plan.graph.nodes[index]
    x: View = plan.views[node.inputs[0]]
    work = x.channels * plan.images * sum(b - a for a, b in rows) * sum(d - c for c, d in columns)
    y = plan.output(index, work)
    factors = {} if scale is None else {"scale": Data(np.ascontiguousarray(scale, np.float32))}
    plan.emit(
        kernel, node, work, x=Address(x), y=Address(y),
        h0=table([a for a, _ in rows]), h1=table([b for _, b in rows]),
        w0=table([a for a, _ in columns]), w1=table([b for _, b in columns]), **factors,
        images=plan.images, blocks=y.blocks, height=y.height, width=y.width, **x.strides("x"), **y.strides("y"),
    )  # fmt: skip
