"""Kernels that measure a GPU's ceilings: multiply-adds a second, products of tensor cores, bytes copied a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import float32

from netdsl.backends.cuda.kernels.ptx import as_bf16, as_f16, as_tf32, load4, mma_bf16, mma_f16, mma_tf32, store4
from netdsl.backends.cuda.simt import cuda, device_function

FACTOR = np.float32(0.999)
TILES = 8  # chosen: of a warp, in 32 registers of sums; tensor cores have none left to wait for


@device_function
def _f16_word(x):  # type: ignore[no-untyped-def]
    return as_f16(x, x)


@device_function
def _bf16_word(x):  # type: ignore[no-untyped-def]
    return as_bf16(x, x)


PRODUCTS = {"tf32": (as_tf32, mma_tf32), "float16": (_f16_word, mma_f16), "bfloat16": (_bf16_word, mma_bf16)}


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


def make_tensor_products(precision: str) -> Callable[..., None]:
    """`steps` x TILES products of 16x8 results in each warp by mma.sync, none of which waits for another."""
    as_word, mma = PRODUCTS[precision]
    held = 4 * TILES

    def tensor_products(out, steps):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        sums = cuda.local.array(held, float32)
        for k in range(held):
            sums[k] = 0.0
        a = as_word(np.float32(i & 7) * FACTOR)
        b = np.float32(i & 3) + np.float32(0.5)  # its halves are finite in every precision
        for _ in range(steps):
            for t in range(TILES):
                f = 4 * t
                sums[f], sums[f + 1], sums[f + 2], sums[f + 3] = mma(
                    a, a, a, a, b, b, sums[f], sums[f + 1], sums[f + 2], sums[f + 3]
                )
        total = np.float32(0.0)
        for k in range(held):
            total += sums[k]
        out[i] = total

    return tensor_products


def make_copy() -> Callable[..., None]:
    """to[i] = source[i], 16 bytes a thread; `count` is the number of floats."""

    def copy(source, to, count):  # type: ignore[no-untyped-def]
        i = 4 * cuda.grid(1)
        if i < count:
            a, b, c, d = load4(source, i)
            store4(to, i, a, b, c, d)

    return copy
