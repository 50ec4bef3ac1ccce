"""Memory pages of mapped weights: once they are packed, the file's own need not stay in memory beside them."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray


def release(values: NDArray[Any]) -> None:
    """Let go of the pages of a file mapped read-only that an array views; they are read again when they are asked for.

    Arrays that view no such file are left alone, as are systems that cannot do it.
    """
    base: Any = values
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not memoryview(base).readonly or not hasattr(base, "madvise"):
        return
    start = values.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    base.madvise(mmap.MADV_DONTNEED, first, start + values.nbytes - first)
