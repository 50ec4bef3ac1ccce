"""Windows as tables of cells: which cells of the input each cell of the result meets, along one axis at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.pool import AvgPool
from netdsl.tensor import TensorType

Ranges = list[tuple[int, int]]  # first row (or column) of each window, and the one after its last


def clipped(op: AvgPool, axis: int, length: int, count: int) -> Ranges:
    """The cells of each of `count` windows that lie within a map of `length`."""
    starts = [i * op.stride[axis] - op.pad[axis] for i in range(count)]
    return [(min(max(0, s), length), max(0, min(length, s + op.kernel[axis]))) for s in starts]


def padded(length: int, before: int, after: int, mode: str) -> NDArray[np.int64]:
    """Source of each cell along a padded axis, -1 for cells filled with a value. `mode` as in the layer `pad`."""
    cells = np.arange(-before, length + after)
    if mode == "edge":
        return np.clip(cells, 0, length - 1)
    if mode == "reflect":
        return np.where(cells < 0, -cells, np.where(cells >= length, 2 * (length - 1) - cells, cells))
    return np.where((cells < 0) | (cells >= length), -1, cells)


def deconv_phases(op: Deconv, axis: int, out: int) -> list[tuple[int, list[int], list[int]]]:
    """A transposed convolution along one axis as `stride` convolutions of stride 1 (Xilinx onnx-mlir, "phased").

    For each phase a (outputs a, a + stride, …): how many outputs, which kernel cells r meet them, and at which input
    cell relative to the output's number: the r with (a + pad - r dilation) divisible by the stride. Cells are listed so
    that those input cells rise; they lie equally far apart.
    """
    stride, dilation, pad = op.stride[axis], op.dilation[axis], op.pad[axis]
    phases = []
    for a in range(stride):
        cells = [r for r in reversed(range(op.kernel[axis])) if (a + pad - r * dilation) % stride == 0]
        offsets = [(a + pad - r * dilation) // stride for r in cells]
        phases.append((len(range(a, out, stride)), cells, offsets))
    return phases


def deconv_convs(op: Deconv, x: TensorType) -> dict[tuple[int, int], Conv]:
    """Each phase (a, b) of a transposed convolution as a convolution of stride 1, with a padding of its own.

    Empty where phases have kernels of several sizes, or one has no outputs, or where they are no plain convolutions
    (groups, dilation, cells that are cut away).
    """
    y = op.infer(x)
    uneven = any(r % s or n < s for r, s, n in zip(op.kernel, op.stride, (y.height, y.width), strict=True))
    if uneven or op.groups > 1 or op.dilation != (1, 1):
        return {}
    sides = []
    for axis in (0, 1):
        length = x.shape[1 + axis]
        phases = deconv_phases(op, axis, y.shape[1 + axis])
        sides.append([(len(cells), -offsets[0], count + offsets[-1] - length) for count, cells, offsets in phases])
    convs = {
        (a, b): Conv(op.features, (r, s), pad=(top, left, bottom, right))
        for a, (r, top, bottom) in enumerate(sides[0])
        for b, (s, left, right) in enumerate(sides[1])
    }
    return convs if all(min(conv.pad) >= 0 for conv in convs.values()) else {}
