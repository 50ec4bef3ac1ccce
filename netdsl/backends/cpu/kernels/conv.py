"""Direct convolution, dense layers and depthwise convolution as register-tiled products over blocked channels.

Layout of maps: NCHWc, c = the vector width; a pixel is one vector. `x` points at the input pixel under output (0, 0)'s
first tap, halo included, so that no tap is ever outside. A convolution is then a sum over `taps`: byte offsets from an
output pixel's origin at which `run` consecutive floats meet `run` consecutive weight rows. A 3x3 over 64 channels in
blocks of 16 has 4 x 3 taps of 48 floats (three pixels lie side by side); a 1x1 has one tap for each channel block.

Sources: Georganas et al., arXiv:1808.05567 (register blocking); Zhang et al., arXiv:1809.10170 (blocked layout).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netdsl.backends.cpu.kernels.functions import FUNCTIONS
from netdsl.backends.cpu.simd import VECTOR_BYTES, broadcast, finite, i64, leaf, load, store
from netdsl.backends.cpu.tile import Tile

LOW, HIGH, LAST = 1, 2, 4  # of the last taps' epilogue


def _finish(tile: Tile, function: str | None) -> Any:
    """The epilogue: limits, store; then, while the tile is in L1, an elementwise function over it.

    Its `last` is 0 while sums are to come, and then LAST, with LOW and HIGH where there is such a limit.
    """
    at_least, at_most, put = tile.at_least, tile.at_most, tile.put
    if function is None:

        @leaf
        def finish(  # type: ignore[no-untyped-def]
            acc, y, y_row, y_pixel, y_plane, lines, rows, cols, split, gap, low, high, a, last
        ):
            if last & LOW:
                acc = at_least(acc, low)
            if last & HIGH:
                acc = at_most(acc, high)
            put(acc, y, y_row, y_pixel, y_plane, lines, rows, cols, split, gap)

        return finish
    apply = FUNCTIONS[function]

    @leaf
    def finish_with(  # type: ignore[no-untyped-def]
        acc, y, y_row, y_pixel, y_plane, lines, rows, cols, split, gap, low, high, a, last
    ):
        put(acc, y, y_row, y_pixel, y_plane, lines, rows, cols, split, gap)
        if last != 0:
            for n in range(cols):
                for line in range(lines):
                    for m in range(rows):
                        at = y + line * y_row + m * y_pixel + n * y_plane + (gap if m >= split else 0)
                        store(at, apply(load(at), a))

    return finish_with


def _rows_of(rows: int, turns: bool) -> tuple[Any, Any]:
    """Where tiles of `rows` pixels lie that are counted through a map: the row, and how many pixels are left there.

    first(at, turn)             of the tile that begins with pixel `at`, in rows of `turn` pixels
    after(number, left, turn)   of the tile that follows one with these
    """
    if not turns:
        return leaf(lambda at, turn: (0, rows)), leaf(lambda number, left, turn: (0, rows))

    @leaf
    def first(at, turn):  # type: ignore[no-untyped-def]
        number = at // turn
        return number, (number + 1) * turn - at

    @leaf
    def after(number, left, turn):  # type: ignore[no-untyped-def]
        return (number, left - rows) if left > rows else (number + 1, left - rows + turn)

    return first, after


def make_conv(
    lines: int, rows: int, cols: int, pixel: int, function: str | None, stored: str | None = None,
    turns: str | None = None,
) -> Callable[..., None]:  # fmt: skip
    """A tile of lines x rows output pixels x cols channel blocks; neighbours' inputs lie `pixel` floats apart.

    Weights are `stored` as "float16" or "bfloat16" and widened as they are read, or as float32 (None).

    The taps are taken in equal parts of at most `span` over all pixels of a band, sums waiting in y meanwhile, so that
    weights stay in the first-level cache from one pass to the next. What is needed next is asked for early: inputs,
    outputs and residuals of the next tile; weights `ahead` bytes before their use, or, with `ahead` 0, in the course of
    all passes, those of the next part.

    turns   "turns" where pixels are counted through rows of `turn`, at least `rows`, that do not touch: `y_gap` bytes
            lie between those of the outputs, `r_gap` between those of what is added
    """
    tile = Tile(rows, cols, pixel, lines, stored)
    start, take, outer, ask, ask_for, add_from = (
        tile.start, tile.take, tile.outer, tile.ask, tile.ask_for(), tile.add_from
    )  # fmt: skip
    column = Tile(rows, 1, VECTOR_BYTES // 4, lines)
    ask_residuals, ask_outputs = column.ask_for(), column.ask_for(write=True)
    finish = _finish(tile, function)
    first_row, next_row = _rows_of(rows, turns is not None)
    step, biases = tile.weight_bytes, cols * VECTOR_BYTES

    def conv(  # type: ignore[no-untyped-def]
        begin, end, parts, x, w, bias, taps, n_taps, run, span, ahead, group_offsets, y, r, limits,
        images, groups, blocks, bands, chunks, together, height, width, last_width, turn,
        x_image, x_row, w_group, y_image, y_plane, y_row, y_pixel, y_gap, r_image, r_plane, r_row, r_pixel, r_gap,
    ):  # fmt: skip
        lowest, highest, a = broadcast(limits), broadcast(limits + 4), broadcast(limits + 8)
        down = (height + lines - 1) // lines
        stripes = images * down
        spans = max(1, (n_taps + span - 1) // span)
        limited = LAST + LOW * finite(limits) + HIGH * finite(limits + 4)
        unit, stop = bands * chunks * begin // parts, bands * chunks * end // parts
        while unit < stop:
            chunk, band = unit // bands, unit % bands
            next_band = min(bands, band + together, band + stop - unit)
            unit += next_band - band
            first_stripe, last_stripe = stripes * band // bands, stripes * next_band // bands
            passes = max(1, (last_stripe - first_stripe) * ((width + rows - 1) // rows))
            pace = step if ahead != 0 else (step + passes - 1) // passes
            for g in range(groups * chunk // chunks, groups * (chunk + 1) // chunks):
                valid = min(cols, blocks - g * cols)
                for s in range(spans):
                    t0, t1 = n_taps * s // spans, n_taps * (s + 1) // spans
                    last = limited if t1 == n_taps else 0
                    adds = r != 0 and t0 == 0
                    ws = w + g * w_group + t0 * run * step
                    size = (t1 - t0) * run * step
                    soon = ws + (ahead if ahead != 0 else size)
                    for stripe in range(first_stripe, last_stripe):
                        image, p = stripe // down, stripe % down * lines
                        xg = x + image * x_image + p * x_row + i64(group_offsets, g)
                        later, below = (stripe + 1) // down, (stripe + 1) % down * lines
                        next_line = (later - image) * x_image + (below - p) * x_row
                        yg = y + image * y_image + p * y_row + g * cols * y_plane
                        rg = r + image * r_image + p * r_row + g * cols * r_plane
                        tall = min(lines, height - p)
                        here = width if p < height - 1 else last_width
                        number, left = first_row(p * width, turn)
                        for q in range(0, here, rows):
                            wide = min(rows, here - q)
                            yt, rt = yg + q * y_pixel + number * y_gap, rg + q * r_pixel + number * r_gap
                            if t0 == 0:
                                acc = start(bias + g * biases)
                                if adds:
                                    acc = add_from(acc, rt, r_row, r_pixel, r_plane, tall, wide, valid, left, r_gap)
                            else:
                                acc = take(yt, y_row, y_pixel, y_plane, tall, wide, valid, left, y_gap)
                            origin = xg + 4 * q * pixel
                            wt = ws
                            if ahead != 0:
                                soon = ws + ahead
                            next_tile = 4 * rows * pixel if q + rows < here else next_line - 4 * q * pixel
                            for t in range(t0, t1):
                                xt = origin + i64(taps, t)
                                ask_for(xt + next_tile, x_row)
                                if t - t0 < cols:
                                    ask_outputs(yt + rows * y_pixel + (t - t0) * y_plane, y_row)
                                    if adds:
                                        ask_residuals(rt + rows * r_pixel + (t - t0) * r_plane, r_row)
                                for _ in range(run):
                                    ask(soon)
                                    soon += pace
                                    acc = outer(acc, xt, x_row, wt)
                                    xt += 4
                                    wt += step
                            finish(
                                acc, yt, y_row, y_pixel, y_plane, tall, wide, valid, left, y_gap,
                                lowest, highest, a, last,
                            )  # fmt: skip
                            number, left = next_row(number, left, turn)

    return conv


def make_depthwise(rows: int, pixel: int, taps: int, apart: int, function: str | None) -> Callable[..., None]:
    """One filter for each channel: a tile of rows output pixels x one channel block, weights [block][tap][c].

    A filter's row has `taps` cells, `apart` input pixels from each other; inputs of neighbouring outputs lie `pixel`
    floats apart. `lines` tells where the filter's rows start, bytes from an output pixel's origin.
    """
    tile = Tile(rows, 1, pixel)
    start, slide, add_from = tile.start, tile.slide(taps, apart), tile.add_from
    finish = _finish(tile, function)

    def depthwise(  # type: ignore[no-untyped-def]
        begin, end, parts, x, w, bias, lines, n_lines, y, r, limits, images, blocks, bands, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row, y_pixel, r_image, r_plane, r_row, r_pixel,
    ):  # fmt: skip
        low, high, a = broadcast(limits), broadcast(limits + 4), broadcast(limits + 8)
        units = images * blocks * bands
        for unit in range(units * begin // parts, units * end // parts):
            block, image_band = unit % blocks, unit // blocks
            band, image = image_band % bands, image_band // bands
            xb = x + image * x_image + block * x_plane
            yb = y + image * y_image + block * y_plane
            rb = r + image * r_image + block * r_plane
            wb = w + block * n_lines * taps * VECTOR_BYTES
            for p in range(height * band // bands, height * (band + 1) // bands):
                for q in range(0, width, rows):
                    acc = start(bias + block * VECTOR_BYTES)
                    origin = xb + p * x_row + 4 * q * pixel
                    for t in range(n_lines):
                        acc = slide(acc, origin + i64(lines, t), wb + t * taps * VECTOR_BYTES)
                    yt = yb + p * y_row + q * y_pixel
                    rt = rb + p * r_row + q * r_pixel if r != 0 else 0
                    wide = min(rows, width - q)
                    if r != 0:
                        acc = add_from(acc, rt, r_row, r_pixel, r_plane, 1, wide, 1, rows, 0)
                    finish(acc, yt, y_row, y_pixel, y_plane, 1, wide, 1, rows, 0, low, high, a, LAST + LOW + HIGH)

    return depthwise
