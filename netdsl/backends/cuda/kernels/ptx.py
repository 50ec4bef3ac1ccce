"""The machine's words that numba.cuda lacks: 16-byte loads and stores, asynchronous copies, tensor-core products.

Each is an intrinsic of one or a few PTX instructions. Under numba.cuda's simulator (NUMBA_ENABLE_CUDASIM=1) each is
plain Python of the same meaning, from `ptx_simulated.py`. Arrays are one-dimensional float32, places count elements (of
`load_half` and `store_half` the halves of elements), and the address must be a multiple of the bytes moved.

Source: PTX ISA 8.0, sections 9.7.8 (data movement) and 9.7.13 (matrix multiply-accumulate).
"""

from __future__ import annotations

from typing import Any

from numba import config

SIMULATED = bool(config.ENABLE_CUDASIM)
ALIGN = None if SIMULATED else 16  # of arrays in shared memory, bytes; the simulator takes none

if SIMULATED:
    from netdsl.backends.cuda.kernels.ptx_simulated import (
        as_bf16,
        as_f16,
        as_tf32,
        as_word,
        bits,
        block_anew,
        copies_commit,
        copies_wait,
        copy4,
        load2,
        load4,
        load_half,
        mma_bf16,
        mma_f16,
        mma_tf32,
        of_bf16,
        of_f16,
        store4,
        store_half,
        thread_anew,
    )  # fmt: skip
else:
    from llvmlite import ir
    from numba import types
    from numba.core.errors import TypingError
    from numba.cuda.extending import intrinsic

    _I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()

    def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
        """Pointer to element `at` of a contiguous array."""
        made = context.make_array(kind)(context, builder, array)
        return builder.gep(made.data, [at])

    def _vector(context: Any, builder: Any, signature: Any, arguments: Any, lanes: int) -> Any:
        """Pointer to `lanes` elements as one vector."""
        place = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.bitcast(place, ir.VectorType(_F32, lanes).as_pointer())

    def _load(context: Any, builder: Any, signature: Any, arguments: Any, lanes: int) -> Any:
        vector = builder.load(_vector(context, builder, signature, arguments, lanes), align=4 * lanes)
        parts = [builder.extract_element(vector, _I32(i)) for i in range(lanes)]
        return context.make_tuple(builder, signature.return_type, parts)

    def _store(context: Any, builder: Any, signature: Any, arguments: Any, lanes: int) -> Any:
        vector = ir.Constant(ir.VectorType(_F32, lanes), ir.Undefined)
        for i in range(lanes):
            vector = builder.insert_element(vector, arguments[2 + i], _I32(i))
        builder.store(vector, _vector(context, builder, signature, arguments, lanes), align=4 * lanes)
        return context.get_dummy_value()

    def _asm(builder: Any, result: Any, text: str, constraints: str, arguments: Any, effect: bool = True) -> Any:
        kind = ir.FunctionType(result, [a.type for a in arguments])
        return builder.asm(kind, text, constraints, arguments, side_effect=effect)

    @intrinsic
    def thread_anew(typing):  # type: ignore[no-untyped-def]
        """cuda.threadIdx.x, read anew: the compiler keeps no register for it from an earlier reading."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return _asm(builder, _I32, "mov.u32 $0, %tid.x;", "=r", [])

        return types.int32(), build

    @intrinsic
    def block_anew(typing):  # type: ignore[no-untyped-def]
        """cuda.blockIdx.x, read anew: the compiler keeps no register for it from an earlier reading."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return _asm(builder, _I32, "mov.u32 $0, %ctaid.x;", "=r", [])

        return types.int32(), build

    @intrinsic
    def load4(typing, array, at):  # type: ignore[no-untyped-def]
        """array[at : at + 4] by one 16-byte load."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return _load(context, builder, signature, arguments, 4)

        return types.UniTuple(types.float32, 4)(array, types.int64), build

    @intrinsic
    def load2(typing, array, at):  # type: ignore[no-untyped-def]
        """array[at : at + 2] by one 8-byte load."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return _load(context, builder, signature, arguments, 2)

        return types.UniTuple(types.float32, 2)(array, types.int64), build

    @intrinsic
    def store4(typing, array, at, a, b, c, d):  # type: ignore[no-untyped-def]
        """array[at : at + 4] = a, b, c, d by one 16-byte store."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return _store(context, builder, signature, arguments, 4)

        return types.void(array, types.int64, *[types.float32] * 4), build

    def _half(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        """Pointer to 16 bits of an array, counted in halves."""
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.gep(builder.bitcast(made.data, _I16.as_pointer()), [arguments[1]])

    @intrinsic
    def load_half(typing, array, at):  # type: ignore[no-untyped-def]
        """The 16 bits at place `at`, counted in halves, as the low half of a word that a float32 holds."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            word = builder.load(_half(context, builder, signature, arguments), align=2)
            return builder.bitcast(builder.zext(word, _I32), _F32)

        return types.float32(array, types.int64), build

    @intrinsic
    def store_half(typing, array, at, word):  # type: ignore[no-untyped-def]
        """The low half of a word to place `at`, counted in halves."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            place = _half(context, builder, signature, arguments)
            builder.store(builder.trunc(arguments[2], _I16), place, align=2)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int32), build

    @intrinsic
    def bits(typing, word):  # type: ignore[no-untyped-def]
        """The float32 that holds a word."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.bitcast(arguments[0], _F32)

        return types.float32(types.int32), build

    @intrinsic
    def copy4(typing, shared, to, array, at, wanted):  # type: ignore[no-untyped-def]
        """Start shared[to : to + 4] = array[at : at + 4], or zeros where not wanted; done after `copies_wait`."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            kinds = signature.args
            target = _pointer(context, builder, kinds[0], arguments[0], arguments[1])
            near = builder.ptrtoint(builder.addrspacecast(target, ir.PointerType(_F32, 3)), _I32)
            source = builder.ptrtoint(_pointer(context, builder, kinds[2], arguments[2], arguments[3]), _I64)
            count = builder.select(arguments[4], _I32(16), _I32(0))
            text = "cp.async.cg.shared.global [$0], [$1], 16, $2;"  # chosen: .cg, past the first-level cache
            _asm(builder, ir.VoidType(), text, "r,l,r", [near, source, count])
            return context.get_dummy_value()

        return types.void(shared, types.int64, array, types.int64, types.boolean), build

    @intrinsic
    def copies_commit(typing):  # type: ignore[no-untyped-def]
        """Close the group of copies that this thread has started."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            _asm(builder, ir.VoidType(), "cp.async.commit_group;", "", [])
            return context.get_dummy_value()

        return types.void(), build

    @intrinsic
    def copies_wait(typing, newest):  # type: ignore[no-untyped-def]
        """Wait until all but the `newest` groups of this thread have arrived (then a barrier shows them to all)."""
        if not isinstance(newest, types.IntegerLiteral):
            raise TypingError("the number of groups must be a constant")

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            _asm(builder, ir.VoidType(), f"cp.async.wait_group {newest.literal_value};", "~{memory}", [])
            return context.get_dummy_value()

        return types.void(newest), build

    @intrinsic
    def as_tf32(typing, x):  # type: ignore[no-untyped-def]
        """The word of x rounded to tf32 (8 bits of exponent, 10 of fraction), nearest, ties away from zero."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return _asm(builder, _I32, "cvt.rna.tf32.f32 $0, $1;", "=r,f", arguments, effect=False)

        return types.int32(types.float32), build

    @intrinsic
    def as_word(typing, x):  # type: ignore[no-untyped-def]
        """The word that a float32 holds."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.bitcast(arguments[0], _I32)

        return types.int32(types.float32), build

    def _pair(instruction: str) -> Any:
        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return _asm(builder, _I32, f"{instruction} $0, $2, $1;", "=r,f,f", arguments, effect=False)

        return types.int32(types.float32, types.float32), build

    @intrinsic
    def as_f16(typing, low, high):  # type: ignore[no-untyped-def]
        """The word of two values rounded to float16, nearest, ties to even."""
        return _pair("cvt.rn.f16x2.f32")

    @intrinsic
    def as_bf16(typing, low, high):  # type: ignore[no-untyped-def]
        """The word of two values rounded to bfloat16, nearest, ties to even."""
        return _pair("cvt.rn.bf16x2.f32")

    @intrinsic
    def of_f16(typing, word):  # type: ignore[no-untyped-def]
        """The two float16 values of a word that a float32 array holds, the low half first."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            two = ir.LiteralStructType([_F32] * 2)
            text = "{ .reg .b16 l, h; mov.b32 {l, h}, $2; cvt.f32.f16 $0, l; cvt.f32.f16 $1, h; }"
            bits = builder.bitcast(arguments[0], _I32)
            made = _asm(builder, two, text, "=f,=f,r", [bits], effect=False)
            parts = [builder.extract_value(made, i) for i in range(2)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(types.float32, 2)(types.float32), build

    @intrinsic
    def of_bf16(typing, word):  # type: ignore[no-untyped-def]
        """The two bfloat16 values of a word that a float32 array holds, the low half first."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            bits = builder.bitcast(arguments[0], _I32)
            halves = builder.shl(bits, _I32(16)), builder.and_(bits, _I32(0xFFFF0000))
            parts = [builder.bitcast(half, _F32) for half in halves]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(types.float32, 2)(types.float32), build

    def _mma(instruction: str) -> Any:
        """Four words of the left matrix, two of the right as float32 arrays hold them, four sums; new sums."""

        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            words = [builder.bitcast(b, _I32) for b in arguments[4:6]]
            text = f"{instruction} {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, {{$10,$11,$12,$13}};"
            four = ir.LiteralStructType([_F32] * 4)
            given = [*arguments[:4], *words, *arguments[6:]]
            made = _asm(builder, four, text, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", given)
            parts = [builder.extract_value(made, i) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, parts)

        kinds = [types.int32] * 4 + [types.float32] * 6
        return types.UniTuple(types.float32, 4)(*kinds), build

    @intrinsic
    def mma_tf32(typing, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):  # type: ignore[no-untyped-def]
        """A warp's product of 16x8 by 8x8 values in tf32, sums in float32."""
        return _mma("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")

    @intrinsic
    def mma_f16(typing, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):  # type: ignore[no-untyped-def]
        """A warp's product of 16x16 by 16x8 values in float16, sums in float32."""
        return _mma("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")

    @intrinsic
    def mma_bf16(typing, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):  # type: ignore[no-untyped-def]
        """A warp's product of 16x16 by 16x8 values in bfloat16, sums in float32."""
        return _mma("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")


__all__ = [
    "ALIGN", "SIMULATED", "as_bf16", "as_f16", "as_tf32", "as_word", "bits", "block_anew", "copies_commit",
    "copies_wait", "copy4", "load2", "load4", "load_half", "mma_bf16", "mma_f16", "mma_tf32", "of_bf16", "of_f16",
    "store4", "store_half", "thread_anew",
]  # fmt: skip
