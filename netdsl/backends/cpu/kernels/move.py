"""Kernels that only move values: layout changes at the borders, halos, gathers, and the batch turned into pixels."""

from __future__ import annotations

from collections.abc import Callable

from netdsl.backends.cpu.simd import (
    VECTOR_BYTES,
    WIDTH,
    broadcast,
    f32,
    i64,
    load,
    set_f32,
    store,
    strided,
    transpose,
    zero,
)  # fmt: skip


def make_pack() -> Callable[..., None]:
    """The caller's NCHW array into blocks of channels; lanes past the last channel become 0."""

    def pack(begin, end, parts, x, y, images, channels, height, width, y_image, y_plane, y_row):  # type: ignore[no-untyped-def]
        blocks = (channels + WIDTH - 1) // WIDTH
        units = images * blocks * height
        for unit in range(units * begin // parts, units * end // parts):
            h, image_block = unit % height, unit // height
            b, image = image_block % blocks, image_block // blocks
            yr = y + image * y_image + b * y_plane + h * y_row
            real = min(WIDTH, channels - b * WIDTH)
            if real < WIDTH:
                for w in range(width):
                    store(yr + w * VECTOR_BYTES, zero())
            for lane in range(real):
                xr = x + 4 * ((image * channels + b * WIDTH + lane) * height + h) * width
                for w in range(width):
                    set_f32(yr + 4 * (w * WIDTH + lane), f32(xr + 4 * w))

    return pack


def make_phases(stride: int) -> Callable[..., None]:
    """The caller's NCHW array into pixels that hold all phases of a strided convolution's input, zeros around included.

    A row of pixels is made of `stride` rows of the image, which thus are read once. Each thread copies them into
    `scratch` (`scratch_bytes` for each), `line` bytes apart, channel by channel, between zeros; then it picks every
    `stride`-th value, and turns WIDTH of those vectors into WIDTH pixels.

    left, top   zeros before the image's first column and row
    places      for each lane where its values begin in the lines, bytes; -1 where it stays 0
    width       pixels of a row, at least WIDTH
    """
    every = strided(stride)

    def phases(  # type: ignore[no-untyped-def]
        thread, begin, end, parts, x, y, places, scratch, scratch_bytes, line, images, channels, x_height, x_width,
        top, left, blocks, height, width, y_image, y_plane, y_row,
    ):  # fmt: skip
        lines = scratch + thread * scratch_bytes
        square = lines + stride * channels * line
        for i in range(0, stride * channels * line, 4):
            set_f32(lines + i, 0.0)
        units = images * height
        for unit in range(units * begin // parts, units * end // parts):
            p, image = unit % height, unit // height
            for k in range(stride * channels):
                h, c = p * stride - top + k // channels, k % channels
                at = lines + k * line + 4 * left
                if h < 0 or h >= x_height:
                    for w in range(x_width):
                        set_f32(at + 4 * w, 0.0)
                else:
                    xr = x + 4 * ((image * channels + c) * x_height + h) * x_width
                    w = 0
                    while w + WIDTH <= x_width:
                        store(at + 4 * w, load(xr + 4 * w))
                        w += WIDTH
                    while w < x_width:
                        set_f32(at + 4 * w, f32(xr + 4 * w))
                        w += 1
            for b in range(blocks):
                yr = y + image * y_image + b * y_plane + p * y_row
                for step in range(0, width, WIDTH):
                    q = min(step, width - WIDTH)
                    for lane in range(WIDTH):
                        place = i64(places, b * WIDTH + lane)
                        value = every(lines + place + 4 * stride * q) if place >= 0 else zero()
                        store(square + lane * VECTOR_BYTES, value)
                    transpose(square, yr + q * VECTOR_BYTES)

    return phases


def make_unpack() -> Callable[..., None]:
    """A blocked map into plain CHW order: network outputs, and flattening. y_image is the stride between images."""

    def unpack(begin, end, parts, x, y, images, channels, height, width, x_image, x_plane, x_row, y_image):  # type: ignore[no-untyped-def]
        blocks = (channels + WIDTH - 1) // WIDTH
        units = images * blocks * height
        for unit in range(units * begin // parts, units * end // parts):
            h, image_block = unit % height, unit // height
            b, image = image_block % blocks, image_block // blocks
            xr = x + image * x_image + b * x_plane + h * x_row
            yr = y + image * y_image + 4 * (b * WIDTH * height + h) * width
            for lane in range(min(WIDTH, channels - b * WIDTH)):
                for w in range(width):
                    set_f32(yr + 4 * (lane * height * width + w), f32(xr + 4 * lane + w * VECTOR_BYTES))

    return unpack


def make_halo() -> Callable[..., None]:
    """Zeros around a map: `top` and `bottom` rows, `left` and `right` pixels. `row` and `pixel` are bytes."""

    def halo(begin, end, parts, x, planes, plane, row, pixel, top, bottom, left, right, height):  # type: ignore[no-untyped-def]
        for unit in range(planes * begin // parts, planes * end // parts):
            base = x + unit * plane
            for h in range(top + height + bottom):
                at = base + h * row
                if h < top or h >= top + height:
                    for i in range(0, row, 4):
                        set_f32(at + i, 0.0)
                else:
                    for i in range(0, left * pixel, 4):
                        set_f32(at + i, 0.0)
                    for i in range(row - right * pixel, row, 4):
                        set_f32(at + i, 0.0)

    return halo


def make_gather() -> Callable[..., None]:
    """y[c, p, q] = x[channel[c], row[p], column[q]], or `fill` where any of them is -1.

    y's channel c stands in block (first + c) // WIDTH, lane (first + c) % WIDTH; a block whose lanes all come from one
    block in order (whole[c] says so) moves as a vector. Tables hold int64.
    """

    def gather(  # type: ignore[no-untyped-def]
        begin, end, parts, x, y, channel, whole, row, column, fill, images, channels, first, height, width,
        x_image, x_plane, x_row, y_image, y_plane, y_row, y_pixel,
    ):  # fmt: skip
        value = f32(fill)
        units = images * height
        for unit in range(units * begin // parts, units * end // parts):
            p, image = unit % height, unit // height
            h = i64(row, p)
            xi, yi = x + image * x_image + h * x_row, y + image * y_image + p * y_row
            c = 0
            while c < channels:
                k, source = first + c, i64(channel, c)
                yc = yi + (k // WIDTH) * y_plane + 4 * (k % WIDTH)
                xc = xi + (source // WIDTH) * x_plane + 4 * (source % WIDTH)
                if i64(whole, c) == 1:
                    for q in range(width):
                        w = i64(column, q)
                        inside = h >= 0 and w >= 0
                        store(yc + q * y_pixel, load(xc + w * VECTOR_BYTES) if inside else broadcast(fill))
                    c += WIDTH
                else:
                    for q in range(width):
                        w = i64(column, q)
                        inside = source >= 0 and h >= 0 and w >= 0
                        set_f32(yc + q * y_pixel, f32(xc + w * VECTOR_BYTES) if inside else value)
                    c += 1

    return gather


def make_batch_pixels() -> Callable[..., None]:
    """Feature vectors [image][feature] into [block][image][c]: the images of a batch become pixels of one map."""

    def batch_pixels(begin, end, parts, x, y, images, blocks, x_image):  # type: ignore[no-untyped-def]
        for b in range(blocks * begin // parts, blocks * end // parts):
            for image in range(images):
                store(y + (b * images + image) * VECTOR_BYTES, load(x + image * x_image + b * VECTOR_BYTES))

    return batch_pixels


def make_clear() -> Callable[..., None]:
    """Zeros over `bytes` (a multiple of the vector's) for each image."""

    def clear(begin, end, parts, y, images, y_image, bytes):  # type: ignore[no-untyped-def]
        for image in range(images * begin // parts, images * end // parts):
            for i in range(0, bytes, VECTOR_BYTES):
                store(y + image * y_image + i, zero())

    return clear
