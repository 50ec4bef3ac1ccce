"""What this machine can do at most, as measured: multiply-adds a second, bytes read a second.

Source: Williams et al., "Roofline: an insightful visual performance model", CACM 52(4), 2009.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import numpy as np

from netdsl.backends.cpu import jit
from netdsl.backends.cpu.target import VECTOR_BYTES, WIDTH, cache_bytes, host
from netdsl.backends.cpu.threads import team
from netdsl.backends.cpu.tiles import wanted
from netdsl.backends.cpu.views import aligned

CHAINS = host().registers - 4  # chosen: above latency x units of any processor so far (16), and fits the registers
MULTIPLY_ADDS = jit.Kernel("measure", "multiply_adds", (CHAINS,))
READ = jit.Kernel("measure", "read", (CHAINS,))

LEAST_BYTES, MOST_BYTES = 256 << 20, 1 << 30  # chosen: read twice the largest cache, within these limits
STEPS = 100_000  # chosen: a run of half a millisecond or more
PEAK_RUNS, READ_RUNS = 3, 6  # chosen: the best of so many runs counts, as a ceiling is meant


def peak_meter(threads: int) -> Callable[[], float]:
    """A function that measures FLOP a second of so many threads (a multiply-add is two), in some two milliseconds.

    A machine that others share changes its speed from minute to minute: call it next to whatever is compared with it.
    """
    out, steps = aligned((1 + threads) * CHAINS * WIDTH), threads * STEPS
    out[:] = np.linspace(0.0, 1e-3, out.size, dtype=np.float32)
    return lambda: 2 * steps * CHAINS * WIDTH / _best(MULTIPLY_ADDS, [out.ctypes.data, steps], threads, PEAK_RUNS)


@cache
def bandwidth(threads: int) -> float:
    """Bytes a second that so many threads read from memory, measured at the first call."""
    size = min(max(2 * max(cache_bytes().values(), default=0), LEAST_BYTES), MOST_BYTES)
    x, out = aligned(size // 4), aligned(threads * CHAINS * WIDTH)
    x[:], out[:] = 0.0, 0.0
    steps = size // (CHAINS * VECTOR_BYTES)
    seconds = _best(READ, [x.ctypes.data, out.ctypes.data, steps], threads, READ_RUNS)
    return steps * CHAINS * VECTOR_BYTES / seconds


def _best(kernel: jit.Kernel, arguments: list[int], threads: int, runs: int) -> float:
    """Seconds of the fastest of so many runs of a kernel on all threads, which take parts as a network's do."""
    block = np.array(arguments, np.int64)
    row = np.array([jit.load(kernel)[0], block.ctypes.data, threads, 1, 2 * wanted(threads)], np.int64)
    best = float("inf")
    for _ in range(runs):
        started = time.perf_counter()
        team().run(row.ctypes.data, 1, threads)
        best = min(best, time.perf_counter() - started)
    return best
