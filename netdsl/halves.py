"""float32 values as the bits of 16-bit floating-point numbers, rounded to nearest, ties to even."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U16 = NDArray[np.uint16]


def float16_bits(x: F32) -> U16:
    """IEEE half precision: 10 bits of fraction; values beyond 65504 become infinite."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).view(np.uint16)


def bfloat16_bits(x: F32) -> U16:
    """The upper half of a float32: its range, 7 bits of fraction. A nan stays one, whatever bits it loses."""
    words = x.view(np.uint32)
    rounded = (words + np.uint32(0x7FFF) + (words >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    kept = words >> np.uint32(16) | np.isnan(x).astype(np.uint32)
    return np.where(np.isfinite(x), rounded, kept).astype(np.uint16)


BITS: dict[str, Callable[[F32], U16]] = {"float16": float16_bits, "bfloat16": bfloat16_bits}
