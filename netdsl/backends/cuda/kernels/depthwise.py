"""Depthwise convolution: each channel has its own window and gives one output.

A thread makes `lines` x `strip` outputs of four channels. It loads each input pixel that they see once, by 16 bytes,
and keeps a row of them in registers for all taps across and all its lines. Neighbouring threads take neighbouring
channels.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import float32, int64

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, limited
from netdsl.backends.cuda.kernels.gemm_parts import NARROW, divided
from netdsl.backends.cuda.kernels.ptx import load4, store4
from netdsl.backends.cuda.simt import cuda

THREADS = 128


def make_depthwise(
    taps_h: int, taps_w: int, stride_h: int, stride_w: int, dilation_h: int, dilation_w: int, lines: int, strip: int,
    function: str | None,
) -> Callable[..., None]:  # fmt: skip
    """For one window; more than one line only with stride and dilation 1 downwards. Weights [taps_h, taps_w, lanes]."""
    apply = FUNCTIONS[function]
    across = (strip - 1) * stride_w + (taps_w - 1) * dilation_w + 1
    rows = lines - 1 + taps_h
    held, mine = 4 * across, 4 * lines * strip

    def depthwise(  # type: ignore[no-untyped-def]
        arena, x, w, bias, y, r, low, high, a, images, in_height, in_width, height, width, features, top, left,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel, r_image, r_row, r_pixel, has_residual,
    ):  # fmt: skip
        pixels = cuda.local.array(held, float32)
        sums = cuda.local.array(mine, float32)
        strips = (width + strip - 1) // strip
        bands = (height + lines - 1) // lines
        thread = cuda.blockIdx.x * int64(THREADS) + cuda.threadIdx.x
        if thread >= int64(images) * bands * strips * (features // 4):
            return
        rest, chunk = divided(thread, features // 4)
        rest, column = divided(rest, strips)
        n, band = divided(rest, bands)
        p, q, c = band * lines, column * strip, 4 * chunk
        b = load4(bias, c)
        for i in range(lines * strip):
            for e in range(4):
                sums[4 * i + e] = b[e]
        corner = x + int64(n) * x_image + c
        for t in range(rows):
            h = p * stride_h - top + t * dilation_h
            if 0 <= h < in_height:
                for i in range(across):
                    v = q * stride_w - left + i
                    for e in range(4):
                        pixels[4 * i + e] = 0.0
                    if 0 <= v < in_width:
                        b = load4(arena, corner + int64(h) * x_row + int64(v) * x_pixel)
                        for e in range(4):
                            pixels[4 * i + e] = b[e]
                for line in range(lines):
                    if 0 <= t - line < taps_h:
                        for s in range(taps_w):
                            b = load4(w, ((t - line) * taps_w + s) * features + c)
                            for j in range(strip):
                                for e in range(4):
                                    near = pixels[4 * (j * stride_w + s * dilation_w) + e]
                                    sums[4 * (line * strip + j) + e] += near * b[e]
        if has_residual:
            for line in range(lines):
                for j in range(strip):
                    if p + line < height and q + j < width:
                        at = r + int64(n) * r_image + int64(p + line) * r_row + int64(q + j) * r_pixel + c
                        b = load4(arena, at)
                        for e in range(4):
                            sums[4 * (line * strip + j) + e] += b[e]
        for i in range(mine):
            sums[i] = apply(limited(sums[i], low, high), a)
        for line in range(lines):
            for j in range(strip):
                if p + line < height and q + j < width:
                    at = y + int64(n) * y_image + int64(p + line) * y_row + int64(q + j) * y_pixel + c
                    i = 4 * (line * strip + j)
                    store4(arena, at, sums[i], sums[i + 1], sums[i + 2], sums[i + 3])

    depthwise.narrow = NARROW  # type: ignore[attr-defined]
    depthwise.launch_bounds = (THREADS, 1)  # type: ignore[attr-defined]
    return depthwise
