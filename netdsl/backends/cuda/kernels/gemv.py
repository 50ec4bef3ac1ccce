"""Dense layers of few images: the weights, read once, decide the time.

A block makes 32 columns for all pixels. Its threads are 8 across, four columns each by 16-byte loads, x 32 down
the depth; a thread keeps LOADS rows of weights in flight. Blocks along y share the depth; the last to finish adds their
sums in the order of depth. Weights and arguments are those of `gemm.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import float32, int32, int64

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, limited
from netdsl.backends.cuda.kernels.gemm_parts import NARROW, pixel_of, share
from netdsl.backends.cuda.kernels.ptx import ALIGN, load4, store4
from netdsl.backends.cuda.simt import cuda

THREADS = 256
ACROSS = 8  # threads along the columns
DOWN = THREADS // ACROSS  # threads along the depth
COLUMNS = 4 * ACROSS
SLAB = 1024  # values of depth whose inputs are in shared memory together; also what the block's sums need there
LOADS = 8  # chosen: 32 KiB of weights in flight for each block


def make_gemv(most: int, function: str | None) -> Callable[..., None]:
    """For at most so many output pixels, in float32."""
    apply = FUNCTIONS[function]
    room, mine, held = SLAB * most, 4 * most, 4 * LOADS

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
        for base in range(first, last, SLAB // 4):
            here = min(SLAB // 4, last - base)
            cuda.syncthreads()
            for m in range(most):
                n, p, q = pixel_of(m, height, width)
                for v in range(tid, here, THREADS):
                    s, t, c = pixel_of(base + v, taps_w, chunks)
                    h = p * stride_h - top + s * dilation_h
                    z = q * stride_w - left + t * dilation_w
                    to = m * SLAB + 4 * v
                    if m < pixels and s < taps_h and 0 <= h < in_height and 0 <= z < in_width:
                        f = load4(arena, x + int64(n) * x_image + int64(h) * x_row + int64(z) * x_pixel + 4 * c)
                        store4(values, to, f[0], f[1], f[2], f[3])
                    else:
                        store4(values, to, float32(0.0), float32(0.0), float32(0.0), float32(0.0))
            cuda.syncthreads()
            if column < columns:
                for start in range(down, 4 * here, LOADS * DOWN):
                    for i in range(LOADS):
                        k = start + i * DOWN
                        for e in range(4):
                            rows[4 * i + e] = 0.0
                        if k < 4 * here:
                            b = load4(w, (4 * int64(base) + k) * columns + column)
                            for e in range(4):
                                rows[4 * i + e] = b[e]
                    for i in range(LOADS):
                        k = min(start + i * DOWN, 4 * here - 1)
                        for m in range(most):
                            for e in range(4):
                                sums[4 * m + e] += values[m * SLAB + k] * rows[4 * i + e]
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
                total += arena[r + int64(n) * r_image + int64(p) * r_row + int64(q) * r_pixel + k]
            total = apply(limited(total, low, high), a)
            arena[y + int64(n) * y_image + int64(p) * y_row + int64(q) * y_pixel + k] = total

    gemv.narrow = NARROW  # type: ignore[attr-defined]
    gemv.launch_bounds = (THREADS, 4 if most <= 2 else 2)  # type: ignore[attr-defined]
    return gemv
