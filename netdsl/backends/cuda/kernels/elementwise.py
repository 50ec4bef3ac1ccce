"""Point-by-point kernels: each thread makes four channels of a pixel (vectors of features are maps of 1x1)."""

from __future__ import annotations

from collections.abc import Callable

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, limited, quad_place
from netdsl.backends.cuda.kernels.ptx import load4, store4
from netdsl.backends.cuda.simt import cuda


def make_unary(function: str) -> Callable[..., None]:
    """y = function(x, a)."""
    apply = FUNCTIONS[function]

    def unary(  # type: ignore[no-untyped-def]
        arena, x, y, a, images, lanes, height, width, x_image, x_row, x_pixel, y_image, y_row, y_pixel
    ):
        i, quads = cuda.grid(1), lanes // 4
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        v0, v1, v2, v3 = load4(arena, x + n * x_image + p * x_row + q * x_pixel + c)
        to = y + n * y_image + p * y_row + q * y_pixel + c
        store4(arena, to, apply(v0, a), apply(v1, a), apply(v2, a), apply(v3, a))

    return unary


def make_affine() -> Callable[..., None]:
    """y = x scale[c] + shift[c], limited to low .. high."""

    def affine(  # type: ignore[no-untyped-def]
        arena, x, y, scale, shift, low, high, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // 4
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        v0, v1, v2, v3 = load4(arena, x + n * x_image + p * x_row + q * x_pixel + c)
        m0, m1, m2, m3 = load4(scale, c)
        b0, b1, b2, b3 = load4(shift, c)
        v0, v1 = limited(v0 * m0 + b0, low, high), limited(v1 * m1 + b1, low, high)
        v2, v3 = limited(v2 * m2 + b2, low, high), limited(v3 * m3 + b3, low, high)
        store4(arena, y + n * y_image + p * y_row + q * y_pixel + c, v0, v1, v2, v3)

    return affine


def make_prelu() -> Callable[..., None]:
    """y = x where x is not negative, slope[c] x elsewhere."""
    leaky = FUNCTIONS["leaky"]

    def prelu(  # type: ignore[no-untyped-def]
        arena, x, y, slope, images, lanes, height, width, x_image, x_row, x_pixel, y_image, y_row, y_pixel
    ):
        i, quads = cuda.grid(1), lanes // 4
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        v0, v1, v2, v3 = load4(arena, x + n * x_image + p * x_row + q * x_pixel + c)
        s0, s1, s2, s3 = load4(slope, c)
        to = y + n * y_image + p * y_row + q * y_pixel + c
        store4(arena, to, leaky(v0, s0), leaky(v1, s1), leaky(v2, s2), leaky(v3, s3))

    return prelu


def make_binary(function: str) -> Callable[..., None]:
    """y = b + c or b c, limited to low .. high. Strides of 0 repeat an operand (a gate has one pixel)."""
    multiplies = function == "mul"

    def binary(  # type: ignore[no-untyped-def]
        arena, b, c, y, low, high, images, lanes, height, width,
        b_image, b_row, b_pixel, c_image, c_row, c_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // 4
        if i >= images * height * width * quads:
            return
        k, q, p, n = quad_place(i, quads, width, height)
        v0, v1, v2, v3 = load4(arena, b + n * b_image + p * b_row + q * b_pixel + k)
        u0, u1, u2, u3 = load4(arena, c + n * c_image + p * c_row + q * c_pixel + k)
        if multiplies:
            v0, v1, v2, v3 = v0 * u0, v1 * u1, v2 * u2, v3 * u3
        else:
            v0, v1, v2, v3 = v0 + u0, v1 + u1, v2 + u2, v3 + u3
        v0, v1, v2, v3 = limited(v0, low, high), limited(v1, low, high), limited(v2, low, high), limited(v3, low, high)
        store4(arena, y + n * y_image + p * y_row + q * y_pixel + k, v0, v1, v2, v3)

    return binary
