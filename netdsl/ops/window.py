"""Windows that slide over a map: how many fit, what `same` padding is, and the taps that definitions loop over.

Letters: a map is [N, C, H, W], a window R x S, the result has P x Q positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from netdsl.ops.base import COUNT, FLAG, PAD, SIZE, Array, Option, Pad4, Pair, ShapeFault
from netdsl.tensor import MAX_ELEMENTS, TensorType

FEATURES = Option("features", COUNT, doc="number of output channels", required=True)
KERNEL = Option("kernel", SIZE, doc="size of the window, height x width", required=True)
STRIDE = Option("stride", SIZE, (1, 1), "step from one window to the next")
PADDING = Option("pad", PAD, (0, 0, 0, 0), "cells added around the map; same: as many outputs as ceil(input / stride)")
DILATION = Option("dilation", SIZE, (1, 1), "step from one cell of the window to the next")
GROUPS = Option("groups", COUNT, 1, "number of channel groups that do not see each other")
BIAS = Option("bias", FLAG, True, "add a stored value to each channel")


def size_text(size: Pair) -> str:
    """A size as people write it: 3x5."""
    return f"{size[0]}x{size[1]}"


def pad_text(pad: Pad4) -> str:
    """A padding as people write it: 1, 0x1 or (0,0,1,1)."""
    top, left, bottom, right = pad
    if (top, left) != (bottom, right):
        return f"({top},{left},{bottom},{right})"
    return str(top) if top == left else f"{top}x{left}"


def window_text(features: int | None, kernel: Pair, stride: Pair, dilation: Pair = (1, 1), groups: int = 1) -> str:
    """The attributes of a window in short: `64 7x7 /2 dilation 2 groups 4`."""
    parts = [] if features is None else [str(features)]
    parts.append(size_text(kernel))
    if stride != (1, 1):
        parts.append(f"/{stride[0]}" if stride[0] == stride[1] else f"/{size_text(stride)}")
    if dilation != (1, 1):
        parts.append(f"dilation {dilation[0] if dilation[0] == dilation[1] else size_text(dilation)}")
    if groups != 1:
        parts.append(f"groups {groups}")
    return " ".join(parts)


def need_map(x: TensorType, word: str) -> None:
    """Raise ShapeFault unless x is a (C, H, W) map."""
    if not x.is_map:
        raise ShapeFault(f"{word} needs a map (channels x height x width), but its input is a vector of {x}")


def need_divisor(groups: int, count: int, what: str) -> None:
    """Raise ShapeFault unless `groups` divides `count`."""
    if count % groups:
        raise ShapeFault(f"groups={groups} must divide the {count} {what}")


def checked(what: str, *shape: int) -> TensorType:
    """The type of the given shape; raises ShapeFault when it has no or too many elements."""
    if math.prod(shape) > MAX_ELEMENTS:
        text = "x".join(map(str, shape))
        raise ShapeFault(f"{what} {text} has {math.prod(shape)} elements, more than the limit of {MAX_ELEMENTS}")
    return TensorType(shape)


def covered(kernel: Pair, dilation: Pair) -> Pair:
    """Cells from the first to the last tap of a window, both included: dilation (kernel - 1) + 1."""
    return dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1


def resolve_pad(pad: Pad4 | str, x: TensorType, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Pad4:
    """The padding in cells. `same` and `same_lower` give ceil(input / stride) outputs.

    The odd cell is at the end for `same` (TensorFlow's rule) and at the start for `same_lower`.
    """
    if not isinstance(pad, str):
        return pad
    totals = []
    for size, cover, step in zip(x.shape[1:], covered(kernel, dilation), stride, strict=True):
        totals.append(max((-(-size // step) - 1) * step + cover - size, 0))
    return split_pad(totals[0], totals[1], pad)


def split_pad(vertical: int, horizontal: int, rule: str) -> Pad4:
    """Total padding shared between start and end by the rule `same` or `same_lower`."""
    odd = 1 if rule == "same_lower" else 0
    top, left = (vertical + odd) // 2, (horizontal + odd) // 2
    return top, left, vertical - top, horizontal - left


def positions(
    x: TensorType, kernel: Pair, stride: Pair, pad: Pad4, dilation: Pair = (1, 1), ceil: bool = False
) -> Pair:
    """How many windows fit, (P, Q). Raises ShapeFault when none does.

    floor((size + padding - cover) / stride) + 1, or with `ceil` rounded up, less a last window that would start in the
    padding at the end (the rule of PyTorch's pooling).
    """
    cover = covered(kernel, dilation)
    checked("the padded map", x.channels, x.height + pad[0] + pad[2], x.width + pad[1] + pad[3])
    out = []
    for i in (0, 1):
        room = x.shape[1 + i] + pad[i] + pad[2 + i] - cover[i]
        count = (room + (stride[i] - 1 if ceil else 0)) // stride[i] + 1
        if ceil and (count - 1) * stride[i] >= x.shape[1 + i] + pad[i]:
            count -= 1
        if count < 1:
            raise ShapeFault(_misfit(x, kernel, pad, dilation))
        out.append(count)
    return out[0], out[1]


def _misfit(x: TensorType, kernel: Pair, pad: Pad4, dilation: Pair) -> str:
    spread = "" if dilation == (1, 1) else f" spread to {size_text(covered(kernel, dilation))} by its dilation"
    size = size_text((x.height, x.width))
    return f"a {size_text(kernel)} window{spread} does not fit into {size} (with padding {pad_text(pad)})"


def pad_map(x: Array, pad: Pad4, value: float = 0.0) -> Array:
    """[N, C, H, W] with cells of one value around it."""
    if not any(pad):
        return x
    return np.pad(x, ((0, 0), (0, 0), (pad[0], pad[2]), (pad[1], pad[3])), constant_values=value)


def taps(x: Array, kernel: Pair, stride: Pair, dilation: Pair, size: Pair) -> Iterator[tuple[int, int, Array]]:
    """For each cell (r, s) of the window: that cell's value in every window, a view [N, C, P, Q] of the padded x."""
    for r in range(kernel[0]):
        top = r * dilation[0]
        rows = slice(top, top + (size[0] - 1) * stride[0] + 1, stride[0])
        for s in range(kernel[1]):
            left = s * dilation[1]
            yield r, s, x[:, :, rows, left : left + (size[1] - 1) * stride[1] + 1 : stride[1]]
