"""Pooling: each thread makes one value; windows are clipped to the map, so padding is never read."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, larger
from netdsl.backends.cuda.simt import cuda


def make_maxpool(function: str | None) -> Callable[..., None]:
    """Maximum over each window, then an elementwise function; a window wholly in the padding gives that of -inf."""
    apply = FUNCTIONS[function]

    def maxpool(  # type: ignore[no-untyped-def]
        arena, x, y, a, images, lanes, height, width, in_height, in_width, taps_h, taps_w, stride_h, stride_w,
        top, left, dilation_h, dilation_w, x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i >= images * height * width * lanes:
            return
        c, pixel = i % lanes, i // lanes
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        best = np.float32(-np.inf)
        for s in range(taps_h):
            h = p * stride_h - top + s * dilation_h
            if 0 <= h < in_height:
                for t in range(taps_w):
                    v = q * stride_w - left + t * dilation_w
                    if 0 <= v < in_width:
                        best = larger(arena[x + n * x_image + h * x_row + v * x_pixel + c], best)
        arena[y + n * y_image + p * y_row + q * y_pixel + c] = apply(best, a)

    return maxpool


def make_adaptive_maxpool() -> Callable[..., None]:
    """Maximum over bins: rows h0[p] .. h1[p], columns w0[q] .. w1[q]."""

    def adaptive_maxpool(  # type: ignore[no-untyped-def]
        arena, x, y, h0, h1, w0, w1, images, lanes, height, width, x_image, x_row, x_pixel, y_image, y_row, y_pixel
    ):
        i = cuda.grid(1)
        if i >= images * height * width * lanes:
            return
        c, pixel = i % lanes, i // lanes
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        best = np.float32(-np.inf)
        for h in range(h0[p], h1[p]):
            for v in range(w0[q], w1[q]):
                best = larger(arena[x + n * x_image + h * x_row + v * x_pixel + c], best)
        arena[y + n * y_image + p * y_row + q * y_pixel + c] = best

    return adaptive_maxpool


def make_avgpool() -> Callable[..., None]:
    """Sum over rows h0[p] .. h1[p] and columns w0[q] .. w1[q], times scale[p, q], the reciprocal of their count.

    One kernel for plain, ceil-mode and adaptive average pooling: the tables hold their rules.
    """

    def avgpool(  # type: ignore[no-untyped-def]
        arena, x, y, h0, h1, w0, w1, scale, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i >= images * height * width * lanes:
            return
        c, pixel = i % lanes, i // lanes
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        total = np.float32(0.0)
        for h in range(h0[p], h1[p]):
            part = np.float32(0.0)
            for v in range(w0[q], w1[q]):
                part += arena[x + n * x_image + h * x_row + v * x_pixel + c]
            total += part
        arena[y + n * y_image + p * y_row + q * y_pixel + c] = total * scale[p * width + q]

    return avgpool


def make_lppool(norm: int) -> Callable[..., None]:
    """(sum of x**norm over each window)**(1 / norm), scaled up by scale[p, q] where a window reaches over the edge."""
    inverse = np.float32(1 / norm)

    def lppool(  # type: ignore[no-untyped-def]
        arena, x, y, h0, h1, w0, w1, scale, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i >= images * height * width * lanes:
            return
        c, pixel = i % lanes, i // lanes
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        total = np.float32(0.0)
        for h in range(h0[p], h1[p]):
            for v in range(w0[q], w1[q]):
                value = arena[x + n * x_image + h * x_row + v * x_pixel + c]
                power = value
                for _ in range(norm - 1):
                    power *= value
                total += power
        total *= scale[p * width + q]
        if norm == 2:
            total = np.float32(math.sqrt(total))
        elif norm > 2:
            total = np.float32(math.pow(total, inverse))
        arena[y + n * y_image + p * y_row + q * y_pixel + c] = total

    return lppool
