"""One convolution on a GPU, rung by rung: from a thread for each result to tensor cores.

    python bench/cuda_ladder.py [--convolution 64x56 --batch 64] [--capability 9.0] [--out FILE]

For each rung what the compiler made of it for GPUs of that capability (no GPU needed): registers of a thread, bytes of
shared memory of a block, bytes spilled, and the part of a multiprocessor's warps that can be resident. Where a GPU is
present, also TFLOP/s beside cuDNN through PyTorch in the same precision, after comparing the result with the
definition. A convolution is 3x3, stride 1, padding 1, with as many channels out as in, here CHANNELSxSIDE. The lower
rungs live here only; the upper ones are netdsl's own kernels. In half precision maps are of that type in memory, and
cuDNN's are too. FLOP are those of the definition, two for each multiply-accumulate.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import float32

import cubin
from cuda_convolutions import Case, Data, arguments, draw, expected, launch, run
from netdsl.backends.cuda import device
from netdsl.backends.cuda.packing import pack_gemm
from netdsl.backends.cuda.simt import cuda
from netdsl.backends.cuda.steps import Geometry, Kernel, one_each
from netdsl.backends.cuda.tiles import FMA_TILES, MMA_TILES, Choice, Target, Tile, gemm_arguments, gemm_choice
from netdsl.benchmark import facts
from netdsl.cli.console import print_table
from records import Record, write

TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}  # of the largest value
OLD, NEW = Target((7, 5)), Target((9, 0))
TEXT = zlib.crc32(Path(__file__).read_bytes())  # kernels are kept by all that they depend on
SLOWEST_PIXELS = 4096  # chosen: results compared with the definition, which NumPy computes


@dataclass(frozen=True)
class Rung:
    """A kernel and its launch."""

    name: str
    choice: Choice
    precision: str


class OwnKernel(Kernel):
    """A kernel of this file."""

    def build(self) -> Callable[..., None]:
        return OWN[self.factory](*self.constants)


def _lower(case: Case, name: str, factory: str, constants: tuple[Any, ...], geometry: Geometry) -> Rung:
    pack = partial(pack_gemm, groups=1, precision="float32")
    kernel = OwnKernel(f"cuda_ladder {TEXT:08x}", factory, constants)
    return Rung(name, Choice(kernel, geometry, pack, (), gemm_arguments(case.shape, case.shape.columns)), "float32")


def _one_result(of: str) -> Callable[..., None]:
    """A thread for each result; neighbouring threads take neighbouring pixels ("pixels") or columns ("columns")."""
    across_pixels = of == "pixels"

    def one_result(  # type: ignore[no-untyped-def]
        arena, x, w, bias, y, images, in_height, in_width, height, width, taps_h, taps_w, top, left,
        x_image, x_row, x_pixel, y_pixel, columns, chunks,
    ):  # fmt: skip
        i = cuda.grid(1)
        pixels = images * height * width
        if i >= pixels * columns:
            return
        m, k = (i % pixels, i // pixels) if across_pixels else (i // columns, i % columns)
        q, line = m % width, m // width
        p, n = line % height, line // height
        total = bias[k]
        for r in range(taps_h):
            for s in range(taps_w):
                h, v = p - top + r, q - left + s
                if 0 <= h < in_height and 0 <= v < in_width:
                    at = x + n * x_image + h * x_row + v * x_pixel
                    row = (r * taps_w + s) * chunks * 4
                    for c in range(chunks * 4):
                        total += arena[at + c] * w[(row + c) * columns + k]
        arena[y + m * y_pixel + k] = total

    return one_result


def _tiled(side: int, each: int) -> Callable[..., None]:
    """Blocks of 16 x 16 threads make side x side results, each x each a thread, by slices of 16 in shared memory."""
    size, results = side * 16, each * each

    def tiled(  # type: ignore[no-untyped-def]
        arena, x, w, bias, y, images, in_height, in_width, height, width, taps_h, taps_w, top, left,
        x_image, x_row, x_pixel, y_pixel, columns, chunks, slices,
    ):  # fmt: skip
        lefts = cuda.shared.array(size, float32)
        rights = cuda.shared.array(size, float32)
        sums = cuda.local.array(results, float32)
        tid = cuda.threadIdx.x
        across = (columns + side - 1) // side
        first_m, first_k = cuda.blockIdx.x // across * side, cuda.blockIdx.x % across * side
        pixels = images * height * width
        for i in range(results):
            sums[i] = 0.0
        for t in range(slices):
            depth = t * 16 + tid % 16
            c, tap = depth % (4 * chunks), depth // (4 * chunks)
            r, s = tap // taps_w, tap % taps_w
            for i in range(each):
                m = first_m + tid // 16 + 16 * i
                q, line = m % width, m // width
                p, n = line % height, line // height
                h, v = p - top + r, q - left + s
                inside = m < pixels and r < taps_h and 0 <= h < in_height and 0 <= v < in_width
                at = x + n * x_image + h * x_row + v * x_pixel + c
                lefts[tid % 16 * side + tid // 16 + 16 * i] = arena[at] if inside else float32(0.0)
                k = first_k + tid % 16 + 16 * i
                wanted = k < columns
                row = t * 16 + tid // 16
                rights[tid // 16 * side + tid % 16 + 16 * i] = w[row * columns + k] if wanted else float32(0.0)
            cuda.syncthreads()
            for d in range(16):
                for i in range(each):
                    for j in range(each):
                        sums[i * each + j] += (
                            lefts[d * side + tid // 16 + 16 * i] * rights[d * side + tid % 16 + 16 * j]
                        )
            cuda.syncthreads()
        for i in range(each):
            for j in range(each):
                m, k = first_m + tid // 16 + 16 * i, first_k + tid % 16 + 16 * j
                if m < pixels and k < columns:
                    arena[y + m * y_pixel + k] = sums[i * each + j] + bias[k]

    return tiled


OWN: dict[str, Callable[..., Callable[..., None]]] = {"one_result": _one_result, "tiled": _tiled}


def rungs(case: Case, target: Target = NEW) -> list[Rung]:
    """All rungs for one convolution, from the lowest up."""
    what = case.shape
    results = what.pixels * what.columns

    def blocks(side: int) -> Geometry:
        return Geometry((-(-what.pixels // side) * -(-what.columns // side), 1, 1), (256, 1, 1))

    found = [
        _lower(case, "a thread for each result, along pixels", "one_result", ("pixels",), one_each(results)),
        _lower(case, "along channels: coalesced", "one_result", ("columns",), one_each(results)),
        _lower(case, "slices in shared memory", "tiled", (16, 1), blocks(16)),
        _lower(case, "4x4 results in registers", "tiled", (64, 4), blocks(64)),
    ]
    upper: list[tuple[str, Tile, str, Target]] = [
        ("8x4, 16-byte loads, next slice in registers", FMA_TILES[2], "float32", OLD),
        ("8x4, asynchronous copies, three slices", FMA_TILES[2], "float32", target),
        ("8x8, asynchronous copies, three slices", FMA_TILES[0], "float32", target),
        ("tensor cores, tf32", MMA_TILES[1], "tf32", target),
        ("tensor cores, float16", MMA_TILES[1], "float16", target),
        ("tensor cores, bfloat16", MMA_TILES[1], "bfloat16", target),
    ]
    for name, tile, precision, kind in upper:
        choice = gemm_choice(replace(case, precision=precision).shape, kind, tile, 1)
        found.append(Rung(name, choice, precision))
    return found


def compiled(rung: Rung, capability: cubin.Capability) -> Record:
    """What the compiler made of a rung."""
    code = cubin.compiled(rung.choice.kernel, capability)
    threads = rung.choice.geometry.threads
    return {
        "rung": rung.name, "precision": rung.precision, "registers": code.registers, "shared_bytes": code.shared_bytes,
        "spills": code.spills, "resident_blocks": code.resident_blocks(threads), "occupancy": code.occupancy(threads),
    }  # fmt: skip


def error(case: Case, rung: Rung) -> float:
    """The largest difference from the definition, as part of the largest value; on the GPU, or in the simulator."""
    data = draw(case)
    found, _, _ = run(case, rung.choice, data)
    wanted = expected(case, data)
    difference = found[..., : case.features].transpose(0, 3, 1, 2) - wanted
    return float(np.abs(difference).max() / np.abs(wanted).max())


def seconds(case: Case, rung: Rung, data: Data, rounds: int) -> float:
    """Median time of a launch on the GPU, by its own clock, after warm-up."""
    start, _ = launch(rung.choice, arguments(case, rung.choice, data)[0])
    stream, times = device.runtime().Stream(), []
    for _ in range(rounds + 3):  # the first three do not count
        before = stream.mark(timed=True)
        start(stream)
        times.append(before.until(stream.mark(timed=True)))
    return statistics.median(times[3:])


def peer_seconds(case: Case, precision: str, data: Data, rounds: int) -> float | None:
    """cuDNN's time through PyTorch, channels last, in the same precision; None without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    kind = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(precision, torch.float32)
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    x = torch.from_numpy(data.x).to("cuda", kind).to(memory_format=torch.channels_last)
    weight = torch.from_numpy(data.weight).to("cuda", kind).to(memory_format=torch.channels_last)
    bias = torch.from_numpy(data.bias).to("cuda", kind)
    times = []
    for _ in range(rounds + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        torch.nn.functional.conv2d(x, weight, bias, padding=1)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times[3:])


def measured(case: Case, rung: Rung, rounds: int) -> Record:
    """Speed of a rung beside cuDNN. Ends the program where its result is wrong."""
    small = replace(case, images=max(1, min(case.images, SLOWEST_PIXELS // (case.height * case.width))))
    checked = next(r for r in rungs(small) if r.name == rung.name)
    case, small = replace(case, precision=rung.precision), replace(small, precision=rung.precision)
    wrong = error(small, checked)
    if not wrong <= TOLERANCE[rung.precision]:
        sys.exit(f"{rung.name} is wrong by {wrong:.1e} of the largest value; nothing is reported")
    data = draw(case)
    flop = 2 * case.shape.pixels * case.features * case.terms
    own, peer = seconds(case, rung, data, rounds), peer_seconds(case, rung.precision, data, rounds)
    return {
        "error": wrong, "seconds": own, "flops": flop / own, "peer_flops": flop / peer if peer else None,
        "part_of_peer": peer / own if peer else None,
    }  # fmt: skip


def gpu() -> Record | None:
    """The GPU for the record, or None where there is none."""
    return device.facts() if device.usable() else None


def main(arguments: Sequence[str] | None = None) -> Record:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--convolution", default="64x56", help="CHANNELSxSIDE")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--capability", default="9.0", choices=["7.5", "8.0", "9.0"], help="to compile for")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="write the results here (default: only print)")
    given = parser.parse_args(arguments)
    if (lacking := cubin.missing()) is not None:
        sys.exit(lacking)
    channels, side = map(int, given.convolution.split("x"))
    case = Case(given.batch, channels, channels, side, side, (3, 3), (1, 1), (1, 1, 1, 1))
    major, minor = map(int, given.capability.split("."))
    card, results = gpu(), []
    for rung in rungs(case, Target((major, minor))):
        if rung.precision not in Target((major, minor)).precisions:
            continue
        row = compiled(rung, (major, minor))
        results.append(row | measured(case, rung, given.rounds) if card else row)
    columns = ("rung", "registers", "shared", "spills", "occupancy", "TFLOP/s", "cuDNN", "of cuDNN")
    print_table(columns, [cells(r) for r in results], range(1, 8))
    if card is None:
        print(f"No GPU here: compiled for capability {given.capability}, nothing was run.")
    return write(
        given.out, facts(), results, gpu=card, compilers=device.versions(), capability=given.capability,
        convolution=given.convolution, batch=given.batch,
    )  # fmt: skip


def cells(r: Record) -> tuple[str, ...]:
    own, peer, part = r.get("flops"), r.get("peer_flops"), r.get("part_of_peer")
    return (
        r["rung"], str(r["registers"]), str(r["shared_bytes"]), str(r["spills"]), f"{r['occupancy']:.0%}",
        f"{own / 1e12:.2f}" if own else "-", f"{peer / 1e12:.2f}" if peer else "-", f"{part:.2f}" if part else "-",
    )  # fmt: skip


if __name__ == "__main__":
    main()
