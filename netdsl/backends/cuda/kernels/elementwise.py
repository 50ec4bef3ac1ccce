"""Point-by-point kernels: each thread makes 16 bytes of a pixel's channels (vectors of features are maps of 1x1)."""

from __future__ import annotations

from collections.abc import Callable

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, limited, plus, quad_place, times
from netdsl.backends.cuda.kernels.maps import constants, lanewise, loader, storer
from netdsl.backends.cuda.simt import cuda
from netdsl.backends.cuda.views import ELEMENTS


def make_unary(function: str, x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """y = function(x, a)."""
    apply = lanewise(FUNCTIONS[function], x_type, 1, 1)
    load, store, each = loader(x_type), storer(x_type, y_type), ELEMENTS[x_type]

    def unary(  # type: ignore[no-untyped-def]
        arena, x, y, a, images, lanes, height, width, x_image, x_row, x_pixel, y_image, y_row, y_pixel
    ):
        i, quads = cuda.grid(1), lanes // (4 * each)
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        c = c * each
        v0, v1, v2, v3 = load(arena, x + n * x_image + p * x_row + q * x_pixel + c)
        to = y + n * y_image + p * y_row + q * y_pixel + c
        store(arena, to, apply(v0, a), apply(v1, a), apply(v2, a), apply(v3, a))

    return unary


def make_affine(x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """y = x scale[c] + shift[c], limited to low .. high."""
    load, load_constants, store, each = loader(x_type), constants(x_type), storer(x_type, y_type), ELEMENTS[x_type]
    mul, add = lanewise(times, x_type, 2, 0), lanewise(plus, x_type, 2, 0)
    limit = lanewise(limited, x_type, 1, 2)

    def affine(  # type: ignore[no-untyped-def]
        arena, x, y, scale, shift, low, high, images, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // (4 * each)
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        c = c * each
        v0, v1, v2, v3 = load(arena, x + n * x_image + p * x_row + q * x_pixel + c)
        m0, m1, m2, m3 = load_constants(scale, c)
        b0, b1, b2, b3 = load_constants(shift, c)
        v0, v1 = limit(add(mul(v0, m0), b0), low, high), limit(add(mul(v1, m1), b1), low, high)
        v2, v3 = limit(add(mul(v2, m2), b2), low, high), limit(add(mul(v3, m3), b3), low, high)
        store(arena, y + n * y_image + p * y_row + q * y_pixel + c, v0, v1, v2, v3)

    return affine


def make_prelu(x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """y = x where x is not negative, slope[c] x elsewhere."""
    load, load_constants, store, each = loader(x_type), constants(x_type), storer(x_type, y_type), ELEMENTS[x_type]
    leaky = lanewise(FUNCTIONS["leaky"], x_type, 2, 0)

    def prelu(  # type: ignore[no-untyped-def]
        arena, x, y, slope, images, lanes, height, width, x_image, x_row, x_pixel, y_image, y_row, y_pixel
    ):
        i, quads = cuda.grid(1), lanes // (4 * each)
        if i >= images * height * width * quads:
            return
        c, q, p, n = quad_place(i, quads, width, height)
        c = c * each
        v0, v1, v2, v3 = load(arena, x + n * x_image + p * x_row + q * x_pixel + c)
        s0, s1, s2, s3 = load_constants(slope, c)
        to = y + n * y_image + p * y_row + q * y_pixel + c
        store(arena, to, leaky(v0, s0), leaky(v1, s1), leaky(v2, s2), leaky(v3, s3))

    return prelu


def make_binary(
    function: str, b_type: str = "float32", c_type: str = "float32", y_type: str = "float32"
) -> Callable[..., None]:
    """y = b + c or b c, limited to low .. high. Strides of 0 repeat an operand (a gate has one pixel).

    Each has its type in memory; b may be float32 beside c in half precision: what earlier operands gave.
    """
    load_b = constants(c_type) if b_type == "float32" else loader(b_type)
    load_c, store, each = loader(c_type), storer(c_type, y_type), ELEMENTS[c_type]
    join = lanewise(times if function == "mul" else plus, c_type, 2, 0)
    limit = lanewise(limited, c_type, 1, 2)

    def binary(  # type: ignore[no-untyped-def]
        arena, b, c, y, low, high, images, lanes, height, width,
        b_image, b_row, b_pixel, c_image, c_row, c_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i, quads = cuda.grid(1), lanes // (4 * each)
        if i >= images * height * width * quads:
            return
        k, q, p, n = quad_place(i, quads, width, height)
        k = k * each
        v0, v1, v2, v3 = load_b(arena, b + n * b_image + p * b_row + q * b_pixel + k)
        u0, u1, u2, u3 = load_c(arena, c + n * c_image + p * c_row + q * c_pixel + k)
        v0, v1, v2, v3 = join(v0, u0), join(v1, u1), join(v2, u2), join(v3, u3)
        v0, v1, v2, v3 = limit(v0, low, high), limit(v1, low, high), limit(v2, low, high), limit(v3, low, high)
        store(arena, y + n * y_image + p * y_row + q * y_pixel + k, v0, v1, v2, v3)

    return binary
