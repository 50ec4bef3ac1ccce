"""Integers in kernels are Python's: what is compiled gives what the same function gives as it stands."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import types

from netdsl.backends.cpu import jit
from netdsl.backends.cpu.codegen import lower
from netdsl.backends.cpu.jit import Compiled
from netdsl.backends.cpu.kernels.execute import write
from netdsl.backends.cpu.simd import f32, leaf, set_f32

PLACES = (-9, -7, -2, -1, 1, 2, 3, 8, 1 << 40)


def compiled(function: Callable[..., Any]) -> Callable[..., None]:
    """A function of integers as machine code."""
    count = function.__code__.co_argcount
    result = lower(function, (types.intp,) * count, types.void)
    symbol = result.fndesc.llvm_func_name
    result.library.optimize(symbol)
    address = jit._link(Compiled(symbol, (), result.library.object_code()))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)(address)


def answer(function: Callable[..., Any]) -> Callable[..., int]:
    """What a function (at, x, y) writes at `at`."""
    code, out = compiled(function), np.zeros(1, np.int64)

    def called(x: int, y: int) -> int:
        code(out.ctypes.data, x, y)
        return int(out[0])

    return called


def test_floor_division_and_remainder() -> None:
    quotient, remainder = (
        answer(f)
        for f in (lambda at, x, y: write(at, x // y), lambda at, x, y: write(at, x % y))  # type: ignore[no-untyped-call]
    )
    for x in (0, *PLACES):
        for y in PLACES:
            assert (quotient(x, y), remainder(x, y)) == (x // y, x % y)


def test_a_division_by_zero_ends_nothing() -> None:
    answer(lambda at, x, y: write(at, x // y + x % y))(5, 0)  # type: ignore[no-untyped-call]


def test_floor_division_in_place() -> None:
    def halved(at, x, y):  # type: ignore[no-untyped-def]
        x //= y
        x %= 5
        write(at, x)

    assert answer(halved)(-23, 2) == -23 // 2 % 5


@pytest.mark.parametrize(("begin", "end"), [(0, 0), (0, 1), (-3, 4), (4, -3), (5, 17)])
def test_loops_in_steps(begin: int, end: int) -> None:
    def walked(at, x, y):  # type: ignore[no-untyped-def]
        total = 1
        for i in range(x, y, 3):
            total = 7 * total + i
        for i in range(x, y):
            for _ in range(i):
                total += 1
            if i == 11:
                break
        write(at, total)

    total = 1
    for i in range(begin, end, 3):
        total = 7 * total + i
    total += sum(max(0, i) for i in range(begin, min(end, 12)))
    assert answer(walked)(begin, end) == total


def test_the_smaller_and_the_larger() -> None:
    less, more = (
        answer(f)
        for f in (lambda at, x, y: write(at, min(x, y)), lambda at, x, y: write(at, max(x, y)))  # type: ignore[no-untyped-call]
    )
    for x in PLACES:
        for y in PLACES:
            assert (less(x, y), more(x, y)) == (min(x, y), max(x, y))


def test_floats_stay_floats() -> None:
    def larger(at, x, y):  # type: ignore[no-untyped-def]
        set_f32(at, max(f32(x), f32(y)) + f32(x) * f32(y))

    numbers = np.array([0.25, -1.75, 0.0], np.float32)
    at = numbers.ctypes.data
    compiled(larger)(at + 8, at, at + 4)
    assert numbers[2] == np.float32(0.25 + 0.25 * -1.75)


def test_a_function_is_compiled_for_each_combination_of_types_and_may_return_nothing() -> None:
    @leaf
    def twice(x):  # type: ignore[no-untyped-def]
        return x + x

    @leaf
    def put(at, x):  # type: ignore[no-untyped-def]
        set_f32(at, x)

    @leaf
    def positive(x):  # type: ignore[no-untyped-def]
        return x > 0

    def both(at, x, y):  # type: ignore[no-untyped-def]
        put(at, twice(f32(at)))
        if positive(x):
            write(y, twice(x))

    numbers, whole = np.array([1.5], np.float32), np.zeros(1, np.int64)
    call = compiled(both)
    call(numbers.ctypes.data, 21, whole.ctypes.data)
    call(numbers.ctypes.data, -1, whole.ctypes.data)
    assert (numbers[0], whole[0]) == (6.0, 42)
