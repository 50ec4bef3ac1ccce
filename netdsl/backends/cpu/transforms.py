"""Small linear maps on vectors, as Winograd's algorithm needs them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from netdsl.backends.cpu.simd import I64, LLVM_VEC, emit_fma, emit_load, emit_pointer
from netdsl.backends.cpu.target import WIDTH


def transform(matrix: Sequence[Sequence[Any]]) -> Any:
    """The linear map y = matrix x on vectors: transform(x, x_step, y, y_step), addresses and steps in bytes.

    Interpolation at points that come in pairs +p, -p makes the two rows of a pair differ in the signs of every other
    coefficient only (or, in a transposed matrix, two columns): what they share is computed once.
    """
    rows = [[float(v) for v in row] for row in matrix]
    columns = len(rows[0])

    def sum_of(builder: Any, terms: list[tuple[float, Any]]) -> Any:
        total = None
        for factor, value in sorted(((f, v) for f, v in terms if f), key=lambda t: abs(t[0]) != 1):
            if total is None:
                total = value if factor == 1 else builder.fmul(value, _constant(factor))
            elif abs(factor) == 1:
                total = builder.fadd(total, value) if factor == 1 else builder.fsub(total, value)
            else:
                total = emit_fma(builder, value, _constant(factor), total)
        return total

    def emit(builder: Any, x: list[Any]) -> list[Any]:
        turned = list(zip(*rows, strict=True))
        pairs = {i: j for i, j in itertools.combinations(range(columns), 2) if _mirrored(turned, i, j)}
        if pairs:  # output side: columns i and j enter every row as their sum or their difference
            y = []
            sums = {i: (builder.fadd(x[i], x[j]), builder.fsub(x[i], x[j])) for i, j in pairs.items()}
            paired = {*pairs, *pairs.values()}
            for row in rows:
                terms = [(f, v) for k, (f, v) in enumerate(zip(row, x, strict=True)) if k not in paired]
                terms += [(row[i], sums[i][row[i] != row[j]]) for i, j in pairs.items()]
                y.append(sum_of(builder, terms))
            return y
        done: dict[int, Any] = {}
        for i, j in itertools.combinations(range(len(rows)), 2):
            if _mirrored(rows, i, j):
                same = sum_of(builder, [(a, v) for a, b, v in zip(rows[i], rows[j], x, strict=True) if a == b])
                turned = sum_of(builder, [(a, v) for a, b, v in zip(rows[i], rows[j], x, strict=True) if a != b])
                done[i], done[j] = builder.fadd(same, turned), builder.fsub(same, turned)
        return [done.get(i) or sum_of(builder, list(zip(row, x, strict=True))) for i, row in enumerate(rows)]

    @intrinsic
    def linear(typingctx: Any, x: Any, x_step: Any, y: Any, y_step: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            x, x_step, y, y_step = args
            values = [emit_load(builder, _stepped(builder, x, x_step, i), LLVM_VEC, 4) for i in range(columns)]
            for i, value in enumerate(emit(builder, values)):
                builder.store(value, emit_pointer(builder, _stepped(builder, y, y_step, i), LLVM_VEC)).align = 4
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), codegen

    return linear


def _constant(value: float) -> Any:
    return ir.Constant(LLVM_VEC, [value] * WIDTH)


def _stepped(builder: Any, address: Any, step: Any, count: int) -> Any:
    return builder.add(address, builder.mul(step, ir.Constant(I64, count)))


def _mirrored(rows: Sequence[Sequence[float]], i: int, j: int) -> bool:
    """Whether two rows share some coefficients and differ from each other in nothing but the signs of the others."""
    pairs = list(zip(rows[i], rows[j], strict=True))
    return (
        all(abs(a) == abs(b) for a, b in pairs) and any(a != b for a, b in pairs) and any(a == b != 0 for a, b in pairs)
    )
