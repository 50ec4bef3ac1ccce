"""Pooling: the largest, the mean or a norm of each window; windows of fixed size or as many as asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from netdsl.frozen import frozen
from netdsl.ops.base import (
    COUNT,
    FLAG,
    SIZE,
    ArgumentFault,
    Array,
    Kind,
    Layer,
    Op,
    Option,
    Pad4,
    Pair,
    ShapeFault,
    Window,
    Word,
)
from netdsl.ops.window import (
    DILATION,
    PADDING,
    checked,
    covered,
    need_map,
    pad_map,
    pad_text,
    positions,
    resolve_pad,
    size_text,
    taps,
    window_text,
)
from netdsl.tensor import TensorType


def _pooled(x: TensorType, word: str, kernel: Pair, stride: Pair, pad: Pad4, dilation: Pair, ceil: bool) -> TensorType:
    """The output type of pooling with a window of fixed size."""
    need_map(x, word)
    cover = covered(kernel, dilation)
    if max(pad[0], pad[2]) >= cover[0] or max(pad[1], pad[3]) >= cover[1]:
        raise ShapeFault(f"padding {pad_text(pad)} must be smaller than the {size_text(cover)} window that it serves")
    return checked("the output", x.channels, *positions(x, kernel, stride, pad, dilation, ceil))


def _covering(pad: Pad4, x: Array, kernel: Pair, stride: Pair, dilation: Pair, size: Pair) -> Pad4:
    """The padding with enough at the end for the last window: `ceil` lets it reach beyond the padding asked for."""
    cover = covered(kernel, dilation)
    ends = [(size[i] - 1) * stride[i] + cover[i] - x.shape[2 + i] - pad[i] for i in (0, 1)]
    return pad[0], pad[1], max(ends[0], 0), max(ends[1], 0)


@frozen
class MaxPool(Op):
    """The largest value of each window; padding never wins.

    `ceil` rounds the number of windows up, but drops a last window that would start in the padding at the end.
    A dilated window that steps over the whole map gives -inf. Source: the rule of PyTorch's MaxPool2d.
    """

    name: ClassVar[str] = "maxpool"
    kernel: Pair
    stride: Pair
    pad: Pad4 = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    ceil: bool = False

    def infer(self, *inputs: TensorType) -> TensorType:
        return _pooled(inputs[0], self.name, self.kernel, self.stride, self.pad, self.dilation, self.ceil)

    def window(self, *inputs: TensorType) -> Window:
        return Window(self.kernel, self.stride, self.dilation)

    def describe(self) -> str:
        return f"{self.name} {window_text(None, self.kernel, self.stride, self.dilation)}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        size = positions(TensorType(x.shape[1:]), self.kernel, self.stride, self.pad, self.dilation, self.ceil)
        pad = _covering(self.pad, x, self.kernel, self.stride, self.dilation, size)
        y = np.full((*x.shape[:2], *size), -np.inf, x.dtype)
        for _, _, values in taps(pad_map(x, pad, -np.inf), self.kernel, self.stride, self.dilation, size):
            y = np.maximum(y, values)
        return y


@frozen
class AvgPool(Op):
    """The mean of each window.

    With `count_pad` the padding counts as zeros (but never cells beyond the padding, which a `ceil` window may reach);
    without it the mean is over the cells of the map alone. Source: the rule of PyTorch's AvgPool2d.
    """

    name: ClassVar[str] = "avgpool"
    kernel: Pair
    stride: Pair
    pad: Pad4 = (0, 0, 0, 0)
    ceil: bool = False
    count_pad: bool = True

    def infer(self, *inputs: TensorType) -> TensorType:
        return _pooled(inputs[0], self.name, self.kernel, self.stride, self.pad, (1, 1), self.ceil)

    def window(self, *inputs: TensorType) -> Window:
        return Window(self.kernel, self.stride)

    def describe(self) -> str:
        return f"{self.name} {window_text(None, self.kernel, self.stride)}"

    def counts(self, x: TensorType) -> Array:
        """By how many cells each window's sum is divided, [P, Q] int64."""
        size = positions(x, self.kernel, self.stride, self.pad, ceil=self.ceil)
        along = []
        for i in (0, 1):
            start = np.arange(size[i]) * self.stride[i] - self.pad[i]
            end = np.minimum(start + self.kernel[i], x.shape[1 + i] + (self.pad[2 + i] if self.count_pad else 0))
            along.append(end - (start if self.count_pad else np.maximum(start, 0)))
        return np.multiply.outer(along[0], along[1])

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        counts = self.counts(TensorType(x.shape[1:]))
        size = counts.shape[0], counts.shape[1]
        pad = _covering(self.pad, x, self.kernel, self.stride, (1, 1), size)
        y = np.zeros((*x.shape[:2], *size), x.dtype)
        for _, _, values in taps(pad_map(x, pad), self.kernel, self.stride, (1, 1), size):
            y += values
        mean: Array = y / counts.astype(x.dtype)
        return mean


@frozen
class LpPool(Op):
    """The p-norm of each window: (sum of x^p)^(1/p), with norm = p.

    norm 1 is the sum, 2 the root of the sum of squares. Odd norms above 1 are meant for maps without negative values:
    a negative sum gives nan. A `ceil` window that reaches over the edge is scaled up to the cells of a whole one.
    Source: the rule of PyTorch's LPPool2d.
    """

    name: ClassVar[str] = "lppool"
    norm: int
    kernel: Pair
    stride: Pair
    ceil: bool = False

    def infer(self, *inputs: TensorType) -> TensorType:
        return _pooled(inputs[0], self.name, self.kernel, self.stride, (0, 0, 0, 0), (1, 1), self.ceil)

    def window(self, *inputs: TensorType) -> Window:
        return Window(self.kernel, self.stride)

    def describe(self) -> str:
        return f"{self.name} {self.norm} {window_text(None, self.kernel, self.stride)}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        powers: Array = inputs[0] ** self.norm
        mean = AvgPool(self.kernel, self.stride, ceil=self.ceil).reference({}, powers)
        with np.errstate(invalid="ignore"):
            root: Array = (mean * (self.kernel[0] * self.kernel[1])) ** (1 / self.norm)
        return root


def bins(length: int, count: int) -> list[tuple[int, int]]:
    """Start and end of each bin of adaptive pooling: floor(i length / count) to ceil((i + 1) length / count)."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


@frozen
class _Adaptive(Op):
    """Pooling into a given number of bins, which may overlap by a cell; 1x1 pools the whole map.

    Source: the rule of PyTorch's adaptive pooling.
    """

    size: Pair = (1, 1)

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_map(x, self.name)
        return checked("the output", x.channels, *self.size)

    def window(self, *inputs: TensorType) -> Window:
        """Bins start at floor(i l / n) and end at ceil((i + 1) l / n), for length / count = l / n in lowest terms."""
        shared = [math.gcd(length, count) for length, count in zip(inputs[0].shape[1:], self.size, strict=True)]
        lengths = inputs[0].height // shared[0], inputs[0].width // shared[1]
        counts = self.size[0] // shared[0], self.size[1] // shared[1]
        return Window((lengths[0] + counts[0] - 1, lengths[1] + counts[1] - 1), lengths, scale=counts)

    def describe(self) -> str:
        return f"{self.name} {'global' if self.size == (1, 1) else 'adaptive ' + size_text(self.size)}"

    def _pool(self, x: Array, reduce: Callable[..., Array]) -> Array:
        """Rows into bins, then columns: the same as both at once for a maximum or a mean."""
        rows = [reduce(x[:, :, a:b], axis=2) for a, b in bins(x.shape[2], self.size[0])]
        y = np.stack(rows, axis=2)
        return np.stack([reduce(y[:, :, :, a:b], axis=3) for a, b in bins(x.shape[3], self.size[1])], axis=3)


@frozen
class AdaptiveMaxPool(_Adaptive):
    """The largest value of each of size[0] x size[1] bins."""

    name: ClassVar[str] = "maxpool"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        return self._pool(inputs[0], np.max)


@frozen
class AdaptiveAvgPool(_Adaptive):
    """The mean of each of size[0] x size[1] bins."""

    name: ClassVar[str] = "avgpool"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        return self._pool(inputs[0], np.mean)


def _pool_window(value: Any) -> Pair | str:
    if isinstance(value, Word) and value in ("global", "adaptive"):
        return str(value)
    pair: Pair = SIZE.convert(value)
    return pair


POOLED = Option(
    "kernel",
    Kind("a size such as 3x3, or global, or adaptive with a size", _pool_window),
    doc="size of the window; global: the whole map; adaptive HxW: as many windows as give that size",
    required=True,
)
BINS = Option("size", SIZE, doc="after adaptive: the size of the output")
POOL_STRIDE = Option("stride", SIZE, doc="step from one window to the next; the size of the window unless given")
CEIL = Option("ceil", FLAG, False, "round the number of windows up instead of down")
COUNT_PAD = Option(
    "count_pad", FLAG, True, "let the padding count as zeros in the mean (TensorFlow's pooling does not)"
)


def _bins_asked(kernel: str, size: Pair | None, options: Mapping[Option, Any]) -> Pair:
    """The output size of `global` or `adaptive HxW`, which take no further option."""
    if kernel == "adaptive" and size is None:
        raise ArgumentFault("adaptive pooling needs the size of its output", "kernel", "write `adaptive 7x7`")
    if kernel == "global" and size is not None:
        raise ArgumentFault("global pooling gives 1x1 and takes no size", "size", "write `adaptive 7x7`")
    for option, value in options.items():
        if value != option.default:
            raise ArgumentFault(f"{option.name} means nothing in {kernel} pooling", option.name)
    return size or (1, 1)


def _no_bins(size: Pair | None) -> None:
    if size is not None:
        raise ArgumentFault("a second size belongs to adaptive pooling only", "size", "a step is written `stride=2`")


def _maxpool(x: TensorType, *, kernel: Pair | str, size: Pair | None, stride: Pair | None, pad: Pad4 | str,
             dilation: Pair, ceil: bool) -> Op:  # fmt: skip
    need_map(x, "maxpool")
    if isinstance(kernel, str):
        given = {POOL_STRIDE: stride, PADDING: pad, DILATION: dilation, CEIL: ceil}
        return AdaptiveMaxPool(_bins_asked(kernel, size, given))
    _no_bins(size)
    stride = stride or kernel
    return MaxPool(kernel, stride, resolve_pad(pad, x, kernel, stride, dilation), dilation, ceil)


def _avgpool(x: TensorType, *, kernel: Pair | str, size: Pair | None, stride: Pair | None, pad: Pad4 | str,
             ceil: bool, count_pad: bool) -> Op:  # fmt: skip
    need_map(x, "avgpool")
    if isinstance(kernel, str):
        given = {POOL_STRIDE: stride, PADDING: pad, CEIL: ceil, COUNT_PAD: count_pad}
        return AdaptiveAvgPool(_bins_asked(kernel, size, given))
    _no_bins(size)
    stride = stride or kernel
    return AvgPool(kernel, stride, resolve_pad(pad, x, kernel, stride), ceil, count_pad)


def _lppool(x: TensorType, *, norm: int, kernel: Pair, stride: Pair | None, ceil: bool) -> Op:
    return LpPool(norm, kernel, stride or kernel, ceil)


WORDS = (
    Layer(
        "maxpool", "The largest value of each window.",
        (POOLED, BINS), (POOL_STRIDE, PADDING, DILATION, CEIL),
        (("", _maxpool),), example="maxpool 3x3 stride=2 pad=1",
    ),
    Layer(
        "avgpool", "The mean of each window, of the whole map (`avgpool global`) or of bins (`avgpool adaptive 6x6`).",
        (POOLED, BINS), (POOL_STRIDE, PADDING, CEIL, COUNT_PAD),
        (("", _avgpool),), example="avgpool global",
    ),
    Layer(
        "lppool", "The p-norm of each window: the sum for 1, the root of the sum of squares for 2.",
        (Option("norm", COUNT, doc="p", required=True),
         Option("kernel", SIZE, doc="size of the window, height x width", required=True)), (POOL_STRIDE, CEIL),
        (("", _lppool),), example="lppool 2 2x2",
    ),
)  # fmt: skip
