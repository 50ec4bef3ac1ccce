"""Convolution in all its forms: ordinary, 1x1, grouped, dilated, depthwise and separable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from netdsl.frozen import frozen
from netdsl.ops.base import COUNT, Array, Layer, Op, Option, Pad4, Pair, Param, Window
from netdsl.ops.window import (
    BIAS,
    DILATION,
    FEATURES,
    GROUPS,
    KERNEL,
    PADDING,
    STRIDE,
    checked,
    need_divisor,
    need_map,
    pad_map,
    positions,
    resolve_pad,
    taps,
    window_text,
)
from netdsl.tensor import TensorType


@frozen
class Conv(Op):
    """2-D convolution as networks use it (cross-correlation: the kernel is not flipped).

    y[n,k,p,q] = bias[k] + sum over c,r,s of x[n, c, p stride + r dilation - pad, …] weight[k,c,r,s]

    weight [features, C / groups, R, S]; bias [features]. Output channel k sees the input channels of its own group.
    Source: the rule of PyTorch's Conv2d.
    """

    name: ClassVar[str] = "conv"
    features: int
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pad4 = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True

    def is_depthwise(self, channels: int) -> bool:
        """Whether each of so many input channels has a filter of its own and gives one output."""
        return 1 < self.groups == channels == self.features

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_map(x, self.name)
        need_divisor(self.groups, x.channels, "input channels")
        need_divisor(self.groups, self.features, "output channels")
        size = positions(x, self.kernel, self.stride, self.pad, self.dilation)
        checked("the weight", self.features, x.channels // self.groups, *self.kernel)
        return checked("the output", self.features, *size)

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        weight = {"weight": Param((self.features, inputs[0].channels // self.groups, *self.kernel))}
        return weight | ({"bias": Param((self.features,))} if self.bias else {})

    def macs(self, *inputs: TensorType) -> int:
        window = inputs[0].channels // self.groups * self.kernel[0] * self.kernel[1]
        return self.infer(*inputs).elements * window

    def window(self, *inputs: TensorType) -> Window:
        return Window(self.kernel, self.stride, self.dilation)

    def describe(self) -> str:
        return f"{self.name} {window_text(self.features, self.kernel, self.stride, self.dilation, self.groups)}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        size = positions(TensorType(x.shape[1:]), self.kernel, self.stride, self.pad, self.dilation)
        y = correlate(pad_map(x, self.pad), params["weight"], self.stride, self.dilation, self.groups, size)
        return y + params["bias"].reshape(-1, 1, 1) if self.bias else y


def correlate(x: Array, weight: Array, stride: Pair, dilation: Pair, groups: int, size: Pair) -> Array:
    """Slide weight [K, C / groups, R, S] over the padded x [N, C, …] to get [N, K, P, Q].

    The steps "take a slice, multiply, add over the channels, step right, step down" with the loops exchanged: for one
    cell (r, s) of the window at a time, all slices are multiplied by that cell's weights and added over the channels.
    """
    n, c = x.shape[:2]
    k = len(weight)
    y = np.zeros((n, groups, k // groups, size[0] * size[1]), x.dtype)
    cells = weight.astype(x.dtype, copy=False).reshape(groups, k // groups, c // groups, *weight.shape[2:])
    for r, s, values in taps(x, (weight.shape[2], weight.shape[3]), stride, dilation, size):
        y += cells[..., r, s] @ values.reshape(n, groups, c // groups, size[0] * size[1])
    return y.reshape(n, k, *size)


def _conv(x: TensorType, *, features: int, kernel: Pair, stride: Pair, pad: Pad4 | str, dilation: Pair,
          groups: int, bias: bool) -> Op:  # fmt: skip
    need_map(x, "conv")
    return Conv(features, kernel, stride, resolve_pad(pad, x, kernel, stride, dilation), dilation, groups, bias)


def _pointwise(x: TensorType, *, features: int, stride: Pair, groups: int, bias: bool) -> Op:
    need_map(x, "1x1")
    return Conv(features, (1, 1), stride, groups=groups, bias=bias)


def _depthwise(x: TensorType, *, kernel: Pair, multiplier: int, stride: Pair, pad: Pad4 | str, dilation: Pair,
               bias: bool, **_: Any) -> Op:  # fmt: skip
    need_map(x, "depthwise")
    cells = resolve_pad(pad, x, kernel, stride, dilation)
    return Conv(x.channels * multiplier, kernel, stride, cells, dilation, x.channels, bias)


def _separable_pointwise(x: TensorType, *, features: int, bias: bool, **_: Any) -> Op:
    return Conv(features, (1, 1), bias=bias)


MULTIPLIER = Option("multiplier", COUNT, 1, "output channels made from each input channel")

WORDS = (
    Layer(
        "conv", "Convolution: a window of all channels slides over the map, once for each output channel.",
        (FEATURES, KERNEL), (STRIDE, PADDING, DILATION, GROUPS, BIAS),
        (("", _conv),), example="conv 64 7x7 stride=2 pad=3 bias=no",
    ),
    Layer(
        "1x1", "Convolution with a 1x1 window: mixes the channels of each position.",
        (FEATURES,), (STRIDE, GROUPS, BIAS),
        (("", _pointwise),), aliases=("pointwise",), example="1x1 64",
    ),
    Layer(
        "depthwise", "Depthwise convolution: each channel has its own window and sees no other channel.",
        (KERNEL,), (MULTIPLIER, STRIDE, PADDING, DILATION, BIAS),
        (("", _depthwise),), example="depthwise 3x3 pad=1",
    ),
    Layer(
        "sepconv", "Separable convolution: a depthwise convolution, then a 1x1 convolution.",
        (FEATURES, KERNEL), (MULTIPLIER, STRIDE, PADDING, DILATION, BIAS),
        (("depthwise", _depthwise), ("pointwise", _separable_pointwise)), example="sepconv 64 3x3 pad=1",
    ),
)  # fmt: skip
