"""Fixed 2-D filters: the photo filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from netdsl.frozen import frozen
from netdsl.ops.base import FLAG, POSITIVE, ArgumentFault, Array, Kind, Layer, Op, Option, Pad4, Pair, Window
from netdsl.ops.conv import correlate
from netdsl.ops.window import (
    DILATION,
    PADDING,
    STRIDE,
    checked,
    need_map,
    pad_map,
    positions,
    resolve_pad,
    window_text,
)
from netdsl.tensor import TensorType

Matrix = tuple[tuple[float, ...], ...]


@frozen
class Filter(Op):
    """One fixed 2-D kernel applied to every channel on its own.

    Cross-correlation, as a convolution layer computes it; with `flip` the kernel is turned by 180 degrees first, which
    makes it the mathematical convolution. Nothing is stored: the kernel is part of the network's text.
    """

    name: ClassVar[str] = "kernel"
    kernel: Matrix
    stride: Pair = (1, 1)
    pad: Pad4 = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    flip: bool = False

    @property
    def size(self) -> Pair:
        """Height and width of the kernel."""
        return len(self.kernel), len(self.kernel[0])

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_map(x, self.name)
        checked("the weight", x.channels, 1, *self.size)
        return checked("the output", x.channels, *positions(x, self.size, self.stride, self.pad, self.dilation))

    def macs(self, *inputs: TensorType) -> int:
        return self.infer(*inputs).elements * self.size[0] * self.size[1]

    def window(self, *inputs: TensorType) -> Window:
        return Window(self.size, self.stride, self.dilation)

    def describe(self) -> str:
        return f"{self.name} {window_text(None, self.size, self.stride, self.dilation)}"

    def weight(self, channels: int) -> Array:
        """The kernel as the weight [C, 1, R, S] of a depthwise convolution, float64, turned when `flip` says so."""
        kernel = np.asarray(self.kernel, np.float64)
        kernel = kernel[::-1, ::-1] if self.flip else kernel
        return np.tile(kernel, (channels, 1, 1, 1))

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        size = positions(TensorType(x.shape[1:]), self.size, self.stride, self.pad, self.dilation)
        channels = x.shape[1]
        return correlate(pad_map(x, self.pad), self.weight(channels), self.stride, self.dilation, channels, size)


def _matrix(value: Any) -> Matrix:
    if not isinstance(value, tuple) or not value or not all(isinstance(row, tuple) and row for row in value):
        raise ValueError
    cells = [cell for row in value for cell in row]
    if len({len(row) for row in value}) != 1 or any(
        isinstance(c, bool) or not isinstance(c, (int, float)) for c in cells
    ):
        raise ValueError
    if not np.isfinite(np.asarray(cells, np.float64)).all():
        raise ValueError
    return tuple(tuple(float(cell) for cell in row) for row in value)


def _filter(x: TensorType, *, kernel: Matrix, divide: float, stride: Pair, pad: Pad4 | str, dilation: Pair,
            flip: bool) -> Op:  # fmt: skip
    need_map(x, "kernel")
    size = len(kernel), len(kernel[0])
    values = tuple(tuple(cell / divide for cell in row) for row in kernel)
    if not np.isfinite(values).all():
        raise ArgumentFault(f"divide={divide:g} makes the values too large", "divide")
    return Filter(values, stride, resolve_pad(pad, x, size, stride, dilation), dilation, flip)


WORDS = (
    Layer(
        "kernel", "A fixed filter, applied to each channel on its own.",
        (Option("kernel", Kind("a matrix of numbers such as [[0,1],[1,0]], its rows of one length", _matrix),
                doc="the values, row by row", required=True),),
        (Option("divide", POSITIVE, 1.0, "every value is divided by this"), STRIDE, PADDING, DILATION,
         Option("flip", FLAG, False, "turn the kernel by 180 degrees: the mathematical convolution")),
        (("", _filter),), example="kernel [[1,2,1],[2,4,2],[1,2,1]] divide=16 pad=1",
    ),
)  # fmt: skip
