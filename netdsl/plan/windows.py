"""Windows as tables of cells: which cells of the input each cell of the result meets, along one axis at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netdsl.ops.deconv import Deconv
from netdsl.ops.pool import AvgPool

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
