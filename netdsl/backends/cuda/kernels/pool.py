"""Pooling: each thread makes 16 bytes of a pixel's channels; windows are clipped to the map: no padding is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, larger, plus, quad_place, times
from netdsl.backends.cuda.kernels.maps import lane, lanewise, loader, storer
from netdsl.backends.cuda.simt import cuda, device_function
from netdsl.backends.cuda.views import ELEMENTS

LOWEST, ZERO = np.float32(-np.inf), np.float32(0.0)


def make_maxpool(function: str | None, x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """Maximum over each window, then an elementwise function; a window wholly in the padding gives that of -inf."""
    load, store, each = loader(x_type), storer(x_type, y_type), ELEMENTS[x_type]
    lowest, most = lane(LOWEST, x_type), lanewise(larger, x_type, 2, 0)
    apply = lanewise(FUNCTIONS[function], x_type, 1, 1)

    def maxpool(  # type: ignore[no-untyped-def]
        arena, x, y, a, images, lanes, height, width, in_height, in_width, taps_h, taps_w, stride_h, stride_w,
        top, left, dilation_h, dilation_w, x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // (4 * each)
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        c = c * each
        b0, b1, b2, b3 = lowest, lowest, lowest, lowest
        for s in range(taps_h):
            h = p * stride_h - top + s * dilation_h
            if 0 <= h < in_height:
                for t in range(taps_w):
                    v = q * stride_w - left + t * dilation_w
                    if 0 <= v < in_width:
                        v0, v1, v2, v3 = load(arena, x + n * x_image + h * x_row + v * x_pixel + c)
                        b0, b1, b2, b3 = most(v0, b0), most(v1, b1), most(v2, b2), most(v3, b3)
        to = y + n * y_image + p * y_row + q * y_pixel + c
        store(arena, to, apply(b0, a), apply(b1, a), apply(b2, a), apply(b3, a))

    return maxpool


def make_adaptive_maxpool(x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """Maximum over bins: rows h0[p] .. h1[p], columns w0[q] .. w1[q]."""
    load, store, each = loader(x_type), storer(x_type, y_type), ELEMENTS[x_type]
    lowest, most = lane(LOWEST, x_type), lanewise(larger, x_type, 2, 0)

    def adaptive_maxpool(  # type: ignore[no-untyped-def]
        arena, x, y, h0, h1, w0, w1, images, lanes, height, width, x_image, x_row, x_pixel, y_image, y_row, y_pixel
    ):
        i, quads = cuda.grid(1), lanes // (4 * each)
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        c = c * each
        b0, b1, b2, b3 = lowest, lowest, lowest, lowest
        for h in range(h0[p], h1[p]):
            for v in range(w0[q], w1[q]):
                v0, v1, v2, v3 = load(arena, x + n * x_image + h * x_row + v * x_pixel + c)
                b0, b1, b2, b3 = most(v0, b0), most(v1, b1), most(v2, b2), most(v3, b3)
        store(arena, y + n * y_image + p * y_row + q * y_pixel + c, b0, b1, b2, b3)

    return adaptive_maxpool


def make_avgpool(x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """Sum over rows h0[p] .. h1[p] and columns w0[q] .. w1[q], times scale[p, q], the reciprocal of their count.

    One kernel for plain, ceil-mode and adaptive average pooling: the tables hold their rules.
    """
    load, store, each = loader(x_type), storer(x_type, y_type), ELEMENTS[x_type]
    zero, add, scaled = lane(ZERO, x_type), lanewise(plus, x_type, 2, 0), lanewise(times, x_type, 1, 1)

    def avgpool(  # type: ignore[no-untyped-def]
        arena, x, y, h0, h1, w0, w1, scale, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // (4 * each)
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        c = c * each
        s0, s1, s2, s3 = zero, zero, zero, zero
        for h in range(h0[p], h1[p]):
            r0, r1, r2, r3 = zero, zero, zero, zero
            for v in range(w0[q], w1[q]):
                v0, v1, v2, v3 = load(arena, x + n * x_image + h * x_row + v * x_pixel + c)
                r0, r1, r2, r3 = add(r0, v0), add(r1, v1), add(r2, v2), add(r3, v3)
            s0, s1, s2, s3 = add(s0, r0), add(s1, r1), add(s2, r2), add(s3, r3)
        m = scale[p * width + q]
        store(
            arena,
            y + n * y_image + p * y_row + q * y_pixel + c,
            scaled(s0, m),
            scaled(s1, m),
            scaled(s2, m),
            scaled(s3, m),
        )

    return avgpool


def _keepers(x_type: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Device functions that put lane k of a thread into shared memory, and get it."""

    @device_function
    def keep(parts, k, part, column, value):  # type: ignore[no-untyped-def]
        parts[k, part, column] = value

    @device_function
    def kept(parts, k, part, column):  # type: ignore[no-untyped-def]
        return parts[k, part, column]

    @device_function
    def keep_pair(parts, k, part, column, pair):  # type: ignore[no-untyped-def]
        parts[2 * k, part, column], parts[2 * k + 1, part, column] = pair

    @device_function
    def kept_pair(parts, k, part, column):  # type: ignore[no-untyped-def]
        return parts[2 * k, part, column], parts[2 * k + 1, part, column]

    return (keep, kept) if x_type == "float32" else (keep_pair, kept_pair)


def make_mean(threads: int, slices: int, x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """The mean of a whole map. A block makes `threads` x 16 bytes of an image; `slices` threads share each sum."""
    keep, kept = _keepers(x_type)
    room = (4 * ELEMENTS[x_type], slices, threads)
    load, store, each = loader(x_type), storer(x_type, y_type), ELEMENTS[x_type]
    zero, add, scaled = lane(ZERO, x_type), lanewise(plus, x_type, 2, 0), lanewise(times, x_type, 1, 1)

    def mean(  # type: ignore[no-untyped-def]
        arena, x, y, lanes, in_height, in_width, x_image, x_row, x_pixel, y_image
    ):
        parts = cuda.shared.array(room, np.float32)
        column, part = cuda.threadIdx.x, cuda.threadIdx.y
        c, n = 4 * each * (cuda.blockIdx.x * threads + column), cuda.blockIdx.y
        s0, s1, s2, s3 = zero, zero, zero, zero
        if c < lanes:
            for pixel in range(part, in_height * in_width, slices):
                at = x + n * x_image + pixel // in_width * x_row + pixel % in_width * x_pixel + c
                v0, v1, v2, v3 = load(arena, at)
                s0, s1, s2, s3 = add(s0, v0), add(s1, v1), add(s2, v2), add(s3, v3)
        keep(parts, 0, part, column, s0)
        keep(parts, 1, part, column, s1)
        keep(parts, 2, part, column, s2)
        keep(parts, 3, part, column, s3)
        cuda.syncthreads()
        if part == 0 and c < lanes:
            for other in range(1, slices):
                s0, s1 = add(s0, kept(parts, 0, other, column)), add(s1, kept(parts, 1, other, column))
                s2, s3 = add(s2, kept(parts, 2, other, column)), add(s3, kept(parts, 3, other, column))
            m = np.float32(1.0) / np.float32(in_height * in_width)
            store(arena, y + n * y_image + c, scaled(s0, m), scaled(s1, m), scaled(s2, m), scaled(s3, m))

    return mean


def _root(norm: int) -> Callable[..., np.float32]:
    """A device function: the root of a sum of powers, scaled."""
    inverse = np.float32(1 / norm)

    @device_function
    def root(total, scale):  # type: ignore[no-untyped-def]
        total = total * scale
        if norm == 1:
            return total
        return np.float32(math.sqrt(total)) if norm == 2 else np.float32(math.pow(total, inverse))

    return root


def make_lppool(norm: int, x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """(sum of x**norm over each window)**(1 / norm), scaled up by scale[p, q] where a window reaches over the edge."""
    load, store, each = loader(x_type), storer(x_type, y_type), ELEMENTS[x_type]
    zero, add, mul = lane(ZERO, x_type), lanewise(plus, x_type, 2, 0), lanewise(times, x_type, 2, 0)
    root = lanewise(_root(norm), x_type, 1, 1)

    def lppool(  # type: ignore[no-untyped-def]
        arena, x, y, h0, h1, w0, w1, scale, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // (4 * each)
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        c = c * each
        s0, s1, s2, s3 = zero, zero, zero, zero
        for h in range(h0[p], h1[p]):
            for v in range(w0[q], w1[q]):
                v0, v1, v2, v3 = load(arena, x + n * x_image + h * x_row + v * x_pixel + c)
                p0, p1, p2, p3 = v0, v1, v2, v3
                for _ in range(norm - 1):
                    p0, p1, p2, p3 = mul(p0, v0), mul(p1, v1), mul(p2, v2), mul(p3, v3)
                s0, s1, s2, s3 = add(s0, p0), add(s1, p1), add(s2, p2), add(s3, p3)
        m = scale[p * width + q]
        to = y + n * y_image + p * y_row + q * y_pixel + c
        store(arena, to, root(s0, m), root(s1, m), root(s2, m), root(s3, m))

    return lppool
