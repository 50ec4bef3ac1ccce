"""Kernels that only move values: layout changes at the borders, and gathers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from netdsl.backends.cuda.kernels.functions import quad_place
from netdsl.backends.cuda.kernels.ptx import load4, store4
from netdsl.backends.cuda.simt import cuda

ZERO = np.float32(0.0)


def make_pack() -> Callable[..., None]:
    """The caller's array [N, C, H, W] to channels last; lanes past the last channel become 0."""

    def pack(  # type: ignore[no-untyped-def]
        arena, source, y, images, channels, lanes, height, width, y_image, y_row, y_pixel
    ):
        i, quads = cuda.grid(1), lanes // 4
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        plane = height * width
        at = (n * channels + c) * plane + p * width + q
        v0 = source[at]
        v1 = source[at + plane] if c + 1 < channels else ZERO
        v2 = source[at + 2 * plane] if c + 2 < channels else ZERO
        v3 = source[at + 3 * plane] if c + 3 < channels else ZERO
        store4(arena, y + n * y_image + p * y_row + q * y_pixel + c, v0, v1, v2, v3)

    return pack


def make_unpack() -> Callable[..., None]:
    """A map, channels last, into the caller's array [N, C, H, W]."""

    def unpack(arena, target, x, images, channels, height, width, x_image, x_row, x_pixel):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i >= images * height * width * channels:
            return
        q, line = i % width, i // width
        p, plane = line % height, line // height
        c, n = plane % channels, plane // channels
        target[i] = arena[x + n * x_image + p * x_row + q * x_pixel + c]

    return unpack


def make_flatten() -> Callable[..., None]:
    """A map, channels last, into the vector of its values by channel, row, column; zeros up to `lanes`."""

    def flatten(arena, x, y, images, channels, lanes, height, width, x_image, x_row, x_pixel, y_image):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i >= images * lanes:
            return
        f, n = i % lanes, i // lanes
        q, line = f % width, f // width
        p, c = line % height, line // height
        value = ZERO
        if c < channels:
            value = arena[x + n * x_image + p * x_row + q * x_pixel + c]
        arena[y + n * y_image + f] = value

    return flatten


def make_gather() -> Callable[..., None]:
    """y[c, p, q] = x[channel[c], row[p], column[q]], or `fill` where any of them is -1. Tables of int32."""

    def gather(  # type: ignore[no-untyped-def]
        arena, x, y, channel, row, column, fill, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i >= images * height * width * lanes:
            return
        c, pixel = i % lanes, i // lanes
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        k, h, v = channel[c], row[p], column[q]
        value = fill
        if k >= 0 and h >= 0 and v >= 0:
            value = arena[x + n * x_image + h * x_row + v * x_pixel + k]
        arena[y + n * y_image + p * y_row + q * y_pixel + c] = value

    return gather


def make_bilinear() -> Callable[..., None]:
    """Linear interpolation between rows low_h and high_h, share part_h of the latter (tables); columns likewise."""

    def bilinear(  # type: ignore[no-untyped-def]
        arena, x, y, low_h, high_h, part_h, low_w, high_w, part_w, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // 4
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        upper, lower = x + n * x_image + low_h[p] * x_row + c, x + n * x_image + high_h[p] * x_row + c
        left, right, across, down = low_w[q] * x_pixel, high_w[q] * x_pixel, part_w[q], part_h[p]
        a0, a1, a2, a3 = load4(arena, upper + left)
        b0, b1, b2, b3 = load4(arena, upper + right)
        a0, a1, a2, a3 = (
            a0 + across * (b0 - a0),
            a1 + across * (b1 - a1),
            a2 + across * (b2 - a2),
            a3 + across * (b3 - a3),
        )
        c0, c1, c2, c3 = load4(arena, lower + left)
        d0, d1, d2, d3 = load4(arena, lower + right)
        c0, c1, c2, c3 = (
            c0 + across * (d0 - c0),
            c1 + across * (d1 - c1),
            c2 + across * (d2 - c2),
            c3 + across * (d3 - c3),
        )
        to = y + n * y_image + p * y_row + q * y_pixel + c
        store4(arena, to, a0 + down * (c0 - a0), a1 + down * (c1 - a1), a2 + down * (c2 - a2), a3 + down * (c3 - a3))

    return bilinear
