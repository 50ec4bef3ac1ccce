"""What linear layers become when they are put together: windows along an axis, and arithmetic on kernels.

A convolution along one axis meets input cell i stride + r dilation - before for output cell i and kernel cell r; cells
outside the map count as zero. Kernels are [K, C / groups, R, S]; sums are made in float64 and rounded once.
"""

from __future__ import annotations

import numpy as np

from netdsl.frozen import frozen
from netdsl.ops.base import Array
from netdsl.ops.conv import Conv
from netdsl.tensor import TensorType


@frozen
class Axis:
    """A convolution along one axis; `before` and `after` are its padding."""

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def reach(self) -> int:
        """Cells from the first tap of a window to its last."""
        return self.dilation * (self.kernel - 1)

    @property
    def step(self) -> int:
        """The dilation where it means something, else 0."""
        return self.dilation if self.kernel > 1 else 0

    @property
    def taps(self) -> range:
        """The cells of a window, from its first."""
        return range(0, self.reach + 1, self.dilation)

    def positions(self, length: int) -> int:
        """Windows that fit into a map of `length`."""
        return (length + self.before + self.after - self.reach - 1) // self.stride + 1

    def cells(self, i: int) -> range:
        """The cells that window i meets."""
        return range(first := i * self.stride - self.before, first + self.reach + 1, self.dilation)

    def outside(self, length: int) -> set[int]:
        """The cells of the padding that windows meet."""
        return {j for i in range(self.positions(length)) for j in self.cells(i) if not 0 <= j < length}


def axes(op: Conv) -> tuple[Axis, Axis]:
    """A convolution down and across."""
    down, across = (Axis(op.kernel[i], op.stride[i], op.dilation[i], op.pad[i], op.pad[2 + i]) for i in (0, 1))
    return down, across


def conv_of(down: Axis, across: Axis, features: int, groups: int) -> Conv:
    """The inverse of `axes`, without a bias."""
    return Conv(
        features, (down.kernel, across.kernel), (down.stride, across.stride),
        (down.before, across.before, down.after, across.after), (down.dilation, across.dilation), groups, bias=False,
    )  # fmt: skip


def reads_padding(op: Conv, x: TensorType) -> bool:
    """Whether any window meets a cell of the padding."""
    return any(axis.outside(length) for axis, length in zip(axes(op), x.shape[1:], strict=True))


# Kernels.


def by_groups(weight: Array, groups: int, into: int) -> Array:
    """[K, C / groups, R, S] as [into, K / into, C / into, R, S] in float64; `into` divides `groups`.

    Channels of different groups that are now of one meet zeros.
    """
    k, c, *window = weight.shape
    inner = groups // into
    parts = weight.astype(np.float64).reshape(into, inner, k // groups, c, *window)
    if inner == 1:
        return parts[:, 0]
    spread = np.zeros((into, inner, k // groups, inner, c, *window))
    for i in range(inner):
        spread[:, i, :, i] = parts[:, i]
    return spread.reshape(into, k // into, inner * c, *window)


def placed(parts: Array, size: tuple[int, int], start: tuple[int, int], step: tuple[int, int]) -> Array:
    """Kernels [..., R, S] within larger ones of zeros: cell (r, s) at start + (r, s) step."""
    out = np.zeros((*parts.shape[:-2], *size))
    rows, columns = (slice(a, a + n * d, d) for a, n, d in zip(start, parts.shape[-2:], step, strict=True))
    out[..., rows, columns] = parts
    return out


def response(weight: Array, groups: int, values: Array) -> Array:
    """What a convolution without bias makes of a map whose channels are constant, `values` [C]: [K]."""
    k, c = weight.shape[:2]
    made = np.empty(k)
    for i, filters in enumerate(weight):  # one by one: all in float64 would take three times the memory
        group = i // (k // groups)
        made[i] = filters.reshape(c, -1).sum(axis=1, dtype=np.float64) @ values[group * c : (group + 1) * c]
    return made
