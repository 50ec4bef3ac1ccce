"""What the kernels of matrix products count alike."""

from __future__ import annotations

import numpy as np
from numba import int32

from netdsl.backends.cuda.simt import device_function

# Parameters that are 32 bits wide: counts in hot loops (in 64 bits they cost ten registers, measured by ptxas).
NARROW = frozenset(
    [
        "images", "in_height", "in_width", "height", "width", "features", "taps_h", "taps_w", "stride_h", "stride_w",
        "top", "left", "dilation_h", "dilation_w", "x_row", "x_pixel", "has_residual", "w_columns", "columns", "chunks",
        "slices", "splits", "tiles_n", "step_r", "step_s", "step_c",
    ]
)  # fmt: skip


@device_function
def divided(a, b):  # type: ignore[no-untyped-def]
    """Quotient and remainder of two counts below 2^31."""
    quotient = np.uint32(np.uint32(a) // np.uint32(b))
    return int32(quotient), int32(np.uint32(a) - quotient * np.uint32(b))


@device_function
def pixel_of(m, height, width):  # type: ignore[no-untyped-def]
    """Image, row and column of the m-th pixel."""
    line, q = divided(m, width)
    n, p = divided(line, height)
    return n, p, q


@device_function
def share(part, whole, parts):  # type: ignore[no-untyped-def]
    """Where the part-th of `parts` equal parts of `whole` starts."""
    return int32(np.uint32(np.uint32(part) * np.uint32(whole)) // np.uint32(parts))
