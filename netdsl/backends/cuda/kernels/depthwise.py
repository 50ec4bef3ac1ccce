"""Depthwise convolution: each channel has its own window and gives one output.

A thread makes `lines` x `strip` outputs of 16 bytes of channels: four, or eight in half precision. It loads each input
pixel that they see once, by 16 bytes, and keeps a row of them in registers, in float32, for all taps across and all its
lines. Neighbouring threads take neighbouring channels.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import float32, int64

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, limited
from netdsl.backends.cuda.kernels.gemm_parts import NARROW, divided
from netdsl.backends.cuda.kernels.maps import values_constants, values_loader, values_storer
from netdsl.backends.cuda.simt import cuda
from netdsl.backends.cuda.views import ELEMENTS

THREADS = 128


def make_depthwise(
    taps_h: int, taps_w: int, stride_h: int, stride_w: int, dilation_h: int, dilation_w: int, lines: int, strip: int,
    function: str | None, x_type: str = "float32", y_type: str = "float32",
) -> Callable[..., None]:  # fmt: skip
    """For one window; more than one line only with stride and dilation 1 downwards. Weights [taps_h, taps_w, lanes].

    The map that is added has x's type in memory; weights, bias and sums are float32.
    """
    apply = FUNCTIONS[function]
    across = (strip - 1) * stride_w + (taps_w - 1) * dilation_w + 1
    rows = lines - 1 + taps_h
    each = 4 * ELEMENTS[x_type]
    held, mine = each * across, each * lines * strip
    load, load_constants, store = values_loader(x_type), values_constants(x_type), values_storer(x_type, y_type)

    def depthwise(  # type: ignore[no-untyped-def]
        arena, x, w, bias, y, r, low, high, a, images, in_height, in_width, height, width, features, top, left,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel, r_image, r_row, r_pixel, has_residual,
    ):  # fmt: skip
        pixels = cuda.local.array(held, float32)
        sums = cuda.local.array(mine, float32)
        strips = (width + strip - 1) // strip
        bands = (height + lines - 1) // lines
        thread = cuda.blockIdx.x * int64(THREADS) + cuda.threadIdx.x
        if thread >= int64(images) * bands * strips * (features // each):
            return
        rest, chunk = divided(thread, features // each)
        rest, column = divided(rest, strips)
        n, band = divided(rest, bands)
        p, q, c = band * lines, column * strip, each * chunk
        b = load_constants(bias, c)
        for i in range(lines * strip):
            for e in range(each):
                sums[each * i + e] = b[e]
        corner = x + int64(n) * x_image + c
        for t in range(rows):
            h = p * stride_h - top + t * dilation_h
            if 0 <= h < in_height:
                for i in range(across):
                    v = q * stride_w - left + i
                    for e in range(each):
                        pixels[each * i + e] = 0.0
                    if 0 <= v < in_width:
                        b = load(arena, corner + int64(h) * x_row + int64(v) * x_pixel)
                        for e in range(each):
                            pixels[each * i + e] = b[e]
                for line in range(lines):
                    if 0 <= t - line < taps_h:
                        for s in range(taps_w):
                            b = load_constants(w, ((t - line) * taps_w + s) * features + c)
                            for j in range(strip):
                                for e in range(each):
                                    near = pixels[each * (j * stride_w + s * dilation_w) + e]
                                    sums[each * (line * strip + j) + e] += near * b[e]
        if has_residual:
            for line in range(lines):
                for j in range(strip):
                    if p + line < height and q + j < width:
                        at = r + int64(n) * r_image + int64(p + line) * r_row + int64(q + j) * r_pixel + c
                        b = load(arena, at)
                        for e in range(each):
                            sums[each * (line * strip + j) + e] += b[e]
        for i in range(mine):
            sums[i] = apply(limited(sums[i], low, high), a)
        for line in range(lines):
            for j in range(strip):
                if p + line < height and q + j < width:
                    at = y + int64(n) * y_image + int64(p + line) * y_row + int64(q + j) * y_pixel + c
                    i = each * (line * strip + j)
                    store(arena, at, sums, i)

    depthwise.narrow = NARROW  # type: ignore[attr-defined]
    depthwise.launch_bounds = (THREADS, 1 if each == 4 else 3)  # type: ignore[attr-defined]
    return depthwise
