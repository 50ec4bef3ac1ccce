"""Kernels that tell of barriers, for numba.cuda's simulator: imported where it has been chosen, in its own process."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda, float32, int32

THREADS = (4, 3, 2)


@cuda.jit  # type: ignore[untyped-decorator]
def _neighbours(out: Any, barrier: bool, across: int) -> None:
    told = cuda.shared.array(24, float32)
    at = cuda.threadIdx.x + 4 * (cuda.threadIdx.y + 3 * cuda.threadIdx.z)
    for turn in range(2):
        told[at] = at
        if barrier:
            cuda.syncthreads()
        out[cuda.blockIdx.x, turn, at] = at + told[(at + across) % 24]
        if barrier:
            cuda.syncthreads()
        told[at] = -1000
    if cuda.syncthreads_or(int32(at == 23)) and at % 2:  # the odd ones have a barrier more
        cuda.syncthreads()
        out[cuda.blockIdx.x, 0, at] += 0.5


@cuda.jit  # type: ignore[untyped-decorator]
def _failing(out: Any, failing: int) -> None:
    at = cuda.threadIdx.x + 4 * (cuda.threadIdx.y + 3 * cuda.threadIdx.z)
    if at == failing:
        raise ValueError("this thread fails")
    cuda.syncthreads()
    out[at] = 1


def neighbours(barrier: bool, across: int) -> np.ndarray[Any, Any]:
    """Each thread's number plus that of the thread `across` places on, told through shared memory, twice a block."""
    out = np.zeros((2, 2, 24), np.float32)
    _neighbours[2, THREADS](out, barrier, across)
    return out


def failing(thread: int) -> None:
    """A block of which one thread fails before a barrier."""
    _failing[1, THREADS](np.zeros(24), thread)
