"""Memory of a virtual card for `machine.py`: what is allocated, and which thread last touched what.

Two threads may touch the same place, one of them writing, only where something orders them: a barrier that both have
passed since, or, between blocks, a fence of the one and then an atomic operation of the other's block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Ordered = Callable[[Array, Array, Array], Array]  # (earlier threads, their times, threads now): which are in order

LINE = 256  # bytes that allocations begin at a multiple of, as the driver's do
NOBODY, MANY = -1, -2


class Fault(Exception):
    """What a kernel may not do, whether or not a GPU would notice."""


class Card:
    """A card: bytes at addresses of this process, so that copies are plain. Allocated ones are nan (0xFF) at first."""

    def __init__(self, size: int = 1 << 26) -> None:
        held = np.empty(size + LINE, np.uint8)
        start = -held.ctypes.data % LINE
        self.bytes: Array = held[start : start + size]
        self.base = self.bytes.ctypes.data
        self.mine = np.zeros(size // 2, bool)  # whether a half-word is allocated
        self.blocks: dict[int, int] = {}  # bytes asked for, by address

    @property
    def free(self) -> int:
        """Bytes that nobody has."""
        return len(self.bytes) - sum(-(-count // LINE) * LINE for count in self.blocks.values())

    @property
    def end(self) -> int:
        """Offset behind the last allocation."""
        return max((address - self.base + count + LINE for address, count in self.blocks.items()), default=LINE)

    def allocate(self, count: int) -> int | None:
        """Address of so many bytes, unwritten, or None. A line between two allocations belongs to neither."""
        start = 0
        for address, size in sorted(self.blocks.items()):
            if address - self.base - start >= count + LINE:
                break
            start = (-(-(address - self.base + size) // LINE) + 1) * LINE
        if start + count > len(self.bytes):
            return None
        self.bytes[start : start + count] = 0xFF
        self.mine[start // 2 : -(-(start + count) // 2)] = True
        self.blocks[self.base + start] = count
        return self.base + start

    def release(self, address: int) -> bool:
        """Give an allocation back; whether it was one."""
        count = self.blocks.pop(address, None)
        if count is not None:
            start = address - self.base
            self.mine[start // 2 : -(-(start + count) // 2)] = False
        return count is not None

    def view(self, address: int, count: int, dtype: Any) -> Array:
        """So many values at an address."""
        start = address - self.base
        return self.bytes[start : start + count * np.dtype(dtype).itemsize].view(dtype)

    def places(self, addresses: Array, size: int) -> Array:
        """Offsets of accesses of `size` bytes each. Raises Fault where one is not aligned or not allocated."""
        offsets = addresses - self.base
        if (offsets & size - 1).any():
            raise Fault(f"an address is no multiple of {size}")
        inside = (offsets >= 0) & (offsets <= len(self.bytes) - size)
        if not inside.all():
            raise Fault("an address is outside of the card's memory")
        if not self.mine[offsets >> 1].all() or (size > 2 and not self.mine[offsets + size - 1 >> 1].all()):
            raise Fault("memory is touched that nobody has allocated")
        return offsets


class Watch:
    """Who last wrote and read each unit of memory, and when."""

    def __init__(self, units: int) -> None:
        self.writer = np.full(units, NOBODY, np.int32)
        self.reader = np.full(units, NOBODY, np.int32)
        self.written = np.zeros(units, np.int32)
        self.read_at = np.zeros(units, np.int32)

    def reads(self, units: Array, threads: Array, now: int, ordered: Ordered) -> None:
        """Note that threads read units. Raises Fault where another wrote and nothing orders them."""
        self._after(self.writer, self.written, units, threads, ordered, "reads what another wrote")
        before = self.reader[units]
        self.reader[units] = threads
        shared = (self.reader[units] != threads) | (before != NOBODY) & (before != threads)
        self.reader[units[shared]] = MANY
        self.read_at[units] = now

    def writes(self, units: Array, threads: Array, now: int, ordered: Ordered) -> None:
        """Note that threads write units. Raises Fault where another touched them and nothing orders them."""
        self._after(self.writer, self.written, units, threads, ordered, "writes what another wrote")
        self._after(self.reader, self.read_at, units, threads, ordered, "writes what another read")
        self.writer[units], self.written[units] = threads, now
        if (self.writer[units] != threads).any():
            raise Fault("two threads write the same place at once")
        self.reader[units] = NOBODY

    @staticmethod
    def _after(last: Array, times: Array, units: Array, threads: Array, ordered: Ordered, what: str) -> None:
        earlier = last[units]
        others = (earlier != NOBODY) & (earlier != threads)
        if others.any():
            units, earlier, threads = units[others], earlier[others], threads[others]
            wrong = ~ordered(earlier, times[units], threads)
            if wrong.any():
                raise Fault(f"thread {threads[wrong][0]} {what} ({earlier[wrong][0]}), and nothing orders them")
