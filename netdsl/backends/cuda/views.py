"""Where a tensor lies: a view, channels last, into a buffer of the arena.

Offsets and strides of a view count elements of its type; buffers and the arena count words of 4 bytes, as float32 has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.tensor import TensorType

LANES = 4  # floats of a 16-byte load: what a pixel's channels are padded to
ELEMENTS = {"float32": 1, "float16": 2, "bfloat16": 2}  # of a word of 4 bytes, by the type of a tensor in memory


def lanes_of(dtype: str) -> int:
    """Elements of a 16-byte load."""
    return LANES * ELEMENTS[dtype]


def padded(channels: int, multiple: int = LANES) -> int:
    """Channels with the lanes that fill up the last 16 bytes."""
    return -(-channels // multiple) * multiple


@dataclass(frozen=True)
class View:
    """Height x width pixels of `channels` channels, of every image.

    buffer   number of the arena's buffer
    start    offset of image 0's first pixel within the buffer
    pixel, row, image    from one pixel, row, image to the next
    dtype    type of the elements in memory: "float32", "float16" or "bfloat16"

    multiple of elements that places, strides and lanes are: 16 bytes of the plan's smallest type, 4 or 8 elements

    The lanes past the last channel, up to such a multiple, hold finite values that meet zero weights (of a result that
    is not finite itself they may be anything; nobody reads them of float32 among halves).
    """

    buffer: int
    start: int
    channels: int
    height: int
    width: int
    pixel: int
    row: int
    image: int
    dtype: str = "float32"
    multiple: int = LANES

    @property
    def lanes(self) -> int:
        return padded(self.channels, self.multiple)

    @property
    def words(self) -> View:
        """The same bytes as words of 4, each a float32 or two neighbouring halves; the words of a pixel as channels."""
        each = ELEMENTS[self.dtype]
        if each == 1:
            return self
        start, pixel, row, image = (n // each for n in (self.start, self.pixel, self.row, self.image))
        return View(self.buffer, start, self.lanes // each, self.height, self.width, pixel, row, image)

    @property
    def flat(self) -> bool:
        """Whether the pixels of all images follow one another, so that they may be counted through."""
        return self.row == self.width * self.pixel and self.image == self.height * self.row

    def strides(self, name: str) -> dict[str, int]:
        """Kernel arguments NAME_image, NAME_row, NAME_pixel."""
        return {f"{name}_image": self.image, f"{name}_row": self.row, f"{name}_pixel": self.pixel}


def layout(kind: TensorType, dtype: str = "float32", multiple: int = LANES) -> tuple[View, int]:
    """A fresh view of a tensor (a vector counts as 1x1 pixels), and the words of one image."""
    channels, height, width = kind.shape if kind.is_map else (kind.shape[0], 1, 1)
    pixel = padded(channels, multiple)
    image = height * width * pixel
    return View(0, 0, channels, height, width, pixel, width * pixel, image, dtype, multiple), image // ELEMENTS[dtype]


@dataclass(frozen=True)
class Address:
    """An argument that is a place in the arena, counted in the view's elements and known once the arena is."""

    view: View
    offset: int = 0

    def within(self, word: int) -> int:
        """The place once the view's buffer begins at this word of the arena."""
        return word * ELEMENTS[self.view.dtype] + self.view.start + self.offset


@dataclass(frozen=True)
class Port:
    """An argument that is the caller's array: input or output number `index` of the network."""

    index: int
    is_output: bool = False


@dataclass(frozen=True, eq=False)
class Data:
    """An argument that is an array of constants (packed weights, tables), sent to the device once."""

    values: NDArray[Any]


@dataclass(frozen=True)
class Arena:
    """The argument that is the arena itself, a flat float32 array."""


@dataclass(frozen=True)
class Counters:
    """The argument that is an int32 array of at least `count` zeros, which every launch leaves all zero again."""

    count: int


ARENA = Arena()

Argument = int | float | Address | Port | Data | Arena | Counters


def table(values: Any) -> Data:
    """A table of int32."""
    return Data(np.ascontiguousarray(values, np.int32).reshape(-1))
