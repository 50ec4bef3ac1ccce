"""Dense layers of few images: the weights, read once, decide the time.

A block makes 32 columns for all pixels. Its threads are 8 across, four columns each by 16-byte loads, x 32 down
the depth; a thread keeps LOADS rows of weights in flight. Blocks along y share the depth; the last to finish adds their
sums in the order of depth. Weights and arguments are those of `gemm.py`. In half precision a row of weights is two
depths, and half as many bytes are read; inputs are halves in memory, and float32 once they are in shared memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float32, int32, int64

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, limited
from netdsl.backends.cuda.kernels.gemm_parts import NARROW, pixel_of, share
from netdsl.backends.cuda.kernels.maps import PAIRS, getter, setter
from netdsl.backends.cuda.kernels.ptx import ALIGN, load2, load4, store4
from netdsl.backends.cuda.simt import cuda, device_function

THREADS = 256
ACROSS = 8  # threads along the columns
DOWN = THREADS // ACROSS  # threads along the depth
COLUMNS = 4 * ACROSS
SLAB = 1024  # values of depth whose inputs are in shared memory together; also what the block's sums need there
NOTHING = (np.float32(0.0),) * 4
LOADS = 8  # chosen: 32 KiB of weights in flight for each block


def _multiply(most: int, weights: str) -> tuple[Any, int]:
    """What adds row i of the weights held, the k-th of the slab, to all sums; and how many depths a row is."""

    @device_function
    def whole(sums, values, rows, i, k):  # type: ignore[no-untyped-def]
        for m in range(most):
            for e in range(4):
                sums[4 * m + e] += values[m * SLAB + k] * rows[4 * i + e]

    if weights == "float32":
        return whole, 1
    _, halves = PAIRS[weights]

    @device_function
    def half(sums, values, rows, i, k):  # type: ignore[no-untyped-def]
        for e in range(4):
            first, second = halves(rows[4 * i + e])
            for m in range(most):
                x, y = load2(values, m * SLAB + 2 * k)
                sums[4 * m + e] += x * first
                sums[4 * m + e] += y * second

    return half, 2


def _spread(x_type: str) -> Any:
    """What stores a chunk of the input, four words, to shared memory as float32."""

    @device_function
    def floats(values, to, f):  # type: ignore[no-untyped-def]
        store4(values, to, f[0], f[1], f[2], f[3])

    if x_type == "float32":
        return floats
    _, pair = PAIRS[x_type]

    @device_function
    def halves(values, to, f):  # type: ignore[no-untyped-def]
        a, b, c, d = pair(f[0]), pair(f[1]), pair(f[2]), pair(f[3])
        store4(values, to, a[0], a[1], b[0], b[1])
        store4(values, to + 4, c[0], c[1], d[0], d[1])

    return halves


def make_gemv(
    most: int, function: str | None, weights: str = "float32", y_type: str = "float32"
) -> Callable[..., None]:
    """For at most so many output pixels, weights, input and what is added stored in float32, float16 or bfloat16."""
    apply = FUNCTIONS[function]
    multiply, depths = _multiply(most, weights)
    loads = LOADS if most * depths < 16 else LOADS // 2  # a longer loop is not unrolled, and its rows would not stay
    room, mine, held = SLAB * most, 4 * most, 4 * loads
    chunk = 4 * depths  # values of 16 bytes
    spread, get, put = _spread(weights), getter(weights), setter(y_type)

    def gemv(  # type: ignore[no-untyped-def]
        arena, x, w, bias, y, r, low, high, a, images, in_height, in_width, height, width, taps_h, taps_w,
        stride_h, stride_w, top, left, dilation_h, dilation_w, x_image, x_row, x_pixel, y_image, y_row, y_pixel,
        r_image, r_row, r_pixel, scratch, counters, has_residual, columns, chunks, slices, splits,
    ):  # fmt: skip
        values = cuda.shared.array(room, float32, ALIGN)
        sums = cuda.local.array(mine, float32)
        rows = cuda.local.array(held, float32)
        tid = int32(cuda.threadIdx.x)
        down = tid >> 3
        column = int32(cuda.blockIdx.x * COLUMNS + 4 * (tid & ACROSS - 1))
        pixels = images * height * width
        first = 4 * share(cuda.blockIdx.y, slices, splits)
        last = 4 * share(cuda.blockIdx.y + 1, slices, splits)
        for i in range(mine):
            sums[i] = 0.0
        for base in range(first, last, SLAB // chunk):
            here = min(SLAB // chunk, last - base)
            cuda.syncthreads()
            for m in range(most):
                n, p, q = pixel_of(m, height, width)
                for v in range(tid, here, THREADS):
                    s, t, c = pixel_of(base + v, taps_w, chunks)
                    h = p * stride_h - top + s * dilation_h
                    z = q * stride_w - left + t * dilation_w
                    to = m * SLAB + chunk * v
                    if m < pixels and s < taps_h and 0 <= h < in_height and 0 <= z < in_width:
                        f = load4(arena, x + int64(n) * x_image + int64(h) * x_row + int64(z) * x_pixel + 4 * c)
                        spread(values, to, f)
                    else:
                        spread(values, to, NOTHING)
            cuda.syncthreads()
            count = 4 * here
            if column < columns:
                for start in range(down, count, loads * DOWN):
                    for i in range(loads):
                        k = start + i * DOWN
                        for e in range(4):
                            rows[4 * i + e] = 0.0
                        if k < count:
                            b = load4(w, (4 * int64(base) + k) * columns + column)
                            for e in range(4):
                                rows[4 * i + e] = b[e]
                    for i in range(loads):
                        multiply(sums, values, rows, i, min(start + i * DOWN, count - 1))
        cuda.syncthreads()
        for m in range(most):
            to = m * SLAB + down * COLUMNS + 4 * (tid & ACROSS - 1)
            store4(values, to, sums[4 * m], sums[4 * m + 1], sums[4 * m + 2], sums[4 * m + 3])
        cuda.syncthreads()
        m = tid >> 5
        k = tid & COLUMNS - 1
        total = float32(0.0)
        if m < most:
            for i in range(DOWN):
                total += values[m * SLAB + i * COLUMNS + k]
        if splits > 1:
            tile = scratch + int64(cuda.blockIdx.x) * splits * COLUMNS * most + tid
            if m < most:
                arena[tile + cuda.blockIdx.y * COLUMNS * most] = total
            cuda.threadfence()
            cuda.syncthreads()
            before = 0
            if tid == 0:
                before = cuda.atomic.add(counters, cuda.blockIdx.x, 1)
            if not cuda.syncthreads_or(int32(before == splits - 1)):
                return
            if tid == 0:
                counters[cuda.blockIdx.x] = 0
            cuda.threadfence()
            total = float32(0.0)
            if m < most:
                for i in range(splits):
                    total += arena[tile + i * COLUMNS * most]
        k = int32(cuda.blockIdx.x * COLUMNS + k)
        if m < min(pixels, most) and k < columns:
            n, p, q = pixel_of(m, height, width)
            total += bias[k]
            if has_residual:
                total += get(arena, r + int64(n) * r_image + int64(p) * r_row + int64(q) * r_pixel + k)
            total = apply(limited(total, low, high), a)
            put(arena, y + int64(n) * y_image + int64(p) * y_row + int64(q) * y_pixel + k, total)

    gemv.narrow = NARROW  # type: ignore[attr-defined]
    gemv.launch_bounds = (THREADS, 4 if most <= 2 else 2)  # type: ignore[attr-defined]
    return gemv
