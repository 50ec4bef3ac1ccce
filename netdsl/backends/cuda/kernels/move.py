"""Kernels that only move values: layout changes at the borders, and gathers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdsl.backends.cuda.kernels.functions import between, quad_place
from netdsl.backends.cuda.kernels.maps import getter, lanewise, loader, setter, storer
from netdsl.backends.cuda.simt import cuda, device_function
from netdsl.backends.cuda.views import ELEMENTS

ZERO = np.float32(0.0)


def _taker(y_type: str) -> Callable[..., Any]:
    """A device function: lane k from channel c on of the caller's array; `at` is where c lies, c is always there."""

    @device_function
    def value(source, at, plane, c, channels, k):  # type: ignore[no-untyped-def]
        return source[at + k * plane] if k == 0 or c + k < channels else ZERO

    @device_function
    def pair(source, at, plane, c, channels, k):  # type: ignore[no-untyped-def]
        return value(source, at, plane, c, channels, 2 * k), value(source, at, plane, c, channels, 2 * k + 1)

    return value if y_type == "float32" else pair


def make_pack(y_type: str = "float32") -> Callable[..., None]:
    """The caller's array [N, C, H, W] to channels last; lanes past the last channel become 0."""
    take, store, each = _taker(y_type), storer(y_type, y_type), ELEMENTS[y_type]

    def pack(  # type: ignore[no-untyped-def]
        arena, source, y, images, channels, lanes, height, width, y_image, y_row, y_pixel
    ):
        i, quads = cuda.grid(1), lanes // (4 * each)
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        c = c * each
        plane = height * width
        at = (n * channels + c) * plane + p * width + q
        v0, v1 = take(source, at, plane, c, channels, 0), take(source, at, plane, c, channels, 1)
        v2, v3 = take(source, at, plane, c, channels, 2), take(source, at, plane, c, channels, 3)
        store(arena, y + n * y_image + p * y_row + q * y_pixel + c, v0, v1, v2, v3)

    return pack


def make_unpack(x_type: str = "float32") -> Callable[..., None]:
    """A map, channels last, into the caller's array [N, C, H, W]."""
    get = getter(x_type)

    def unpack(arena, target, x, images, channels, height, width, x_image, x_row, x_pixel):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i >= images * height * width * channels:
            return
        q, line = i % width, i // width
        p, plane = line % height, line // height
        c, n = plane % channels, plane // channels
        target[i] = get(arena, x + n * x_image + p * x_row + q * x_pixel + c)

    return unpack


def make_flatten(x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """A map, channels last, into the vector of its values by channel, row, column; zeros up to `lanes`."""
    get, put = getter(x_type), setter(y_type)

    def flatten(arena, x, y, images, channels, lanes, height, width, x_image, x_row, x_pixel, y_image):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i >= images * lanes:
            return
        f, n = i % lanes, i // lanes
        q, line = f % width, f // width
        p, c = line % height, line // height
        value = ZERO
        if c < channels:
            value = get(arena, x + n * x_image + p * x_row + q * x_pixel + c)
        put(arena, y + n * y_image + f, value)

    return flatten


def make_gather(x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """y[c, p, q] = x[channel[c], row[p], column[q]], or `fill` where any of them is -1. Tables of int32."""
    get, put = getter(x_type), setter(y_type)

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
            value = get(arena, x + n * x_image + h * x_row + v * x_pixel + k)
        put(arena, y + n * y_image + p * y_row + q * y_pixel + c, value)

    return gather


def make_bilinear(x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """Linear interpolation between rows low_h and high_h, share part_h of the latter (tables); columns likewise."""
    load, store, each = loader(x_type), storer(x_type, y_type), ELEMENTS[x_type]
    near = lanewise(between, x_type, 2, 1)

    def bilinear(  # type: ignore[no-untyped-def]
        arena, x, y, low_h, high_h, part_h, low_w, high_w, part_w, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // (4 * each)
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        c = c * each
        upper, lower = x + n * x_image + low_h[p] * x_row + c, x + n * x_image + high_h[p] * x_row + c
        left, right, across, down = low_w[q] * x_pixel, high_w[q] * x_pixel, part_w[q], part_h[p]
        a0, a1, a2, a3 = load(arena, upper + left)
        b0, b1, b2, b3 = load(arena, upper + right)
        a0, a1 = near(a0, b0, across), near(a1, b1, across)
        a2, a3 = near(a2, b2, across), near(a3, b3, across)
        c0, c1, c2, c3 = load(arena, lower + left)
        d0, d1, d2, d3 = load(arena, lower + right)
        c0, c1 = near(c0, d0, across), near(c1, d1, across)
        c2, c3 = near(c2, d2, across), near(c3, d3, across)
        to = y + n * y_image + p * y_row + q * y_pixel + c
        store(arena, to, near(a0, c0, down), near(a1, c1, down), near(a2, c2, down), near(a3, c3, down))

    return bilinear
