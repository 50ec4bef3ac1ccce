"""The kernels of convolutions and dense layers, run by the simulator and compared with the definition in float64.

Tensor cores are simulated too, a warp's 32 threads at a time, by the tables of the PTX manual (`ptx_simulated.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simulated import Simulator

from cuda_convolutions import Case, draw, expected, lanes, run, run_far
from netdsl.backends.cuda.packing import SLICE
from netdsl.backends.cuda.tiles import (
    FMA_TILES,
    MMA_TILES,
    Choice,
    Target,
    choose,
    depthwise_choice,
    gemm_choice,
    gemv_choice,
)  # fmt: skip

ROUNDING = {"float32": 2.0**-24, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}
HOPPER, TURING = Target(), Target((7, 5), 40)
SMALL_FMA, SMALL_MMA = FMA_TILES[-1], MMA_TILES[-1]


def results(simulate: Simulator, case: Case, choice: Choice) -> tuple[Any, ...]:
    """The result's channels as [N, K, P, Q], what lies between its pixels, counters, and a second launch's result."""
    result, counters, again = simulate.apply(run, case, choice, draw(case))
    k, whole = case.features, lanes(case, case.features)
    return result[..., :k].transpose(0, 3, 1, 2), result, result[..., whole:], counters, again


def check(simulate: Simulator, case: Case, choice: Choice) -> None:
    """Assert that a launch gives what the definition does, and nothing else.

    Results are about one in size. Where factors are rounded by u, each product is off by u of its size, the sum of n by
    as much by chance; where only sums are rounded, by sqrt(n) 2^-24. Four times that is allowed, for a result that is
    stored in half precision, and rounded by u once more, too.
    """
    found, whole, between, counters, again = results(simulate, case, choice)
    data = draw(case)
    reference = expected(case, data)
    unit = max(ROUNDING[case.precision], 2.0**-24 * np.sqrt(case.terms))
    np.testing.assert_allclose(found, reference, rtol=4 * unit, atol=4 * unit)
    assert np.isnan(between).all()  # not touched
    assert np.isfinite(whole[..., : lanes(case, case.features)]).all()  # lanes without a channel hold finite values
    assert not counters.any()
    np.testing.assert_array_equal(whole, again)


SAME = Case(1, 20, 9, 4, 5, (3, 3), pad=(1, 1, 1, 1))
CASES = [
    SAME,
    Case(2, 3, 33, 9, 8, (7, 7), (2, 2), (3, 3, 3, 3), low=0.0),  # a first layer, more than one tile of columns
    Case(1, 16, 8, 6, 6, (1, 1), (2, 2), residual=True, low=0.0, high=6.0),
    Case(1, 1, 5, 7, 6, (4, 2), (1, 3), (2, 0, 1, 1), (1, 2)),
    Case(3, 68, 6, 2, 3, (1, 1), apart=8),  # a slice of a concatenation, depth that ends within a slice
    Case(1, 8, 32, 4, 4, (3, 3), pad=(1, 1, 1, 1), groups=2, residual=True),
    Case(1, 4, 4, 1, 1, (1, 1)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolutions(simulate: Simulator, case: Case) -> None:
    check(simulate, case, gemm_choice(case.shape, HOPPER, SMALL_FMA, 1))


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_without_asynchronous_copies(simulate: Simulator, case: Case) -> None:
    check(simulate, case, gemm_choice(case.shape, TURING, SMALL_FMA, 1))


@pytest.mark.parametrize("splits", [2, 3, 5])
def test_blocks_share_the_depth(simulate: Simulator, splits: int) -> None:
    """The same bits each time, the counters zero again, whether or not the slices are dealt evenly."""
    check(simulate, SAME, gemm_choice(SAME.shape, HOPPER, SMALL_FMA, splits))


def test_groups_share_the_depth(simulate: Simulator) -> None:
    check(simulate, CASES[5], gemm_choice(CASES[5].shape, HOPPER, SMALL_FMA, 2))


@pytest.mark.parametrize("tile", FMA_TILES[:-1], ids=lambda t: f"{t.block_m}x{t.block_n}")
@pytest.mark.parametrize("target", [HOPPER, TURING], ids=["async", "register"])
def test_float32_tiles(simulate: Simulator, tile: Any, target: Target) -> None:
    """Each tile full in both directions, and once more begun."""
    case = Case(1, 8, tile.block_n + 4, 1, tile.block_m + 3)
    check(simulate, case, gemm_choice(case.shape, target, tile, 1))


FEW_TAPS = Case(1, 20, 9, 4, 5, (2, 2), pad=(1, 0, 0, 1))  # a warp's product takes the simulator long


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", [FEW_TAPS, CASES[2]], ids=str)
def test_tensor_cores(simulate: Simulator, case: Case, precision: str) -> None:
    case = replace(case, precision=precision)
    check(simulate, case, gemm_choice(case.shape, HOPPER, SMALL_MMA, 1))


@pytest.mark.parametrize("tile", MMA_TILES[-3:-1], ids=lambda t: f"{t.block_m}x{t.block_n}")
@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_tensor_core_tiles(simulate: Simulator, tile: Any, precision: str) -> None:
    case = Case(1, 16, tile.block_n + 4, 1, tile.block_m // 2, precision=precision)
    check(simulate, case, gemm_choice(case.shape, HOPPER, tile, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tile", "precision"),
    [(tile, ("float16", "tf32")[i % 2]) for i, tile in enumerate(MMA_TILES[:-3])],
    ids=lambda t: t if isinstance(t, str) else f"{t.block_m}x{t.block_n}",
)
def test_large_tensor_core_tiles(simulate: Simulator, tile: Any, precision: str) -> None:
    """Each tile with one precision; small tiles are tested with each."""
    case = Case(1, 16, tile.block_n, 1, tile.block_m, precision=precision)
    check(simulate, case, gemm_choice(case.shape, HOPPER, tile, 1))


def test_tensor_cores_share_the_depth(simulate: Simulator) -> None:
    case = replace(FEW_TAPS, precision="float16")
    check(simulate, case, gemm_choice(case.shape, HOPPER, SMALL_MMA, 3))


DENSE = [
    Case(1, 40, 7, 1, 1),
    Case(3, 12, 34, 3, 2, (3, 2), low=0.0),  # a flattened map; a slice begun; two blocks of columns
    Case(2, 300, 5, 1, 1, residual=True),
]


@pytest.mark.parametrize("case", DENSE, ids=str)
def test_dense_of_few_images(simulate: Simulator, case: Case) -> None:
    check(simulate, case, gemv_choice(case.shape, HOPPER))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", [DENSE[0], DENSE[1]], ids=str)
def test_dense_with_weights_of_half_the_bytes(simulate: Simulator, case: Case, precision: str) -> None:
    case = replace(case, precision=precision)
    choice = gemv_choice(case.shape, HOPPER)
    packed = choice.pack(draw(case).weight.transpose(0, 2, 3, 1))
    whole = case.height * case.width * lanes(case, case.channels) * lanes(case, case.features)
    assert 2 * whole <= packed.nbytes < 2 * whole + 4 * SLICE * lanes(case, case.features)  # to the end of a slice
    check(simulate, case, choice)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_dense_that_blocks_share(simulate: Simulator, precision: str) -> None:
    case = Case(1, 700, 3, 1, 1, precision=precision)
    choice = gemv_choice(case.shape, HOPPER)
    assert choice.arguments["splits"] > 1
    check(simulate, case, choice)


DEPTHWISE = [
    Case(1, 6, 6, 5, 6, (3, 3), (1, 1), (1, 1, 1, 1), groups=6, residual=True),
    Case(2, 9, 9, 7, 9, (3, 3), (2, 2), (1, 1, 1, 1), groups=9, low=0.0, high=6.0),
    Case(1, 4, 4, 8, 11, (5, 3), (1, 2), (2, 0, 1, 2), (1, 2), groups=4, apart=4),
    Case(1, 8, 8, 9, 1, (3, 1), (1, 1), (2, 0, 2, 0), (2, 1), groups=8),
]


@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
def test_depthwise(simulate: Simulator, case: Case) -> None:
    choice = depthwise_choice(case.shape)
    assert choice is not None
    check(simulate, case, choice)


@pytest.mark.parametrize("case", [replace(case, function="silu") for case in (SAME, DENSE[0], DEPTHWISE[0])], ids=str)
def test_functions_come_last(simulate: Simulator, case: Case) -> None:
    choice = choose(case.shape, HOPPER)
    assert choice is not None
    found = results(simulate, case, choice)[0]
    plain = expected(case, draw(case))
    np.testing.assert_allclose(found, plain / (1 + np.exp(-plain)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [replace(SAME, low=0.0), replace(DENSE[1], low=0.0), replace(DEPTHWISE[1])], ids=str)
def test_nan_reaches_the_results_that_see_it_alone(simulate: Simulator, case: Case) -> None:
    data = draw(case)
    data.x[0, 1, 0, 0] = np.nan
    choice = choose(case.shape, HOPPER)
    assert choice is not None
    result, _, _ = simulate.apply(run, case, choice, data)
    with np.errstate(invalid="ignore"):
        reference = expected(case, data)
    np.testing.assert_array_equal(np.isnan(result[..., : case.features].transpose(0, 3, 1, 2)), np.isnan(reference))


FAR = Case(2, 12, 5, 3, 3, (3, 3), pad=(1, 1, 1, 1), residual=True)


@pytest.mark.parametrize(
    ("case", "choice"),
    [
        (FAR, gemm_choice(FAR.shape, HOPPER, SMALL_FMA, 2)),
        (FAR, gemm_choice(FAR.shape, TURING, SMALL_FMA, 1)),
        (replace(FAR, precision="tf32"), gemm_choice(replace(FAR, precision="tf32").shape, HOPPER, SMALL_MMA, 2)),
        (DENSE[2], gemv_choice(DENSE[2].shape, HOPPER)),
        (replace(DEPTHWISE[0], images=2), depthwise_choice(replace(DEPTHWISE[0], images=2).shape)),
    ],
    ids=["gemm", "gemm-register", "mma", "gemv", "depthwise"],
)
def test_addresses_beyond_32_bits(simulate: Simulator, case: Case, choice: Choice) -> None:
    """The same bits as near by, from maps 2^34 floats into the arena whose images lie 2^32 floats apart."""
    near, _, _ = simulate.apply(run, case, choice, draw(case))
    np.testing.assert_array_equal(simulate.apply(run_far, case, choice, draw(case)), near)
