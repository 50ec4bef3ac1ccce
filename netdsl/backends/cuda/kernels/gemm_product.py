"""What a way to multiply two slices tells the kernel around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netdsl.backends.cuda.kernels.maps import PAIRS
from netdsl.backends.cuda.kernels.ptx import bits, load4, store4
from netdsl.backends.cuda.simt import device_function


@dataclass(frozen=True)
class Product:
    """How the threads of a block share the product of a left and a right slice.

    threads                 of the block
    spread                  which permutation of columns the loads need (gemm_stage.right_column)
    rows, row_step          a thread's results: so many rows, so far apart
    runs, apart, run        in each row so many runs of `run` columns, so far apart
    left, right             registers that it wants for what is multiplied
    place(tid)              a thread's first row and first column
    multiply(buffer, at, sums, left, right)
                            adds the product of the slices at `at` to sums[(row * runs + which run) * run + column];
                            it reads the thread's number anew, for places take fewer registers computed than kept
    """

    threads: int
    spread: bool
    rows: int
    row_step: int
    runs: int
    apart: int
    run: int
    left: int
    right: int
    place: Callable[..., Any]
    multiply: Callable[..., Any]

    @property
    def sums(self) -> int:
        """Results of a thread."""
        return self.rows * self.runs * self.run


@device_function
def add4(array, at, sums, k):  # type: ignore[no-untyped-def]
    """sums[k : k + 4] += array[at : at + 4]"""
    a, b, c, d = load4(array, at)
    sums[k] += a
    sums[k + 1] += b
    sums[k + 2] += c
    sums[k + 3] += d


@device_function
def put4(array, at, sums, k):  # type: ignore[no-untyped-def]
    """array[at : at + 4] = sums[k : k + 4]"""
    store4(array, at, sums[k], sums[k + 1], sums[k + 2], sums[k + 3])


@device_function
def add8(array, at, sums, k):  # type: ignore[no-untyped-def]
    """sums[k : k + 8] += array[at : at + 8]"""
    add4(array, at, sums, k)
    add4(array, at + 4, sums, k + 4)


@device_function
def put8(array, at, sums, k):  # type: ignore[no-untyped-def]
    """array[at : at + 8] = sums[k : k + 8]"""
    put4(array, at, sums, k)
    put4(array, at + 4, sums, k + 4)


def adder(dtype: str, run: int) -> Callable[..., Any]:
    """A device function of (array, word, sums, k): adds a run of a map of that type to sums[k : k + run]."""
    if dtype == "float32":
        return {4: add4, 8: add8}[run]
    _, pair = PAIRS[dtype]

    @device_function
    def add_halves(array, word, sums, k):  # type: ignore[no-untyped-def]
        words = load4(array, word)
        a, b, c, d = pair(words[0]), pair(words[1]), pair(words[2]), pair(words[3])
        sums[k] += a[0]
        sums[k + 1] += a[1]
        sums[k + 2] += b[0]
        sums[k + 3] += b[1]
        sums[k + 4] += c[0]
        sums[k + 5] += c[1]
        sums[k + 6] += d[0]
        sums[k + 7] += d[1]

    assert run == 8
    return add_halves


def putter(dtype: str, run: int) -> Callable[..., Any]:
    """A device function of (array, word, sums, k): stores sums[k : k + run] into a map of that type."""
    if dtype == "float32":
        return {4: put4, 8: put8}[run]
    made, _ = PAIRS[dtype]

    @device_function
    def put_halves(array, word, sums, k):  # type: ignore[no-untyped-def]
        a, b = bits(made(sums[k], sums[k + 1])), bits(made(sums[k + 2], sums[k + 3]))
        c, d = bits(made(sums[k + 4], sums[k + 5])), bits(made(sums[k + 6], sums[k + 7]))
        store4(array, word, a, b, c, d)

    assert run == 8
    return put_halves
