"""Weights as the kernels of convolutions read them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cuda.precision import map_type
from netdsl.backends.cuda.views import LANES, lanes_of, padded
from netdsl.halves import bfloat16_bits, float16_bits

F32 = NDArray[np.float32]

SLICE = 16  # depth of a slice of the product in words of 4 bytes: four chunks of 16 bytes


TURN = 32  # columns whose order tensor cores have changed


def run_of(precision: str) -> int:
    """Columns that a thread of tensor cores has next to each other: 16 bytes of a map in that precision."""
    return lanes_of(map_type(precision))


def column_order(precision: str) -> list[int]:
    """Which of 32 columns is multiplied at each of 32 places by tensor cores.

    An instruction gives the t-th of four threads its columns 2 t and 2 t + 1, of eight. So two instructions, or four,
    give it a run of 4 or 8 columns, which are to lie next to each other, those of the four threads too: so results are
    stored, and maps added to them, by 16 bytes, and a warp's lie in whole sectors of 32.
    """
    run = run_of(precision)
    there = range(TURN)
    return [p // (4 * run) * 4 * run + run * (p % 8 // 2) + 2 * (p % (4 * run) // 8) + p % 2 for p in there]


def pack_mma(weight: F32, groups: int, precision: str) -> F32:
    """As `pack_gemm`, a group's columns filled up to 32 and in the order in which tensor cores multiply them."""
    k, r, s, c = weight.shape
    each = k // groups
    filled = np.zeros((groups, padded(each, TURN), r, s, c), np.float32)
    filled[:, :each] = weight.reshape(groups, each, r, s, c)
    turned = filled.reshape(groups, -1, TURN, r, s, c)[:, :, column_order(precision)]
    return pack_gemm(turned.reshape(-1, r, s, c), groups, precision)


def pack_gemm(weight: F32, groups: int, precision: str) -> F32:
    """[K, R, S, C / groups] to [groups, depth, columns], flat: row (r, s, c) of column k, zeros around.

    Channels are filled up to chunks of 16 bytes, of 4 or in half precision 8, columns likewise, the whole depth to
    slices. In half precision a row holds words of two neighbouring depths, the first in the low half; in float16 values
    beyond 65504 become infinite. The result is float32 in name; its bits are what counts.
    """
    k, r, s, c = weight.shape
    lanes = lanes_of(map_type(precision))
    columns, used = padded(k // groups, lanes), padded(c, lanes)
    out = np.zeros((groups, padded(r * s * used, 4 * lanes), columns), np.float32)
    for group, place in enumerate(out):
        mine = weight[group * (k // groups) : (group + 1) * (k // groups)]
        cells = place[: r * s * used].reshape(r, s, used, columns)
        cells[:, :, :c, : len(mine)] = mine.transpose(1, 2, 3, 0)
    return ROUNDINGS[precision](out).reshape(-1)


def pack_depthwise(weight: F32, lanes: int = LANES) -> F32:
    """[C, R, S, 1] to [R, S, C filled up to a multiple of `lanes`], flat."""
    c, r, s, _ = weight.shape
    out = np.zeros((r, s, padded(c, lanes)), np.float32)
    out[:, :, :c] = weight[..., 0].transpose(1, 2, 0)
    return out.reshape(-1)


def to_tf32(x: F32) -> F32:
    """Rounded to 10 bits of fraction, nearest, ties away from zero; infinities and nan stay."""
    words = x.view(np.uint32)
    rounded = (words + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), rounded, words).astype(np.uint32).view(np.float32)


def _words(halves: NDArray[np.uint16]) -> F32:
    """[groups, depth, columns] of half words to [groups, depth / 2, columns] of words."""
    low, high = halves[:, 0::2].astype(np.uint32), halves[:, 1::2].astype(np.uint32)
    return (low | high << np.uint32(16)).view(np.float32)


ROUNDINGS: dict[str, Callable[[F32], F32]] = {
    "float32": lambda x: x, "tf32": to_tf32,
    "float16": lambda x: _words(float16_bits(x)), "bfloat16": lambda x: _words(bfloat16_bits(x)),
}  # fmt: skip
