"""A slice's product by float32 multiply-adds: each thread an outer product of `rows` x `columns` values in registers.

A warp's 32 threads are 4 down x 8 across. A thread's rows lie 4 apart and its columns in runs of four, 32 apart, so
that in 16-byte loads of a quarter warp no two threads meet in a bank of shared memory.
"""

from __future__ import annotations

import numpy as np

from netdsl.backends.cuda.kernels.gemm_product import Product
from netdsl.backends.cuda.kernels.gemm_stage import SLICE, chunk_of_left
from netdsl.backends.cuda.kernels.ptx import load4, thread_anew
from netdsl.backends.cuda.simt import device_function


def fma_product(block_m: int, block_n: int, rows: int, columns: int) -> Product:
    """Threads of rows x columns results each, over a tile of block_m x block_n."""
    warp_m, warp_n = 4 * rows, 8 * columns
    across = block_n // warp_n
    across_bits = across.bit_length() - 1
    runs = columns // 4
    left_size = block_m * SLICE

    @device_function
    def place(tid):  # type: ignore[no-untyped-def]
        warp, lane = tid >> 5, tid & 31
        down = (warp >> across_bits) * warp_m + (lane >> 3)
        return np.int32(down), np.int32((warp & across - 1) * warp_n + 4 * (lane & 7))

    @device_function
    def multiply(buffer, at, sums, left, right):  # type: ignore[no-untyped-def]
        row, column = place(thread_anew())
        from_left = at + row * SLICE
        from_right = at + left_size + column
        swizzle = 4 * chunk_of_left(row, 0)
        for chunk in range(0, SLICE, 4):
            for i in range(rows):
                lies = swizzle ^ chunk ^ 4 * chunk_of_left(4 * i, 0)
                e = from_left + lies + 4 * i * SLICE
                left[4 * i], left[4 * i + 1], left[4 * i + 2], left[4 * i + 3] = load4(buffer, e)
            for k in range(4):
                for j in range(runs):
                    e = from_right + chunk * block_n + k * block_n + 32 * j
                    right[4 * j], right[4 * j + 1], right[4 * j + 2], right[4 * j + 3] = load4(buffer, e)
                for i in range(rows):
                    for j in range(columns):
                        sums[i * columns + j] += left[4 * i + k] * right[j]

    threads = 32 * (block_m // warp_m) * across
    return Product(threads, False, rows, 4, runs, 32, 4, 4 * rows, columns, place, multiply)
