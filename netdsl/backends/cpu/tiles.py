"""Choice of register tile and of the way work is shared, from shapes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from netdsl.backends.cpu.target import host

L2_BYTES = 512 * 1024  # chosen: half of the smallest second-level cache of current server cores


@dataclass(frozen=True)
class TileShape:
    """lines x rows output pixels x cols channel blocks."""

    rows: int
    cols: int
    lines: int = 1


def tile_for(width: int, blocks: int, height: int = 1) -> TileShape:
    """The tile for `height` rows of `width` output pixels and so many output blocks. Short rows go several at a time.

    Accumulators, a row of weights and one broadcast fill the registers. Among tiles that waste little at the row's end,
    the largest; whole multiples of common sizes first, so that networks share compiled kernels.
    """
    accumulators = host().registers - 4
    if width == height == 1:  # one pixel: many blocks side by side hide the latency of the multiply-adds
        groups = math.ceil(blocks / 8)
        return TileShape(1, math.ceil(blocks / groups))
    cols = 2 if blocks % 2 == 0 or blocks > 3 else (3 if blocks == 3 and accumulators >= 27 else 1)
    most = min(accumulators // cols, 14)
    if width <= most // 2 and height > 1:
        return TileShape(width, cols, max(1, min(height, most // width, 4)))
    if width < 3:
        return TileShape(width, cols)
    best, best_cost = most, math.inf
    for rows in range(most, min(most, max(2, most // 2)) - 1, -1):
        tiles = math.ceil(width / rows)
        cost = tiles * (rows + 0.7) * (1.0 if rows in (14, 7, 6) else 1.04)  # 0.7 pixels: start and finish of a tile
        if cost < best_cost - 1e-9:
            best, best_cost = rows, cost
    if width < best:
        best = width
    return TileShape(best, cols)


@dataclass(frozen=True)
class Share:
    """How a convolution is cut: `bands` ranges of output rows x `chunks` ranges of output blocks."""

    bands: int
    chunks: int


def share_for(lines: int, groups: int, input_bytes: int, weight_bytes: int, threads: int) -> Share:
    """The cut that moves the fewest bytes beyond the second-level cache among those that load threads evenly.

    lines         output rows of all images
    groups        tiles of output channels
    input_bytes   of all images; weight_bytes of the whole layer
    """
    best, best_cost = Share(1, 1), math.inf
    for chunks in {1, min(threads, groups)}:
        for bands in _candidates(lines, threads, chunks):
            band_bytes = input_bytes / bands
            passes = 1 if band_bytes <= L2_BYTES else math.ceil(groups / chunks)
            weights = weight_bytes * (bands if weight_bytes / chunks > L2_BYTES else 1)
            traffic = input_bytes * chunks * passes + weights
            uneven = _unevenness(lines, bands) * _unevenness(groups, chunks)
            units = bands * chunks
            uneven *= math.ceil(units / threads) * threads / units
            cost = uneven * (1 + 0.05 * traffic / max(1, input_bytes + weight_bytes)) * (1 + 0.001 * bands)
            if cost < best_cost:
                best, best_cost = Share(bands, chunks), cost
    return best


def _candidates(lines: int, threads: int, chunks: int) -> list[int]:
    found = {1, threads} | {threads * 2**i for i in range(1, 8)}
    return sorted(b for b in found if b <= lines) or [1]


def _unevenness(count: int, parts: int) -> float:
    """The largest part over the mean part."""
    return math.ceil(count / parts) * parts / count
