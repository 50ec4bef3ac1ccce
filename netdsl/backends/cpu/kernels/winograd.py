"""Convolutions by Winograd's F(m x m, r x r) over blocked channels, strided ones as sums over phases of the input.

For a block of patches: transform the inputs of all channels to V, then for a few tiles of outputs `together` multiply
the (m+r-1)^2 planes with the transformed weights to M and transform back, epilogue included. M stays in the
second-level cache, and so does V unless the weights are so large that reading them often would cost more.
V is [cell][block of lanes][patch][lane], M is [cell][output block][patch][lane]. The transforms run along one axis at a
time. Blocks of lanes are blocks of channels, or those of all phases one after the other; a cell multiplies the lanes
that it needs alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netdsl.backends.cpu.kernels.functions import FUNCTIONS
from netdsl.backends.cpu.mailbox import LINE
from netdsl.backends.cpu.simd import (
    VECTOR_BYTES,
    add,
    broadcast,
    i64,
    leaf,
    load,
    maximum,
    minimum,
    prefetch,
    set_i64,
    store,
)  # fmt: skip
from netdsl.backends.cpu.tile import Tile
from netdsl.backends.cpu.transforms import transform
from netdsl.plan.winograd import inputs, output

AHEAD = 3  # chosen: patches; outputs that are asked for so early do not hold up what is written


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


@leaf
def even(left, most):  # type: ignore[no-untyped-def]
    """The size of the first of the fewest parts of `left` that are at most `most` and as large as one another."""
    if left <= most:
        return left  # no division
    parts = (left + most - 1) // most
    return (left + parts - 1) // parts


def _transform_in(side: int, some: bool) -> Any:
    """A patch of side x side inputs to its values at the points.

    some  whether `all_rows` and `all_columns` tell for which axes those at infinity are wanted, else they always are:
          they alone need the last inputs
    """
    whole = inputs(side)
    finite = [row[:-1] for row in whole[:-1]]

    def along(down: Any, across: Any) -> Any:
        rows, columns = len(down), len(across)
        down_1d, across_1d = transform(down), transform(across)

        @leaf
        def both(x, x_row, x_pixel, v, v_cell, work):  # type: ignore[no-untyped-def]
            for j in range(columns):
                down_1d(x + j * x_pixel, x_row, work + j * VECTOR_BYTES, side * VECTOR_BYTES)
            for i in range(rows):
                across_1d(work + i * side * VECTOR_BYTES, VECTOR_BYTES, v + i * side * v_cell, v_cell)

        return both

    all_of = along(whole, whole)
    if not some:
        return leaf(
            lambda x, x_row, x_pixel, v, v_cell, work, all_rows, all_columns: all_of(x, x_row, x_pixel, v, v_cell, work)
        )
    no_row, no_column, neither = along(finite, whole), along(whole, finite), along(finite, finite)

    @leaf
    def transform_in(x, x_row, x_pixel, v, v_cell, work, all_rows, all_columns):  # type: ignore[no-untyped-def]
        if all_rows and all_columns:
            all_of(x, x_row, x_pixel, v, v_cell, work)
        elif all_columns:
            no_row(x, x_row, x_pixel, v, v_cell, work)
        elif all_rows:
            no_column(x, x_row, x_pixel, v, v_cell, work)
        else:
            neither(x, x_row, x_pixel, v, v_cell, work)

    return transform_in


def make_winograd(
    m: int, size: int, rows: int, cols: int, function: str | None, products_of: str | None = None,
    apart: int | None = None,
) -> Callable[..., None]:  # fmt: skip
    """For filters of size x size. Register tile: rows patches x cols output blocks.

    apart        from one pixel of y and r to the next, in vectors; None: 1
    products_of  None where every cell multiplies all lanes; where some multiply only those of some phases, "blocks", or
                 "lanes" where these are not whole blocks: a slower loop
    places       for each block of lanes where its first patch begins, bytes from x
    phases       of x, as many blocks of lanes each, one after the other
    tall_end     where some phases have a row or a column of taps less: the blocks of lanes before it have all rows, and
                 those from `wide_begin` to `wide_end` all columns
    live         for each cell the first lane that it multiplies, the one after the last, and where the weights begin,
                 bytes from those of a tile of outputs; an end follows
    u_tile       bytes of the weights of a tile of outputs
    scratch      holds `scratch_bytes` for each thread
    v_block      bytes from one block of V, or of M, to the next; v_cell and o_cell from one cell to the next
    """
    finish = _limited(function)
    tile = Tile(rows, cols, VECTOR_BYTES // 4)
    start, take, outer, put = tile.start, tile.take, tile.outer, tile.put
    side = m + size - 1
    cells = side * side
    transform_in, output_1d = _transform_in(side, products_of == "blocks"), transform(output(m, size))
    step = cols * VECTOR_BYTES
    lanes = VECTOR_BYTES // 4
    y_pixel = VECTOR_BYTES * (apart or 1)
    ask_for = Tile(m, 1, y_pixel // 4, m).ask_for(write=True)

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
                    value = add(value, load(r + i * r_row + j * y_pixel))
                store(y + i * y_row + j * y_pixel, finish(value, low, high, a))

    @leaf
    def multiply_blocks(acc, v, v_block, w, soon, pace, begin, stop):  # type: ignore[no-untyped-def]
        for _ in range((stop - begin) // lanes):
            at = v
            for _ in range(lanes):
                prefetch(soon)
                soon += pace
                acc = outer(acc, at, 0, w)
                at += 4
                w += step
            v += v_block
        return acc

    @leaf
    def multiply_lanes(acc, v, v_block, w, soon, pace, begin, stop):  # type: ignore[no-untyped-def]
        at = v + 4 * (begin % lanes)
        for lane in range(begin, stop):
            prefetch(soon)
            soon += pace
            acc = outer(acc, at, 0, w)
            at += 4 if (lane + 1) % lanes else 4 + v_block - VECTOR_BYTES
            w += step
        return acc

    multiply = multiply_lanes if products_of == "lanes" else multiply_blocks

    def winograd(  # type: ignore[no-untyped-def]
        thread, again, begin, end, parts, x, places, u, live, u_tile, bias, y, r, limits, zeros, scratch, scratch_bytes,
        images, down, across, depth, phases, tall_end, wide_begin, wide_end, span, groups, blocks, patches, chunks,
        together, height, width, v_block, v_cell, o_cell,
        x_image, x_row, x_pixel, y_image, y_plane, y_row, r_image, r_plane, r_row,
    ):  # fmt: skip
        low, high, a = broadcast(limits), broadcast(limits + 4), broadcast(limits + 8)
        total = images * down * across
        pieces = (total + patches - 1) // patches
        memo = scratch + thread * scratch_bytes
        if again == 0:
            set_i64(memo, -1)
        work = memo + LINE
        v = work + (cells + side) * VECTOR_BYTES
        o = v + cells * v_cell
        unit, stop_unit = pieces * chunks * begin // parts, pieces * chunks * end // parts
        while unit < stop_unit:
            piece, chunk = unit // chunks, unit % chunks
            next_chunk = min(chunks, chunk + stop_unit - unit)
            unit += next_chunk - chunk
            first = total * piece // pieces
            count = total * (piece + 1) // pieces - first
            pace = step // ((count + rows - 1) // rows)
            if i64(memo, 0) != piece:
                for b in range(depth // phases):
                    for t in range(count):
                        place = first + t
                        image, p, q = place // (down * across), place // across % down * m, place % across * m
                        xt = x + image * x_image + p * x_row + q * x_pixel
                        vt = v + b * v_block + t * VECTOR_BYTES
                        for phase in range(b, depth, depth // phases):  # they share cache lines' neighbours
                            at = vt + (phase - b) * v_block
                            xp, all_rows = xt + i64(places, phase), phase < tall_end
                            all_columns = phase >= wide_begin and phase < wide_end
                            transform_in(xp, x_row, x_pixel, at, v_cell, work, all_rows, all_columns)
                set_i64(memo, piece)
            last = groups * next_chunk // chunks
            for g0 in range(groups * chunk // chunks, last, together):
                g1 = min(last, g0 + together)
                for e in range(cells):
                    lane0, lane1, ue = i64(live, 3 * e), i64(live, 3 * e + 1), u + i64(live, 3 * e + 2)
                    for g in range(g0, g1):
                        product = o + e * o_cell + (g - g0) * cols * v_block
                        ws = ue + g * u_tile
                        b0, b_end = lane0 // lanes, (lane1 + lanes - 1) // lanes
                        while b0 < b_end:
                            b1 = b0 + even(b_end - b0, span)
                            begin, stop = max(lane0, b0 * lanes), min(lane1, b1 * lanes)
                            # the weights that come next, a little with every step
                            soon = ws + (stop - begin) * step
                            if stop == lane1:
                                soon = ue + (g + 1) * u_tile if g + 1 < g1 else u + i64(live, 3 * e + 5) + g0 * u_tile
                            for t in range(0, count, rows):
                                wide = min(rows, count - t)
                                pt = product + t * VECTOR_BYTES
                                if begin == lane0:
                                    acc = start(zeros)
                                else:
                                    acc = take(pt, 0, VECTOR_BYTES, v_block, 1, wide, cols, rows, 0)
                                vt = v + e * v_cell + b0 * v_block + t * VECTOR_BYTES
                                acc = multiply(acc, vt, v_block, ws, soon, pace, begin, stop)
                                soon += pace * (stop - begin)
                                put(acc, pt, 0, VECTOR_BYTES, v_block, 1, wide, cols, rows, 0)
                            ws += (stop - begin) * step
                            b0 = b1
                for k in range(g0 * cols, min(blocks, g1 * cols)):
                    lift = load(bias + k * VECTOR_BYTES)
                    for t in range(count):
                        place = first + t
                        image, p, q = place // (down * across), place // across % down * m, place % across * m
                        yt = y + image * y_image + k * y_plane + p * y_row + q * y_pixel
                        rt = r + image * r_image + k * r_plane + p * r_row + q * y_pixel if r != 0 else 0
                        tall, wide, place = height - p, width - q, place + AHEAD
                        image, p, q = place // (down * across), place // across % down * m, place % across * m
                        ask_for(y + image * y_image + k * y_plane + p * y_row + q * y_pixel, y_row)
                        transform_out(
                            o + (k - g0 * cols) * v_block + t * VECTOR_BYTES, o_cell, yt, y_row, rt, r_row, lift,
                            tall, wide, low, high, a, work,
                        )  # fmt: skip

    return winograd
