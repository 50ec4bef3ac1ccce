"""The common entry of kernels: (argument block, thread, …), with the parameters read from the block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types

from netdsl.backends.cpu.simd import I64

# what every call of a kernel tells: the thread's number; whether it had parts of this step before; the first part that
# it computes, the one after the last, of how many
CALL = ("thread", "again", "begin", "end", "parts")


def add_entry(compiled: Any, parameters: Sequence[str]) -> str:
    """Add to a compiled kernel a function (block, *CALL) that calls it; the function's symbol.

    compiled    Numba's result, whose code library takes more modules yet
    parameters  of the kernel: those of CALL that it needs, in their order, then those in the block
    """
    context, descriptor = compiled.target_context, compiled.fndesc
    count = sum(name not in CALL for name in parameters)
    module = context.create_module("entry")
    sizes = 1 + len(CALL), len(parameters)
    kinds = [context.call_conv.get_function_type(types.void, (types.intp,) * n) for n in sizes]
    symbol = f"{descriptor.llvm_func_name}.entry"
    entry, kernel = (ir.Function(module, *f) for f in zip(kinds, (symbol, descriptor.llvm_func_name), strict=True))
    builder = ir.IRBuilder(entry.append_basic_block())
    block, *call = entry.args
    given = [word for name, word in zip(CALL, call, strict=True) if name in parameters]
    base = builder.inttoptr(block, I64.as_pointer())
    words = [builder.load(builder.gep(base, [ir.Constant(I64, i)])) for i in range(count)]
    builder.call(kernel, [*given, *words])
    builder.ret_void()
    compiled.library.add_ir_module(module)
    return symbol
