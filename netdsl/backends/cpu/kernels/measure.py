"""Kernels that measure the machine: as many multiply-adds, and as many bytes read, as it can do.

Both keep `chains` sums in registers, none of which waits for another. The sums start from different values and are
stored at the end, so that the compiler can neither merge nor drop them.
"""

from __future__ import annotations

from collections.abc import Callable

from netdsl.backends.cpu.simd import VECTOR_BYTES, WIDTH
from netdsl.backends.cpu.tile import Tile


def make_multiply_adds(chains: int) -> Callable[..., None]:
    """`steps` times `chains` multiply-adds of whole vectors, by all threads together.

    out     `chains` vectors that are read, then as many for each thread's sums
    """
    row = Tile(1, chains, 0)
    start, put, add = row.start, row.put, Tile(chains, 1, 0).slide(1, 0)

    def multiply_adds(thread, begin, end, parts, out, steps):  # type: ignore[no-untyped-def]
        sums = start(out)
        for _ in range(steps * begin // parts, steps * end // parts):
            sums = add(sums, out, out)
        put(sums, out + (thread + 1) * chains * VECTOR_BYTES, 0, 0, VECTOR_BYTES, 1, 1, chains, 1, 0)

    return multiply_adds


def make_read(chains: int) -> Callable[..., None]:
    """`steps` times `chains` vectors that begin at `x` are read, by all threads together. `out`: `chains` for each."""
    row = Tile(1, chains, 0)
    start, put, add = row.start, row.put, Tile(chains, 1, WIDTH).slide(1, 0)
    stride = chains * VECTOR_BYTES

    def read(thread, begin, end, parts, x, out, steps):  # type: ignore[no-untyped-def]
        at = out + thread * stride
        sums = start(at)
        for s in range(steps * begin // parts, steps * end // parts):
            sums = add(sums, x + s * stride, at)
        put(sums, at, 0, 0, VECTOR_BYTES, 1, 1, chains, 1, 0)

    return read
