"""Lowering of convolutions, transposed convolutions and dense layers: all are convolutions of some window.

Arguments of every convolution kernel, of which each takes those it names. Strides and places count elements of the
tensor's type in memory, but those of x words of 4 bytes where the kernel only copies chunks of it (`Choice.by_words`):

    x y r            images' first pixels: input, result, residual
    w bias           packed weights; a bias for each lane of the result
    low high a       limits of the result, parameter of the elementwise function
    images, in_height in_width channels (lanes of the input), height width features (lanes of the result), outputs (its
    true channels), group_channels group_features (of each group)
    taps_h taps_w stride_h stride_w top left dilation_h dilation_w
                     window cell (s, t) of output (p, q) is input pixel (p stride_h - top + s dilation_h, …)
    x_image x_row x_pixel …    strides of x, y and r
    scratch counters           floats of the arena, and int32 zeros, for a kernel whose blocks share a sum
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from netdsl.backends.cuda.epilogue import Epilogue, epilogue
from netdsl.backends.cuda.lower_winograd import emit_winograd
from netdsl.backends.cuda.planner import F32, Planner
from netdsl.backends.cuda.steps import Kernel, one_each
from netdsl.backends.cuda.tiles import MOST, ConvShape, choose
from netdsl.backends.cuda.views import Address, Argument, Counters, View, padded
from netdsl.backends.cuda.winograd import best_patches
from netdsl.graph.ir import Node
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.dense import Dense
from netdsl.plan.windows import deconv_phases

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Where a window's cells lie: cell (s, t) of output (p, q) at (p stride - top + s dilation, …)."""

    taps: Pair
    stride: Pair = (1, 1)
    top: int = 0
    left: int = 0
    dilation: Pair = (1, 1)

    @property
    def is_point(self) -> bool:
        """Whether each output sees the input pixel of its own place alone."""
        return self.taps == self.stride == (1, 1) and self.top == self.left == 0

    def arguments(self) -> dict[str, int]:
        return {
            "taps_h": self.taps[0], "taps_w": self.taps[1], "stride_h": self.stride[0], "stride_w": self.stride[1],
            "top": self.top, "left": self.left, "dilation_h": self.dilation[0], "dilation_w": self.dilation[1],
        }  # fmt: skip


def lower_conv(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Conv)
    window = Window(op.kernel, op.stride, op.pad[0], op.pad[1], op.dilation)
    x, y = plan.views[node.inputs[0]], plan.output(index)
    _emit(plan, node, lambda: plan.bank.required(node, "weight"), op.groups, window, x, y, epilogue(plan, node), "")


def lower_deconv(plan: Planner, index: int) -> None:
    """One convolution of stride 1 for each phase of the output (Xilinx onnx-mlir, "phased" transposed convolution)."""
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Deconv)
    x, y, end = plan.views[node.inputs[0]], plan.output(index), epilogue(plan, node)
    down, across = deconv_phases(op, 0, y.height), deconv_phases(op, 1, y.width)
    for a, (height, cells_h, offsets_h) in enumerate(down):
        for b, (width, cells_w, offsets_w) in enumerate(across):
            if height and width:
                (top, step_h), (left, step_w) = _line(offsets_h), _line(offsets_w)
                window = Window((len(cells_h), len(cells_w)), (1, 1), -top, -left, (step_h, step_w))
                cells = partial(_phase_weight, plan, node, op, cells_h, cells_w)
                place = partial(_every, stride=op.stride, a=a, b=b, height=height, width=width)
                moved = replace(end, residual=end.residual and place(end.residual))
                _emit(plan, node, cells, op.groups, window, x, place(y), moved, f"{a}.{b}")


def _line(offsets: list[int]) -> Pair:
    """First offset and step of offsets that lie equally far apart; (0, 1) of none."""
    first = offsets[0] if offsets else 0
    return first, offsets[1] - first if len(offsets) > 1 else 1


def _phase_weight(plan: Planner, node: Node, op: Deconv, cells_h: list[int], cells_w: list[int]) -> F32:
    """The cells of one phase, from [C, K / groups, R, S] to the order of a convolution, [K, C / groups, …]."""
    stored = plan.bank.required(node, "weight")
    c, k, g = len(stored), op.features, op.groups
    weight = stored.reshape(g, c // g, k // g, *op.kernel).swapaxes(1, 2).reshape(k, c // g, *op.kernel)
    return weight[:, :, cells_h][:, :, :, cells_w]


def _every(y: View, stride: Pair, a: int, b: int, height: int, width: int) -> View:
    """The pixels (a + i stride, b + j stride) of a map, as a map."""
    start = y.start + a * y.row + b * y.pixel
    return replace(y, start=start, height=height, width=width, row=stride[0] * y.row, pixel=stride[1] * y.pixel)


def lower_dense(plan: Planner, index: int) -> None:
    """A convolution whose window is the whole map that was flattened, or of a vector its one pixel."""
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Dense)
    x = plan.flat_maps.get(node.inputs[0], plan.views[node.inputs[0]])
    shape = op.features, x.channels, x.height, x.width
    weight = partial(_dense_weight, plan, node, shape)
    _emit(plan, node, weight, 1, Window((x.height, x.width)), x, plan.output(index), epilogue(plan, node), "")


def _dense_weight(plan: Planner, node: Node, shape: tuple[int, ...]) -> F32:
    return plan.bank.required(node, "weight").reshape(shape)


def _emit(
    plan: Planner, node: Node, weight: Callable[[], F32], groups: int, window: Window, x: View, y: View, end: Epilogue,
    part: str,
) -> None:  # fmt: skip
    """Emit a convolution. weight: makes [K, C / groups, R, S]; part: names the phase of a transposed convolution."""
    arguments: dict[str, Argument] = {
        "x": Address(x), "y": Address(y), "images": plan.images, "in_height": x.height, "in_width": x.width,
        "channels": x.lanes, "height": y.height, "width": y.width, "features": y.lanes, "outputs": y.channels,
        "group_channels": x.channels // groups, "group_features": y.channels // groups,
        **window.arguments(), **x.strides("x"), **y.strides("y"), **end.arguments(),
    }  # fmt: skip
    values = plan.images * y.height * y.width
    work = values * y.channels * (x.channels // groups) * window.taps[0] * window.taps[1]
    flat = window.is_point and all(v.flat for v in (x, y, end.residual) if v)
    shape = ConvShape(
        plan.images, y.height, y.width, x.channels, y.channels, window.taps, window.stride,
        end.residual is not None, end.function, plan.precision, flat, groups, window.dilation, y.dtype,
    )  # fmt: skip
    countable = max(v.image for v in (x, y, end.residual) if v) <= MOST  # within an image
    cut = best_patches(shape, plan.target) if countable and not plan.exact else None
    if cut:
        emit_winograd(plan, node, weight, cut, window.top, window.left, x, y, end, work, part)
        return
    choice = choose(shape, plan.target) if window.taps[0] * window.taps[1] else None
    bias = plan.channels(node, "bias", lambda: plan.bank.value(node, "bias"))
    if choice is None:
        packed = plan.bank.pack((node.path, part, "direct"), lambda: _pack_direct(weight(), y.lanes))
        kernel = Kernel("conv", "direct", (end.function, end.residual is not None)).between(x, y)
        plan.emit(kernel, one_each(values * y.lanes), node, work, w=packed, bias=bias, **arguments)
        return
    if choice.by_words:
        arguments |= {"x": Address(x.words), **x.words.strides("x")}
    pack = choice.pack
    packed = plan.bank.pack((node.path, part, choice.pack_key), lambda: pack(weight().transpose(0, 2, 3, 1)))
    arguments["scratch"] = Address(plan.scratch(padded(choice.scratch))) if choice.scratch else 0
    arguments["counters"] = Counters(choice.counters)
    plan.emit(choice.kernel, choice.geometry, node, work, w=packed, bias=bias, **{**arguments, **choice.arguments})


def _pack_direct(weight: F32, lanes: int) -> F32:
    """[K, C / groups, R, S] to [R, S, C / groups, lanes]."""
    out = np.zeros((*weight.shape[2:], weight.shape[1], lanes), np.float32)
    out[..., : len(weight)] = weight.transpose(2, 3, 1, 0)
    return out
