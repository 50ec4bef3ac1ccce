"""Normalisations computed from the data itself, softmax, and bilinear resampling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netdsl.backends.cpu.kernels.functions import exp, log
from netdsl.backends.cpu.simd import (
    VECTOR_BYTES,
    WIDTH,
    broadcast,
    f32,
    fma,
    i64,
    load,
    mul,
    set_f32,
    splat,
    store,
    sub,
)  # fmt: skip


def make_groupnorm() -> Callable[..., None]:
    """(x - mean) / sqrt(var + eps) over each group of `span` channels of an image, times scale[c] plus shift[c].

    Sums run in float64, one channel after another, as the mean of a large map needs.
    """

    def groupnorm(  # type: ignore[no-untyped-def]
        begin, end, parts, x, y, scale, shift, eps, images, groups, span, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        count = np.float64(span * height * width)
        units = images * groups
        for unit in range(units * begin // parts, units * end // parts):
            g, image = unit % groups, unit // groups
            xi, yi = x + image * x_image, y + image * y_image
            total = 0.0
            for c in range(g * span, (g + 1) * span):
                xc = xi + (c // WIDTH) * x_plane + 4 * (c % WIDTH)
                for h in range(height):
                    for w in range(width):
                        total += np.float64(f32(xc + h * x_row + w * VECTOR_BYTES))
            mean = total / count
            spread = 0.0
            for c in range(g * span, (g + 1) * span):
                xc = xi + (c // WIDTH) * x_plane + 4 * (c % WIDTH)
                for h in range(height):
                    for w in range(width):
                        d = np.float64(f32(xc + h * x_row + w * VECTOR_BYTES)) - mean
                        spread += d * d
            inverse = 1.0 / np.sqrt(spread / count + np.float64(f32(eps)))
            for c in range(g * span, (g + 1) * span):
                offset = 4 * (c % WIDTH)
                xc = xi + (c // WIDTH) * x_plane + offset
                yc = yi + (c // WIDTH) * y_plane + offset
                m = inverse * np.float64(f32(scale + 4 * c))
                b = np.float64(f32(shift + 4 * c)) - mean * m
                for h in range(height):
                    for w in range(width):
                        v = np.float64(f32(xc + h * x_row + w * VECTOR_BYTES)) * m + b
                        set_f32(yc + h * y_row + w * VECTOR_BYTES, np.float32(v))

    return groupnorm


def make_lrn() -> Callable[..., None]:
    """x / (k + alpha / size * sum of squares over `size` channels around)**beta; `facts` = (alpha / size, beta, k)."""

    def lrn(  # type: ignore[no-untyped-def]
        begin, end, parts, x, y, facts, size, images, channels, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        alpha, beta, k = f32(facts), f32(facts + 4), f32(facts + 8)
        units = images * height
        for unit in range(units * begin // parts, units * end // parts):
            h, image = unit % height, unit // height
            xr, yr = x + image * x_image + h * x_row, y + image * y_image + h * y_row
            for w in range(width):
                xp, yp = xr + w * VECTOR_BYTES, yr + w * VECTOR_BYTES
                for b in range((channels + WIDTH - 1) // WIDTH):
                    for c in range(b * WIDTH, min(channels, (b + 1) * WIDTH)):
                        total = np.float32(0.0)
                        for i in range(max(0, c - size // 2), min(channels, c + (size - 1) // 2 + 1)):
                            v = f32(xp + (i // WIDTH) * x_plane + 4 * (i % WIDTH))
                            total += v * v
                        set_f32(yp + b * y_plane + 4 * (c % WIDTH), k + alpha * total)
                    base = load(yp + b * y_plane)
                    power = exp(mul(splat(-beta), log(base)))
                    store(yp + b * y_plane, mul(load(xp + b * x_plane), power))

    return lrn


def make_softmax(logarithm: bool) -> Callable[..., None]:
    """exp(x) / sum exp(x) over the channels of each pixel, or its logarithm; the largest value is taken out first."""

    def softmax(  # type: ignore[no-untyped-def]
        begin, end, parts, x, y, images, channels, height, width, x_image, x_plane, x_row, y_image, y_plane, y_row
    ):
        units = images * height
        for unit in range(units * begin // parts, units * end // parts):
            h, image = unit % height, unit // height
            for w in range(width):
                xp = x + image * x_image + h * x_row + w * VECTOR_BYTES
                yp = y + image * y_image + h * y_row + w * VECTOR_BYTES
                largest = f32(xp)
                for c in range(channels):
                    largest = max(largest, f32(xp + (c // WIDTH) * x_plane + 4 * (c % WIDTH)))
                total = np.float64(0.0)
                for b in range((channels + WIDTH - 1) // WIDTH):
                    at = yp + b * y_plane
                    store(at, exp(sub(load(xp + b * x_plane), splat(largest))))
                    for lane in range(min(WIDTH, channels - b * WIDTH)):
                        total += np.float64(f32(at + 4 * lane))
                for b in range((channels + WIDTH - 1) // WIDTH):
                    at = yp + b * y_plane
                    if logarithm:
                        shift = splat(np.float32(np.float64(largest) + np.log(total)))
                        store(at, sub(load(xp + b * x_plane), shift))
                    else:
                        store(at, mul(load(at), splat(np.float32(1.0 / total))))

    return softmax


def make_bilinear() -> Callable[..., None]:
    """Linear interpolation between rows low_h and high_h, share part_h of the latter (tables); columns likewise."""

    def bilinear(  # type: ignore[no-untyped-def]
        begin, end, parts, x, y, low_h, high_h, part_h, low_w, high_w, part_w, images, blocks, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        units = images * blocks * height
        for unit in range(units * begin // parts, units * end // parts):
            p, image_block = unit % height, unit // height
            xb = x + (image_block // blocks) * x_image + (image_block % blocks) * x_plane
            yr = y + (image_block // blocks) * y_image + (image_block % blocks) * y_plane + p * y_row
            upper, lower = xb + i64(low_h, p) * x_row, xb + i64(high_h, p) * x_row
            down = broadcast(part_h + 4 * p)
            for q in range(width):
                left, right = i64(low_w, q) * VECTOR_BYTES, i64(high_w, q) * VECTOR_BYTES
                across = broadcast(part_w + 4 * q)
                a = fma(across, sub(load(upper + right), load(upper + left)), load(upper + left))
                b = fma(across, sub(load(lower + right), load(lower + left)), load(lower + left))
                store(yr + q * VECTOR_BYTES, fma(down, sub(b, a), a))

    return bilinear
