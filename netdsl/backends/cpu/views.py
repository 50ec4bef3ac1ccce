"""Where a tensor lies: a view of blocked channels into a buffer of the arena."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.mailbox import LINE
from netdsl.backends.cpu.target import WIDTH
from netdsl.frozen import frozen
from netdsl.tensor import TensorType

Halo = tuple[int, int, int, int]  # zeros kept around a map: (top, left, bottom, right)
NO_HALO: Halo = (0, 0, 0, 0)
LARGE_PAGE = 2 << 20  # bytes; of x86 and most ARM systems
PLANE_ROWS = 16  # chosen: parts of whole vectors that a plane can be cut into, for threads to share
# chosen (bench/choices.py tries others): cache lines of a plane of blocks, a multiple of the first and the second more
PLANE_LINES = (16, 9)
SPREAD_BYTES = 8192  # chosen: smaller planes are as they come; more lines would be much of them


@dataclass(frozen=True)
class View:
    """Channels x height x width of every image, in blocks of `block` channels; strides in bytes.

    `block` is WIDTH, or 1 for a planar map, whose vectors lie along its rows.

    buffer   number of the arena's buffer
    start    offset of image 0's first interior pixel within the buffer
    image, plane, row, pixel    from one image, block of channels, row, pixel to the next
    halo     zeros that lie around the interior in memory
    """

    buffer: int
    start: int
    channels: int
    height: int
    width: int
    block: int
    image: int
    plane: int
    row: int
    halo: Halo = NO_HALO

    @property
    def blocks(self) -> int:
        return -(-self.channels // self.block)

    @property
    def pixel(self) -> int:
        return 4 * self.block

    @property
    def rows_touch(self) -> bool:
        """Whether a row's end is the next row's start, so that pixels may be counted through."""
        return self.row == self.width * self.pixel

    def part(self, first: int, channels: int) -> View:
        """So many channels from `first` on, a multiple of `block`."""
        return replace(self, start=self.start + first // self.block * self.plane, channels=channels)

    def as_vectors(self) -> View:
        """A planar map without a halo as one block of vectors, gaps between its planes included; others as they are."""
        if self.block == WIDTH:
            return self
        row = self.image // PLANE_ROWS
        return replace(self, channels=WIDTH, height=PLANE_ROWS, width=row // (4 * WIDTH), block=WIDTH,
                       plane=self.image, row=row)  # fmt: skip

    def strides(self, name: str) -> dict[str, int]:
        """Kernel arguments NAME_image, NAME_plane, NAME_row, NAME_pixel."""
        return {
            f"{name}_image": self.image,
            f"{name}_plane": self.plane,
            f"{name}_row": self.row,
            f"{name}_pixel": self.pixel,
        }


def layout(kind: TensorType, block: int = WIDTH, halo: Halo = NO_HALO) -> tuple[View, int]:
    """A fresh view of a tensor (a vector counts as 1x1 pixels), and the bytes of one image."""
    channels, height, width = kind.shape if kind.is_map else (kind.shape[0], 1, 1)
    top, left, bottom, right = halo
    pixel = 4 * block
    row = (left + width + right) * pixel
    plane = (top + height + bottom) * row
    if block == 1:
        plane = -(-plane // (LINE * PLANE_ROWS)) * LINE * PLANE_ROWS
    elif channels > block and plane >= SPREAD_BYTES:
        plane = _spread(plane)
    image = math.ceil(channels / block) * plane
    return View(0, top * row + left * pixel, channels, height, width, block, image, plane, row, halo), image


def _spread(plane: int) -> int:
    """A plane's bytes and some more, so that a pixel's blocks of channels lie in different sets of the caches.

    Planes of 56 x 56 or 28 x 28 pixels are multiples of 1 KiB or 4 KiB, and so is from where to where sets come again.
    """
    whole, lines = PLANE_LINES
    return plane + (LINE * lines - plane) % (LINE * whole)


@frozen
class Address:
    """An argument that is a place in the arena, known once the arena is."""

    view: View
    offset: int = 0

    def moved(self, offset: int) -> Address:
        return replace(self, offset=self.offset + offset)


@frozen
class Port:
    """An argument that is the address of the caller's array: input or output number `index` of the network."""

    index: int
    is_output: bool = False


@dataclass(frozen=True, eq=False)
class Data:
    """An argument that is the address of constant values (packed weights, tables); kept alive by the plan."""

    values: NDArray[Any]


Argument = int | Address | Port | Data


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel call of the plan.

    work      about how many multiply-accumulates or moved values: decides how many threads share it
    node      path of the network's node, for people
    images    that it takes together
    units     pieces of work that the kernel tells apart; 0: more than anyone would share
    """

    kernel: Kernel
    arguments: dict[str, Argument]
    work: int
    node: str
    images: int
    units: int = 0

    def buffers(self) -> set[int]:
        return {a.view.buffer for a in self.arguments.values() if isinstance(a, Address)}


def table(values: Any) -> Data:
    """A table of int64."""
    return Data(np.ascontiguousarray(values, np.int64).reshape(-1))


def floats(*values: float) -> Data:
    """A few float32 facts."""
    return Data(np.array(values, np.float32))


def aligned(count: int) -> NDArray[np.float32]:
    """`count` float32 that start on a cache line; many of them on pages of 2 MiB where the system has such.

    NumPy asks the system for large pages for arrays of 4 MiB and more. Room that is not touched costs nothing.
    """
    size = 4 * count
    step = LARGE_PAGE if size >= LARGE_PAGE // 4 else 64
    raw = np.empty(size + step if step == 64 else max(size, LARGE_PAGE) + step, np.uint8)
    start = -raw.ctypes.data % step
    out: NDArray[np.float32] = raw[start : start + size].view(np.float32)
    return out


Pack = Callable[[], NDArray[np.float32]]
