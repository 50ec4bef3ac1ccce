"""What the warps of kernels move, counted by `machine.py` as a GPU would carry it out.

A warp's access to global memory touches whole sectors of 32 bytes. Shared memory has 32 banks of words of 4 bytes: it
serves as many threads at a time as ask for 128 bytes together, and again for each further word wanted of one bank.

Source: NVIDIA, CUDA C++ Programming Guide, sections 16.4.2 and 16.4.3 (global and shared memory).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ptx.memory import Array

SECTOR = 32  # bytes
BANKS = 32
WARP = 32


@dataclass
class Traffic:
    """Totals of all launches.

    asked, carried   bytes that threads load ("load") and store ("store"), and those of the sectors touched for it
    least, waves     turns of shared memory: as few as there could be, and as there are
    """

    asked: dict[str, int] = field(default_factory=lambda: {"load": 0, "store": 0})
    carried: dict[str, int] = field(default_factory=lambda: {"load": 0, "store": 0})
    least: int = 0
    waves: int = 0

    def of_global(self, kind: str, lanes: Array, addresses: Array, size: int) -> None:
        """Each of these lanes loads or stores `size` bytes, no more than a sector, within one."""
        sectors = addresses // SECTOR
        self.asked[kind] += size * len(lanes)
        self.carried[kind] += SECTOR * _different(lanes // WARP, sectors - sectors.min())

    def of_shared(self, lanes: Array, addresses: Array, size: int) -> None:
        """Each of these lanes reads or writes `size` bytes of its block's memory."""
        together = BANKS * 4 // size  # threads that are served at a time
        groups = np.repeat(lanes // together, size // 4)
        words = ((addresses >> 2)[:, None] + np.arange(size // 4)).ravel()
        wanted = np.unique(groups * (1 << 32) + words)  # a word is read once for all
        banks, counts = np.unique((wanted >> 32) * BANKS + wanted % BANKS, return_counts=True)
        _, firsts = np.unique(banks // BANKS, return_index=True)
        self.waves += int(np.maximum.reduceat(counts, firsts).sum())
        self.least += len(firsts)


def _different(groups: Array, numbers: Array) -> int:
    """How many different pairs there are."""
    return len(np.unique(groups.astype(np.int64) * (int(numbers.max()) + 1) + numbers))
