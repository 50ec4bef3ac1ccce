"""3x3 and 5x5 convolutions of stride 1 by Winograd's F(m x m, r x r) over blocked channels.

For a block of patches: transform the inputs of all channels to V, then for a few tiles of outputs `together` multiply
the (m+r-1)^2 planes with the transformed weights to M and transform back, epilogue included. M stays in the
second-level cache, and so does V unless the weights are so large that reading them often would cost more.
V is [cell][channel block][patch][lane], M is [cell][output block][patch][lane]. The transforms run along one axis at a
time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netdsl.backends.cpu.kernels.functions import FUNCTIONS
from netdsl.backends.cpu.kernels.matrices import INPUT, output
from netdsl.backends.cpu.simd import (
    VECTOR_BYTES,
    add,
    broadcast,
    leaf,
    load,
    maximum,
    minimum,
    prefetch,
    store,
)  # fmt: skip
from netdsl.backends.cpu.tile import Tile
from netdsl.backends.cpu.transforms import transform

AHEAD = 3  # measured: patches; outputs that are asked for so early do not hold up what is written


def _limited(function: str | None) -> Any:
    """The last step of the epilogue: limits, or an elementwise function."""
    if function is None:

        @leaf
        def limit(value, low, high, a):  # type: ignore[no-untyped-def]
            return minimum(high, maximum(low, value))

        return limit
    apply = FUNCTIONS[function]

    @leaf
    def call(value, low, high, a):  # type: ignore[no-untyped-def]
        return apply(value, a)

    return call


def make_winograd(m: int, size: int, rows: int, cols: int, function: str | None) -> Callable[..., None]:
    """For filters of size x size. Register tile: rows patches x cols output blocks.

    `scratch` holds `scratch_bytes` for each thread.
    """
    finish = _limited(function)
    tile = Tile(rows, cols, VECTOR_BYTES // 4)
    start, outer, add_from, put = tile.start, tile.outer, tile.add_from, tile.put
    side = m + size - 1
    cells = side * side
    input_1d, output_1d = transform(INPUT[side]), transform(output(m, size))
    step = cols * VECTOR_BYTES
    lanes = VECTOR_BYTES // 4
    ask_for = Tile(m, 1, lanes, m).ask_for(write=True)

    @leaf
    def transform_in(x, x_row, v, v_cell, work):  # type: ignore[no-untyped-def]
        for j in range(side):
            input_1d(x + j * VECTOR_BYTES, x_row, work + j * VECTOR_BYTES, side * VECTOR_BYTES)
        for i in range(side):
            input_1d(work + i * side * VECTOR_BYTES, VECTOR_BYTES, v + i * side * v_cell, v_cell)

    @leaf
    def transform_out(u, u_cell, y, y_row, r, r_row, bias, height, width, low, high, a, work):  # type: ignore[no-untyped-def]
        for j in range(side):
            output_1d(u + j * u_cell, side * u_cell, work + j * VECTOR_BYTES, side * VECTOR_BYTES)
        line = work + m * side * VECTOR_BYTES
        for i in range(min(m, height)):
            output_1d(work + i * side * VECTOR_BYTES, VECTOR_BYTES, line, VECTOR_BYTES)
            for j in range(min(m, width)):
                value = add(load(line + j * VECTOR_BYTES), bias)
                if r != 0:
                    value = add(value, load(r + i * r_row + j * VECTOR_BYTES))
                store(y + i * y_row + j * VECTOR_BYTES, finish(value, low, high, a))

    def winograd(  # type: ignore[no-untyped-def]
        tid, nt, x, u, bias, y, r, limits, zeros, scratch, scratch_bytes,
        images, down, across, depth, span, groups, blocks, patches, chunks, together, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row, r_image, r_plane, r_row,
    ):  # fmt: skip
        low, high, a = broadcast(limits), broadcast(limits + 4), broadcast(limits + 8)
        total = images * down * across
        parts = (total + patches - 1) // patches
        work = scratch + tid * scratch_bytes
        v = work + (cells + side) * VECTOR_BYTES
        v_block = patches * VECTOR_BYTES
        v_cell = depth * v_block
        o = v + cells * v_cell
        o_cell = together * cols * v_block
        u_cell = depth * lanes * step
        units = parts * chunks
        done = -1
        for unit in range(units * tid // nt, units * (tid + 1) // nt):
            chunk, part = unit % chunks, unit // chunks
            first = total * part // parts
            count = total * (part + 1) // parts - first
            pace = step // ((count + rows - 1) // rows)
            if part != done:
                for b in range(depth):
                    for t in range(count):
                        image, place = (first + t) // (down * across), (first + t) % (down * across)
                        corner = (place // across) * m * x_row + (place % across) * m * VECTOR_BYTES
                        xt = x + image * x_image + b * x_plane + corner
                        transform_in(xt, x_row, v + b * v_block + t * VECTOR_BYTES, v_cell, work)
                done = part
            last = groups * (chunk + 1) // chunks
            for g0 in range(groups * chunk // chunks, last, together):
                g1 = min(last, g0 + together)
                for e in range(cells):
                    for g in range(g0, g1):
                        product = o + e * o_cell + (g - g0) * cols * v_block
                        for d0 in range(0, depth, span):
                            d1 = min(depth, d0 + span)
                            ws = u + (g * cells + e) * u_cell + d0 * lanes * step
                            # the weights that come next, a little with every step
                            soon = ws + (d1 - d0) * lanes * step
                            if d1 == depth:
                                soon = u + ((g + 1) * cells + e if g + 1 < g1 else g0 * cells + e + 1) * u_cell
                            for t in range(0, count, rows):
                                wide = min(rows, count - t)
                                pt = product + t * VECTOR_BYTES
                                acc = start(zeros)
                                if d0 != 0:
                                    acc = add_from(acc, pt, 0, VECTOR_BYTES, v_block, 1, wide, cols)
                                wt = ws
                                vt = v + e * v_cell + d0 * v_block + t * VECTOR_BYTES
                                for _ in range(d0, d1):
                                    for lane in range(lanes):
                                        prefetch(soon)
                                        soon += pace
                                        acc = outer(acc, vt + 4 * lane, 0, wt)
                                        wt += step
                                    vt += v_block
                                put(acc, pt, 0, VECTOR_BYTES, v_block, 1, wide, cols)
                for k in range(g0 * cols, min(blocks, g1 * cols)):
                    lift = load(bias + k * VECTOR_BYTES)
                    for t in range(count):
                        image, place = (first + t) // (down * across), (first + t) % (down * across)
                        p, q = (place // across) * m, (place % across) * m
                        yt = y + image * y_image + k * y_plane + p * y_row + q * VECTOR_BYTES
                        rt = r + image * r_image + k * r_plane + p * r_row + q * VECTOR_BYTES if r != 0 else 0
                        image, place = (first + t + AHEAD) // (down * across), (first + t + AHEAD) % (down * across)
                        corner = (place // across) * m * y_row + (place % across) * m * VECTOR_BYTES
                        ask_for(y + image * y_image + k * y_plane + corner, y_row)
                        transform_out(
                            o + (k - g0 * cols) * v_block + t * VECTOR_BYTES, o_cell, yt, y_row, rt, r_row, lift,
                            height - p, width - q, low, high, a, work,
                        )  # fmt: skip

    return winograd
