"""SIMD vectors as a Numba type: the vocabulary that kernels are written in.

A `vec` is one register of WIDTH float32 lanes.
Addresses are plain byte addresses (intp), so a kernel's arguments are integers and its loops plain Python.
Sums of products are explicit fused multiply-adds; nothing here relies on the auto-vectoriser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from netdsl.backends.cpu.codegen import leaf as leaf
from netdsl.backends.cpu.target import VECTOR_BYTES as VECTOR_BYTES
from netdsl.backends.cpu.target import WIDTH as WIDTH

LLVM_VEC = ir.VectorType(ir.FloatType(), WIDTH)
F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
INFINITY_BITS = 0x7F800000  # of a float32: all bits of its exponent


class VecType(types.Type):
    """Numba type of one vector register."""

    def __init__(self) -> None:
        super().__init__(name=f"f32x{WIDTH}")


vec = VecType()


@register_model(VecType)
class VecModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, LLVM_VEC)


def emit_pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def emit_load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    value = builder.load(emit_pointer(builder, address, kind))
    value.align = align
    return value


def emit_load_at(builder: Any, base: Any, offset: int, kind: Any, align: int) -> Any:
    """What lies `offset` bytes from a base that several loads share: one register points to all of them.

    Offsets that are added to integers LLVM may add to a loop's start instead, and keep a pointer for each.
    """
    byte = builder.inttoptr(base, ir.IntType(8).as_pointer())
    place = builder.gep(byte, [ir.Constant(I64, offset)])
    value = builder.load(builder.bitcast(place, kind.as_pointer()))
    value.align = align
    return value


def emit_room(builder: Any) -> Any:
    """A pointer to room for one vector on the stack."""
    return cgutils.alloca_once(builder, LLVM_VEC)


def emit_widened(builder: Any, address: Any, stored: str | None) -> Any:
    """WIDTH numbers that are stored as "float16", "bfloat16" or float32 (None), as float32.

    A bfloat16 is the upper half of a float32.
    """
    if stored is None:
        return emit_load(builder, address, LLVM_VEC, 4)
    if stored == "float16":
        return builder.fpext(emit_load(builder, address, ir.VectorType(ir.HalfType(), WIDTH), 2), LLVM_VEC)
    words = ir.VectorType(I32, WIDTH)
    halves = emit_load(builder, address, ir.VectorType(ir.IntType(16), WIDTH), 2)
    upper = builder.shl(builder.zext(halves, words), ir.Constant(words, [16] * WIDTH))
    return builder.bitcast(upper, LLVM_VEC)


def emit_offset(builder: Any, address: Any, offset: int) -> Any:
    return builder.add(address, ir.Constant(I64, offset)) if offset else address


def emit_splat(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(LLVM_VEC, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, WIDTH), [0] * WIDTH))


def _call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    kind = ir.FunctionType(result, [a.type for a in args])
    # declare_intrinsic() cannot name vector types, so the suffix is spelled out
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def emit_fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return _call(builder, f"llvm.fma.v{WIDTH}f32", LLVM_VEC, [x, y, z])


def emit_fma_from(builder: Any, x: Any, base: Any, offset: int, z: Any) -> Any:
    """x * (the vector at base + offset) + z; the multiply-add itself reads the factor, where LLVM would use a register.

    The memory must not change while a kernel runs: LLVM is not told that it is read.
    """
    kind = ir.FunctionType(LLVM_VEC, [LLVM_VEC, LLVM_VEC, I64])
    text = f"vfmadd231ps {offset}($3), $2, $0"
    return builder.asm(kind, text, "=v,0,v,r", [z, x, base], side_effect=False)


def emit_max(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


def emit_min(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", x, y), x, y)


@intrinsic
def i64(typingctx: Any, base: Any, index: Any) -> Any:
    """The index-th int64 at an address (argument blocks and offset tables)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit_load(builder, builder.add(args[0], builder.mul(args[1], ir.Constant(I64, 8))), I64, 8)

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def set_i64(typingctx: Any, address: Any, value: Any) -> Any:
    """Store an int64 at an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], I64.as_pointer()), 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def f32(typingctx: Any, address: Any) -> Any:
    """The float32 at an address."""
    return types.float32(types.intp), lambda context, builder, sig, args: emit_load(builder, args[0], F32, 4)


@intrinsic
def set_f32(typingctx: Any, address: Any, value: Any) -> Any:
    """Store one float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], emit_pointer(builder, args[0], F32)).align = 4
        return context.get_dummy_value()

    return types.void(types.intp, types.float32), codegen


def emit_prefetch(builder: Any, address: Any, nearness: int = 3, write: bool = False) -> None:
    """Ask for a cache line, to be read or written soon. nearness  3: into every cache; 2: all but the nearest."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    hints = [ir.Constant(I32, n) for n in (int(write), nearness, 1)]  # …, …, data
    builder.call(fetch, [builder.inttoptr(address, byte), *hints])


@intrinsic
def prefetch(typingctx: Any, address: Any) -> Any:
    """Ask for the cache line at an address, to be read soon. Any address is allowed."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        emit_prefetch(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def zero(typingctx: Any) -> Any:
    """All lanes 0."""
    return vec(), lambda context, builder, sig, args: ir.Constant(LLVM_VEC, [0.0] * WIDTH)


@intrinsic
def splat(typingctx: Any, x: Any) -> Any:
    """All lanes x."""
    return vec(types.float32), lambda context, builder, sig, args: emit_splat(builder, args[0])


@intrinsic
def load(typingctx: Any, address: Any) -> Any:
    """WIDTH consecutive float32."""
    return vec(types.intp), lambda context, builder, sig, args: emit_load(builder, args[0], LLVM_VEC, 4)


def strided(step: int) -> Any:
    """The intrinsic that loads WIDTH float32 from places `step` apart; all float32 in between are read."""
    apart = ir.Constant(ir.VectorType(I32, WIDTH), list(range(0, step * WIDTH, step)))

    @intrinsic
    def load_strided(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            run = emit_load(builder, args[0], ir.VectorType(ir.FloatType(), step * WIDTH), 4)
            return builder.shuffle_vector(run, ir.Constant(run.type, ir.Undefined), apart)

        return vec(types.intp), codegen

    return load_strided


@intrinsic
def finite(typingctx: Any, address: Any) -> Any:
    """1 where the float32 at an address is finite, 0 where it is an infinity or no number."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = emit_load(builder, args[0], I32, 4)
        exponent = builder.and_(bits, ir.Constant(I32, INFINITY_BITS))
        return builder.zext(builder.icmp_unsigned("<", exponent, ir.Constant(I32, INFINITY_BITS)), I64)

    return types.intp(types.intp), codegen


@intrinsic
def broadcast(typingctx: Any, address: Any) -> Any:
    """All lanes the float32 at an address."""
    return vec(types.intp), lambda context, builder, sig, args: emit_splat(builder, emit_load(builder, args[0], F32, 4))


@intrinsic
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Store WIDTH float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], emit_pointer(builder, args[0], LLVM_VEC)).align = 4
        return context.get_dummy_value()

    return types.void(types.intp, vec), codegen


def emit_store_first(builder: Any, address: Any, value: Any, count: Any) -> None:
    """Store the lanes below `count` (an i64, any value)."""
    lanes = ir.VectorType(I32, WIDTH)
    most = builder.select(builder.icmp_signed("<", count, ir.Constant(I64, WIDTH)), count, ir.Constant(I64, WIDTH))
    undefined = ir.Constant(lanes, ir.Undefined)
    limit = builder.insert_element(undefined, builder.trunc(most, I32), ir.Constant(I32, 0))
    limit = builder.shuffle_vector(limit, undefined, ir.Constant(lanes, [0] * WIDTH))
    mask = builder.icmp_signed("<", ir.Constant(lanes, list(range(WIDTH))), limit)
    kind = ir.FunctionType(ir.VoidType(), [LLVM_VEC, LLVM_VEC.as_pointer(), I32, mask.type])
    masked = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.v{WIDTH}f32.p0")
    builder.call(masked, [value, emit_pointer(builder, address, LLVM_VEC), ir.Constant(I32, 4), mask])


@intrinsic
def store_first(typingctx: Any, address: Any, value: Any, count: Any) -> Any:
    """Store the first `count` lanes: all of them from WIDTH on, none below 1."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        emit_store_first(builder, *args)
        return context.get_dummy_value()

    return types.void(types.intp, vec, types.intp), codegen


@intrinsic
def transpose(typingctx: Any, x: Any, y: Any) -> Any:
    """WIDTH vectors that follow each other at x, a matrix, stored at y with rows and columns exchanged."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = args
        rows = [emit_load(builder, emit_offset(builder, x, i * VECTOR_BYTES), LLVM_VEC, 4) for i in range(WIDTH)]
        half = WIDTH // 2
        while half:  # exchange the blocks beside the diagonal of each square of 2 half x 2 half
            for i in (i for i in range(WIDTH) if not i & half):
                upper, lower = rows[i], rows[i + half]
                for k, start in ((i, 0), (i + half, half)):
                    lanes = [start + lane if not lane & half else start + lane - half + WIDTH for lane in range(WIDTH)]
                    rows[k] = builder.shuffle_vector(upper, lower, ir.Constant(ir.VectorType(I32, WIDTH), lanes))
            half //= 2
        for i, row in enumerate(rows):
            builder.store(row, emit_pointer(builder, emit_offset(builder, y, i * VECTOR_BYTES), LLVM_VEC)).align = 4
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


def _binary(emit: Callable[..., Any], doc: str) -> Any:
    def operation(typingctx: Any, x: Any, y: Any) -> Any:
        return vec(vec, vec), lambda context, builder, sig, args: emit(builder, *args)

    operation.__doc__ = doc
    return intrinsic(operation)


def _unary(suffix: str, doc: str) -> Any:
    def operation(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _call(builder, f"llvm.{suffix}.v{WIDTH}f32", LLVM_VEC, [args[0]])

        return vec(vec), codegen

    operation.__doc__ = doc
    return intrinsic(operation)


add = _binary(lambda b, x, y: b.fadd(x, y), "x + y")
sub = _binary(lambda b, x, y: b.fsub(x, y), "x - y")
mul = _binary(lambda b, x, y: b.fmul(x, y), "x * y")
div = _binary(lambda b, x, y: b.fdiv(x, y), "x / y")
maximum = _binary(emit_max, "The larger of x and y; y where either is NaN: keep data in y")
minimum = _binary(emit_min, "The smaller of x and y; y where either is NaN: keep data in y")
sqrt = _unary("sqrt", "Square root")
absolute = _unary("fabs", "Absolute value")
nearest = _unary("rint", "Nearest whole number")


@intrinsic
def fma(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once."""
    return vec(vec, vec, vec), lambda context, builder, sig, args: emit_fma(builder, *args)


@intrinsic
def where_positive(typingctx: Any, x: Any, yes: Any, no: Any) -> Any:
    """yes where x > 0, else no."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], ir.Constant(LLVM_VEC, [0.0] * WIDTH)), *args[1:])

    return vec(vec, vec, vec), codegen


@intrinsic
def power_of_two(typingctx: Any, k: Any) -> Any:
    """2**k for whole k in -126 .. 127, made from the exponent bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ints = ir.VectorType(I32, WIDTH)
        k = builder.add(builder.fptosi(args[0], ints), ir.Constant(ints, [127] * WIDTH))
        return builder.bitcast(builder.shl(k, ir.Constant(ints, [23] * WIDTH)), LLVM_VEC)

    return vec(vec), codegen


@intrinsic
def split_exponent(typingctx: Any, x: Any) -> Any:
    """(m, e) with x = m * 2**e and m in [1, 2), for positive normal x."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ints = ir.VectorType(I32, WIDTH)
        bits = builder.bitcast(args[0], ints)
        e = builder.sub(builder.lshr(bits, ir.Constant(ints, [23] * WIDTH)), ir.Constant(ints, [127] * WIDTH))
        one = ir.Constant(ints, [0x3F800000] * WIDTH)
        m = builder.or_(builder.and_(bits, ir.Constant(ints, [0x007FFFFF] * WIDTH)), one)
        pair = (builder.bitcast(m, LLVM_VEC), builder.sitofp(e, LLVM_VEC))
        return context.make_tuple(builder, sig.return_type, pair)

    return types.UniTuple(vec, 2)(vec), codegen


@intrinsic
def unless_nan(typingctx: Any, y: Any, x: Any) -> Any:
    """y, but NaN where x is NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_unordered("uno", args[1], args[1]), args[1], args[0])

    return vec(vec, vec), codegen


@intrinsic
def larger(typingctx: Any, x: Any, y: Any) -> Any:
    """The larger of x and y; NaN where either is NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = args
        return builder.select(builder.fcmp_unordered("uno", x, x), x, emit_max(builder, x, y))

    return vec(vec, vec), codegen
