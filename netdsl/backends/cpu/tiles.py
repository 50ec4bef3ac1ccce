"""Choice of register tile and of the way work is shared, from shapes alone."""

from __future__ import annotations

import math
from functools import cache

from netdsl.backends.cpu.target import FMA_FROM_MEMORY, cache_bytes, host
from netdsl.frozen import frozen

L2_BYTES = 512 * 1024  # chosen: half of the smallest second-level cache of current server cores
# chosen (bench/choices.py tries others): of inputs that bands which are computed as one read, half of this machine's
# second-level cache where the system tells, so that weights are read for fewer bands
BAND_BYTES = min(max(cache_bytes().get(2, 0) // 2, L2_BYTES), 1 << 20)

UNITS = 8  # chosen: pieces of work for each thread, so that one that is slower leaves some to the others
# A model of what sharing costs; both chosen by single layers on a processor whose cores were not equally fast.
WAIT = 0.3  # of the largest unit's time, what the other threads wait in the end
CUT = 0.2  # of a tile's time, what it takes to begin anew with weights that the first-level cache does not hold

MOST_ROWS = 14  # chosen: longer tiles gain nothing, and a row's end wastes more
COMMON_ROWS = (14, 7, 6)  # chosen: so that networks share compiled kernels
LOADS = 0.3  # measured (bench/choices.py): what a read costs beside multiply-adds, more where a core is shared
LATENCY = 10  # chosen: accumulators that keep two multiply-add units of latency 4 busy, and a little more


@frozen
class TileShape:
    """lines x rows output pixels x cols channel blocks."""

    rows: int
    cols: int
    lines: int = 1


@cache
def tile_for(width: int, blocks: int, height: int = 1, folds: bool = FMA_FROM_MEMORY) -> TileShape:
    """The tile for `height` rows of `width` output pixels and so many output blocks. Short rows go several at a time.

    Accumulators, a row of weights and one broadcast fill the registers. The cheapest by a model of one step of the
    product; where nothing is wasted, four blocks by seven pixels, the fewest reads for a multiply-add.

    folds  whether a multiply-add may read the last weight from memory; not those that are widened first
    """
    if width == height == 1:  # one pixel: many blocks side by side hide the latency of the multiply-adds
        groups = math.ceil(blocks / 8)
        return TileShape(1, math.ceil(blocks / groups))
    shapes = _shapes(min(width, MOST_ROWS + 1), min(blocks, 4), min(height, 4), folds)

    def cost(index: int) -> float:
        tile, step = shapes[index]
        return math.ceil(width / tile.rows) * math.ceil(height / tile.lines) * math.ceil(blocks / tile.cols) * step

    return shapes[min(range(len(shapes)), key=cost)][0]


@cache
def _shapes(width: int, blocks: int, height: int, folds: bool) -> list[tuple[TileShape, float]]:
    """The tiles of a map that fit the registers, and what one step of each takes."""
    shapes = [
        TileShape(rows, cols, lines)
        for cols in range(blocks, 0, -1)
        for rows in range(min(MOST_ROWS, width), 0, -1)
        for lines in (range(1, height + 1) if rows == width else (1,))
        if _fits(rows * lines, cols, folds)
    ]
    return [(tile, _step(tile)) for tile in shapes]


def _fits(pixels: int, cols: int, folds: bool) -> bool:
    """Whether accumulators, weights and a broadcast have a register each, but for a weight that is folded."""
    return pixels * cols + cols + 1 <= host().registers + folds


def _step(tile: TileShape) -> float:
    """Multiply-adds' time for one step of a tile, in register-wide multiply-adds."""
    pixels = tile.rows * tile.lines
    loads = pixels + tile.cols + 1  # as many a cycle as multiply-adds; one is for the prefetch
    step = max(pixels * tile.cols, loads, LATENCY) + LOADS * loads + 0.7
    return step * (1.0 if tile.rows in COMMON_ROWS else 1.04)


@frozen
class Share:
    """How a convolution is cut: `bands` ranges of output rows x `chunks` ranges of output blocks.

    together  bands whose inputs come to BAND_BYTES: so many may be computed as one
    """

    bands: int
    chunks: int
    together: int


def wanted(threads: int) -> int:
    """Units of work that suffice for so many threads to be done at the same time, though one may be slower."""
    return UNITS * threads if threads > 1 else 1


def share_for(lines: int, tiles: int, groups: int, input_bytes: int, weight_bytes: int, threads: int) -> Share:
    """The cut that moves the fewest bytes beyond the second-level cache among those that leave threads little to wait.

    lines         output rows of all images, of so many `tiles` each
    groups        tiles of output channels
    input_bytes   that are read of all images; weight_bytes of the whole layer
    """
    best, best_cost = Share(1, 1, 1), math.inf
    for chunks in _candidates(groups, threads):
        for bands in _candidates(lines, threads):
            inputs = input_bytes * (min(chunks, threads) if input_bytes <= 2 * BAND_BYTES else chunks)
            passes = 1 if input_bytes / bands <= BAND_BYTES else math.ceil(groups / chunks)
            weights = weight_bytes * (bands if weight_bytes / chunks > BAND_BYTES else 1)
            traffic = (inputs * passes + weights) / max(1, input_bytes + weight_bytes)
            largest = math.ceil(lines / bands) / lines * math.ceil(groups / chunks) / groups
            takes = threads * (1 + math.log2(max(1, bands * chunks / threads)))  # of parts, by halves
            cuts = min(bands, takes / min(chunks, threads))  # of the rows, at each of which weights come anew
            cost = (1 + WAIT * (threads - 1) * largest) * (1 + 0.05 * traffic) * (1 + CUT * cuts / (lines * tiles))
            if cost < best_cost:
                together = max(1, min(bands, BAND_BYTES * bands // max(1, input_bytes)))
                best, best_cost = Share(bands, chunks, together), cost
    return best


def _candidates(count: int, threads: int) -> list[int]:
    found = {1, min(threads, count)} | {threads * 2**i for i in range(1, 8)}
    return sorted(n for n in found if n <= count)
