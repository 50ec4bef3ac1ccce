"""3x3 convolution of stride 1 by Winograd's F(m x m, 3 x 3) over blocked channels.

For a block of patches: transform the inputs of all channels to V, then for a few tiles of outputs `together` multiply
the (m+2)^2 planes with the transformed weights to M and transform back, epilogue included. M stays in the second-level
cache, and so does V unless the weights are so large that reading them often would cost more.
V is [cell][channel block][patch][lane], M is [cell][output block][patch][lane]. The transforms are those of
`netdsl.backends.cpu.winograd`, along one axis at a time, with what rows share computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from netdsl.backends.cpu.kernels.conv import AHEAD
from netdsl.backends.cpu.kernels.functions import FUNCTIONS
from netdsl.backends.cpu.simd import (
    VECTOR_BYTES,
    Tile,
    add,
    broadcast,
    fma,
    load,
    maximum,
    minimum,
    prefetch,
    splat,
    store,
    sub,
)  # fmt: skip

c = np.float32


@njit
def _input_2(x, step, y, out):  # type: ignore[no-untyped-def]
    d0, d1, d2, d3 = load(x), load(x + step), load(x + 2 * step), load(x + 3 * step)
    store(y, sub(d0, d2))
    store(y + out, add(d1, d2))
    store(y + 2 * out, sub(d2, d1))
    store(y + 3 * out, sub(d3, d1))


@njit
def _output_2(x, step, y, out):  # type: ignore[no-untyped-def]
    m0, m1, m2, m3 = load(x), load(x + step), load(x + 2 * step), load(x + 3 * step)
    store(y, add(m0, add(m1, m2)))
    store(y + out, add(sub(m1, m2), m3))


@njit
def _input_4(x, step, y, out):  # type: ignore[no-untyped-def]
    d0, d1, d2 = load(x), load(x + step), load(x + 2 * step)
    d3, d4, d5 = load(x + 3 * step), load(x + 4 * step), load(x + 5 * step)
    four, five, two = splat(c(4.0)), splat(c(-5.0)), splat(c(2.0))
    minus = splat(c(-4.0))
    even, odd = fma(minus, d2, d4), fma(minus, d1, d3)
    near, far = sub(d4, d2), sub(d3, d1)
    store(y, fma(five, d2, fma(four, d0, d4)))
    store(y + out, add(even, odd))
    store(y + 2 * out, sub(even, odd))
    store(y + 3 * out, fma(two, far, near))
    store(y + 4 * out, fma(splat(c(-2.0)), far, near))
    store(y + 5 * out, fma(five, d3, fma(four, d1, d5)))


@njit
def _output_4(x, step, y, out):  # type: ignore[no-untyped-def]
    m0, m1, m2 = load(x), load(x + step), load(x + 2 * step)
    m3, m4, m5 = load(x + 3 * step), load(x + 4 * step), load(x + 5 * step)
    near_sum, near_gap, far_sum, far_gap = add(m1, m2), sub(m1, m2), add(m3, m4), sub(m3, m4)
    store(y, add(m0, add(near_sum, far_sum)))
    store(y + out, fma(splat(c(2.0)), far_gap, near_gap))
    store(y + 2 * out, fma(splat(c(4.0)), far_sum, near_sum))
    store(y + 3 * out, add(fma(splat(c(8.0)), far_gap, near_gap), m5))


@njit
def _input_6(x, step, y, out):  # type: ignore[no-untyped-def]
    d0, d1, d2, d3 = load(x), load(x + step), load(x + 2 * step), load(x + 3 * step)
    d4, d5, d6, d7 = load(x + 4 * step), load(x + 5 * step), load(x + 6 * step), load(x + 7 * step)
    store(y, add(fma(splat(c(5.25)), sub(d4, d2), d0), sub(splat(c(0.0)), d6)))
    store(y + 7 * out, add(fma(splat(c(5.25)), sub(d3, d5), d7), sub(splat(c(0.0)), d1)))
    even, odd = fma(splat(c(-4.25)), d4, add(d2, d6)), fma(splat(c(-4.25)), d3, add(d1, d5))
    store(y + out, add(even, odd))
    store(y + 2 * out, sub(even, odd))
    even = fma(splat(c(-1.25)), d4, fma(splat(c(0.25)), d2, d6))
    odd = fma(splat(c(0.5)), d1, fma(splat(c(-2.5)), d3, fma(splat(c(2.0)), d5, splat(c(0.0)))))
    store(y + 3 * out, add(even, odd))
    store(y + 4 * out, sub(even, odd))
    even = fma(splat(c(-5.0)), d4, fma(splat(c(4.0)), d2, d6))
    odd = fma(splat(c(2.0)), d1, fma(splat(c(-2.5)), d3, fma(splat(c(0.5)), d5, splat(c(0.0)))))
    store(y + 5 * out, add(even, odd))
    store(y + 6 * out, sub(even, odd))


@njit
def _output_6(x, step, y, out):  # type: ignore[no-untyped-def]
    m0, m1, m2, m3 = load(x), load(x + step), load(x + 2 * step), load(x + 3 * step)
    m4, m5, m6, m7 = load(x + 4 * step), load(x + 5 * step), load(x + 6 * step), load(x + 7 * step)
    s1, g1, s2, g2, s3, g3 = add(m1, m2), sub(m1, m2), add(m3, m4), sub(m3, m4), add(m5, m6), sub(m5, m6)
    store(y, add(m0, add(s1, fma(splat(c(32.0)), s3, s2))))
    store(y + out, fma(splat(c(16.0)), g3, fma(splat(c(2.0)), g2, g1)))
    store(y + 2 * out, fma(splat(c(8.0)), s3, fma(splat(c(4.0)), s2, s1)))
    store(y + 3 * out, fma(splat(c(4.0)), g3, fma(splat(c(8.0)), g2, g1)))
    store(y + 4 * out, fma(splat(c(2.0)), s3, fma(splat(c(16.0)), s2, s1)))
    store(y + 5 * out, add(m7, add(g3, fma(splat(c(32.0)), g2, g1))))


INPUT: dict[int, Any] = {2: _input_2, 4: _input_4, 6: _input_6}
OUTPUT: dict[int, Any] = {2: _output_2, 4: _output_4, 6: _output_6}


def _limited(function: str | None) -> Any:
    """The last step of the epilogue: limits, or an elementwise function."""
    if function is None:

        @njit
        def limit(value, low, high, a):  # type: ignore[no-untyped-def]
            return minimum(maximum(value, low), high)

        return limit
    apply = FUNCTIONS[function]

    @njit
    def call(value, low, high, a):  # type: ignore[no-untyped-def]
        return apply(value, a)

    return call


def make_winograd(m: int, rows: int, cols: int, function: str | None) -> Callable[..., None]:
    """Register tile: rows patches x cols output blocks. `scratch` holds `scratch_bytes` for each thread."""
    finish = _limited(function)
    tile = Tile(rows, cols, VECTOR_BYTES // 4)
    start, outer, put = tile.start, tile.outer, tile.put
    side = m + 2
    cells = side * side
    input_1d, output_1d = INPUT[m], OUTPUT[m]
    step = cols * VECTOR_BYTES
    lanes = VECTOR_BYTES // 4

    @njit
    def transform_in(x, x_row, v, v_cell, work):  # type: ignore[no-untyped-def]
        for j in range(side):
            input_1d(x + j * VECTOR_BYTES, x_row, work + j * VECTOR_BYTES, side * VECTOR_BYTES)
        for i in range(side):
            input_1d(work + i * side * VECTOR_BYTES, VECTOR_BYTES, v + i * side * v_cell, v_cell)

    @njit
    def transform_out(u, u_cell, y, y_row, r, r_row, bias, height, width, low, high, a, work):  # type: ignore[no-untyped-def]
        for j in range(side):
            output_1d(u + j * u_cell, side * u_cell, work + j * VECTOR_BYTES, side * VECTOR_BYTES)
        line = work + m * side * VECTOR_BYTES
        for i in range(min(m, height)):
            output_1d(work + i * side * VECTOR_BYTES, VECTOR_BYTES, line, VECTOR_BYTES)
            for j in range(min(m, width)):
                value = add(load(line + j * VECTOR_BYTES), bias)
                if r != 0:
                    value = add(value, load(r + i * r_row + j * VECTOR_BYTES))
                store(y + i * y_row + j * VECTOR_BYTES, finish(value, low, high, a))

    def winograd(  # type: ignore[no-untyped-def]
        tid, nt, x, u, bias, y, r, limits, zeros, scratch, scratch_bytes,
        images, down, across, depth, groups, blocks, patches, chunks, together, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row, r_image, r_plane, r_row,
    ):  # fmt: skip
        low, high, a = broadcast(limits), broadcast(limits + 4), broadcast(limits + 8)
        total = images * down * across
        parts = (total + patches - 1) // patches
        work = scratch + tid * scratch_bytes
        v = work + (cells + side) * VECTOR_BYTES
        v_block = patches * VECTOR_BYTES
        v_cell = depth * v_block
        o = v + cells * v_cell
        o_cell = together * cols * v_block
        units = parts * chunks
        done = -1
        for unit in range(units * tid // nt, units * (tid + 1) // nt):
            chunk, part = unit % chunks, unit // chunks
            first = total * part // parts
            count = total * (part + 1) // parts - first
            if part != done:
                for b in range(depth):
                    for t in range(count):
                        image, place = (first + t) // (down * across), (first + t) % (down * across)
                        corner = (place // across) * m * x_row + (place % across) * m * VECTOR_BYTES
                        xt = x + image * x_image + b * x_plane + corner
                        transform_in(xt, x_row, v + b * v_block + t * VECTOR_BYTES, v_cell, work)
                done = part
            last = groups * (chunk + 1) // chunks
            for g0 in range(groups * chunk // chunks, last, together):
                g1 = min(last, g0 + together)
                for e in range(cells):
                    for g in range(g0, g1):
                        product = o + e * o_cell + (g - g0) * cols * v_block
                        for t in range(0, count, rows):
                            acc = start(zeros)
                            wt = u + (g * cells + e) * depth * lanes * step
                            vt = v + e * v_cell + t * VECTOR_BYTES
                            for _ in range(depth):
                                for lane in range(lanes):
                                    for ahead in range(AHEAD, AHEAD + step, 64):
                                        prefetch(wt + ahead)
                                    acc = outer(acc, vt + 4 * lane, 0, wt)
                                    wt += step
                                vt += v_block
                            put(
                                acc, product + t * VECTOR_BYTES, 0, VECTOR_BYTES, v_block, 1, min(rows, count - t), cols
                            )
                for k in range(g0 * cols, min(blocks, g1 * cols)):
                    lift = load(bias + k * VECTOR_BYTES)
                    for t in range(count):
                        image, place = (first + t) // (down * across), (first + t) % (down * across)
                        p, q = (place // across) * m, (place % across) * m
                        yt = y + image * y_image + k * y_plane + p * y_row + q * VECTOR_BYTES
                        rt = r + image * r_image + k * r_plane + p * r_row + q * VECTOR_BYTES if r != 0 else 0
                        transform_out(
                            o + (k - g0 * cols) * v_block + t * VECTOR_BYTES, o_cell, yt, y_row, rt, r_row, lift,
                            height - p, width - q, low, high, a, work,
                        )  # fmt: skip

    return winograd
