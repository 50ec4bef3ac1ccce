"""Point-by-point kernels: each thread makes one value (vectors of features are maps of 1x1)."""

from __future__ import annotations

from collections.abc import Callable

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, limited
from netdsl.backends.cuda.simt import cuda


def make_unary(function: str) -> Callable[..., None]:
    """y = function(x, a)."""
    apply = FUNCTIONS[function]

    def unary(  # type: ignore[no-untyped-def]
        arena, x, y, a, images, lanes, height, width, x_image, x_row, x_pixel, y_image, y_row, y_pixel
    ):
        i = cuda.grid(1)
        if i >= images * height * width * lanes:
            return
        c, pixel = i % lanes, i // lanes
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        value = apply(arena[x + n * x_image + p * x_row + q * x_pixel + c], a)
        arena[y + n * y_image + p * y_row + q * y_pixel + c] = value

    return unary


def make_affine() -> Callable[..., None]:
    """y = x scale[c] + shift[c], limited to low .. high."""

    def affine(  # type: ignore[no-untyped-def]
        arena, x, y, scale, shift, low, high, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i >= images * height * width * lanes:
            return
        c, pixel = i % lanes, i // lanes
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        value = arena[x + n * x_image + p * x_row + q * x_pixel + c] * scale[c] + shift[c]
        arena[y + n * y_image + p * y_row + q * y_pixel + c] = limited(value, low, high)

    return affine


def make_prelu() -> Callable[..., None]:
    """y = x where x is not negative, slope[c] x elsewhere."""

    def prelu(  # type: ignore[no-untyped-def]
        arena, x, y, slope, images, lanes, height, width, x_image, x_row, x_pixel, y_image, y_row, y_pixel
    ):
        i = cuda.grid(1)
        if i >= images * height * width * lanes:
            return
        c, pixel = i % lanes, i // lanes
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        value = arena[x + n * x_image + p * x_row + q * x_pixel + c]
        arena[y + n * y_image + p * y_row + q * y_pixel + c] = slope[c] * value if value < 0 else value

    return prelu


def make_binary(function: str) -> Callable[..., None]:
    """y = b + c or b c, limited to low .. high. Strides of 0 repeat an operand (a gate has one pixel)."""
    multiplies = function == "mul"

    def binary(  # type: ignore[no-untyped-def]
        arena, b, c, y, low, high, images, lanes, height, width,
        b_image, b_row, b_pixel, c_image, c_row, c_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i >= images * height * width * lanes:
            return
        k, pixel = i % lanes, i // lanes
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        left = arena[b + n * b_image + p * b_row + q * b_pixel + k]
        right = arena[c + n * c_image + p * c_row + q * c_pixel + k]
        value = left * right if multiplies else left + right
        arena[y + n * y_image + p * y_row + q * y_pixel + k] = limited(value, low, high)

    return binary
