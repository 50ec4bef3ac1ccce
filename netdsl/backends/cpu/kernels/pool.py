"""Pooling over blocked channels: windows are clipped to the map, so padding is never read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netdsl.backends.cpu.kernels.functions import FUNCTIONS, exp, log
from netdsl.backends.cpu.simd import (
    VECTOR_BYTES,
    add,
    broadcast,
    i64,
    larger,
    load,
    mul,
    splat,
    sqrt,
    store,
    where_positive,
    zero,
)  # fmt: skip


def make_maxpool(function: str | None) -> Callable[..., None]:
    """Maximum over each window, then an elementwise function; a window wholly in the padding gives that of -inf."""
    apply = FUNCTIONS[function or "identity"]

    def maxpool(  # type: ignore[no-untyped-def]
        tid, nt, x, y, parameter, images, blocks, bands, height, width, in_height, in_width, r, s, stride_h, stride_w,
        top, left, dilation_h, dilation_w, x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        a = broadcast(parameter)
        units = images * blocks * bands
        for unit in range(units * tid // nt, units * (tid + 1) // nt):
            band, image_block = unit % bands, unit // bands
            xb = x + (image_block // blocks) * x_image + (image_block % blocks) * x_plane
            yb = y + (image_block // blocks) * y_image + (image_block % blocks) * y_plane
            for p in range(height * band // bands, height * (band + 1) // bands):
                for q in range(width):
                    h0, w0 = p * stride_h - top, q * stride_w - left
                    best = splat(np.float32(-np.inf))
                    for i in range(r):
                        h = h0 + i * dilation_h
                        if 0 <= h < in_height:
                            for j in range(s):
                                w = w0 + j * dilation_w
                                if 0 <= w < in_width:
                                    best = larger(load(xb + h * x_row + w * VECTOR_BYTES), best)
                    store(yb + p * y_row + q * VECTOR_BYTES, apply(best, a))

    return maxpool


def make_avgpool() -> Callable[..., None]:
    """Mean over each window: rows h0[p] .. h1[p], columns w0[q] .. w1[q], times the reciprocal scale[p, q].

    One kernel for plain, ceil-mode and adaptive average pooling: the tables hold their rules.
    """

    def avgpool(  # type: ignore[no-untyped-def]
        tid, nt, x, y, h0, h1, w0, w1, scale, images, blocks, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        units = images * blocks
        for unit in range(units * tid // nt, units * (tid + 1) // nt):
            xb = x + (unit // blocks) * x_image + (unit % blocks) * x_plane
            yb = y + (unit // blocks) * y_image + (unit % blocks) * y_plane
            for p in range(height):
                for q in range(width):
                    total = zero()
                    for h in range(i64(h0, p), i64(h1, p)):
                        row = zero()
                        for w in range(i64(w0, q), i64(w1, q)):
                            row = add(row, load(xb + h * x_row + w * VECTOR_BYTES))
                        total = add(total, row)
                    store(yb + p * y_row + q * VECTOR_BYTES, mul(total, broadcast(scale + 4 * (p * width + q))))

    return avgpool


def make_adaptive_maxpool() -> Callable[..., None]:
    """Maximum over bins: rows h0[p] .. h1[p], columns w0[q] .. w1[q]."""

    def adaptive_maxpool(  # type: ignore[no-untyped-def]
        tid, nt, x, y, h0, h1, w0, w1, images, blocks, height, width, x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        units = images * blocks
        for unit in range(units * tid // nt, units * (tid + 1) // nt):
            xb = x + (unit // blocks) * x_image + (unit % blocks) * x_plane
            yb = y + (unit // blocks) * y_image + (unit % blocks) * y_plane
            for p in range(height):
                for q in range(width):
                    best = splat(np.float32(-np.inf))
                    for h in range(i64(h0, p), i64(h1, p)):
                        for w in range(i64(w0, q), i64(w1, q)):
                            best = larger(load(xb + h * x_row + w * VECTOR_BYTES), best)
                    store(yb + p * y_row + q * VECTOR_BYTES, best)

    return adaptive_maxpool


def make_lppool(norm: int) -> Callable[..., None]:
    """(sum of x**norm over each window)**(1 / norm), scaled up by scale[p, q] where a window reaches over the edge."""
    inverse = np.float32(1 / norm)

    def lppool(  # type: ignore[no-untyped-def]
        tid, nt, x, y, h0, h1, w0, w1, scale, images, blocks, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        units = images * blocks
        for unit in range(units * tid // nt, units * (tid + 1) // nt):
            xb = x + (unit // blocks) * x_image + (unit % blocks) * x_plane
            yb = y + (unit // blocks) * y_image + (unit % blocks) * y_plane
            for p in range(height):
                for q in range(width):
                    total = zero()
                    for h in range(i64(h0, p), i64(h1, p)):
                        for w in range(i64(w0, q), i64(w1, q)):
                            v = load(xb + h * x_row + w * VECTOR_BYTES)
                            power = v
                            for _ in range(norm - 1):
                                power = mul(power, v)
                            total = add(total, power)
                    total = mul(total, broadcast(scale + 4 * (p * width + q)))
                    if norm > 1:  # the root of a sum that is not positive: 0 of 0, nan of a negative one
                        root = sqrt(total)
                        if norm > 2:
                            root = where_positive(total, exp(mul(log(total), splat(inverse))), root)
                        total = root
                    store(yb + p * y_row + q * VECTOR_BYTES, total)

    return lppool
