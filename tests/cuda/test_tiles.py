"""The choice of tiles, and the index arithmetic of the kernels, as plain functions."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuda_convolutions import Case, draw
from netdsl.backends.cuda import packing
from netdsl.backends.cuda.packing import SLICE, column_order, pack_depthwise, pack_gemm, pack_mma
from netdsl.backends.cuda.tiles import (
    FMA_TILES,
    GRID_SIDE,
    MMA_TILES,
    Choice,
    ConvShape,
    Target,
    best_tile,
    choose,
    cycles,
    gemm_arguments,
)  # fmt: skip

HOPPER, TURING = Target(), Target((7, 5), 40)
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")


def shape(images: int, side: int, channels: int, features: int, kernel: int = 3, **others: object) -> ConvShape:
    made = ConvShape(
        images, side, side, channels, features, (kernel, kernel), (1, 1), False, None, "float32", False, 1, (1, 1)
    )
    return replace(made, **others)  # type: ignore[arg-type]


def chosen(what: ConvShape, target: Target = HOPPER) -> Choice:
    choice = choose(what, target)
    assert choice is not None
    return choice


@st.composite
def shapes(draw: st.DrawFn) -> ConvShape:
    groups = draw(st.sampled_from([1, 1, 1, 2, 8]))
    size = st.integers(1, 300)
    return ConvShape(
        draw(st.integers(1, 70)), draw(size), draw(size), groups * draw(size), groups * draw(size),
        (draw(st.integers(1, 7)), draw(st.integers(1, 7))), (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        draw(st.booleans()), None, draw(st.sampled_from(PRECISIONS)), False, groups, (1, 1),
    )  # fmt: skip


@given(shapes())
@settings(deadline=None)
def test_a_launch_covers_the_product_and_fits_the_grid(what: ConvShape) -> None:
    choice = choose(what, HOPPER)
    if choice is None:
        assert what.groups > 1
        return
    x, y, z = choice.geometry.grid
    assert 1 <= x < 2**31 and 1 <= y <= GRID_SIDE and 1 <= z <= GRID_SIDE
    assert choice.geometry.threads <= 256
    if choice.kernel.factory in ("gemm", "mma"):
        block_m, block_n = choice.kernel.constants[:2]
        tiles_n = choice.arguments["tiles_n"]
        assert tiles_n * block_n >= what.columns > (tiles_n - 1) * block_n
        assert x // tiles_n * block_m >= what.pixels > (x // tiles_n - 1) * block_m
        assert y == what.groups and z == choice.arguments["splits"] <= choice.arguments["slices"]
        assert choice.scratch == (x * y * z * block_m * block_n if z > 1 else 0)
        assert choice.counters == (x * y if z > 1 else 0)


@given(shapes())
@settings(deadline=None)
def test_the_estimate_of_the_choice_is_the_least(what: ConvShape) -> None:
    tile, splits = best_tile(what, HOPPER)
    tiles = FMA_TILES if what.precision == "float32" else MMA_TILES
    assert all(cycles(what, HOPPER, tile, splits) <= cycles(what, HOPPER, other, 1) for other in tiles)


def test_many_pixels_take_large_tiles_and_few_share_their_depth() -> None:
    large, splits = best_tile(shape(64, 56, 64, 64), HOPPER)
    assert large.area == max(tile.area for tile in FMA_TILES) and splits == 1
    small, splits = best_tile(shape(1, 7, 512, 512), HOPPER)
    assert small.area < large.area and splits > 1
    tiles = -(-49 // small.block_m) * (512 // small.block_n)
    assert tiles * splits >= HOPPER.multiprocessors // 2  # most of the device works
    columns, _ = best_tile(shape(64, 56, 64, 24), HOPPER)
    assert columns.block_n == 32  # no half-empty tiles for 24 channels


def test_few_images_of_one_pixel_read_the_weights_once() -> None:
    for images, most in ((1, 1), (3, 4), (8, 8)):
        assert chosen(shape(images, 1, 2048, 1000, 1)).kernel.constants[0] == most
    assert chosen(shape(1, 1, 2048, 1000, 1)).kernel.factory == "gemv"
    assert chosen(shape(64, 1, 2048, 1000, 1)).kernel.factory == "gemm"


def test_groups() -> None:
    depthwise = shape(8, 28, 96, 96, groups=96)
    assert chosen(depthwise).kernel.factory == "depthwise"
    assert choose(replace(depthwise, dilation=(0, 0)), HOPPER) is None  # it must be known
    assert choose(replace(depthwise, dilation=(9, 9)), HOPPER) is None  # too many pixels for the registers
    assert chosen(shape(1, 28, 64, 64, groups=4)).geometry.grid[1] == 4
    assert choose(shape(1, 28, 64, 192, groups=64), HOPPER) is None  # a multiplier
    assert choose(shape(1, 28, 64, 64, groups=16), HOPPER) is None  # groups of four channels
    assert choose(shape(1, 28, 6, 64, groups=2), HOPPER) is None  # groups that start off a chunk


def test_counts_beyond_32_bits() -> None:
    """More than 2^31 elements are served while pixels and weights can be counted; more are left to another kernel."""
    big = shape(4096, 112, 64, 64)
    assert big.pixels * 64 > 2**31
    x, _, _ = chosen(big).geometry.grid
    assert GRID_SIDE < x < 2**31
    assert choose(shape(200_000, 112, 64, 64), HOPPER) is None
    assert choose(shape(1, 1, 100_000, 30_000, 1), HOPPER) is None
    assert choose(shape(1, 40_000, 4, 4), HOPPER) is None  # a corner takes 16 bits
    assert choose(shape(1, 8, 4, 4, dilation=(20_000, 1)), HOPPER) is None


def test_precisions_of_a_target() -> None:
    assert chosen(shape(1, 28, 64, 64)).kernel.factory == "gemm"
    assert chosen(shape(1, 28, 64, 64, precision="tf32")).kernel.factory == "mma"
    assert "register" in chosen(shape(1, 28, 64, 64), TURING).kernel.constants
    assert TURING.precisions == ("float32",)
    with pytest.raises(ValueError, match="tf32"):
        choose(shape(1, 28, 64, 64, precision="tf32"), TURING)


def test_a_choice_depends_on_the_shape_alone() -> None:
    what = shape(2, 14, 256, 256)
    first, second = chosen(what), chosen(what)
    assert (first.kernel, first.geometry, first.arguments) == (second.kernel, second.geometry, second.arguments)
    keys = {chosen(shape(n, 14, 256, 256)).pack_key for n in (1, 8, 64)}
    assert len(keys) == 1  # one packed form serves all batches


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 8, 12, 16, 17, 20, 64])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 5), (7, 2)])
def test_four_chunks_on(channels: int, kernel: tuple[int, int]) -> None:
    """Adding (step_r, step_s, step_c) with carries walks through all chunks of all taps in order."""
    what = replace(shape(1, 8, channels, 8), kernel=kernel)
    chunks, step = what.chunks, gemm_arguments(what, what.columns)
    total = kernel[0] * kernel[1] * chunks
    for lane in range(SLICE // 4):
        tap, c = divmod(lane, chunks)
        r, s = divmod(tap, kernel[1])
        for u in range(lane, total + 8, SLICE // 4):
            assert ((r * kernel[1] + s) * chunks + c, c < chunks, s < kernel[1]) == (u, True, True)
            c += step["step_c"]
            carry, c = divmod(c, chunks)
            s += step["step_s"] + carry
            carry, s = divmod(s, kernel[1])
            r += step["step_r"] + carry


def banks(addresses: list[int], width: int) -> int:
    """How often the busiest bank of shared memory is asked by threads that each read `width` floats."""
    count = np.zeros(32, int)
    for start in set(addresses):
        for e in range(width):
            count[(start + e) % 32] += 1
    return int(count.max())


def left_place(row: int, chunk: int) -> int:
    from netdsl.backends.cuda.kernels.gemm_stage import left_chunk

    return row * SLICE + 4 * left_chunk(row, chunk)


def test_stores_of_a_quarter_warp_meet_in_no_bank() -> None:
    for first in range(0, 128, 8):
        places = [left_place(thread // 4, thread % 4) for thread in range(first, first + 8)]
        assert banks(places, 4) == 1
        assert sorted(place // 4 for place in places) == list(range(first, first + 8))  # a permutation


def test_loads_meet_in_no_bank() -> None:
    from netdsl.backends.cuda.kernels.gemm_stage import right_column

    for row, chunk in itertools.product(range(0, 64, 4), range(4)):
        assert banks([left_place(row + lane // 8, chunk) for lane in range(32)], 4) == 1
    for row, chunk in itertools.product(range(0, 64, 8), range(4)):
        assert banks([left_place(row + lane // 4, chunk) + lane % 4 for lane in range(32)], 1) == 1
    for block_n, column, depth in itertools.product((32, 64, 128), (0, 8, 24), (0, 4)):
        places = [
            (depth + lane % 4) * block_n + right_column(depth + lane % 4, column + lane // 4, True)
            for lane in range(32)
        ]
        assert banks(places, 1) == 1


@pytest.mark.parametrize("groups", [1, 2])
def test_packed_weights(groups: int) -> None:
    case = Case(1, 10, 14, 5, 5, (3, 2), groups=groups)
    weight = draw(case).weight.transpose(0, 2, 3, 1)
    what = case.shape
    packed = pack_gemm(weight, groups, "float32").reshape(groups, what.slices * SLICE, what.columns)
    lanes, each = 4 * what.chunks, 14 // groups
    for k, r, s, c in np.ndindex(*weight.shape):
        assert packed[k // each, (r * 2 + s) * lanes + c, k % each] == weight[k, r, s, c]
    assert np.count_nonzero(packed) == weight.size


@pytest.mark.parametrize(("precision", "run"), [("tf32", 4), ("float16", 8)])
def test_a_thread_of_tensor_cores_has_16_bytes_of_columns(precision: str, run: int) -> None:
    """Thread t of four gets columns 2 t and 2 t + 1 of an instruction: of what is packed, a run; threads' follow."""
    order = column_order(precision)
    assert sorted(order) == list(range(32))
    for first in range(0, 32, 4 * run):
        found = [order[first + 8 * j + 2 * t + e] for t in range(4) for j in range(run // 2) for e in (0, 1)]
        assert found == list(range(first, first + 4 * run))


@pytest.mark.parametrize("groups", [1, 2])
def test_columns_in_the_order_of_tensor_cores(groups: int) -> None:
    weight = draw(Case(1, 6 * groups, 40 * groups, 3, 3, (3, 1), groups=groups)).weight.transpose(0, 2, 3, 1)
    plain = packing.to_tf32(pack_gemm(weight, groups, "float32")).reshape(groups, -1, 40)
    found = pack_mma(weight, groups, "tf32").reshape(groups, -1, 2, 32)
    filled = np.zeros((groups, plain.shape[1], 64), np.float32)
    filled[..., :40] = plain
    np.testing.assert_array_equal(found, filled.reshape(found.shape)[..., column_order("tf32")])


def test_packed_halves_hold_two_depths_in_a_word() -> None:
    weight = draw(Case(1, 6, 5, 1, 3, (1, 3))).weight.transpose(0, 2, 3, 1)
    exact = pack_gemm(weight, 1, "float32").reshape(-1, 8)
    words = pack_gemm(weight, 1, "float16").view(np.uint32).reshape(-1, 8)
    low, high = ((words >> shift).astype(np.uint16).view(np.float16) for shift in (0, 16))
    np.testing.assert_array_equal(low, exact[0::2].astype(np.float16))
    np.testing.assert_array_equal(high, exact[1::2].astype(np.float16))
    words = pack_gemm(weight, 1, "bfloat16").view(np.uint32).reshape(-1, 8)
    low, high = (words << 16).view(np.float32), (words & 0xFFFF0000).view(np.float32)
    np.testing.assert_allclose(low, exact[0::2], rtol=2**-8)
    np.testing.assert_allclose(high, exact[1::2], rtol=2**-8)


def test_rounding_to_tf32() -> None:
    one = np.float32(1)
    step = np.float32(2**-10)
    for x, rounded in ((one + step, one + step), (one + step / 2, one + step), (one + step / 4, one), (-one, -one)):
        assert packing.to_tf32(np.array([x], np.float32))[0] == rounded
    odd = np.array([np.inf, -np.inf, np.nan, 0], np.float32)
    np.testing.assert_array_equal(packing.to_tf32(odd), odd)


def test_infinities_and_nan_survive_bfloat16() -> None:
    weight = np.array([np.inf, -np.inf, np.nan, 1], np.float32).reshape(1, 1, 1, 4)
    words = pack_gemm(weight, 1, "bfloat16").view(np.uint32).reshape(-1, 8)[:2, 0]
    found = [words[0] << 16, words[0] & 0xFFFF0000, words[1] << 16, words[1] & 0xFFFF0000]
    np.testing.assert_array_equal(np.array(found, np.uint32).view(np.float32), [np.inf, -np.inf, np.nan, 1])


def test_packed_depthwise_weights() -> None:
    weight = draw(Case(1, 6, 6, 3, 3, (3, 3), groups=6)).weight.transpose(0, 2, 3, 1)
    packed = pack_depthwise(weight).reshape(3, 3, 8)
    np.testing.assert_array_equal(packed[:, :, :6], weight[..., 0].transpose(1, 2, 0))
    assert not packed[:, :, 6:].any()
