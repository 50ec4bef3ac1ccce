"""Convolution where each thread makes one value: what no tiled kernel takes, such as groups of very few channels.

Argument names are those of every convolution kernel, see `netdsl.backends.cuda.lower_linear`.
"""

from __future__ import annotations

from collections.abc import Callable

from netdsl.backends.cuda.kernels.functions import FUNCTIONS, limited
from netdsl.backends.cuda.kernels.maps import getter, setter
from netdsl.backends.cuda.simt import cuda


def make_direct(
    function: str | None, residual: bool, x_type: str = "float32", y_type: str = "float32"
) -> Callable[..., None]:
    """y[n,p,q,k] = bias[k] + sum over taps and the channels of k's group; weights [taps_h, taps_w, C / groups, lanes].

    The residual has x's type. Neighbouring threads make neighbouring features: they read the same inputs and
    consecutive weights.
    """
    apply = FUNCTIONS[function]
    get, put = getter(x_type), setter(y_type)

    def direct(  # type: ignore[no-untyped-def]
        arena, x, y, r, w, bias, low, high, a, images, in_height, in_width, group_channels, group_features, outputs,
        height, width, features, taps_h, taps_w, stride_h, stride_w, top, left, dilation_h, dilation_w,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel, r_image, r_row, r_pixel,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i >= images * height * width * features:
            return
        k, pixel = i % features, i // features
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        first = min(k, outputs - 1) // group_features * group_channels
        total = bias[k]
        for s in range(taps_h):
            h = p * stride_h - top + s * dilation_h
            if 0 <= h < in_height:
                for t in range(taps_w):
                    v = q * stride_w - left + t * dilation_w
                    if 0 <= v < in_width:
                        at = x + n * x_image + h * x_row + v * x_pixel + first
                        row = (s * taps_w + t) * group_channels * features + k
                        for c in range(group_channels):
                            total += get(arena, at + c) * w[row + c * features]
        if residual:
            total += get(arena, r + n * r_image + p * r_row + q * r_pixel + k)
        put(arena, y + n * y_image + p * y_row + q * y_pixel + k, apply(limited(total, low, high), a))

    return direct
