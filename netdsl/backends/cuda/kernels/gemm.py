"""Convolution and dense layers as one product of matrices that are never built (implicit GEMM).

The product's rows are output pixels of all images, its columns output channels, its depth the window's taps x channels.
A block of threads makes a tile of block_m x block_n of it. Depth goes by slices that asynchronous 16-byte copies bring
to shared memory, `stages` slices in flight (`gemm_stage.py`); threads multiply slices out of it by float32
multiply-adds (`gemm_fma.py`) or tensor cores (`gemm_mma.py`) and keep their sums in registers.

Where tiles are too few to fill the device, `splits` blocks share a tile's depth. Each leaves its sums in `scratch`; the
last to finish adds them all in the order of depth, so that the same input gives the same bits.

Sources: Chetlur et al., arXiv:1410.0759 (implicit GEMM); Nath, Tomov, Dongarra, "An improved MAGMA GEMM for Fermi",
2010 (register tiles); CUTLASS, media/docs/efficient_gemm.md (the hierarchy of tiles, splitting depth).
"""

from __future__ import annotations

from collections.abc import Callable

from numba import float32, int32, int64

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, limited
from netdsl.backends.cuda.kernels.gemm_fma import fma_product
from netdsl.backends.cuda.kernels.gemm_mma import mma_product
from netdsl.backends.cuda.kernels.gemm_parts import NARROW, divided, pixel_of, share
from netdsl.backends.cuda.kernels.gemm_product import Product, add4, adder, put4, putter
from netdsl.backends.cuda.kernels.gemm_stage import OUTSIDE, SLICE, make_stage, next_chunk
from netdsl.backends.cuda.kernels.maps import getter, setter, word_finder
from netdsl.backends.cuda.kernels.ptx import ALIGN, block_anew, copies_commit, copies_wait, thread_anew
from netdsl.backends.cuda.precision import map_type
from netdsl.backends.cuda.simt import cuda
from netdsl.backends.cuda.views import ELEMENTS

# Functions applied to the sums in their registers; others, too long to repeat for each, to the results just written,
# which a map of halves has rounded by then.
SHORT = (None, "relu", "relu6", "leaky", "sigmoid", "silu", "hardsigmoid", "hardswish")


def make_gemm(
    block_m: int, block_n: int, rows: int, columns: int, stages: int, copies: str, resident: int, function: str | None
) -> Callable[..., None]:
    """In float32. `copies` is "async", or "register" for devices without asynchronous copies (two stages)."""
    return _make(block_m, block_n, fma_product(block_m, block_n, rows, columns), stages, copies, resident, function)


def make_mma(
    block_m: int,
    block_n: int,
    warp_m: int,
    warp_n: int,
    stages: int,
    precision: str,
    resident: int,
    function: str | None,
    y_type: str = "float32",
) -> Callable[..., None]:
    """On tensor cores, factors rounded to `precision` (tf32, float16, bfloat16), sums in float32.

    In half precision the input and the map that is added are of that type in memory, the result of `y_type`.
    """
    product = mma_product(block_m, block_n, warp_m, warp_n, precision)
    return _make(block_m, block_n, product, stages, "async", resident, function, map_type(precision), y_type)


def _make(
    block_m: int, block_n: int, product: Product, stages: int, copies: str, resident: int, function: str | None,
    r_type: str = "float32", y_type: str = "float32",
) -> Callable[..., None]:  # fmt: skip
    asynchronous = copies == "async"
    threads, sums_each = product.threads, product.sums
    stage, put, held_size = make_stage(block_m, block_n, threads, product.spread, asynchronous)
    place, multiply = product.place, product.multiply
    rows, row_step, runs, apart, run = product.rows, product.row_step, product.runs, product.apart, product.run
    left_size, right_size = product.left, product.right
    size = SLICE * (block_m + block_n)
    whole = stages * size
    ahead, older = stages - 1, stages - 2
    staged_rows, stripe, line = block_m * 4 // threads, threads // 4, block_n // 4
    line_bits = line.bit_length() - 1
    pieces = sums_each // 4  # of sums that blocks share
    add_bias = adder("float32", run)
    add_map, r_word, r_apart = adder(r_type, run), word_finder(r_type), apart // ELEMENTS[r_type]
    put_map, y_word, y_apart = putter(y_type, run), word_finder(y_type), apart // ELEMENTS[y_type]
    get_one, put_one = getter(y_type), setter(y_type)
    late = function not in SHORT or (function is not None and sums_each > 64)
    soon, apply = FUNCTIONS[None if late else function], FUNCTIONS[function]

    def gemm(  # type: ignore[no-untyped-def]
        arena, x, w, bias, y, r, low, high, a, images, in_height, in_width, height, width, taps_h, taps_w,
        stride_h, stride_w, top, left, dilation_h, dilation_w, x_image, x_row, x_pixel, y_image, y_row, y_pixel,
        r_image, r_row, r_pixel, scratch, counters, has_residual, x_group, w_group, w_columns, columns, chunks, slices,
        splits, tiles_n, step_r, step_s, step_c,
    ):  # fmt: skip
        buffer = cuda.shared.array(whole, float32, ALIGN)
        origin = cuda.local.array(staged_rows, int64)
        corners = cuda.local.array(staged_rows, int32)
        held = cuda.local.array(held_size, float32)
        sums = cuda.local.array(sums_each, float32)
        places = cuda.local.array(rows, int64)
        lefts_now = cuda.local.array(left_size, float32)
        rights_now = cuda.local.array(right_size, float32)

        tid = int32(cuda.threadIdx.x)
        tile, group, split = int32(cuda.blockIdx.x), int32(cuda.blockIdx.y), int32(cuda.blockIdx.z)
        tile_m, tile_n = divided(tile, tiles_n)
        first = share(split, slices, splits)
        count = int32(share(split + 1, slices, splits) - first)

        for i in range(staged_rows):
            n, p, q = pixel_of(tile_m * block_m + (tid >> 2) + i * stripe, height, width)
            h, v = p * stride_h - top, q * stride_w - left
            corners[i] = int32(h << 16 | v & 65535) if n < images else OUTSIDE
            origin[i] = x + group * x_group + n * x_image + h * x_row + v * x_pixel
        u, s, c = pixel_of(4 * first + (tid & 3), taps_w, chunks)
        column = int32(tile_n * block_n + 4 * (tid & line - 1))
        wide = column < w_columns
        at = int32(group * w_group + (int64(first) * SLICE + (tid >> line_bits)) * w_columns + (column if wide else 0))
        for i in range(sums_each):
            sums[i] = 0.0

        for t in range(ahead):
            if t < count:
                stage(buffer, t * size, held, arena, w, tid, origin, corners, u, s, c, taps_h, in_height, in_width,
                      dilation_h, dilation_w, x_row, x_pixel, at, w_columns, wide)  # fmt: skip
                put(buffer, t * size, held, tid)
            if asynchronous:
                copies_commit()
            u, s, c = next_chunk(u, s, c, taps_w, chunks, step_r, step_s, step_c)
            at = int32(at + SLICE * w_columns)
        here = int32(0)
        while count > 0:
            if asynchronous:
                copies_wait(older)
            cuda.syncthreads()
            there = int32(here - size if here >= size else here + whole - size)
            if count > ahead:
                stage(buffer, there, held, arena, w, tid, origin, corners, u, s, c, taps_h, in_height, in_width,
                      dilation_h, dilation_w, x_row, x_pixel, at, w_columns, wide)  # fmt: skip
            if asynchronous:
                copies_commit()
            u, s, c = next_chunk(u, s, c, taps_w, chunks, step_r, step_s, step_c)
            at = int32(at + SLICE * w_columns)
            multiply(buffer, here, sums, lefts_now, rights_now)
            if not asynchronous and count > ahead:
                put(buffer, there, held, tid)
            here = int32(here + size if here < whole - size else 0)
            count = int32(count - 1)

        tid, tile = thread_anew(), block_anew()  # read anew: the loop above has no register to keep them in
        if splits > 1:
            tiles = int64(cuda.gridDim.x) * cuda.gridDim.y
            mine = tile + int64(cuda.gridDim.x) * cuda.blockIdx.y
            base = scratch + (mine * threads + tid) * 4
            for i in range(pieces):
                put4(arena, base + (cuda.blockIdx.z * pieces + i) * tiles * threads * 4, sums, i * 4)
            cuda.threadfence()
            cuda.syncthreads()
            before = 0
            if tid == 0:
                before = cuda.atomic.add(counters, mine, 1)
            if not cuda.syncthreads_or(int32(before == splits - 1)):
                return
            if tid == 0:
                counters[mine] = 0
            cuda.threadfence()
            for i in range(sums_each):
                sums[i] = 0.0
            for z in range(splits):
                for i in range(pieces):
                    add4(arena, base + (z * pieces + i) * tiles * threads * 4, sums, i * 4)

        row, column = place(tid)
        tile_m, tile_n = divided(tile, tiles_n)
        first_m = int32(tile_m * block_m + row)
        column = int32(tile_n * block_n + column)
        group_column = cuda.blockIdx.y * columns + column
        for j in range(runs):
            if column + j * apart < columns:
                for i in range(rows):
                    add_bias(bias, group_column + j * apart, sums, (i * runs + j) * run)
        if has_residual:
            for i in range(rows):
                n, p, q = pixel_of(first_m + i * row_step, height, width)
                places[i] = r_word(r + n * r_image + p * r_row + q * r_pixel + group_column) if n < images else -1
            for i in range(rows):
                for j in range(runs):
                    if places[i] >= 0 and column + j * apart < columns:
                        add_map(arena, places[i] + j * r_apart, sums, (i * runs + j) * run)
        for i in range(sums_each):
            sums[i] = soon(limited(sums[i], low, high), a)
        for i in range(rows):
            n, p, q = pixel_of(first_m + i * row_step, height, width)
            places[i] = y_word(y + n * y_image + p * y_row + q * y_pixel + group_column) if n < images else -1
        for i in range(rows):
            for j in range(runs):
                if places[i] >= 0 and column + j * apart < columns:
                    put_map(arena, places[i] + j * y_apart, sums, (i * runs + j) * run)
        if late:
            for i in range(rows):
                n, p, q = pixel_of(first_m + i * row_step, height, width)
                for j in range(runs):
                    if n < images and column + j * apart < columns:
                        at = y + n * y_image + p * y_row + q * y_pixel + group_column + j * apart
                        for e in range(run):
                            put_one(arena, at + e, apply(get_one(arena, at + e), a))

    gemm.narrow = NARROW  # type: ignore[attr-defined]
    gemm.launch_bounds = (threads, resident)  # type: ignore[attr-defined]
    return gemm
