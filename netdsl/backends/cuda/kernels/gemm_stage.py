"""How slices of the two matrices come to shared memory.

Rows of the left matrix are output pixels, its columns the pixel's window: taps x channels, counted in chunks of 16
bytes, so that chunk u is chunk u mod chunks of tap u div chunks. It is never built: each thread finds its chunks in the
input map, zeros outside. Nothing is wasted on channels that do not fill a slice: a slice of four chunks is four taps of
a picture's 3 channels, or of 64 channels a quarter of a tap, in half precision half of one.

Staging copies words of 4 bytes, whatever they hold: a float32, or of a map of halves two neighbouring channels; as the
words of the packed weights hold two neighbouring depths, a slice is 16 words deep in every precision.

In shared memory a slice of the left matrix is [row][16] and one of the right is [depth][column], their chunks permuted
so that no two threads of a quarter warp meet in a bank (`left_chunk`, `right_column`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdsl.backends.cuda import packing
from netdsl.backends.cuda.kernels.ptx import copy4, load4, store4, thread_anew
from netdsl.backends.cuda.simt import device_function

SLICE = packing.SLICE  # Chosen: three slices of two 128-wide tiles fill 48 KiB
OUTSIDE = -(1 << 31)  # the corner of a pixel that does not exist: no tap brings its row, -32768, into the map


def left_chunk(row: int, chunk: int) -> int:
    """Where chunk 0..3 of a row of the left slice lies, 0..3.

    Two rows of 64 bytes fill the 32 banks. Read by chunks or single words, rows 0..7 of one chunk must differ.
    """
    return chunk ^ (row >> 1) & 3


def right_column(depth: int, column: int, spread: bool) -> int:
    """Where a column of the right slice lies. `spread`: rows of four depths x eight columns are read at once."""
    return column ^ ((depth & 3) << 3) if spread else column


chunk_of_left = device_function(left_chunk)
column_of_right = device_function(right_column)


@device_function
def next_chunk(r, s, c, taps_w, chunks, step_r, step_s, step_c):  # type: ignore[no-untyped-def]
    """Four chunks on from chunk c of tap (r, s): an addition of mixed radix, its addend (step_r, step_s, step_c)."""
    c = np.int32(c + step_c)
    carry = np.int32(1 if c >= chunks else 0)
    c = np.int32(c - carry * chunks)
    s = np.int32(s + step_s + carry)
    carry = np.int32(1 if s >= taps_w else 0)
    return np.int32(r + step_r + carry), np.int32(s - carry * taps_w), c


def make_stage(
    block_m: int, block_n: int, threads: int, spread: bool, asynchronous: bool
) -> tuple[Callable[..., Any], Callable[..., Any], int]:
    """The two halves of bringing a slice, and how many values a thread holds between them.

    stage   starts the copies of a slice (asynchronous), or loads it into the registers `held`
    put     stores what is held; nothing where copies are asynchronous
    """
    stripe, line = threads // 4, block_n // 4
    rows = block_m // stripe
    lines = threads // line
    passes = SLICE // lines
    line_bits = line.bit_length() - 1
    left_size = block_m * SLICE

    assert (
        SLICE % lines == 0 and stripe % 8 == 0 and lines % 4 == 0
    )  # so that a thread's rows have the same permutation of chunks

    @device_function
    def left_place(tid):  # type: ignore[no-untyped-def]
        return (tid >> 2) * SLICE + 4 * chunk_of_left((tid >> 2), tid & 3)

    @device_function
    def right_place(tid):  # type: ignore[no-untyped-def]
        row = tid >> line_bits
        return left_size + row * block_n + column_of_right(row, 4 * (tid & line - 1), spread)

    @device_function
    def stage(  # type: ignore[no-untyped-def]
        buffer, to, held, arena, w, tid, origin, corners, r, s, c, taps_h, height, width, dilation_h, dilation_w,
        x_row, x_pixel, at, columns, wide,
    ):  # fmt: skip
        down = np.int32(r * dilation_h)
        across = np.int32(s * dilation_w)
        offset = np.int32(down * x_row + across * x_pixel + 4 * c)
        place = np.int32(to + left_place(thread_anew()))
        for i in range(rows):
            h = np.uint32(np.int32((corners[i] >> 16) + down))
            v = np.uint32(np.int32((np.int32(corners[i] << 16) >> 16) + across))
            inside = h < np.uint32(height) and v < np.uint32(width) and r < taps_h
            if asynchronous:
                copy4(buffer, np.int32(place + i * stripe * SLICE), arena, origin[i] + offset, inside)
            else:
                for e in range(4):
                    held[4 * i + e] = 0.0
                if inside:
                    held[4 * i], held[4 * i + 1], held[4 * i + 2], held[4 * i + 3] = load4(arena, origin[i] + offset)
        place = np.int32(to + right_place(thread_anew()))
        for i in range(passes):
            if asynchronous:
                copy4(buffer, place + i * lines * block_n, w, np.int32(at + i * lines * columns), wide)
            else:
                k = 4 * (rows + i)
                for e in range(4):
                    held[k + e] = 0.0
                if wide:
                    held[k], held[k + 1], held[k + 2], held[k + 3] = load4(w, at + i * lines * columns)

    @device_function
    def put(buffer, to, held, tid):  # type: ignore[no-untyped-def]
        if not asynchronous:
            for i in range(rows):
                place = to + left_place(tid) + i * stripe * SLICE
                store4(buffer, place, held[4 * i], held[4 * i + 1], held[4 * i + 2], held[4 * i + 3])
            for i in range(passes):
                k = 4 * (rows + i)
                place = to + right_place(tid) + i * lines * block_n
                store4(buffer, place, held[k], held[k + 1], held[k + 2], held[k + 3])

    return stage, put, 1 if asynchronous else 4 * (rows + passes)
