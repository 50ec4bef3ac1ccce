"""The common entry of kernels: (argument block, thread, threads), with the parameters read from the block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from netdsl.backends.cpu.simd import I64, leaf


def from_block(kernel: Callable[..., None], count: int) -> Callable[..., None]:
    """A function (block, tid, nt) that calls kernel(tid, nt, *the block's first `count` int64)."""
    body = leaf(kernel)

    @intrinsic
    def unpack(typingctx: Any, block: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            base = builder.inttoptr(args[0], I64.as_pointer())
            words = [builder.load(builder.gep(base, [ir.Constant(I64, i)])) for i in range(count)]
            return context.make_tuple(builder, sig.return_type, words)

        return types.UniTuple(types.intp, count)(types.intp), codegen

    def entry(block, tid, nt):  # type: ignore[no-untyped-def]
        body(tid, nt, *unpack(block))

    return entry
