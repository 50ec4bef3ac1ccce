"""One convolution, rung by rung: from seven plain loops to Winograd's algorithm, each with its GFLOP/s on one thread.

    python bench/ladder.py [--convolutions 64x56,128x28,256x14] [--rounds 10]

A convolution is 3x3, stride 1, padding 1, with as many channels out as in, here CHANNELSxSIDE. Every rung's answer is
compared with the definition first. The lower rungs live here only; the upper ones are netdsl's own kernels, timed as a
step of a network is (the layout of their input and output is the one that neighbouring layers share). FLOP are those of
the definition, two for each multiply-accumulate.

The rungs take turns, and the peak is measured before each of them in each round, as a shared machine changes its speed
by the minute: peak, rung, peak, next rung, … A rung is called twice in its turn, the second time counts. Seconds and
peaks are medians of the rounds, and the part of the peak is the median of each round's own ratio. All of it runs on one
processor, the one that measured the highest peak at the start: another may have a neighbour that takes of its caches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from netdsl.backends import reference
from netdsl.backends.cpu.machine import bandwidth, peak_meter
from netdsl.backends.cpu.profile import Stepper
from netdsl.backends.cpu.program import Program
from netdsl.benchmark import facts, noise
from netdsl.cli.console import print_table
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.peers import TOLERANCE, difference
from netdsl.weights import random_weights
from records import Record, write

F32 = NDArray[np.float32]
Clock = Callable[[], float]  # calls a rung; the seconds that it took
PEAKS = 9  # chosen: of each processor, some 20 milliseconds
RESOLUTION = time.get_clock_info("perf_counter").resolution  # of a tiny convolution, starting it may seem to take all


@dataclass(frozen=True)
class Case:
    """The convolution as a network of one layer, its input [1, C, H, W] and its weights."""

    graph: Graph
    x: F32
    tensors: dict[str, Any]

    @property
    def weight(self) -> F32:
        return next(v for name, v in self.tensors.items() if name.endswith("weight"))

    @property
    def bias(self) -> F32:
        return next(v for name, v in self.tensors.items() if name.endswith("bias"))

    @property
    def padded(self) -> F32:
        return np.pad(self.x[0], ((0, 0), (1, 1), (1, 1)))


@njit(error_model="numpy")
def _seven_loops(x, w, b, y):  # type: ignore[no-untyped-def]
    features, height, width = y.shape
    for k in range(features):
        for p in range(height):
            for q in range(width):
                y[k, p, q] = b[k]
                for c in range(x.shape[0]):
                    for r in range(3):
                        for s in range(3):
                            y[k, p, q] += x[c, p + r, q + s] * w[k, c, r, s]


def seven_loops(case: Case) -> Callable[[], F32]:
    """The definition as it is written, compiled by Numba."""
    x, w, b = case.padded, case.weight, case.bias
    y = np.empty((len(w), *case.x.shape[2:]), np.float32)

    def call() -> F32:
        _seven_loops(x, w, b, y)
        return y

    return call


def im2col(case: Case) -> Callable[[], F32]:
    """Every window copied into a column, then one product of matrices by NumPy's BLAS."""
    x, w, b = case.padded, case.weight, case.bias
    flat = w.reshape(len(w), -1)

    def call() -> F32:
        windows = sliding_window_view(x, (3, 3), axis=(1, 2))
        columns = windows.transpose(0, 3, 4, 1, 2).reshape(flat.shape[1], -1)
        return (flat @ columns + b[:, None]).reshape(-1, *windows.shape[1:3])

    return call


@njit(error_model="numpy", fastmath=True)
def _row_add(row, x0, x1, x2, w):  # type: ignore[no-untyped-def]
    for q in range(len(row)):
        u = np.uint32(q)  # signed sums in an index keep LLVM from using vectors
        row[u] += (
            w[0, 0] * x0[u] + w[0, 1] * x0[u + np.uint32(1)] + w[0, 2] * x0[u + np.uint32(2)]
            + w[1, 0] * x1[u] + w[1, 1] * x1[u + np.uint32(1)] + w[1, 2] * x1[u + np.uint32(2)]
            + w[2, 0] * x2[u] + w[2, 1] * x2[u + np.uint32(1)] + w[2, 2] * x2[u + np.uint32(2)]
        )  # fmt: skip


@njit(error_model="numpy")
def _rows(x, w, b, y):  # type: ignore[no-untyped-def]
    features, height, _ = y.shape
    for k in range(features):
        for p in range(height):
            y[k, p] = b[k]
            for c in range(x.shape[0]):
                _row_add(y[k, p], x[c, p], x[c, p + 1], x[c, p + 2], w[k, c])


def rows(case: Case) -> Callable[[], F32]:
    """A row of outputs at a time, nine taps in a pass, left to LLVM to use vectors for."""
    x, w, b = case.padded, case.weight, case.bias
    y = np.empty((len(w), *case.x.shape[2:]), np.float32)

    def call() -> F32:
        _rows(x, w, b, y)
        return y

    return call


def program(case: Case, m: int) -> Program:
    """netdsl's program of the one layer on one thread: direct for m = 0, else Winograd's F(m x m, 3 x 3)."""
    sizes = {i: m for i, node in enumerate(case.graph) if m and node.op.name == "conv"}
    with mock.patch("netdsl.backends.cpu.planner.winograd_sizes", lambda *_: sizes):
        return Program(case.graph, case.tensors, threads=1)


LOWER = {"seven loops in Numba": seven_loops, "rows, nine taps at a time": rows, "im2col and NumPy's BLAS": im2col}
UPPER = {"register tiles": 0, "Winograd F(2,3)": 2, "Winograd F(4,3)": 4, "Winograd F(6,3)": 6}


def case_of(channels: int, side: int) -> Case:
    text = f"netdsl 1\nnet rung() {{\n input x {channels}x{side}x{side}\n conv {channels} 3x3 pad=1\n}}\n"
    graph = build(text)
    return Case(graph, noise(graph, 1)[0], random_weights(graph))


def rungs(case: Case) -> Iterator[tuple[str, float, Clock]]:
    """Every rung for one convolution: its name, its error, what times it."""
    (expected,) = reference.run(case.graph, case.tensors, [case.x])
    for rung, make in LOWER.items():
        call = make(case)
        yield rung, difference([call()[None]], [expected]), partial(_timed, call)
    for rung, m in UPPER.items():
        compiled = program(case, m)
        bound = Stepper(compiled, [case.x])
        step = next(i for i, s in enumerate(bound.plan.steps) if s.kernel.module != "move")
        error = difference(compiled([case.x]), [expected])
        yield rung, error, lambda bound=bound, step=step: max(bound.steps()[step], RESOLUTION)


def _timed(call: Callable[[], F32]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_turns(clocks: Mapping[str, Clock], peak: Clock, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """By rung, for each round its seconds and the peak, in FLOP a second, as measured just before."""
    found: dict[str, list[tuple[float, float]]] = {rung: [] for rung in clocks}
    for _ in range(rounds):
        for rung, clock in clocks.items():
            ceiling = peak()
            clock()  # does not count: the other rungs have had the caches
            found[rung].append((clock(), ceiling))
    return found


def speeds(flop: int, samples: Sequence[tuple[float, float]]) -> Record:
    """What is said of a rung of so many FLOP, from the seconds and the peak of each round."""
    seconds = statistics.median(lasts for lasts, _ in samples)
    part = statistics.median(flop / lasts / peak for lasts, peak in samples)
    peak = statistics.median(peak for _, peak in samples)
    return {"seconds": seconds, "flops": flop / seconds, "peak": peak, "part_of_peak": part}


def measure(channels: int, side: int, rounds: int) -> list[Record]:
    """Seconds, FLOP a second and error of every rung for one convolution."""
    case = case_of(channels, side)
    found = [*rungs(case)]
    for rung, error, _ in found:
        if not error <= TOLERANCE:
            sys.exit(f"{rung} is wrong by {error:.1e} of the largest value; nothing is reported")
    samples = in_turns({rung: clock for rung, _, clock in found}, peak_meter(1), rounds)
    return [
        {"rung": rung, "channels": channels, "side": side, "error": error,
         **speeds(2 * case.graph.macs, samples[rung])}
        for rung, error, _ in found
    ]  # fmt: skip


@contextmanager
def on_the_fastest(peaks: Callable[[], float]) -> Iterator[None]:
    """Stay on one of this thread's processors: the one with the highest median of a few peaks, where a system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed, found = os.sched_getaffinity(0), {}
    try:
        for processor in sorted(allowed):
            os.sched_setaffinity(0, {processor})
            found[processor] = statistics.median(peaks() for _ in range(PEAKS))
        os.sched_setaffinity(0, {max(found, key=lambda processor: found[processor])})
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def main(arguments: Sequence[str] | None = None) -> Record:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--convolutions", default="64x56,128x28,256x14", help="comma-separated CHANNELSxSIDE")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="write the results here (default: only print)")
    given = parser.parse_args(arguments)
    results: list[Record] = []
    with on_the_fastest(peak_meter(1)):
        for text in given.convolutions.split(","):
            channels, side = map(int, text.split("x"))
            results += measure(channels, side, given.rounds)
    print_table(("convolution", "rung", "ms", "GFLOP/s", "of peak", "error"), [cells(r) for r in results], range(2, 6))
    peak = {"flops": statistics.median(r["peak"] for r in results), "bandwidth": bandwidth(1)}
    return write(given.out, facts(), results, rounds=given.rounds, threads=1, roof=peak)


def cells(r: Record) -> tuple[str, ...]:
    speed, part = f"{r['flops'] / 1e9:.1f}", f"{r['part_of_peak']:.0%}"
    where = f"{r['channels']} channels, {r['side']}x{r['side']}"
    return where, r["rung"], f"{r['seconds'] * 1e3:.3f}", speed, part, f"{r['error']:.0e}"


if __name__ == "__main__":
    if "OPENBLAS_NUM_THREADS" not in os.environ:  # read when NumPy is imported: begin again with one thread
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    main()
