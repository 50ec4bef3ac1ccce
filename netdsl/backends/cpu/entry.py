"""The common entry of kernels: (argument block, thread, threads), with the parameters read from the block."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from netdsl.backends.cpu.simd import I64


def add_entry(compiled: Any) -> str:
    """Add to a compiled kernel(tid, nt, *parameters) a function (block, tid, nt) that calls it; the function's symbol.

    compiled    Numba's result, whose code library takes more modules yet
    """
    context, descriptor = compiled.target_context, compiled.fndesc
    count = len(descriptor.argtypes) - 2
    module = context.create_module("entry")
    kinds = [context.call_conv.get_function_type(types.void, (types.intp,) * n) for n in (3, 2 + count)]
    symbol = f"{descriptor.llvm_func_name}.entry"
    entry, kernel = (ir.Function(module, *f) for f in zip(kinds, (symbol, descriptor.llvm_func_name), strict=True))
    builder = ir.IRBuilder(entry.append_basic_block())
    block, tid, nt = entry.args
    base = builder.inttoptr(block, I64.as_pointer())
    words = [builder.load(builder.gep(base, [ir.Constant(I64, i)])) for i in range(count)]
    builder.call(kernel, [tid, nt, *words])
    builder.ret_void()
    compiled.library.add_ir_module(module)
    return symbol
