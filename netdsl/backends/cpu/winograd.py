"""Winograd's minimal filtering F(m x m, r x r): when it pays, how it is shared, and the packing of its weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.bank import Rows
from netdsl.backends.cpu.phases import Phases, in_lanes
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.tiles import L2_BYTES, tile_for, wanted
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.plan.windows import deconv_convs
from netdsl.plan.winograd import weight as weight_matrix
from netdsl.tensor import TensorType

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Chosen: OpenBLAS shares products of more multiply-adds among threads of its own, and these are too thin to be shared.
SMALL_PRODUCT = 1 << 18


@dataclass(frozen=True)
class Depth:
    """What a product of the algorithm sums over: `blocks` of lanes, in which each phase of the input has `own` lanes.

    live   for each of the n^2 products the lanes that it needs, the first and the one after the last
    apart  whether pixels of a phase that are neighbours lie apart in memory
    """

    blocks: int
    own: int
    live: tuple[tuple[int, int], ...]
    apart: bool

    @property
    def starts(self) -> list[int]:
        """Where the live lanes of each product begin when those of all products follow each other; then their sum."""
        return [0, *itertools.accumulate(last - first for first, last in self.live)]


def phases_of(op: Conv | Deconv) -> Phases:
    """Of a convolution's input, or of a transposed one's output."""
    return Phases(op.kernel[0], op.stride[0])


@cache
def depth_of(op: Conv, x: TensorType, m: int) -> Depth:
    """The depth of a convolution: all phases in the lanes of one map, or each phase in blocks of its own."""
    phases = phases_of(op)
    count, blocks = phases.stride**2, math.ceil(x.channels / WIDTH)
    apart = count > 1 and not in_lanes(x)
    own = blocks * WIDTH if apart else x.channels
    live = tuple((own * first, own * last) for first, last in phases.live(m + phases.taps - 1))
    return Depth(math.ceil(count * own / WIDTH), own, live, apart)


def pack_winograd(
    weight: F32 | Rows, phases: Phases, m: int, depth: Depth, cols: int, empty: Callable[[int], F32]
) -> F32:
    """[K, C, R, R] transformed in float64 to [tile of outputs][product][live lane][outputs of the tile].

    Zeros at the edges. empty gives room for so many floats.
    """
    outputs, starts = cols * WIDTH, depth.starts
    tiles = -(-len(weight) // outputs)
    packed = empty(tiles * starts[-1] * outputs).reshape(tiles, starts[-1], outputs)
    transforms = [_transform(weight.shape, phase, phases, m, depth.own, outputs) for phase in phases.order]
    for t, place in enumerate(packed):
        rows = weight[t * outputs : (t + 1) * outputs]
        for p, transformed in enumerate(transforms):
            values = transformed(rows)
            for cell, (first, last) in enumerate(depth.live):
                if first <= p * depth.own < last:
                    at = starts[cell] + p * depth.own - first
                    place[at : at + depth.own] = values[:, cell].reshape(depth.own, outputs)
    return packed


def _transform(
    shape: tuple[int, ...], phase: tuple[int, int], phases: Phases, m: int, lanes: int, outputs: int
) -> Callable[[F32], F64]:
    """What makes of up to `outputs` filters [k, C, R, R] the G w G^T of a phase.

    They come as [channels / some][product][some channels x outputs].
    """
    down, across = (slice(first, None, phases.stride) for first in phase)
    height, width = len(range(phases.kernel)[down]), len(range(phases.kernel)[across])
    g = np.array(weight_matrix(m, phases.taps)).astype(np.float64)
    kron = np.kron(g[:, :height], g[:, :width])  # one product for both sides: vec(G w G^T) = (G x G) vec(w)
    small = (n for n in (16, 8, 4, 2) if lanes % n == 0 and kron.size * n * outputs <= SMALL_PRODUCT)
    together = next(small, 1)
    room = np.zeros((outputs, lanes, height * width), np.float32)

    def transformed(rows: F32) -> F64:
        room[: len(rows), : shape[1]] = rows[:, :, down, across].reshape(*rows.shape[:2], -1)
        room[len(rows) :] = 0
        taps = room.reshape(outputs, -1, together, height * width).transpose(1, 3, 2, 0).astype(np.float64, "C")
        values: F64 = kron @ taps.reshape(-1, height * width, together * outputs)
        return values

    return transformed


SIZES = {2: (3, 4, 5, 7), 3: (2, 3, 4, 5, 6), 4: (3, 4, 5), 5: (2, 4)}  # m by r

# Cost model, in register-wide multiply-adds. BYTES_PER_FMA and TRANSFORM are measured: bench/choices.py has other
# values beside them. The others are chosen, so that the model follows what single layers took; it tries others of HIDE.
BYTES_PER_FMA = 2.5  # bytes of weights that arrive from beyond the second-level cache during one multiply-add
AGAIN = 0.1  # as a part, what it takes to read them again: they have come closer, and products hide the rest
HIDE = 5  # how well products and the weights they wait for hide each other: 1 not at all, and the more the better
NEAR = 200.0  # bytes of weights from within that cache, as far as multiply-adds wait for them
TRANSFORM = {4: 12.0, 5: 13.0, 6: 14.0, 7: 18.0, 8: 20.0}  # by n, per cell, patch and block of inputs or outputs
APART = 1.5  # times as much where the pixels of a phase lie apart
SPREAD = 0.2  # by how much more, as a part, transforms cost for each CACHE_BYTES of V and M
STRIDED = 1.13  # a multiply-add of the direct kernel where inputs of neighbours lie apart
PLAIN = 1.03  # and where they follow each other, or lie in planes
MOST_PATCHES = 196  # chosen: in one block; larger ones leave the second-level cache
CACHE_BYTES = 2 * L2_BYTES  # V and M of one block of patches should fit in here
PAST = 0.3  # as a part, what it takes that V does not fit: products hide the rest


@dataclass(frozen=True)
class Cut:
    """How patches and outputs are shared: blocks of `patches`, outputs in `chunks`, M of `together` tiles at a time.

    Neighbouring chunks that one thread takes are computed as one.
    """

    patches: int
    chunks: int
    together: int
    cost: float


def plain_convs(op: Conv | Deconv, x: TensorType) -> list[Conv]:
    """The convolutions that Winograd's algorithm runs for a layer: itself, or the phases of a transposed one."""
    return [op] if isinstance(op, Conv) else list(deconv_convs(op, x).values())


def ways_to_run(op: Conv | Deconv, x: TensorType, alone: bool = False) -> tuple[int, ...]:
    """0 for the direct kernel, and the m of every algorithm of Winograd's that computes a convolution.

    alone  whether x is the caller's array and nothing else reads it, so that it may be laid out by phases
    """
    convs = plain_convs(op, x)
    if not convs:
        return (0,)
    op = convs[0]
    r, s = op.kernel[0], op.stride[0]
    plain = (op.kernel, op.stride, op.dilation, op.groups) == ((r, r), (s, s), (1, 1), 1) and (s == 1 or r > s)
    fits = (s > 1 and alone) if in_lanes(x) else True
    return (0, *SIZES.get(phases_of(op).taps, ())) if plain and fits else (0,)


def winograd_size(op: Conv | Deconv, x: TensorType, images: int, alone: bool = False) -> int:
    """The m of the cheapest way to run a convolution, 0 for the direct kernel. Independent of threads."""
    ways = ways_to_run(op, x, alone)
    if ways == (0,):
        return 0
    op = plain_convs(op, x)[0]  # no phase is larger, and all have as many taps
    y = op.infer(x)
    costs = {0: _direct_cost(op, x, images * y.height * y.width)}
    for m in ways[1:]:
        total = images * math.ceil(y.height / m) * math.ceil(y.width / m)
        costs[m] = winograd_cut(depth_of(op, x, m), math.ceil(op.features / WIDTH), total, 1).cost
    return min(costs, key=lambda m: costs[m])


def _direct_cost(op: Conv, x: TensorType, pixels: int) -> float:
    lanes = x.channels if in_lanes(x) else math.ceil(x.channels / WIDTH) * WIDTH
    products = op.kernel[0] ** 2 * lanes * math.ceil(op.features / WIDTH)  # for each output pixel
    step = PLAIN if op.stride == (1, 1) or in_lanes(x) else STRIDED
    return pixels * products * step + _far(products * WIDTH * 4, 1)


def _far(size: int, times: int) -> float:
    """Cost of reading so many bytes so often: from beyond the second-level cache unless they stay in it."""
    return size / BYTES_PER_FMA * (times if size > CACHE_BYTES else 1)


@cache
def winograd_cut(depth: Depth, blocks: int, total: int, threads: int) -> Cut:
    """The cheapest cut of `total` patches and so many output blocks over threads."""
    cells, vector, live = len(depth.live), 4 * WIDTH, depth.starts[-1]
    transform = TRANSFORM[math.isqrt(cells)] * (APART if depth.apart else 1)
    best, least = None, math.inf
    for most in range(min(total, MOST_PATCHES), 0, -1):
        parts = math.ceil(total / most)  # the fewest of such a size: more cost more
        patches = math.ceil(total / parts)
        if patches < most or (parts > threads and patches < 7 and best):
            continue
        tile = tile_for(patches, blocks)
        groups = math.ceil(blocks / tile.cols)
        rows = math.ceil(patches / tile.rows) * tile.rows
        v, m = cells * depth.blocks * patches * vector, cells * tile.cols * patches * vector
        together = max(1, CACHE_BYTES // 2 // m) if v > CACHE_BYTES // 2 else 1  # as costs count it
        spread = 1 + SPREAD * min(4, (v + together * m) / CACHE_BYTES)
        for chunks in {1, min(threads, groups)}:
            units = math.ceil(parts * chunks / threads)  # of the busiest thread
            own = math.ceil(groups / chunks)
            weights = live * own * tile.cols * vector
            reads = 0.6 / tile.rows + 0.1 / tile.cols - 0.025  # of weights; of V, above four blocks at a time
            products = units * rows * live * own * tile.cols * (1 + reads)
            transforms = units * patches * cells * (depth.blocks + own * tile.cols) * transform * spread
            near = products + units * weights / NEAR + transforms
            once, all_far = _far(weights, 1), _far(weights, units)
            v_far = units * v * (1 + math.ceil(own / together)) / BYTES_PER_FMA if v > CACHE_BYTES else 0.0
            exposed = (near**HIDE + all_far**HIDE) ** (1 / HIDE)  # decides the cut
            if exposed < least:
                least = exposed
                shared = max(chunks, min(groups, math.ceil(wanted(threads) / parts)))
                cost = near + once + AGAIN * (all_far - once) + PAST * v_far
                at_once = parts * shared if threads == 1 else math.ceil(parts * shared / threads / 2)
                taken = math.ceil(groups / shared) * at_once  # tiles, by a thread that takes half of its own units
                best = Cut(patches, shared, min(_tiles_of_m(v, m), own, taken), cost)
        if patches <= 7:
            break
    assert best is not None
    return best


def _tiles_of_m(v: int, m: int) -> int:
    """How many tiles' M to keep at a time, where V and the M of one tile take so many bytes.

    V is read once for all of them. One, where V stays in the second-level cache; else what fits there beside a part of
    V, and more where V fills that cache by itself.
    """
    if v <= CACHE_BYTES // 2:
        return 1
    return max(1, (CACHE_BYTES if v > CACHE_BYTES else CACHE_BYTES // 2) // m)


def winograd_halo(op: Conv | Deconv, m: int, x: TensorType) -> tuple[int, int, int, int]:
    """Zeros that the patches read around the input: (top, left, bottom, right). None where it is laid out by phases."""
    if in_lanes(x):
        return 0, 0, 0, 0
    found = []
    for conv in plain_convs(op, x):
        (top, left), s = conv.pad[:2], conv.stride[0]
        height, width = phase_size(conv, m, conv.infer(x))
        found.append((top, left, max(0, s * height - x.height - top), max(0, s * width - x.width - left)))
    top, left, bottom, right = map(max, zip(*found, strict=True))
    return top, left, bottom, right


def phase_size(op: Conv, m: int, y: TensorType) -> tuple[int, int]:
    """Rows and columns of each phase of the input that the patches of an output read."""
    taps = phases_of(op).taps
    return math.ceil(y.height / m) * m + taps - 1, math.ceil(y.width / m) * m + taps - 1
