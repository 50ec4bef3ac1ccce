"""Winograd's minimal filtering F(m x m, r x r): when it pays, how it is shared, and the packing of its weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.bank import Rows
from netdsl.backends.cpu.kernels.matrices import weight as weight_matrix
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.tiles import L2_BYTES, tile_for
from netdsl.ops.conv import Conv
from netdsl.tensor import TensorType

F32 = NDArray[np.float32]

# Chosen: OpenBLAS shares products of more multiply-adds among threads of its own, and these are too thin to be shared.
SMALL_PRODUCT = 1 << 18


def pack_winograd(weight: F32 | Rows, m: int, cols: int, empty: Callable[[int], F32]) -> F32:
    """[K, C, r, r] transformed in float64 to [tile of outputs][n^2][C][outputs of the tile], zeros at the edges.

    empty  gives room for so many floats
    """
    k, c, r = weight.shape[:3]
    g = np.array(weight_matrix(m, r), np.float64)
    outputs, cells = cols * WIDTH, len(g) ** 2
    tiles, depth = -(-k // outputs), -(-c // WIDTH) * WIDTH
    together = next(n for n in (16, 8, 4, 2, 1) if n == 1 or r * r * cells * n * outputs <= SMALL_PRODUCT)  # channels
    packed = empty(tiles * cells * depth * outputs).reshape(tiles, cells, depth // together, -1)
    kron = np.kron(g, g)  # one product for both sides: vec(G w G^T) = (G x G) vec(w)
    rows = np.zeros((outputs, depth, r * r), np.float32)
    for t, place in enumerate(packed):
        count = min(outputs, k - t * outputs)
        rows[:count, :c] = weight[t * outputs : t * outputs + count].reshape(count, c, r * r)
        rows[count:] = 0
        taps = rows.reshape(outputs, -1, together, r * r).transpose(1, 3, 2, 0).astype(np.float64, "C")
        place[:] = (kron @ taps.reshape(-1, r * r, together * outputs)).swapaxes(0, 1)
    return packed.reshape(tiles, cells, depth, outputs)


SIZES = {3: (2, 4, 6), 5: (2, 4)}  # m by r

# Cost model, in register-wide multiply-adds. Measured: bench/choices.py has other values beside these.
BYTES_PER_FMA = 2.5  # bytes that arrive from beyond the second-level cache during one multiply-add
TRANSFORM = {4: 12.0, 6: 14.0, 8: 20.0}  # by n, per cell, patch and block of inputs or outputs
MOST_PATCHES = 196  # chosen: in one block; larger ones leave the second-level cache
CACHE_BYTES = 2 * L2_BYTES  # V and M of one block of patches should fit in here


@dataclass(frozen=True)
class Cut:
    """How patches and outputs are shared: blocks of `patches`, outputs in `chunks`, M of `together` tiles at a time."""

    patches: int
    chunks: int
    together: int
    cost: float


def ways_to_run(op: Conv, x: TensorType) -> tuple[int, ...]:
    """0 for the direct kernel, and the m of every algorithm of Winograd's that computes a convolution."""
    r = op.kernel[0]
    plain = (op.kernel, op.stride, op.dilation, op.groups) == ((r, r), (1, 1), (1, 1), 1)
    return (0, *SIZES.get(r, ())) if plain and x.channels >= WIDTH else (0,)


def winograd_size(op: Conv, x: TensorType, images: int) -> int:
    """The m of the cheapest way to run a convolution, 0 for the direct kernel. Independent of threads."""
    ways, r = ways_to_run(op, x), op.kernel[0]
    if ways == (0,):
        return 0
    y = op.infer(x)
    depth, blocks = math.ceil(x.channels / WIDTH), math.ceil(op.features / WIDTH)
    costs = {0: _direct_cost(r, depth, blocks, images * y.height * y.width)}
    for m in ways[1:]:
        total = images * math.ceil(y.height / m) * math.ceil(y.width / m)
        costs[m] = winograd_cut(m, r, depth, blocks, total, 1).cost
    return min(costs, key=lambda m: costs[m])


def _direct_cost(r: int, depth: int, blocks: int, pixels: int) -> float:
    weights = r * r * depth * WIDTH * blocks * WIDTH * 4
    return pixels * r * r * depth * blocks * WIDTH * 1.03 + _far(weights, 1)


def _far(size: int, times: int) -> float:
    """Cost of reading so many bytes so often: from beyond the second-level cache unless they stay in it."""
    return size / BYTES_PER_FMA * (times if size > CACHE_BYTES else 1)


@cache
def winograd_cut(m: int, r: int, depth: int, blocks: int, total: int, threads: int) -> Cut:
    """The cheapest cut of `total` patches of `depth` input blocks and so many output blocks over threads."""
    cells, vector = (m + r - 1) ** 2, 4 * WIDTH
    best = None
    for most in range(min(total, MOST_PATCHES), 0, -1):
        parts = math.ceil(total / most)  # the fewest of such a size: more cost more
        patches = math.ceil(total / parts)
        if patches < most or (parts > threads and patches < 7 and best):
            continue
        tile = tile_for(patches, blocks)
        groups = math.ceil(blocks / tile.cols)
        rows = math.ceil(patches / tile.rows) * tile.rows
        together = max(1, CACHE_BYTES // 2 // (cells * tile.cols * patches * vector))
        for chunks in {1, min(threads, groups)}:
            units = math.ceil(parts * chunks / threads)  # of the busiest thread
            own = math.ceil(groups / chunks)
            weights = cells * depth * WIDTH * own * tile.cols * WIDTH * 4
            v = cells * depth * patches * vector
            products = units * rows * cells * depth * WIDTH * own * tile.cols * (1 + 0.6 / tile.rows)
            transforms = units * patches * cells * (depth + own * tile.cols) * TRANSFORM[m + r - 1]
            v_traffic = units * v * (1 + math.ceil(own / together)) / BYTES_PER_FMA if v > CACHE_BYTES else 0.0
            cost = products + _far(weights, units) + transforms + v_traffic
            if best is None or cost < best.cost:
                best = Cut(patches, chunks, min(together, own), cost)
        if patches <= 7:
            break
    assert best is not None
    return best


def winograd_halo(op: Conv, m: int, x: TensorType) -> tuple[int, int, int, int]:
    """Zeros that the patches read around the input: (top, left, bottom, right)."""
    y = op.infer(x)
    top, left = op.pad[0], op.pad[1]
    bottom = math.ceil(y.height / m) * m + op.kernel[0] - 1 - x.height - top
    right = math.ceil(y.width / m) * m + op.kernel[1] - 1 - x.width - left
    return top, left, max(0, bottom), max(0, right)
