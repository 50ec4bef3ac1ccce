"""A slice's product on tensor cores: each warp a tile of warp_m x warp_n made of 16x8 results, sums in float32.

A thread's results in a row lie next to each other by 16 bytes, though the instructions give it two of each eight:
weights are packed in such an order of columns (`packing.column_order`).

Both slices are words of 4 bytes, and which words a thread multiplies is the same in every precision: one word of depth
is a value in tf32, and two neighbouring ones, low half first, in half precision. In tf32 the left words are maps in
float32 and are rounded as they are loaded; all others go to the tensor cores as they are.
"""

from __future__ import annotations

import numpy as np

from netdsl.backends.cuda.kernels.gemm_product import Product
from netdsl.backends.cuda.kernels.gemm_stage import SLICE, chunk_of_left, column_of_right
from netdsl.backends.cuda.kernels.ptx import (
    as_tf32,
    as_word,
    mma_bf16,
    mma_f16,
    mma_tf32,
    thread_anew,
)
from netdsl.backends.cuda.packing import run_of
from netdsl.backends.cuda.simt import device_function

PRODUCTS = {"tf32": (as_tf32, mma_tf32), "float16": (as_word, mma_f16), "bfloat16": (as_word, mma_bf16)}


def mma_product(block_m: int, block_n: int, warp_m: int, warp_n: int, precision: str) -> Product:
    """Warps of warp_m x warp_n results each over a tile of block_m x block_n."""
    as_left, mma = PRODUCTS[precision]
    across = block_n // warp_n
    across_bits = across.bit_length() - 1
    threads = 32 * (block_m // warp_m) * across
    tall, wide = warp_m // 16, warp_n // 8
    left_size = block_m * SLICE
    run = run_of(precision)

    @device_function
    def place(tid):  # type: ignore[no-untyped-def]
        warp, lane = tid >> 5, tid & 31
        down = (warp >> across_bits) * warp_m + (lane >> 2)
        return np.int32(down), np.int32((warp & across - 1) * warp_n + run * (lane & 3))

    @device_function
    def right_word(buffer, at, depth, column, j):  # type: ignore[no-untyped-def]
        """Word `depth` of the j-th eight columns from `column` on."""
        return buffer[at + left_size + depth * block_n + column_of_right(depth, column + 8 * j, True)]

    @device_function
    def multiply(buffer, at, sums, left, right):  # type: ignore[no-untyped-def]
        now = thread_anew()
        row, column = place(now)
        lane = now & 31
        column = column - run * (lane & 3) + (lane >> 2)
        for step in range(2):
            depth = 8 * step + (lane & 3)
            for j in range(wide):
                right[2 * j] = right_word(buffer, at, depth, column, j)
                right[2 * j + 1] = right_word(buffer, at, depth + 4, column, j)
            first = at + row * SLICE + (lane & 3) + 4 * chunk_of_left(row, 2 * step)
            second = at + row * SLICE + (lane & 3) + 4 * chunk_of_left(row, 2 * step + 1)
            for i in range(tall):
                a0 = as_left(buffer[first + 16 * i * SLICE])
                a1 = as_left(buffer[first + (16 * i + 8) * SLICE])
                a2 = as_left(buffer[second + 16 * i * SLICE])
                a3 = as_left(buffer[second + (16 * i + 8) * SLICE])
                for j in range(wide):
                    f, g = 2 * (2 * i * wide + j), 2 * ((2 * i + 1) * wide + j)
                    sums[f], sums[f + 1], sums[g], sums[g + 1] = mma(
                        a0, a1, a2, a3, right[2 * j], right[2 * j + 1], sums[f], sums[f + 1], sums[g], sums[g + 1]
                    )

    return Product(threads, True, 2 * tall, 8, 2 * wide // run, 4 * run, run, 1, 2 * wide, place, multiply)
