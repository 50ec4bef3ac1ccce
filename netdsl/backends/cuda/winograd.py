"""Winograd's F(m x m, 3 x 3) on a GPU, in float32: when it pays, and the packing of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cuda.packing import F32
from netdsl.backends.cuda.tiles import LATENCY, MOST, ConvShape, Target, best_tile, countable, cycles
from netdsl.plan.winograd import weight as weight_matrix

TAPS = 3
THREADS = 128  # chosen: of a block of the transforms
SIZES = (4, 6)  # m: of a patch of outputs; smaller ones save less and move more
FEWEST = 16  # chosen: channels and features, below which transforms take longer than products
TOGETHER = 1 << 24  # chosen: floats of V and M of the images that go through a layer together; 64 MiB bound the memory
LAUNCH = 3000  # chosen: cycles from one kernel of a graph to the next
WORTH = 0.8  # chosen: of the time by definition, what it must be estimated to take at most, as estimates are not exact
MOVED = 4.0  # chosen: floats a cycle that one multiprocessor reads or writes while all do


@dataclass(frozen=True)
class Patches:
    """How a convolution is cut: patches of m x m outputs, `turn` images at a time.

    products   the grouped 1x1 convolution of a turn: n^2 groups, a pixel for each patch
    """

    m: int
    turn: int
    down: int
    across: int
    products: ConvShape

    @property
    def cells(self) -> int:
        """Products of a patch: n^2."""
        return (self.m + TAPS - 1) ** 2

    def floats(self, lanes: int) -> int:
        """Of V, or of M, for maps with so many lanes."""
        return self.turn * self.down * self.across * self.cells * lanes


def patches(shape: ConvShape, m: int) -> Patches:
    """The cut of a convolution into patches of m x m outputs."""
    down, across, cells = -(-shape.height // m), -(-shape.width // m), (m + TAPS - 1) ** 2
    lanes, columns = shape.chunks * shape.lanes, shape.columns
    most = max(1, TOGETHER // (down * across * cells * (lanes + columns)))
    turn = -(-shape.images // -(-shape.images // most))
    products = ConvShape(
        turn, down, across, cells * lanes, cells * columns, (1, 1), (1, 1), False, None, "float32", False, cells, (1, 1)
    )
    return Patches(m, turn, down, across, products)


def best_patches(shape: ConvShape, target: Target) -> Patches | None:
    """The cut with the least estimated time, or None where a convolution is faster by its definition, or can't be."""
    plain = shape.kernel == (TAPS, TAPS) and shape.stride == shape.dilation == (1, 1) and shape.groups == 1
    if not plain or shape.precision != "float32" or min(shape.channels, shape.features) < FEWEST or not shape.pixels:
        return None
    cuts = [patches(shape, m) for m in SIZES]
    cuts = [cut for cut in cuts if _countable(cut)]
    best = min(cuts, key=lambda cut: winograd_cycles(shape, target, cut), default=None)
    if best is None:
        return None
    plain_cycles = cycles(shape, target, *best_tile(shape, target))
    return best if winograd_cycles(shape, target, best) <= WORTH * plain_cycles else None


def _countable(cut: Patches) -> bool:
    """Whether kernels can count what is multiplied, and the threads of the transforms."""
    threads = cut.products.pixels * max(cut.products.channels, cut.products.features) // cut.cells
    return threads <= MOST and countable(cut.products)


def winograd_cycles(shape: ConvShape, target: Target, cut: Patches) -> float:
    """Estimated clock cycles: of products, and of moving the inputs, V, M and outputs."""
    products = cut.products
    turns = -(-shape.images // cut.turn)
    moved = products.pixels * (products.channels + products.features)
    moved += cut.turn * shape.height * shape.width * (shape.chunks * shape.lanes + shape.columns)
    transforms = 2 * (LATENCY + LAUNCH) + moved / (MOVED * target.multiprocessors)
    return turns * (cycles(products, target, *best_tile(products, target)) + transforms)


def pack_winograd(weight: F32, m: int, lanes: int) -> F32:
    """[K, C, 3, 3] transformed in float64, as weights of the products: [n^2 K', 1, 1, lanes], K' = K up to chunks."""
    g = _matrix(m)
    k, c, *_ = weight.shape
    values = np.einsum("ir,kcrs,js->ijkc", g, weight.astype(np.float64), g, optimize=True)
    out = np.zeros((len(g) ** 2, -(-k // 4) * 4, lanes), np.float32)
    out[:, :k, :c] = values.reshape(-1, k, c)
    return out.reshape(-1, 1, 1, lanes)


@cache
def _matrix(m: int) -> NDArray[np.float64]:
    return np.array(weight_matrix(m, TAPS), np.float64)
