"""Where a tensor lies: a view, channels last, into a buffer of the arena. All offsets and strides count floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.tensor import TensorType

LANES = 4  # floats of a 16-byte load: what a pixel's channels are padded to


def padded(channels: int, multiple: int = LANES) -> int:
    """Channels with the lanes that fill up the last 16 bytes."""
    return -(-channels // multiple) * multiple


@dataclass(frozen=True)
class View:
    """Height x width pixels of `channels` channels, of every image.

    buffer   number of the arena's buffer
    start    offset of image 0's first pixel within the buffer; a multiple of 4
    pixel, row, image    from one pixel, row, image to the next; multiples of 4

    The lanes past the last channel, up to a multiple of 4, hold finite values that meet zero weights (of a result that
    is not finite itself they may be anything).
    """

    buffer: int
    start: int
    channels: int
    height: int
    width: int
    pixel: int
    row: int
    image: int

    @property
    def lanes(self) -> int:
        return padded(self.channels)

    @property
    def flat(self) -> bool:
        """Whether the pixels of all images follow one another, so that they may be counted through."""
        return self.row == self.width * self.pixel and self.image == self.height * self.row

    def strides(self, name: str) -> dict[str, int]:
        """Kernel arguments NAME_image, NAME_row, NAME_pixel."""
        return {f"{name}_image": self.image, f"{name}_row": self.row, f"{name}_pixel": self.pixel}


def layout(kind: TensorType) -> tuple[View, int]:
    """A fresh view of a tensor (a vector counts as 1x1 pixels), and the floats of one image."""
    channels, height, width = kind.shape if kind.is_map else (kind.shape[0], 1, 1)
    pixel = padded(channels)
    image = height * width * pixel
    return View(0, 0, channels, height, width, pixel, width * pixel, image), image


@dataclass(frozen=True)
class Address:
    """An argument that is a place in the arena, known once the arena is."""

    view: View
    offset: int = 0


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
