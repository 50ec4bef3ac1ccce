"""Kernels over planar maps (few channels, a plane each): vectors lie along the rows, so that no lane stands empty.

Only as many lanes as a row has pixels are written, so that rows may have any width and zeros around them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdsl.backends.cpu.kernels.functions import FUNCTIONS
from netdsl.backends.cpu.simd import (
    VECTOR_BYTES,
    WIDTH,
    broadcast,
    f32,
    i64,
    larger,
    leaf,
    load,
    set_f32,
    splat,
    store,
    store_first,
    strided,
)  # fmt: skip
from netdsl.backends.cpu.tile import Tile

INFINITY = np.float32(np.inf)


def _finish(tile: Tile, function: str | None) -> Any:
    """The epilogue: residual, limits, store; then, while the tile is in L1, an elementwise function over it."""
    add_from, at_least, at_most, put, most = tile.add_from, tile.at_least, tile.at_most, tile.put_first, tile.rows
    if function is None:

        @leaf
        def finish(acc, y, y_plane, r, r_plane, planes, vectors, lanes, low, high, a):  # type: ignore[no-untyped-def]
            if r != 0:
                acc = add_from(acc, r, 0, r_plane, VECTOR_BYTES, 1, planes, vectors, most, 0)
            put(at_most(at_least(acc, low), high), y, y_plane, lanes)

        return finish
    apply = FUNCTIONS[function]

    @leaf
    def finish_with(acc, y, y_plane, r, r_plane, planes, vectors, lanes, low, high, a):  # type: ignore[no-untyped-def]
        if r != 0:
            acc = add_from(acc, r, 0, r_plane, VECTOR_BYTES, 1, planes, vectors, most, 0)
        put(acc, y, y_plane, lanes)
        for k in range(planes):
            for n in range(vectors):
                at = y + k * y_plane + n * VECTOR_BYTES
                store_first(at, apply(load(at), a), lanes - n * WIDTH)

    return finish_with


def make_conv_planes(outputs: int, vectors: int, function: str | None) -> Callable[..., None]:
    """Convolution from planes to planes, stride 1 along rows: a tile of `outputs` planes x `vectors` of one row.

    Each group of input channels makes `outputs` planes; a depthwise convolution has groups of one. Weights are
    [group][tap][output]; `taps` are byte offsets from an output pixel's place at which `run` pixels of a row follow.
    """
    tile = Tile(outputs, vectors, 1)
    start, outer = tile.start_rows, tile.outer
    finish = _finish(tile, function)
    step = 4 * outputs

    def conv_planes(  # type: ignore[no-untyped-def]
        begin, end, parts, x, w, bias, taps, n_taps, run, x_group, y, r, limits, images, groups, bands, height, width,
        x_image, x_row, y_image, y_plane, y_row, r_image, r_plane, r_row,
    ):  # fmt: skip
        low, high, a = broadcast(limits), broadcast(limits + 4), broadcast(limits + 8)
        units = images * groups * bands
        for unit in range(units * begin // parts, units * end // parts):
            band, image_group = unit % bands, unit // bands
            g, image = image_group % groups, image_group // groups
            xg = x + image * x_image + g * x_group
            yg = y + image * y_image + g * outputs * y_plane
            rg = r + image * r_image + g * outputs * r_plane
            wg = w + g * n_taps * run * step
            for p in range(height * band // bands, height * (band + 1) // bands):
                for q in range(0, width, vectors * WIDTH):
                    acc = start(bias + g * step)
                    origin = xg + p * x_row + 4 * q
                    wt = wg
                    for t in range(n_taps):
                        xt = origin + i64(taps, t)
                        for _ in range(run):
                            acc = outer(acc, wt, 0, xt)
                            xt += 4
                            wt += step
                    lanes = min(vectors * WIDTH, width - q)
                    here = (lanes + WIDTH - 1) // WIDTH
                    rt = rg + p * r_row + 4 * q if r != 0 else 0
                    finish(acc, yg + p * y_row + 4 * q, y_plane, rt, r_plane, outputs, here, lanes, low, high, a)

    return conv_planes


def make_maxpool_planes(r: int, s: int, function: str | None) -> Callable[..., None]:
    """Maximum over windows of r x s within the map, of stride 2 along rows, then an elementwise function."""
    apply = FUNCTIONS[function or "identity"]
    load_strided = strided(2)

    def maxpool_planes(  # type: ignore[no-untyped-def]
        begin, end, parts, x, y, parameter, images, planes, height, width, x_image, x_plane, x_row, y_image, y_plane,
        y_row, stride,
    ):  # fmt: skip
        a = broadcast(parameter)
        units = images * planes * height
        for unit in range(units * begin // parts, units * end // parts):
            p, image_plane = unit % height, unit // height
            plane, image = image_plane % planes, image_plane // planes
            xr = x + image * x_image + plane * x_plane + p * stride * x_row
            yr = y + image * y_image + plane * y_plane + p * y_row
            for q in range(0, width, WIDTH):
                best = splat(-INFINITY)
                for i in range(r):
                    for j in range(s):
                        best = larger(load_strided(xr + i * x_row + 4 * (2 * q + j)), best)
                store_first(yr + 4 * q, apply(best, a), width - q)

    return maxpool_planes


def make_rows() -> Callable[..., None]:
    """y[c, p, q] = x[c, row[p], column[q]], or `fill` where row or column is -1, plane by plane.

    From `start` to `stop` the columns follow each other, so that they move as vectors.
    """

    def rows(  # type: ignore[no-untyped-def]
        begin, end, parts, x, y, row, column, fill, start, stop, images, planes, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row,
    ):  # fmt: skip
        value = f32(fill)
        units = images * planes * height
        for unit in range(units * begin // parts, units * end // parts):
            plane, image_row = unit % planes, unit // planes  # rows of all planes together, as their readers share them
            p, image = image_row % height, image_row // height
            h = i64(row, p)
            xr = x + image * x_image + plane * x_plane + h * x_row
            yr = y + image * y_image + plane * y_plane + p * y_row
            if h < 0:
                for q in range(width):
                    set_f32(yr + 4 * q, value)
            else:
                for q in range(start):
                    w = i64(column, q)
                    set_f32(yr + 4 * q, f32(xr + 4 * w) if w >= 0 else value)
                xs = xr + 4 * i64(column, start)
                q = start
                while q + WIDTH <= stop:
                    store(yr + 4 * q, load(xs + 4 * (q - start)))
                    q += WIDTH
                while q < stop:
                    set_f32(yr + 4 * q, f32(xs + 4 * (q - start)))
                    q += 1
                for q in range(stop, width):
                    w = i64(column, q)
                    set_f32(yr + 4 * q, f32(xr + 4 * w) if w >= 0 else value)

    return rows
