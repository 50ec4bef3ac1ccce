"""Normalisations computed from the data itself, and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from netdsl.backends.cuda.kernels.functions import larger
from netdsl.backends.cuda.kernels.maps import getter, setter
from netdsl.backends.cuda.simt import cuda, device_function


def _block_sum(threads: int) -> Callable[..., Any]:
    """A device function: the sum of one value of each of the block's threads, known to all of them."""

    @device_function
    def block_sum(parts, thread, value):  # type: ignore[no-untyped-def]
        cuda.syncthreads()  # nobody still reads the last result
        parts[thread] = value
        cuda.syncthreads()
        half = threads // 2
        while half > 0:
            if thread < half:
                parts[thread] += parts[thread + half]
            cuda.syncthreads()
            half //= 2
        return parts[0]

    return block_sum


def _block_largest(threads: int) -> Callable[..., Any]:
    """A device function: the largest of one value of each of the block's threads, known to all of them."""

    @device_function
    def block_largest(parts, thread, value):  # type: ignore[no-untyped-def]
        cuda.syncthreads()
        parts[thread] = value
        cuda.syncthreads()
        half = threads // 2
        while half > 0:
            if thread < half:
                parts[thread] = larger(parts[thread + half], parts[thread])
            cuda.syncthreads()
            half //= 2
        return parts[0]

    return block_largest


def make_groupnorm(threads: int, x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """(x - mean) / sqrt(var + eps) over each group of `span` channels of an image, times scale[c] plus shift[c].

    A block for each group of each image. The mean is taken out before the squares are added up. The last group also
    clears the lanes past the last channel.
    """
    block_sum = _block_sum(threads)
    get, put = getter(x_type), setter(y_type)

    def groupnorm(  # type: ignore[no-untyped-def]
        arena, x, y, scale, shift, eps, groups, span, channels, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        parts = cuda.shared.array(threads, np.float32)
        thread = cuda.threadIdx.x
        group, n = cuda.blockIdx.x % groups, cuda.blockIdx.x // groups
        first = group * span
        count = height * width * span
        total = np.float32(0.0)
        for i in range(thread, count, threads):
            c, pixel = first + i % span, i // span
            total += get(arena, x + n * x_image + pixel // width * x_row + pixel % width * x_pixel + c)
        mean = block_sum(parts, thread, total) / np.float32(count)
        total = np.float32(0.0)
        for i in range(thread, count, threads):
            c, pixel = first + i % span, i // span
            d = get(arena, x + n * x_image + pixel // width * x_row + pixel % width * x_pixel + c) - mean
            total += d * d
        inverse = np.float32(1.0) / math.sqrt(block_sum(parts, thread, total) / np.float32(count) + eps)
        for i in range(thread, count, threads):
            c, pixel = first + i % span, i // span
            value = get(arena, x + n * x_image + pixel // width * x_row + pixel % width * x_pixel + c)
            value = (value - mean) * inverse * scale[c] + shift[c]
            put(arena, y + n * y_image + pixel // width * y_row + pixel % width * y_pixel + c, value)
        if group == groups - 1:
            for pixel in range(thread, height * width, threads):
                for c in range(channels, lanes):
                    put(arena, y + n * y_image + pixel // width * y_row + pixel % width * y_pixel + c, np.float32(0.0))

    return groupnorm


def make_lrn(x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """x / (k + alpha sum of squares over `size` channels around)**beta; lanes past the last channel become 0."""
    get, put = getter(x_type), setter(y_type)

    def lrn(  # type: ignore[no-untyped-def]
        arena, x, y, alpha, beta, k, size, images, channels, lanes, height, width,
        x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    ):  # fmt: skip
        i = cuda.grid(1)
        if i >= images * height * width * lanes:
            return
        c, pixel = i % lanes, i // lanes
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        at = x + n * x_image + p * x_row + q * x_pixel
        value = np.float32(0.0)
        if c < channels:
            total = np.float32(0.0)
            for j in range(max(0, c - size // 2), min(channels, c + (size - 1) // 2 + 1)):
                total += get(arena, at + j) * get(arena, at + j)
            value = get(arena, at + c) * math.pow(k + alpha * total, -beta)
        put(arena, y + n * y_image + p * y_row + q * y_pixel + c, value)

    return lrn


def make_softmax(
    logarithm: bool, threads: int, x_type: str = "float32", y_type: str = "float32"
) -> Callable[..., None]:
    """exp(x) / sum exp(x) over the channels of each pixel, or its logarithm; the largest value is taken out first.

    A block for each pixel; lanes past the last channel become 0.
    """
    block_sum, block_largest = _block_sum(threads), _block_largest(threads)
    get, put = getter(x_type), setter(y_type)

    def softmax(  # type: ignore[no-untyped-def]
        arena, x, y, channels, lanes, height, width, x_image, x_row, x_pixel, y_image, y_row, y_pixel
    ):
        parts = cuda.shared.array(threads, np.float32)
        thread = cuda.threadIdx.x
        pixel = cuda.blockIdx.x
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        xp = x + n * x_image + p * x_row + q * x_pixel
        yp = y + n * y_image + p * y_row + q * y_pixel
        best = np.float32(-np.inf)
        for c in range(thread, channels, threads):
            best = larger(get(arena, xp + c), best)
        best = block_largest(parts, thread, best)
        total = np.float32(0.0)
        for c in range(thread, channels, threads):
            total += math.exp(get(arena, xp + c) - best)
        total = block_sum(parts, thread, total)
        for c in range(thread, lanes, threads):
            if c >= channels:
                put(arena, yp + c, np.float32(0.0))
            elif logarithm:
                value = get(arena, xp + c) - best - math.log(total)
                put(arena, yp + c, value)
            else:
                value = math.exp(get(arena, xp + c) - best) / total
                put(arena, yp + c, value)

    return softmax


def make_softmax_points(logarithm: bool, x_type: str = "float32", y_type: str = "float32") -> Callable[..., None]:
    """The same where channels are few: a thread for each pixel."""
    get, put = getter(x_type), setter(y_type)

    def softmax_points(  # type: ignore[no-untyped-def]
        arena, x, y, images, channels, lanes, height, width, x_image, x_row, x_pixel, y_image, y_row, y_pixel
    ):
        pixel = cuda.grid(1)
        if pixel >= images * height * width:
            return
        q, line = pixel % width, pixel // width
        p, n = line % height, line // height
        xp = x + n * x_image + p * x_row + q * x_pixel
        yp = y + n * y_image + p * y_row + q * y_pixel
        best = get(arena, xp)
        for c in range(1, channels):
            best = larger(get(arena, xp + c), best)
        total = np.float32(0.0)
        for c in range(channels):
            total += math.exp(get(arena, xp + c) - best)
        for c in range(channels):
            if logarithm:
                value = get(arena, xp + c) - best - math.log(total)
                put(arena, yp + c, value)
            else:
                value = math.exp(get(arena, xp + c) - best) / total
                put(arena, yp + c, value)
        for c in range(channels, lanes):
            put(arena, yp + c, np.float32(0.0))

    return softmax_points
