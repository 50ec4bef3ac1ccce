"""Operations on a map's shape: flatten, pad, crop, upsample, shuffles; and dropout, which does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from netdsl.frozen import frozen
from netdsl.ops.base import (
    COUNT,
    FLAG,
    NUMBER,
    SIZE,
    SIZE0,
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
    choice,
)
from netdsl.ops.window import checked, need_divisor, need_map, pad_text, size_text
from netdsl.tensor import TensorType


@frozen
class Flatten(Op):
    """A map as one vector, channel after channel, row after row."""

    name: ClassVar[str] = "flatten"

    def infer(self, *inputs: TensorType) -> TensorType:
        return TensorType((inputs[0].elements,))

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        return x.reshape(len(x), TensorType(x.shape[1:]).elements)


@frozen
class Pad(Op):
    """A map with cells around it, and channels before and after.

    mode zero, constant (`value`), reflect (mirrored, the edge itself not repeated) or edge (the edge repeated).
    Added channels are zero, or `value` in constant mode.
    """

    name: ClassVar[str] = "pad"
    pad: Pad4 = (0, 0, 0, 0)
    mode: str = "zero"
    value: float = 0.0
    channels: Pair = (0, 0)

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_map(x, self.name)
        top, left, bottom, right = self.pad
        if self.mode == "reflect" and (max(top, bottom) >= x.height or max(left, right) >= x.width):
            size = size_text((x.height, x.width))
            raise ShapeFault(f"reflecting {pad_text(self.pad)} cells needs a map larger than that, found {size}")
        shape = x.channels + sum(self.channels), x.height + top + bottom, x.width + left + right
        return checked("the output", *shape)

    def describe(self) -> str:
        channels = f" channels {self.channels[0]}+{self.channels[1]}" if any(self.channels) else ""
        return f"{self.name} {pad_text(self.pad)}{channels}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        top, left, bottom, right = self.pad
        around: Any = ((0, 0), (0, 0), (top, bottom), (left, right))
        value = self.value if self.mode == "constant" else 0.0
        if self.mode in ("reflect", "edge"):
            x = np.pad(inputs[0], around, mode="reflect" if self.mode == "reflect" else "edge")
        else:
            x = np.pad(inputs[0], around, constant_values=value)
        return np.pad(x, ((0, 0), self.channels, (0, 0), (0, 0)), constant_values=value)


@frozen
class Crop(Op):
    """The part of a map that starts at (top, left) and has the given height and width."""

    name: ClassVar[str] = "crop"
    top: int
    left: int
    height: int
    width: int

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_map(x, self.name)
        if self.top + self.height > x.height or self.left + self.width > x.width:
            asked, found = size_text((self.height, self.width)), size_text((x.height, x.width))
            raise ShapeFault(f"cannot cut {asked} at row {self.top}, column {self.left} out of a {found} map")
        return TensorType((x.channels, self.height, self.width))

    def describe(self) -> str:
        return f"{self.name} {size_text((self.height, self.width))}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        return inputs[0][:, :, self.top : self.top + self.height, self.left : self.left + self.width]


@frozen
class Upsample(Op):
    """A map enlarged by whole factors (vertical, horizontal).

    nearest repeats each value. bilinear weighs the two nearest values along each axis: output centres are mapped to
    input centres, or with `corners` the corner values onto each other. Source: the rule of PyTorch's Upsample
    (`corners` is its align_corners).
    """

    name: ClassVar[str] = "upsample"
    scale: Pair
    mode: str = "nearest"
    corners: bool = False

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_map(x, self.name)
        return checked("the output", x.channels, x.height * self.scale[0], x.width * self.scale[1])

    def window(self, *inputs: TensorType) -> Window:
        reach = [scale * 2 if self.mode == "bilinear" and scale > 1 else scale for scale in self.scale]
        return Window((reach[0], reach[1]), scale=self.scale)

    def describe(self) -> str:
        return f"{self.name} {size_text(self.scale)} {self.mode}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        if self.mode == "nearest":
            return x.repeat(self.scale[0], axis=2).repeat(self.scale[1], axis=3)
        low, high, part = sources(x.shape[2], self.scale[0], self.corners)
        part = part.astype(x.dtype)[:, np.newaxis]
        rows = x[:, :, low] * (1 - part) + x[:, :, high] * part
        low, high, part = sources(x.shape[3], self.scale[1], self.corners)
        part = part.astype(x.dtype)
        y: Array = rows[..., low] * (1 - part) + rows[..., high] * part
        return y


def sources(length: int, scale: int, corners: bool) -> tuple[Array, Array, Array]:
    """For each output cell along one axis: the input cell before it, the one after, and the share of the latter."""
    places = np.arange(length * scale)
    if corners:
        place = places * ((length - 1) / max(length * scale - 1, 1))
    else:
        place = np.maximum((places + 0.5) / scale - 0.5, 0)
    low = np.minimum(place.astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1), place - low


@frozen
class PixelShuffle(Op):
    """Channels become pixels: [C f f, H, W] to [C, H f, W f]. Source: arXiv:1609.05158."""

    name: ClassVar[str] = "pixelshuffle"
    factor: int

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        need_map(x, self.name)
        f = self.factor
        if x.channels % (f * f):
            raise ShapeFault(f"pixelshuffle {f} needs a multiple of {f * f} channels, found {x.channels}")
        return TensorType((x.channels // (f * f), x.height * f, x.width * f))

    def window(self, *inputs: TensorType) -> Window:
        return Window((self.factor, self.factor), scale=(self.factor, self.factor))

    def describe(self) -> str:
        return f"{self.name} {self.factor}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,), f = inputs, self.factor
        n, c, h, w = x.shape
        split = x.reshape(n, c // (f * f), f, f, h, w)
        return split.transpose(0, 1, 4, 2, 5, 3).reshape(n, c // (f * f), h * f, w * f)


@frozen
class ChannelShuffle(Op):
    """Channels dealt out over the groups: channel i of group g goes to place i groups + g. Source: arXiv:1707.01083."""

    name: ClassVar[str] = "channelshuffle"
    groups: int

    def infer(self, *inputs: TensorType) -> TensorType:
        need_map(inputs[0], self.name)
        need_divisor(self.groups, inputs[0].channels, "input channels")
        return inputs[0]

    def describe(self) -> str:
        return f"{self.name} {self.groups}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        n, c, h, w = x.shape
        return x.reshape(n, self.groups, c // self.groups, h, w).swapaxes(1, 2).reshape(x.shape)


@frozen
class Dropout(Op):
    """Nothing at inference; in training each value would be dropped with probability p."""

    name: ClassVar[str] = "dropout"
    p: float = 0.5

    def describe(self) -> str:
        return f"{self.name} {self.p:g}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        return inputs[0]


def _four(value: Any) -> Pad4:
    if isinstance(value, tuple) and len(value) == 4:
        first, second = SIZE0.convert(value[:2]), SIZE0.convert(value[2:])
        return first[0], first[1], second[0], second[1]
    vertical, horizontal = SIZE0.convert(value)
    return vertical, horizontal, vertical, horizontal


def _probability(value: Any) -> float:
    p: float = NUMBER.convert(value)
    if not 0 <= p <= 1:
        raise ValueError
    return p


SIDES = Kind("an amount: p, hxw or (top,left,bottom,right)", _four)
MODE = choice("zero", "constant", "reflect", "edge")


def _flatten(x: TensorType) -> Op:
    return Flatten()


def _pad(x: TensorType, *, amount: Pad4, mode: str, value: float, channels: Pair) -> Op:
    if value and mode != "constant":
        raise ArgumentFault(f"value={value:g} means nothing in mode={mode}", "value", "write mode=constant")
    return Pad(amount, mode, value, channels)


def _crop(x: TensorType, *, size: Pair | None, pad: Pad4) -> Op:
    need_map(x, "crop")
    top, left, bottom, right = pad
    if size is None:
        size = x.height - top - bottom, x.width - left - right
        if min(size) < 1:
            found = size_text((x.height, x.width))
            raise ShapeFault(f"cutting {pad_text(pad)} from the sides of a {found} map leaves nothing")
        return Crop(top, left, *size)
    if any(pad):
        raise ArgumentFault("give either the size that remains or pad, what is cut from each side", "pad")
    return Crop(max(0, (x.height - size[0]) // 2), max(0, (x.width - size[1]) // 2), *size)


def _upsample(x: TensorType, *, scale: Pair, mode: str, corners: bool) -> Op:
    if corners and mode != "bilinear":
        raise ArgumentFault("corners=yes has a meaning in mode=bilinear only", "corners")
    return Upsample(scale, mode, corners)


def _pixelshuffle(x: TensorType, *, factor: int) -> Op:
    return PixelShuffle(factor)


def _channelshuffle(x: TensorType, *, groups: int) -> Op:
    return ChannelShuffle(groups)


def _dropout(x: TensorType, *, p: float) -> Op:
    return Dropout(p)


WORDS = (
    Layer("flatten", "The map as one vector.", (), (), (("", _flatten),), example="flatten"),
    Layer(
        "pad", "Adds cells around the map, or channels.",
        (Option("amount", SIDES, (0, 0, 0, 0), "cells on each side: p, hxw or (top,left,bottom,right)"),),
        (Option("mode", MODE, "zero", "what the cells hold: zero, constant, reflect or edge"),
         Option("value", NUMBER, 0.0, "the value of mode=constant"),
         Option("channels", SIZE0, (0, 0), "channels added (before, after), filled with zero or the constant")),
        (("", _pad),), example="pad 2 mode=reflect",
    ),
    Layer(
        "crop", "The middle of the map, or what remains when the sides are cut.",
        (Option("size", SIZE, doc="size that remains, from the middle (an odd cell is cut from the end)"),),
        (Option("pad", SIDES, (0, 0, 0, 0), "cells cut from each side: p, hxw or (top,left,bottom,right)"),),
        (("", _crop),), example="crop 24x24",
    ),
    Layer(
        "upsample", "Enlarges the map by whole factors.",
        (Option("scale", SIZE, doc="how much larger, as one number or height x width", required=True),),
        (Option("mode", choice("nearest", "bilinear"), "nearest", "repeat values, or interpolate"),
         Option("corners", FLAG, False, "bilinear: map the corners onto each other")),
        (("", _upsample),), example="upsample 2 mode=bilinear",
    ),
    Layer(
        "pixelshuffle", "Enlarges the map by a factor, with pixels taken from factor x factor times the channels.",
        (Option("factor", COUNT, doc="how much larger", required=True),), (),
        (("", _pixelshuffle),), example="pixelshuffle 2",
    ),
    Layer(
        "channelshuffle", "Deals the channels out over groups, so that grouped convolutions mix.",
        (Option("groups", COUNT, doc="number of groups", required=True),), (),
        (("", _channelshuffle),), example="channelshuffle 4",
    ),
    Layer(
        "dropout", "Nothing at inference.",
        (Option("p", Kind("a number from 0 to 1", _probability), 0.5, "probability of dropping, in training"),), (),
        (("", _dropout),), example="dropout 0.2",
    ),
)  # fmt: skip
