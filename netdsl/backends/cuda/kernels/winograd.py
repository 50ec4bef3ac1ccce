"""Convolutions of 3x3 windows by Winograd's F(m x m, 3 x 3), m = 4 or 6, in three launches over the pixels' patches.

One transforms patches of n x n inputs, n = m + 2, to V [image, patch down, patch across, n^2, lane]; the products, one
for each of the n^2 cells, are those of a grouped 1x1 convolution (`gemm.py`) to M, laid out alike; one transforms those
back to m x m outputs each, and adds bias, residual and function. A thread has one lane of one patch: its neighbours'
reads and writes lie beside its own. All is float32.

Source: Lavin and Gray, arXiv:1509.09308; the points are those of `plan/winograd.py`: 0, infinity, pairs +p, -p.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numba import float32, int32, int64

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, ZERO, limited
from netdsl.backends.cuda.kernels.gemm import make_gemm
from netdsl.backends.cuda.kernels.gemm_parts import divided, pixel_of
from netdsl.backends.cuda.simt import cuda, device_function
from netdsl.backends.cuda.winograd import TAPS, THREADS
from netdsl.plan.winograd import PAIRS

RESIDENT = {4: 4, 6: 3}  # chosen: blocks of a multiprocessor, so that a patch and its loads find registers

make_winograd_products = make_gemm  # a name of their own in profiles

NARROW = frozenset(
    ["images", "in_height", "in_width", "height", "width", "channels", "lanes", "top", "left", "down", "across",
     "has_residual", "x_row", "x_pixel", "y_row", "y_pixel", "r_row", "r_pixel"]
)  # fmt: skip


@device_function
def get(array, at):  # type: ignore[no-untyped-def]
    """array[at], at not negative: of a signed number Numba would see whether it is."""
    return array[np.uint64(at)]


@device_function
def put(array, at, value):  # type: ignore[no-untyped-def]
    """array[at] = value, at not negative."""
    array[np.uint64(at)] = value


def _points(n: int) -> list[float]:
    """The points above 0; the others are their opposites, 0 and infinity."""
    return [float(Fraction(p)) for p in PAIRS[n]]


def forward(m: int) -> Any:
    """A device function of (values, at, step): values[at + i step], i < n, become what they are at the points.

    In place. Values at +p and -p are what the even and what the odd ones make, plus and minus.
    """
    ps = _points(m + TAPS - 1)
    squares = [p * p for p in ps]
    if m == 4:
        p, q = (np.float32(x) for x in ps)
        pp, qq = (np.float32(x) for x in squares)
        product, total = np.float32(squares[0] * squares[1]), np.float32(sum(squares))

        @device_function
        def six(values, at, step):  # type: ignore[no-untyped-def]
            a, b, c = values[at], values[at + step], values[at + 2 * step]
            d, e, f = values[at + 3 * step], values[at + 4 * step], values[at + 5 * step]
            even, odd = e - qq * c, p * (d - qq * b)
            values[at] = product * a - total * c + e
            values[at + step], values[at + 2 * step] = even + odd, even - odd
            even, odd = e - pp * c, q * (d - pp * b)
            values[at + 3 * step], values[at + 4 * step] = even + odd, even - odd
            values[at + 5 * step] = product * b - total * d + f

        return six
    p, q, r = (np.float32(x) for x in ps)
    x, y, z = squares
    xy, xz, yz = np.float32(x * y), np.float32(x * z), np.float32(y * z)
    x_y, x_z, y_z = np.float32(x + y), np.float32(x + z), np.float32(y + z)
    product, pairs, total = np.float32(x * y * z), np.float32(x * y + x * z + y * z), np.float32(x + y + z)

    @device_function
    def eight(values, at, step):  # type: ignore[no-untyped-def]
        a, b, c, d = values[at], values[at + step], values[at + 2 * step], values[at + 3 * step]
        e, f, g, h = values[at + 4 * step], values[at + 5 * step], values[at + 6 * step], values[at + 7 * step]
        values[at] = g - total * e + pairs * c - product * a
        even, odd = g - y_z * e + yz * c, p * (f - y_z * d + yz * b)
        values[at + step], values[at + 2 * step] = even + odd, even - odd
        even, odd = g - x_z * e + xz * c, q * (f - x_z * d + xz * b)
        values[at + 3 * step], values[at + 4 * step] = even + odd, even - odd
        even, odd = g - x_y * e + xy * c, r * (f - x_y * d + xy * b)
        values[at + 5 * step], values[at + 6 * step] = even + odd, even - odd
        values[at + 7 * step] = h - total * f + pairs * d - product * b

    return eight


def backward(m: int) -> Any:
    """A device function of (values, at, step): of values at the points, values[at + i step], i < n, the first m become
    outputs. In place."""
    ps = _points(m + TAPS - 1)
    if m == 4:
        p, q = (np.float32(x) for x in ps)
        p2, q2 = (np.float32(x**2) for x in ps)
        p3, q3 = (np.float32(x**3) for x in ps)

        @device_function
        def four(values, at, step):  # type: ignore[no-untyped-def]
            a, b, c = values[at], values[at + step], values[at + 2 * step]
            d, e, f = values[at + 3 * step], values[at + 4 * step], values[at + 5 * step]
            even, other_even, odd, other_odd = b + c, d + e, b - c, d - e
            values[at] = a + even + other_even
            values[at + step] = p * odd + q * other_odd
            values[at + 2 * step] = p2 * even + q2 * other_even
            values[at + 3 * step] = p3 * odd + q3 * other_odd + f

        return four
    p, q, r = (np.float32(x) for x in ps)
    p2, q2, r2 = (np.float32(x**2) for x in ps)
    p3, q3, r3 = (np.float32(x**3) for x in ps)
    p4, q4, r4 = (np.float32(x**4) for x in ps)
    p5, q5, r5 = (np.float32(x**5) for x in ps)

    @device_function
    def six(values, at, step):  # type: ignore[no-untyped-def]
        a, b, c, d = values[at], values[at + step], values[at + 2 * step], values[at + 3 * step]
        e, f, g, h = values[at + 4 * step], values[at + 5 * step], values[at + 6 * step], values[at + 7 * step]
        even, odd, even_2, odd_2, even_3, odd_3 = b + c, b - c, d + e, d - e, f + g, f - g
        values[at] = a + even + even_2 + even_3
        values[at + step] = p * odd + q * odd_2 + r * odd_3
        values[at + 2 * step] = p2 * even + q2 * even_2 + r2 * even_3
        values[at + 3 * step] = p3 * odd + q3 * odd_2 + r3 * odd_3
        values[at + 4 * step] = p4 * even + q4 * even_2 + r4 * even_3
        values[at + 5 * step] = p5 * odd + q5 * odd_2 + r5 * odd_3 + h

    return six


def make_winograd_input(m: int) -> Callable[..., None]:
    """Patches of x to V. Lanes of a pixel past its true channels become zero."""
    n = m + TAPS - 1
    held, line = n * n, forward(m)

    def winograd_input(  # type: ignore[no-untyped-def]
        arena, x, v, images, in_height, in_width, channels, lanes, top, left, down, across, x_image, x_row, x_pixel,
    ):  # fmt: skip
        values = cuda.local.array(held, float32)
        columns = cuda.local.array(n, int32)
        thread = cuda.blockIdx.x * int64(THREADS) + cuda.threadIdx.x
        if thread >= int64(images) * down * across * lanes:
            return
        patch, c = divided(thread, lanes)
        image, p, q = pixel_of(patch, down, across)
        corner = x + int64(image) * x_image + c
        wide = int32(in_width if c < channels else 0)
        for j in range(n):
            z = int32(q * m - left + j)
            columns[j] = min(max(z, int32(0)), int32(in_width - 1)) * x_pixel
        for i in range(n):
            h = int32(p * m - top + i)
            row = min(max(h, int32(0)), int32(in_height - 1)) * x_row
            for j in range(n):  # what lies outside is read within, so that no load waits for a branch, and dropped
                value = get(arena, corner + int64(int32(row + columns[j])))
                inside = np.uint32(h) < np.uint32(in_height) and np.uint32(int32(q * m - left + j)) < np.uint32(wide)
                values[i * n + j] = value if inside else ZERO
        for j in range(n):
            line(values, j, n)
        for i in range(n):
            line(values, i * n, 1)
        to = v + int64(patch) * held * lanes + c
        for i in range(held):
            put(arena, to + int64(int32(i * lanes)), values[i])

    winograd_input.narrow = NARROW  # type: ignore[attr-defined]
    winograd_input.launch_bounds = (THREADS, RESIDENT[m])  # type: ignore[attr-defined]
    return winograd_input


def make_winograd_output(m: int, function: str | None) -> Callable[..., None]:
    """M to y: back from the points, bias and residual added, limits, an elementwise function."""
    n = m + TAPS - 1
    held, line, apply = n * n, backward(m), FUNCTIONS[function]

    def winograd_output(  # type: ignore[no-untyped-def]
        arena, v, bias, y, r, low, high, a, images, height, width, lanes, down, across, y_image, y_row, y_pixel,
        r_image, r_row, r_pixel, has_residual,
    ):  # fmt: skip
        values = cuda.local.array(held, float32)
        thread = cuda.blockIdx.x * int64(THREADS) + cuda.threadIdx.x
        if thread >= int64(images) * down * across * lanes:
            return
        patch, k = divided(thread, lanes)
        image, p, q = pixel_of(patch, down, across)
        at = v + int64(patch) * held * lanes + k
        for i in range(held):
            values[i] = get(arena, at + int64(int32(i * lanes)))
        for j in range(n):
            line(values, j, n)
        for i in range(m):
            line(values, i * n, 1)
        b, h, z = get(bias, k), int32(p * m), int32(q * m)
        if has_residual:  # what lies outside is read within and dropped
            at = r + int64(image) * r_image + k
            for i in range(m):
                row = min(int32(h + i), int32(height - 1)) * r_row
                for j in range(m):
                    column = min(int32(z + j), int32(width - 1)) * r_pixel
                    values[i * n + j] += get(arena, at + int64(int32(row + column)))
        for i in range(m):
            for j in range(m):
                values[i * n + j] = apply(limited(values[i * n + j] + b, low, high), a)
        at = y + int64(image) * y_image + int64(h) * y_row + int64(z) * y_pixel + k
        for i in range(m):
            for j in range(m):
                if h + i < height and z + j < width:
                    put(arena, at + int64(int32(i * y_row + j * y_pixel)), values[i * n + j])

    winograd_output.narrow = NARROW  # type: ignore[attr-defined]
    winograd_output.launch_bounds = (THREADS, RESIDENT[m])  # type: ignore[attr-defined]
    return winograd_output
