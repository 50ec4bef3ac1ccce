"""Pooling: each thread makes four channels of a pixel; windows are clipped to the map, so padding is never read."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, larger, quad_place
from netdsl.backends.cuda.kernels.ptx import load4, store4
from netdsl.backends.cuda.simt import cuda, device_function

LOWEST, ZERO = np.float32(-np.inf), np.float32(0.0)


def make_maxpool(function: str | None) -> Callable[..., None]:
    """Maximum over each window, then an elementwise function; a window wholly in the padding gives that of -inf."""
    apply = FUNCTIONS[function]

    def maxpool(  # type: ignore[no-untyped-def]
        arena, x, y, a, images, lanes, height, width, in_height, in_width, taps_h, taps_w, stride_h, stride_w,
        top, left, dilation_h, dilation_w, x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // 4
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        b0, b1, b2, b3 = LOWEST, LOWEST, LOWEST, LOWEST
        for s in range(taps_h):
            h = p * stride_h - top + s * dilation_h
            if 0 <= h < in_height:
                for t in range(taps_w):
                    v = q * stride_w - left + t * dilation_w
                    if 0 <= v < in_width:
                        v0, v1, v2, v3 = load4(arena, x + n * x_image + h * x_row + v * x_pixel + c)
                        b0, b1, b2, b3 = larger(v0, b0), larger(v1, b1), larger(v2, b2), larger(v3, b3)
        to = y + n * y_image + p * y_row + q * y_pixel + c
        store4(arena, to, apply(b0, a), apply(b1, a), apply(b2, a), apply(b3, a))

    return maxpool


def make_adaptive_maxpool() -> Callable[..., None]:
    """Maximum over bins: rows h0[p] .. h1[p], columns w0[q] .. w1[q]."""

    def adaptive_maxpool(  # type: ignore[no-untyped-def]
        arena, x, y, h0, h1, w0, w1, images, lanes, height, width, x_image, x_row, x_pixel, y_image, y_row, y_pixel
    ):
        i, quads = cuda.grid(1), lanes // 4
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        b0, b1, b2, b3 = LOWEST, LOWEST, LOWEST, LOWEST
        for h in range(h0[p], h1[p]):
            for v in range(w0[q], w1[q]):
                v0, v1, v2, v3 = load4(arena, x + n * x_image + h * x_row + v * x_pixel + c)
                b0, b1, b2, b3 = larger(v0, b0), larger(v1, b1), larger(v2, b2), larger(v3, b3)
        store4(arena, y + n * y_image + p * y_row + q * y_pixel + c, b0, b1, b2, b3)

    return adaptive_maxpool


def make_avgpool() -> Callable[..., None]:
    """Sum over rows h0[p] .. h1[p] and columns w0[q] .. w1[q], times scale[p, q], the reciprocal of their count.

    One kernel for plain, ceil-mode and adaptive average pooling: the tables hold their rules.
    """

    def avgpool(  # type: ignore[no-untyped-def]
        arena, x, y, h0, h1, w0, w1, scale, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // 4
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        s0, s1, s2, s3 = ZERO, ZERO, ZERO, ZERO
        for h in range(h0[p], h1[p]):
            r0, r1, r2, r3 = ZERO, ZERO, ZERO, ZERO
            for v in range(w0[q], w1[q]):
                v0, v1, v2, v3 = load4(arena, x + n * x_image + h * x_row + v * x_pixel + c)
                r0, r1, r2, r3 = r0 + v0, r1 + v1, r2 + v2, r3 + v3
            s0, s1, s2, s3 = s0 + r0, s1 + r1, s2 + r2, s3 + r3
        m = scale[p * width + q]
        store4(arena, y + n * y_image + p * y_row + q * y_pixel + c, s0 * m, s1 * m, s2 * m, s3 * m)

    return avgpool


def make_mean(threads: int, slices: int) -> Callable[..., None]:
    """The mean of a whole map. A block makes `threads` x 4 channels of an image; `slices` threads share each sum."""

    def mean(  # type: ignore[no-untyped-def]
        arena, x, y, lanes, in_height, in_width, x_image, x_row, x_pixel, y_image
    ):
        parts = cuda.shared.array((4, slices, threads), np.float32)
        column, part = cuda.threadIdx.x, cuda.threadIdx.y
        c, n = 4 * (cuda.blockIdx.x * threads + column), cuda.blockIdx.y
        s0, s1, s2, s3 = ZERO, ZERO, ZERO, ZERO
        if c < lanes:
            for pixel in range(part, in_height * in_width, slices):
                at = x + n * x_image + pixel // in_width * x_row + pixel % in_width * x_pixel + c
                v0, v1, v2, v3 = load4(arena, at)
                s0, s1, s2, s3 = s0 + v0, s1 + v1, s2 + v2, s3 + v3
        parts[0, part, column], parts[1, part, column] = s0, s1
        parts[2, part, column], parts[3, part, column] = s2, s3
        cuda.syncthreads()
        if part == 0 and c < lanes:
            for other in range(1, slices):
                s0, s1 = s0 + parts[0, other, column], s1 + parts[1, other, column]
                s2, s3 = s2 + parts[2, other, column], s3 + parts[3, other, column]
            m = np.float32(1.0) / np.float32(in_height * in_width)
            store4(arena, y + n * y_image + c, s0 * m, s1 * m, s2 * m, s3 * m)

    return mean


def _root(norm: int) -> Callable[..., np.float32]:
    """A device function: the root of a sum of powers."""
    inverse = np.float32(1 / norm)

    @device_function
    def root(total):  # type: ignore[no-untyped-def]
        if norm == 1:
            return total
        return np.float32(math.sqrt(total)) if norm == 2 else np.float32(math.pow(total, inverse))

    return root


def make_lppool(norm: int) -> Callable[..., None]:
    """(sum of x**norm over each window)**(1 / norm), scaled up by scale[p, q] where a window reaches over the edge."""
    root = _root(norm)

    def lppool(  # type: ignore[no-untyped-def]
        arena, x, y, h0, h1, w0, w1, scale, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // 4
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        s0, s1, s2, s3 = ZERO, ZERO, ZERO, ZERO
        for h in range(h0[p], h1[p]):
            for v in range(w0[q], w1[q]):
                v0, v1, v2, v3 = load4(arena, x + n * x_image + h * x_row + v * x_pixel + c)
                p0, p1, p2, p3 = v0, v1, v2, v3
                for _ in range(norm - 1):
                    p0, p1, p2, p3 = p0 * v0, p1 * v1, p2 * v2, p3 * v3
                s0, s1, s2, s3 = s0 + p0, s1 + p1, s2 + p2, s3 + p3
        m = scale[p * width + q]
        to = y + n * y_image + p * y_row + q * y_pixel + c
        store4(arena, to, root(s0 * m), root(s1 * m), root(s2 * m), root(s3 * m))

    return lppool
