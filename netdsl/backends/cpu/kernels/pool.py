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


def make_maxpool(r: int, s: int, function: str | None) -> Callable[..., None]:
    """Maximum over windows of r x s cells, then an elementwise function.

    A window wholly in the padding gives the function of -inf. Columns `inner0` .. `inner1` of the result are those
    whose windows lie within the map's width: nothing is asked about their cells.
    """
    apply = FUNCTIONS[function or "identity"]

    def maxpool(  # type: ignore[no-untyped-def]
        begin, end, parts, x, y, parameter, images, blocks, bands, height, width, inner0, inner1, in_height, in_width,
        stride_h, stride_w, top, left, dilation_h, dilation_w, x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        a = broadcast(parameter)
        apart = dilation_w * VECTOR_BYTES
        units = images * blocks * bands
        for unit in range(units * begin // parts, units * end // parts):
            band, image_block = unit % bands, unit // bands
            xb = x + (image_block // blocks) * x_image + (image_block % blocks) * x_plane
            yb = y + (image_block // blocks) * y_image + (image_block % blocks) * y_plane
            for p in range(height * band // bands, height * (band + 1) // bands):
                h0 = p * stride_h - top
                first = max(0, (dilation_h - 1 - h0) // dilation_h)  # rows of the window within the map
                last = min(r, (in_height - h0 + dilation_h - 1) // dilation_h)
                xp = xb + h0 * x_row - left * VECTOR_BYTES
                for q in range(width):
                    best = splat(np.float32(-np.inf))
                    if inner0 <= q < inner1:
                        for i in range(first, last):
                            at = xp + i * dilation_h * x_row + q * stride_w * VECTOR_BYTES
                            for j in range(s):
                                best = larger(load(at + j * apart), best)
                    else:
                        for i in range(first, last):
                            for j in range(s):
                                w = q * stride_w + j * dilation_w
                                if left <= w < left + in_width:
                                    best = larger(load(xp + i * dilation_h * x_row + w * VECTOR_BYTES), best)
                    store(yb + p * y_row + q * VECTOR_BYTES, apply(best, a))

    return maxpool


def make_avgpool() -> Callable[..., None]:
    """Mean over each window: rows h0[p] .. h1[p], columns w0[q] .. w1[q], times the reciprocal scale[p, q].

    One kernel for plain, ceil-mode and adaptive average pooling: the tables hold their rules.
    """

    def avgpool(  # type: ignore[no-untyped-def]
        begin, end, parts, x, y, h0, h1, w0, w1, scale, images, blocks, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        units = images * blocks
        for unit in range(units * begin // parts, units * end // parts):
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
        begin, end, parts, x, y, h0, h1, w0, w1, images, blocks, height, width, x_image, x_plane, x_row, y_image,
        y_plane, y_row,
    ):  # fmt: skip
        units = images * blocks
        for unit in range(units * begin // parts, units * end // parts):
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
        begin, end, parts, x, y, h0, h1, w0, w1, scale, images, blocks, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        units = images * blocks
        for unit in range(units * begin // parts, units * end // parts):
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
