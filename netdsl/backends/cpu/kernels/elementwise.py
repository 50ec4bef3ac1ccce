"""Point-by-point kernels over the rows of blocked maps (vectors of features are maps of 1x1)."""

from __future__ import annotations

from collections.abc import Callable

from netdsl.backends.cpu.kernels.functions import FUNCTIONS
from netdsl.backends.cpu.simd import VECTOR_BYTES, add, broadcast, fma, load, maximum, minimum, mul, store


def make_unary(function: str) -> Callable[..., None]:
    """y = function(x, a); `a` is the address of the parameter."""
    apply = FUNCTIONS[function]

    def unary(  # type: ignore[no-untyped-def]
        begin, end, parts, x, y, a, images, blocks, height, width, x_image, x_plane, x_row, y_image, y_plane, y_row
    ):
        parameter = broadcast(a)
        units = images * blocks * height
        for unit in range(units * begin // parts, units * end // parts):
            h, image_block = unit % height, unit // height
            block, image = image_block % blocks, image_block // blocks
            xr = x + image * x_image + block * x_plane + h * x_row
            yr = y + image * y_image + block * y_plane + h * y_row
            for w in range(width):
                store(yr + w * VECTOR_BYTES, apply(load(xr + w * VECTOR_BYTES), parameter))

    return unary


def make_affine() -> Callable[..., None]:
    """y = x * scale[c] + shift[c], then slope[c] for the negative part, then limited to low .. high."""

    def affine(  # type: ignore[no-untyped-def]
        begin, end, parts, x, y, scale, shift, slope, limits, images, blocks, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        low, high = broadcast(limits), broadcast(limits + 4)
        units = images * blocks * height
        for unit in range(units * begin // parts, units * end // parts):
            h, image_block = unit % height, unit // height
            block, image = image_block % blocks, image_block // blocks
            xr = x + image * x_image + block * x_plane + h * x_row
            yr = y + image * y_image + block * y_plane + h * y_row
            m, b = load(scale + block * VECTOR_BYTES), load(shift + block * VECTOR_BYTES)
            if slope != 0:
                down = load(slope + block * VECTOR_BYTES)
                for w in range(width):
                    v = fma(load(xr + w * VECTOR_BYTES), m, b)
                    v = add(maximum(low, v), mul(down, minimum(high, v)))
                    store(yr + w * VECTOR_BYTES, v)
            else:
                for w in range(width):
                    v = fma(load(xr + w * VECTOR_BYTES), m, b)
                    store(yr + w * VECTOR_BYTES, minimum(high, maximum(low, v)))

    return affine


def make_binary(function: str) -> Callable[..., None]:
    """y = a + b or a * b, limited to low .. high. Strides of 0 repeat an operand (a gate has one pixel)."""
    apply = {"add": add, "mul": mul}[function]

    def binary(  # type: ignore[no-untyped-def]
        begin, end, parts, a, b, y, limits, images, blocks, height, width,
        a_image, a_plane, a_row, a_pixel, b_image, b_plane, b_row, b_pixel, y_image, y_plane, y_row,
    ):  # fmt: skip
        low, high = broadcast(limits), broadcast(limits + 4)
        units = images * blocks * height
        for unit in range(units * begin // parts, units * end // parts):
            h, image_block = unit % height, unit // height
            block, image = image_block % blocks, image_block // blocks
            ar = a + image * a_image + block * a_plane + h * a_row
            br = b + image * b_image + block * b_plane + h * b_row
            yr = y + image * y_image + block * y_plane + h * y_row
            for w in range(width):
                v = apply(load(ar + w * a_pixel), load(br + w * b_pixel))
                store(yr + w * VECTOR_BYTES, minimum(high, maximum(low, v)))

    return binary
