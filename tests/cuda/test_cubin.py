"""Every specialisation that `tiles.choose` can choose, compiled to machine code for three kinds of GPU, none present.

No kernel may spill registers; each keeps within the registers written here, and is made of the instructions meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import cubin
from netdsl.backends.cuda.precision import map_type
from netdsl.backends.cuda.steps import Kernel
from netdsl.backends.cuda.tiles import (
    FEW_IMAGES,
    FMA_TILES,
    MMA_TILES,
    Choice,
    ConvShape,
    Target,
    Tile,
    choose,
    depthwise_choice,
    gemm_choice,
    gemv_choice,
)  # fmt: skip
from netdsl.backends.cuda.winograd import SIZES

pytestmark = pytest.mark.skipif(cubin.missing() is not None, reason=cubin.missing() or "")

TURING, AMPERE, HOPPER = (7, 5), (8, 0), (9, 0)

# Registers of a thread. What was measured, and the few that another version of the assembler may want more.
GEMM_REGISTERS = {(128, 64): 168, (128, 32): 120, (64, 64): 112, (64, 32): 80, (32, 64): 80, (32, 32): 80}
TURING_REGISTERS = {(128, 64): 192, (128, 32): 144, (64, 64): 128, (64, 32): 96, (32, 64): 96, (32, 32): 96}
MMA_REGISTERS = {
    (256, 128): 255,
    (128, 128): 255,
    (128, 64): 168,
    (64, 64): 128,
    (64, 32): 80,
    (32, 64): 80,
    (32, 32): 96,
}
GEMV_REGISTERS = {1: 64, 2: 64, 4: 128, 8: 128}
DEPTHWISE_REGISTERS = {"float32": 136, "float16": 168, "bfloat16": 168}

TENSOR_CORES = {"tf32": "HMMA.1688.F32.TF32", "float16": "HMMA.16816.F32", "bfloat16": "HMMA.16816.F32.BF16"}
WINDOWS = (((3, 3), (1, 1)), ((3, 3), (2, 2)), ((5, 5), (1, 1)), ((5, 5), (2, 2)), ((7, 7), (1, 1)))


def made(choice: Choice, capability: tuple[int, int]) -> cubin.Cubin:
    """A kernel's code, with what holds of every kernel asserted."""
    code = cubin.compiled(choice.kernel, capability)
    threads, resident = choice.kernel.build().launch_bounds  # type: ignore[attr-defined]
    assert threads == choice.geometry.threads
    assert code.spills == 0 and code.count("LDL") == code.count("STL") == 0
    assert code.count("DFMA") == code.count("DADD") == code.count("DMUL") == 0  # nothing slipped into float64
    assert code.shared_bytes <= 48 * 1024
    assert code.resident_blocks(threads) >= resident
    return code


def shape(precision: str = "float32", function: str | None = None, result: str | None = None) -> ConvShape:
    """A convolution, its result of the maps' type in memory unless another is said."""
    stored = result or map_type(precision)
    return ConvShape(1, 28, 28, 64, 64, (3, 3), (1, 1), False, function, precision, False, 1, (1, 1), stored)


def gemm_cases() -> Iterator[object]:
    for tile in FMA_TILES:
        for capability in (TURING, AMPERE, HOPPER):
            often = capability != AMPERE or tile in (FMA_TILES[0], FMA_TILES[-1])
            name = f"{tile.block_m}x{tile.block_n}-sm_{capability[0]}{capability[1]}"
            yield pytest.param(tile, capability, id=name, marks=() if often else pytest.mark.slow)


@pytest.mark.parametrize(("tile", "capability"), [*gemm_cases()])
def test_float32_tiles(tile: Tile, capability: tuple[int, int]) -> None:
    code = made(gemm_choice(shape(), Target(capability), tile, 2), capability)
    rows, columns = tile.part
    limits = TURING_REGISTERS if capability == TURING else GEMM_REGISTERS
    assert code.registers <= limits[tile.block_m, tile.block_n]
    assert code.count("FFMA") >= 4 * rows * columns  # a chunk of four depths, unrolled
    wide_loads = code.count("LDS.128") + code.count("LDS.U.128")
    assert rows + columns <= wide_loads and code.count("LDS") == wide_loads
    assert code.count("STG.E.128") >= rows * columns // 4
    copies = [name for name in code.instructions if name.startswith("LDGSTS")]
    assert bool(copies) == (capability >= AMPERE) and all("128" in name for name in copies)
    if capability == TURING:
        assert code.count("STS.128") > 0 and code.count("LDG.E.128") > 0


def mma_cases() -> Iterator[object]:
    for tile in MMA_TILES:
        for precision in TENSOR_CORES:
            for capability in (AMPERE, HOPPER):
                often = capability == HOPPER and (precision == "tf32" or tile is MMA_TILES[0])
                name = f"{tile.block_m}x{tile.block_n}-{precision}-sm_{capability[0]}{capability[1]}"
                yield pytest.param(tile, precision, capability, id=name, marks=() if often else pytest.mark.slow)


@pytest.mark.parametrize(("tile", "precision", "capability"), [*mma_cases()])
def test_tensor_core_tiles(tile: Tile, precision: str, capability: tuple[int, int]) -> None:
    code = made(gemm_choice(shape(precision), Target(capability), tile, 2), capability)
    assert code.registers <= MMA_REGISTERS[tile.block_m, tile.block_n]
    products = tile.part[0] // 16 * tile.part[1] // 8  # of one step of a warp
    assert code.instructions[TENSOR_CORES[precision]] >= products
    assert code.count("HMMA") == code.instructions[TENSOR_CORES[precision]]
    assert code.count("LDGSTS.E.BYPASS.128") == code.count("LDGSTS") > 0
    each = tile.part[0] * tile.part[1] // 32  # results of a thread
    results = each // 4 if precision == "tf32" else each // 8
    assert code.count("STG.E.128") == each // 4 + results  # sums that blocks share, and results, by 16 bytes
    assert code.count("STG") == code.count("STG.E.128") + 1  # and a counter
    if precision != "tf32":  # maps go to the tensor cores as they came; results are rounded two at a time
        assert code.count("F2FP") == tile.part[0] * tile.part[1] // 64


@pytest.mark.parametrize("function", [None, "gelu"])
def test_tensor_cores_whose_result_is_float32(function: str | None) -> None:
    code = made(gemm_choice(shape("float16", function, "float32"), Target(), MMA_TILES[3], 2), HOPPER)
    assert code.registers <= MMA_REGISTERS[64, 64] and code.count("F2FP") == 0


def few_cases() -> Iterator[object]:
    for images in (1, 2, 4, FEW_IMAGES):
        for capability, precision in ((TURING, "float32"), (AMPERE, "float32"), (HOPPER, "float32"),
                                      (HOPPER, "float16"), (HOPPER, "bfloat16")):  # fmt: skip
            often = precision != "bfloat16" and (images == 1 or (capability == HOPPER and precision == "float32"))
            name = f"{images}-{precision}-sm_{capability[0]}{capability[1]}"
            yield pytest.param(images, precision, capability, id=name, marks=() if often else pytest.mark.slow)


@pytest.mark.parametrize(("images", "precision", "capability"), [*few_cases()])
def test_products_of_few_images(images: int, precision: str, capability: tuple[int, int]) -> None:
    dense = replace(shape(precision), images=images, height=1, width=1, channels=512, features=1000, kernel=(1, 1))
    code = made(gemv_choice(dense, Target(capability)), capability)
    assert code.registers <= GEMV_REGISTERS[images]
    rows = 4 if images == 8 and precision != "float32" else 8  # of weights in flight
    assert code.count("LDG.E.128") >= rows
    assert code.count("FFMA") >= rows * 4 * images * (1 if precision == "float32" else 2)
    assert (code.count("HADD2.F32") > 0) == (precision == "float16")  # what a half is made float32 by


def depthwise_cases() -> Iterator[object]:
    for kernel, stride in WINDOWS:
        for capability, precision in ((TURING, "float32"), (AMPERE, "float32"), (HOPPER, "float32"),
                                      (AMPERE, "bfloat16"), (HOPPER, "float16")):  # fmt: skip
            often = capability == HOPPER or (kernel, stride) == WINDOWS[0]
            name = f"{kernel[0]}x{kernel[1]}/{stride[0]}-{precision}-sm_{capability[0]}{capability[1]}"
            yield pytest.param(kernel, stride, precision, capability, id=name, marks=() if often else pytest.mark.slow)


@pytest.mark.parametrize(("kernel", "stride", "precision", "capability"), [*depthwise_cases()])
def test_depthwise_windows(
    kernel: tuple[int, int], stride: tuple[int, int], precision: str, capability: tuple[int, int]
) -> None:
    maps = replace(shape(precision), images=8, channels=96, features=96, kernel=kernel, stride=stride, groups=96)
    choice = depthwise_choice(maps)
    assert choice is not None
    code = made(choice, capability)
    assert code.registers <= DEPTHWISE_REGISTERS[precision] and code.shared_bytes == 0
    assert code.count("LDG.E.128") == code.count("LDG") and code.count("STG.E.128") == code.count("STG") > 0


@pytest.mark.parametrize("capability", [TURING, AMPERE, HOPPER], ids=["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize("m", SIZES)
def test_transforms_of_winograds_algorithm(m: int, capability: tuple[int, int]) -> None:
    n = m + 2
    for constants, loads, stores in (((m,), n * n, n * n), ((m, None), n * n + m * m + 1, m * m),
                                     ((m, "silu"), n * n + m * m + 1, m * m)):  # fmt: skip
        kernel = Kernel("winograd", f"winograd_{'output' if len(constants) == 2 else 'input'}", constants)
        code = cubin.compiled(kernel, capability)
        threads, resident = kernel.build().launch_bounds  # type: ignore[attr-defined]
        assert code.spills == 0 and code.count("LDL") == code.count("STL") == 0 and code.shared_bytes == 0
        assert code.resident_blocks(threads) >= resident
        assert code.count("LDG") == loads and code.count("STG") == stores
        assert constants[-1] == "silu" or code.count("BSSY") <= 1  # no load or store waits for a branch
        assert code.count("DFMA") == code.count("DADD") == code.count("DMUL") == 0


@pytest.mark.parametrize("function", ["silu", "gelu"])
def test_functions_keep_the_sums_in_registers(function: str) -> None:
    made(gemm_choice(shape(function=function), Target(), FMA_TILES[0], 1), HOPPER)


def test_what_is_compiled_is_what_networks_choose() -> None:
    """The shape above stands for all: a choice's constants come of its tile, not of other properties of its shape."""
    other = ConvShape(3, 17, 9, 35, 50, (1, 5), (2, 1), True, None, "float32", False)
    for tile in FMA_TILES:
        assert gemm_choice(other, Target(), tile, 4).kernel == gemm_choice(shape(), Target(), tile, 2).kernel
    chosen = choose(other, Target())
    assert chosen is not None
    assert chosen.kernel in {gemm_choice(shape(), Target(), tile, 1).kernel for tile in FMA_TILES}
