"""Kernels that measure a GPU's ceilings: multiply-adds a second, bytes copied a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netdsl.backends.cuda.kernels.ptx import load4, store4
from netdsl.backends.cuda.simt import cuda

FACTOR = np.float32(0.999)


def make_multiply_adds() -> Callable[..., None]:
    """`steps` x 8 multiply-adds in each thread, in eight chains so that none waits for another."""

    def multiply_adds(out, steps):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        start = np.float32(i)
        a, b, c, d = start, start + FACTOR, start - FACTOR, start * FACTOR
        e, f, g, h = -a, -b, -c, -d
        for _ in range(steps):
            a, b, c, d = a * FACTOR + start, b * FACTOR + start, c * FACTOR + start, d * FACTOR + start
            e, f, g, h = e * FACTOR + start, f * FACTOR + start, g * FACTOR + start, h * FACTOR + start
        out[i] = a + b + c + d + e + f + g + h

    return multiply_adds


def make_copy() -> Callable[..., None]:
    """to[i] = source[i], 16 bytes a thread; `count` is the number of floats."""

    def copy(source, to, count):  # type: ignore[no-untyped-def]
        i = 4 * cuda.grid(1)
        if i < count:
            a, b, c, d = load4(source, i)
            store4(to, i, a, b, c, d)

    return copy
