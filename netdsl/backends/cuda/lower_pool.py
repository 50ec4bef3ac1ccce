"""Lowering of pooling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cuda.planner import Planner
from netdsl.backends.cuda.steps import Geometry, Kernel, one_each, team
from netdsl.backends.cuda.views import Address, Argument, Data, table
from netdsl.ops.pool import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, LpPool, MaxPool, bins
from netdsl.plan.activations import elementwise
from netdsl.plan.windows import Ranges, clipped

MEAN_QUADS = 16  # chosen: of words, for each block of a mean over the map: 256 bytes of each pixel at once
MOST_SLICES = 32  # chosen: threads that share one sum of a mean over the map


def lower_maxpool(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, MaxPool)
    x = plan.views[node.inputs[0]]
    function, a = elementwise(node.fused[0]) if node.fused else (None, 0.0)
    arguments: dict[str, Argument] = {
        "a": a, "in_height": x.height, "in_width": x.width, "taps_h": op.kernel[0], "taps_w": op.kernel[1],
        "stride_h": op.stride[0], "stride_w": op.stride[1], "top": op.pad[0], "left": op.pad[1],
        "dilation_h": op.dilation[0], "dilation_w": op.dilation[1],
    }  # fmt: skip
    _emit(plan, index, Kernel("pool", "maxpool", (function,)), op.kernel[0] * op.kernel[1], arguments)


def lower_avgpool(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, AvgPool)
    kind = plan.graph.nodes[node.inputs[0]].type
    rows = clipped(op, 0, kind.height, node.type.height)
    columns = clipped(op, 1, kind.width, node.type.width)
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
    if node.op.size == (1, 1):
        _emit_mean(plan, index)
        return
    rows, columns = bins(x.height, node.op.size[0]), bins(x.width, node.op.size[1])
    counts = np.multiply.outer([b - a for a, b in rows], [b - a for a, b in columns])
    _emit_windows(plan, index, Kernel("pool", "avgpool"), rows, columns, 1.0 / counts)


def _emit_mean(plan: Planner, index: int) -> None:
    """The mean of a whole map: so few results that threads share each sum."""
    node = plan.graph.nodes[index]
    x, y = plan.views[node.inputs[0]], plan.output(index)
    slices = min(MOST_SLICES, team(x.height * x.width))
    blocks = -(-x.lanes // (plan.multiple * MEAN_QUADS))
    kernel = Kernel("pool", "mean", (MEAN_QUADS, slices)).between(x, y)
    plan.emit(
        kernel, Geometry((blocks, plan.images, 1), (MEAN_QUADS, slices, 1)), node,
        plan.images * x.channels * x.height * x.width, x=Address(x), y=Address(y), lanes=x.lanes, in_height=x.height,
        in_width=x.width, **x.strides("x"), y_image=y.image,
    )  # fmt: skip


def lower_adaptive_maxpool(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    assert isinstance(node.op, AdaptiveMaxPool)
    x = plan.views[node.inputs[0]]
    rows, columns = bins(x.height, node.op.size[0]), bins(x.width, node.op.size[1])
    _emit_windows(plan, index, Kernel("pool", "adaptive_maxpool"), rows, columns, None)


def _emit_windows(
    plan: Planner, index: int, kernel: Kernel, rows: Ranges, columns: Ranges, scale: NDArray[np.float64] | None
) -> None:
    arguments: dict[str, Argument] = {
        "h0": table([a for a, _ in rows]), "h1": table([b for _, b in rows]),
        "w0": table([a for a, _ in columns]), "w1": table([b for _, b in columns]),
    }  # fmt: skip
    if scale is not None:
        arguments["scale"] = Data(np.ascontiguousarray(scale, np.float32).reshape(-1))
    cells = max(b - a for a, b in rows) * max(b - a for a, b in columns)
    _emit(plan, index, kernel, cells, arguments)


def _emit(plan: Planner, index: int, kernel: Kernel, cells: int, more: dict[str, Argument]) -> None:
    node = plan.graph.nodes[index]
    x, y = plan.views[node.inputs[0]], plan.output(index)
    values = plan.images * y.height * y.width * y.lanes
    plan.emit(
        kernel.between(x, y), one_each(values // plan.multiple), node, values * cells, x=Address(x), y=Address(y),
        images=plan.images, lanes=y.lanes, height=y.height, width=y.width, **x.strides("x"), **y.strides("y"), **more,
    )  # fmt: skip
