"""Register tiles: rows x cols vectors that LLVM keeps in registers through a loop."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from netdsl.backends.cpu.simd import (
    F32,
    I64,
    LLVM_VEC,
    emit_fma,
    emit_fma_from,
    emit_load,
    emit_load_at,
    emit_max,
    emit_min,
    emit_offset,
    emit_pointer,
    emit_prefetch,
    emit_room,
    emit_splat,
    emit_store_first,
    emit_widened,
    vec,
)
from netdsl.backends.cpu.target import FMA_FROM_MEMORY, VECTOR_BYTES, WIDTH, host

CACHE_LINE = 64  # bytes; chosen: of most processors, and a prefetch too many is harmless


class TileType(types.Type):
    """Numba type of so many vectors held in registers."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"tile{count}xf32x{WIDTH}")


@register_model(TileType)
class TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, ir.ArrayType(LLVM_VEC, fe_type.count))


@dataclass(frozen=True)
class Tile:
    """A register tile of `lines` x `rows` pixels x `cols` vectors.

    The inputs of neighbouring pixels of a line lie `pixel` floats apart, lines any number of bytes. Weights of `outer`
    are `stored` as "float16" or "bfloat16", or as float32 (None).
    Its operations are intrinsics; each is made anew when asked for, so take them once, outside the kernel:

    start(bias)                   every pixel begins as the `cols` vectors at address `bias`
    start_rows(bias)              every vector of row m begins as the float at `bias + 4 * m` in all lanes
    outer(t, x, line, w)          t[l, m, n] += x[l * line + m * pixel] * w[n]: one step of a matrix product
    ask(w)                        ask early for a step's weights
    ask_for(write)(at, line)      ask early for the pixels of a tile at `at`
    slide(taps, apart)(t, x, w)   t[0, m, 0] += sum over s of x[m * pixel + s * apart] * w[s], lane by lane: a row of a
                                  depthwise filter, each input read once (one line, one column)
    take(at, ...)                 t[l, m, n] = the vector at `at + l * line + m * row + n * col`
    add_from(t, at, ...)          t[l, m, n] += that vector
    at_least(t, low)              t limited from below, by a vector
    at_most(t, high)              t limited from above
    put(t, at, ...)               store the tile
    put_first(t, at, row, lanes)  store rows `row` bytes apart whose vectors touch: `lanes` floats of each (one line)

    take, add_from and put are given (line, row, col) in bytes, how many lines, rows and columns are real, and
    (split, gap): rows from `split` on, at least 1, lie `gap` bytes further away.
    """

    rows: int
    cols: int
    pixel: int
    lines: int = 1
    stored: str | None = None

    @property
    def weight_bytes(self) -> int:
        """What `cols` vectors of weights take in memory."""
        return self.cols * WIDTH * (4 if self.stored is None else 2)

    @property
    def type(self) -> TileType:
        return TileType(self.lines * self.rows * self.cols)

    @property
    def start(self) -> Any:
        kind, cols = self.type, self.cols

        @intrinsic
        def start(typingctx: Any, bias: Any) -> Any:
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                value = ir.Constant(ir.ArrayType(LLVM_VEC, kind.count), ir.Undefined)
                first = [
                    emit_load(builder, emit_offset(builder, args[0], n * VECTOR_BYTES), LLVM_VEC, 4)
                    for n in range(cols)
                ]
                for i in range(kind.count):
                    value = builder.insert_value(value, first[i % cols], i)
                return value

            return kind(types.intp), codegen

        return start

    @property
    def start_rows(self) -> Any:
        kind, cols = self.type, self.cols

        @intrinsic
        def start_rows(typingctx: Any, bias: Any) -> Any:
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                value = ir.Constant(ir.ArrayType(LLVM_VEC, kind.count), ir.Undefined)
                for i in range(kind.count):
                    at = emit_offset(builder, args[0], 4 * (i // cols))
                    value = builder.insert_value(value, emit_splat(builder, emit_load(builder, at, F32, 4)), i)
                return value

            return kind(types.intp), codegen

        return start_rows

    @property
    def outer(self) -> Any:
        kind, lines, rows, cols, pixel = self.type, self.lines, self.rows, self.cols, self.pixel
        stored, size = self.stored, self.weight_bytes // cols
        # where accumulators, weights and a broadcast are one too many for the registers
        from_memory = FMA_FROM_MEMORY and stored is None and kind.count + cols + 1 == host().registers + 1

        @intrinsic
        def outer(typingctx: Any, t: Any, x: Any, line: Any, w: Any) -> Any:
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                value, x, line, w = args
                held = cols - 1 if from_memory else cols
                weights = [emit_widened(builder, emit_offset(builder, w, n * size), stored) for n in range(held)]
                i = 0
                for _ in range(lines):
                    for m in range(rows):
                        b = emit_splat(builder, emit_load_at(builder, x, 4 * m * pixel, F32, 4))
                        for n in range(cols):
                            term = builder.extract_value(value, i)
                            if n < held:
                                sum_ = emit_fma(builder, b, weights[n], term)
                            else:
                                sum_ = emit_fma_from(builder, b, w, n * VECTOR_BYTES, term)
                            value = builder.insert_value(value, sum_, i)
                            i += 1
                    x = builder.add(x, line)
                return value

            return kind(kind, types.intp, types.intp, types.intp), codegen

        return outer

    def ask_for(self, write: bool = False) -> Any:
        """The intrinsic that asks early for the first cache line of each pixel, to be read or written."""
        across = sorted({4 * m * self.pixel // CACHE_LINE * CACHE_LINE for m in range(self.rows)})
        places = tuple(itertools.product(range(self.lines), across))

        @intrinsic
        def ask_for(typingctx: Any, at: Any, line: Any) -> Any:
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                for i, offset in places:
                    row = builder.add(args[0], builder.mul(args[1], ir.Constant(I64, i)))
                    emit_prefetch(builder, emit_offset(builder, row, offset), write=write)
                return context.get_dummy_value()

            return types.void(types.intp, types.intp), codegen

        return ask_for

    @property
    def ask(self) -> Any:
        # One line is enough for the processor to fetch its neighbours too. Where weights are widened so many more
        # instructions wait for each line that it looks only few lines ahead by itself: all are asked for, into the
        # second-level cache alone, which was the fastest of the ways tried.
        asked, nearness = (CACHE_LINE, 3) if self.stored is None else (self.weight_bytes, 2)

        @intrinsic
        def ask(typingctx: Any, w: Any) -> Any:
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                for offset in range(0, asked, CACHE_LINE):
                    emit_prefetch(builder, emit_offset(builder, args[0], offset), nearness)
                return context.get_dummy_value()

            return types.void(types.intp), codegen

        return ask

    def slide(self, taps: int, apart: int) -> Any:
        """The intrinsic that moves a row of a depthwise filter, `taps` cells `apart` vectors from each other, along."""
        kind, rows, step = self.type, self.rows, self.pixel // WIDTH

        @intrinsic
        def slide(typingctx: Any, t: Any, x: Any, w: Any) -> Any:
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                value, x, w = args
                weights = [
                    emit_load(builder, emit_offset(builder, w, s * VECTOR_BYTES), LLVM_VEC, 4) for s in range(taps)
                ]
                meets = [(m * step + s * apart, m, s) for m in range(rows) for s in range(taps)]
                for cell, group in itertools.groupby(sorted(meets), key=lambda meet: meet[0]):
                    b = emit_load(builder, emit_offset(builder, x, cell * VECTOR_BYTES), LLVM_VEC, 4)
                    for _, m, s in group:
                        term = builder.extract_value(value, m)
                        value = builder.insert_value(value, emit_fma(builder, b, weights[s], term), m)
                return value

            return kind(kind, types.intp, types.intp), codegen

        return slide

    @property
    def take(self) -> Any:
        kind, shape = self.type, (self.lines, self.rows, self.cols)

        @intrinsic
        def take(
            typingctx: Any, at: Any, line: Any, row: Any, col: Any,
            lines: Any, rows: Any, cols: Any, split: Any, gap: Any,
        ) -> Any:  # fmt: skip
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                nothing = ir.Constant(ir.ArrayType(LLVM_VEC, kind.count), ir.Undefined)
                return _read(builder, shape, nothing, args, lambda b, x, y: y)

            return kind(*[types.intp] * 9), codegen

        return take

    @property
    def add_from(self) -> Any:
        kind, shape = self.type, (self.lines, self.rows, self.cols)

        @intrinsic
        def add_from(
            typingctx: Any, t: Any, at: Any, line: Any, row: Any, col: Any,
            lines: Any, rows: Any, cols: Any, split: Any, gap: Any,
        ) -> Any:  # fmt: skip
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                return _read(builder, shape, args[0], args[1:], lambda b, x, y: b.fadd(x, y))

            return kind(kind, *[types.intp] * 9), codegen

        return add_from

    @property
    def at_least(self) -> Any:
        return self._limited(emit_max)

    @property
    def at_most(self) -> Any:
        return self._limited(emit_min)

    def _limited(self, emit: Any) -> Any:
        """The intrinsic that limits every vector on one side."""
        kind = self.type

        @intrinsic
        def limited(typingctx: Any, t: Any, limit: Any) -> Any:
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                value, limit = args
                for i in range(kind.count):
                    value = builder.insert_value(value, emit(builder, limit, builder.extract_value(value, i)), i)
                return value

            return kind(kind, vec), codegen

        return limited

    @property
    def put(self) -> Any:
        kind, shape = self.type, (self.lines, self.rows, self.cols)

        @intrinsic
        def put(
            typingctx: Any, t: Any, at: Any, line: Any, row: Any, col: Any,
            lines: Any, rows: Any, cols: Any, split: Any, gap: Any,
        ) -> Any:  # fmt: skip
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                nowhere = emit_room(builder)
                with builder.if_else(_is_whole(builder, shape, args[5:]), likely=True) as ways:
                    for way, all_real in zip(ways, (True, False), strict=True):
                        with way:
                            for k, place in _cells(builder, shape, args[1:], None if all_real else nowhere):
                                builder.store(builder.extract_value(args[0], k), place).align = 4
                return context.get_dummy_value()

            return types.void(kind, *[types.intp] * 9), codegen

        return put

    @property
    def put_first(self) -> Any:
        kind, rows, cols = self.type, self.rows, self.cols

        @intrinsic
        def put_first(typingctx: Any, t: Any, at: Any, row: Any, lanes: Any) -> Any:
            def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                value, at, row, lanes = args
                for m in range(rows):
                    for n in range(cols):
                        left = builder.sub(lanes, ir.Constant(I64, n * WIDTH))
                        address = emit_offset(builder, at, n * VECTOR_BYTES)
                        emit_store_first(builder, address, builder.extract_value(value, m * cols + n), left)
                    at = builder.add(at, row)
                return context.get_dummy_value()

            return types.void(kind, *[types.intp] * 3), codegen

        return put_first


def _read(builder: Any, shape: tuple[int, int, int], tile: Any, args: Any, join: Any) -> Any:
    """The tile that `join` makes of each of its vectors and the one in memory, zeros where that is not real."""
    zeros = emit_room(builder)
    ends = []
    with builder.if_else(_is_whole(builder, shape, args[4:]), likely=True) as ways:
        for way, all_real in zip(ways, (True, False), strict=True):
            with way:
                joined = tile
                if not all_real:
                    builder.store(ir.Constant(LLVM_VEC, [0.0] * WIDTH), zeros)
                for k, place in _cells(builder, shape, args, None if all_real else zeros):
                    term = builder.load(place)
                    term.align = 4
                    joined = builder.insert_value(joined, join(builder, builder.extract_value(tile, k), term), k)
                ends.append((joined, builder.block))
    out = builder.phi(tile.type)
    for joined, block in ends:
        out.add_incoming(joined, block)
    return out


def _is_whole(builder: Any, shape: tuple[int, int, int], args: Any) -> Any:
    """Whether every vector of a tile is real, and no gap lies between its rows."""
    *real, split, _ = args
    whole = ir.Constant(ir.IntType(1), 1)
    for count, most in zip((*real, split), (*shape, shape[1]), strict=True):
        whole = builder.and_(whole, builder.icmp_signed(">=", count, ir.Constant(I64, most)))
    return whole


def _cells(builder: Any, shape: tuple[int, int, int], args: Any, elsewhere: Any) -> Any:
    """For each vector of a tile: its number, and a pointer to it, or `elsewhere` where it is not real.

    elsewhere  None where all are known to be real and no gap lies between them: no test is left
    """
    at, steps, real, (split, gap) = args[0], args[1:4], args[4:7], args[7:9]
    axes = list(zip(steps, real, shape, strict=True))
    away = [[builder.mul(step, ir.Constant(I64, i)) for i in range(most)] for step, _, most in axes]
    real = [[builder.icmp_signed("<", ir.Constant(I64, i), n) for i in range(most)] for _, n, most in axes]
    if elsewhere is not None:
        before = [builder.icmp_signed("<", ir.Constant(I64, i), split) for i in range(shape[1])]
        away[1] = [builder.select(b, a, builder.add(a, gap)) for b, a in zip(before, away[1], strict=True)]
    for k, place in enumerate(itertools.product(*map(range, shape))):
        address = at
        for i, offsets in zip(place, away, strict=True):
            address = builder.add(address, offsets[i]) if i else address
        pointer = emit_pointer(builder, address, LLVM_VEC)
        if elsewhere is not None:
            inside = functools.reduce(builder.and_, [test[i] for i, test in zip(place, real, strict=True)])
            pointer = builder.select(inside, pointer, elsewhere)
        yield k, pointer
