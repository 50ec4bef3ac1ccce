"""Small linear maps on vectors, as Winograd's algorithm needs them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from netdsl.backends.cpu.simd import I64, LLVM_VEC, emit_fma, emit_load, emit_pointer
from netdsl.backends.cpu.target import WIDTH

Rows = Sequence[Sequence[Fraction]]


def transform(matrix: Rows) -> Any:
    """The linear map y = matrix x on vectors: transform(x, x_step, y, y_step), addresses and steps in bytes.

    Interpolation at points that come in pairs +p, -p makes the two rows of a pair differ in the signs of every other
    coefficient only (or, in a transposed matrix, two columns): what they share is computed once.
    """

    @intrinsic
    def linear(typingctx: Any, x: Any, x_step: Any, y: Any, y_step: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            x, x_step, y, y_step = args
            places = [_stepped(builder, x, x_step, i) for i in range(len(matrix[0]))]
            values = [emit_load(builder, place, LLVM_VEC, 4) for place in places]
            for i, value in enumerate(_product(builder, matrix, values)):
                builder.store(value, emit_pointer(builder, _stepped(builder, y, y_step, i), LLVM_VEC)).align = 4
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), codegen

    return linear


def _product(builder: Any, rows: Rows, x: list[Any]) -> list[Any]:
    """Matrix times vector, what pairs of columns or rows share computed once."""
    columns = list(zip(*rows, strict=True))
    pairs = {i: j for i, j in itertools.combinations(range(len(columns)), 2) if _mirrored(columns, i, j)}
    if pairs:  # columns i and j enter every row as their sum or their difference
        y = []
        sums = {i: (builder.fadd(x[i], x[j]), builder.fsub(x[i], x[j])) for i, j in pairs.items()}
        paired = {*pairs, *pairs.values()}
        for row in rows:
            terms = [(f, v) for k, (f, v) in enumerate(zip(row, x, strict=True)) if k not in paired]
            terms += [(row[i], sums[i][row[i] != row[j]]) for i, j in pairs.items()]
            y.append(_sum(builder, terms))
        return y
    done: dict[int, Any] = {}
    for i, j in itertools.combinations(range(len(rows)), 2):
        if _mirrored(rows, i, j):
            same = _sum(builder, [(a, v) for a, b, v in zip(rows[i], rows[j], x, strict=True) if a == b])
            turned = _sum(builder, [(a, v) for a, b, v in zip(rows[i], rows[j], x, strict=True) if a != b])
            done[i], done[j] = builder.fadd(same, turned), builder.fsub(same, turned)
    return [done.get(i) or _sum(builder, list(zip(row, x, strict=True))) for i, row in enumerate(rows)]


def _sum(builder: Any, terms: list[tuple[Fraction, Any]]) -> Any:
    """The sum of factors times vectors."""
    total = None
    for factor, value in sorted(((f, v) for f, v in terms if f), key=lambda t: (abs(t[0]) != 1, t[0] != 1)):
        if total is None:
            total = value if factor == 1 else builder.fmul(value, _constant(factor))
        elif abs(factor) == 1:
            total = builder.fadd(total, value) if factor == 1 else builder.fsub(total, value)
        else:
            total = emit_fma(builder, value, _constant(factor), total)
    return total


def _constant(value: Fraction) -> Any:
    return ir.Constant(LLVM_VEC, [float(value)] * WIDTH)


def _stepped(builder: Any, address: Any, step: Any, count: int) -> Any:
    return builder.add(address, builder.mul(step, ir.Constant(I64, count)))


def _mirrored(rows: Rows, i: int, j: int) -> bool:
    """Whether two rows share some coefficients and differ from each other in nothing but the signs of the others."""
    pairs = list(zip(rows[i], rows[j], strict=True))
    return (
        all(abs(a) == abs(b) for a, b in pairs) and any(a != b for a, b in pairs) and any(a == b != 0 for a, b in pairs)
    )
