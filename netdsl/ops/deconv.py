"""Transposed convolution ("deconvolution")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from netdsl.frozen import frozen
from netdsl.ops.base import PAD, SIZE0, ArgumentFault, Array, Layer, Op, Option, Pad4, Pair, Param, ShapeFault, Window
from netdsl.ops.conv import correlate
from netdsl.ops.window import (
    BIAS,
    DILATION,
    FEATURES,
    GROUPS,
    KERNEL,
    STRIDE,
    checked,
    covered,
    need_divisor,
    need_map,
    pad_map,
    pad_text,
    size_text,
    split_pad,
    window_text,
)
from netdsl.tensor import TensorType


@frozen
class Deconv(Op):
    """Transposed 2-D convolution: each input value stamps the kernel onto the output, `stride` cells apart.

    Put stride - 1 zeros between the values of the map, then convolve with the flipped kernel. Output size:
    (H - 1) stride - top - bottom + dilation (R - 1) + 1 + output_pad.

    weight [C, features / groups, R, S]; bias [features]. `pad` is cut from the output, `output_pad` rows and columns
    are added at its end. MACs count one window for each input position. Source: the rule of PyTorch's ConvTranspose2d.
    """

    name: ClassVar[str] = "deconv"
    features: int
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pad4 = (0, 0, 0, 0)
    output_pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_map(x, self.name)
        need_divisor(self.groups, x.channels, "input channels")
        need_divisor(self.groups, self.features, "output channels")
        for extra, stride, dilation in zip(self.output_pad, self.stride, self.dilation, strict=True):
            if extra and extra >= max(stride, dilation):
                raise ShapeFault(f"output_pad={extra} must be smaller than the stride {stride} or dilation {dilation}")
        checked("the weight", x.channels, self.features // self.groups, *self.kernel)
        checked("the stretched map", x.channels, *self._stretched(x))
        return checked("the output", self.features, *self._size(x))

    def _stretched(self, x: TensorType) -> Pair:
        """Size with the zeros put in."""
        return (x.height - 1) * self.stride[0] + 1, (x.width - 1) * self.stride[1] + 1

    def _size(self, x: TensorType) -> Pair:
        cover, stretched, pad = covered(self.kernel, self.dilation), self._stretched(x), self.pad
        size = [stretched[i] - 1 + cover[i] - pad[i] - pad[2 + i] + self.output_pad[i] for i in (0, 1)]
        if min(size) < 1:
            whole = size_text((stretched[0] - 1 + cover[0], stretched[1] - 1 + cover[1]))
            raise ShapeFault(f"padding {pad_text(pad)} cuts everything away from the {whole} result")
        return size[0], size[1]

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        weight = {"weight": Param((inputs[0].channels, self.features // self.groups, *self.kernel))}
        return weight | ({"bias": Param((self.features,))} if self.bias else {})

    def macs(self, *inputs: TensorType) -> int:
        return inputs[0].elements * (self.features // self.groups) * self.kernel[0] * self.kernel[1]

    def window(self, *inputs: TensorType) -> Window:
        return Window(self.kernel, dilation=self.dilation, scale=self.stride)

    def describe(self) -> str:
        return f"{self.name} {window_text(self.features, self.kernel, self.stride, self.dilation, self.groups)}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        kind = TensorType(x.shape[1:])
        stretched = np.zeros((*x.shape[:2], *self._stretched(kind)), x.dtype)
        stretched[:, :, :: self.stride[0], :: self.stride[1]] = x
        cover = covered(self.kernel, self.dilation)
        around = pad_map(stretched, (cover[0] - 1, cover[1] - 1, cover[0] - 1 + self.output_pad[0],
                                     cover[1] - 1 + self.output_pad[1]))  # fmt: skip
        size = self._size(kind)
        cut = around[:, :, self.pad[0] :, self.pad[1] :]
        y = correlate(cut, self._as_convolution(params["weight"]), (1, 1), self.dilation, self.groups, size)
        return y + params["bias"].reshape(-1, 1, 1) if self.bias else y

    def _as_convolution(self, weight: Array) -> Array:
        """[C, K / groups, R, S] flipped and turned into the weight [K, C / groups, R, S] of a convolution."""
        c, k, r, s = weight.shape
        flipped = weight[:, :, ::-1, ::-1].reshape(self.groups, c // self.groups, k, r, s)
        return flipped.swapaxes(1, 2).reshape(self.groups * k, c // self.groups, r, s)


def _deconv(x: TensorType, *, features: int, kernel: Pair, stride: Pair, pad: Pad4 | str, output_pad: Pair,
            dilation: Pair, groups: int, bias: bool) -> Op:  # fmt: skip
    need_map(x, "deconv")
    if isinstance(pad, str):
        if any(output_pad):
            raise ArgumentFault(f"output_pad cannot be combined with pad={pad}", "output_pad")
        cover = covered(kernel, dilation)
        # TensorFlow's rule: output = input x stride; a window narrower than its step leaves cells at the end.
        pad = split_pad(max(cover[0] - stride[0], 0), max(cover[1] - stride[1], 0), pad)
        output_pad = max(stride[0] - cover[0], 0), max(stride[1] - cover[1], 0)
    return Deconv(features, kernel, stride, pad, output_pad, dilation, groups, bias)


CUT = Option("pad", PAD, (0, 0, 0, 0), "cells cut from each side of the output; same: output = input x stride")
OUTPUT_PAD = Option("output_pad", SIZE0, (0, 0), "rows and columns added at the end of the output")

WORDS = (
    Layer(
        "deconv", "Transposed convolution: enlarges the map by its stride.",
        (FEATURES, KERNEL), (STRIDE, CUT, OUTPUT_PAD, DILATION, GROUPS, BIAS),
        (("", _deconv),), example="deconv 8 4x4 stride=2 pad=1",
    ),
)  # fmt: skip
