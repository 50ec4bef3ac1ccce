"""What kernels say in Python's and NumPy's words: floor division, loops that count upwards, min and max, sqrt and log.

Numba's own lowerings of the first are right for every program, in some fifty instructions and eight basic blocks for a
division or a loop, nearly all of which LLVM spends its time removing.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, typing
from numba.core.imputils import Registry
from numba.core.typing import templates

I64 = ir.IntType(64)
ZERO, ONE = ir.Constant(I64, 0), ir.Constant(I64, 1)

words, names = Registry("netdsl words"), templates.Registry()


def _divided(builder: Any, x: Any, y: Any) -> tuple[Any, Any, Any]:
    """Quotient and remainder towards zero, and whether the floor lies below; by 1 instead of 0, as nothing may trap."""
    y = builder.select(builder.icmp_signed("==", y, ZERO), ONE, y)
    rest = builder.srem(x, y)
    below = builder.icmp_signed("<", builder.xor(rest, y), ZERO)
    return builder.sdiv(x, y), rest, builder.and_(below, builder.icmp_signed("!=", rest, ZERO))


@words.lower(operator.floordiv, types.int64, types.int64)
@words.lower(operator.ifloordiv, types.int64, types.int64)
def _floor(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    quotient, _, below = _divided(builder, *args)
    return builder.sub(quotient, builder.zext(below, I64))


@words.lower(operator.mod, types.int64, types.int64)
@words.lower(operator.imod, types.int64, types.int64)
def _remainder(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _, rest, below = _divided(builder, *args)
    return builder.select(below, builder.add(rest, args[1]), rest)


@words.lower(range, types.int64)
def _up_to(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return cgutils.make_anonymous_struct(builder, (ZERO, args[0], ONE))


@words.lower(range, types.int64, types.int64)
def _from_to(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return cgutils.make_anonymous_struct(builder, (*args, ONE))


@words.lower(range, types.int64, types.int64, types.int64)
def _in_steps(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return cgutils.make_anonymous_struct(builder, args)


@words.lower("getiter", types.range_state64_type)
def _begin(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    start, stop, step = cgutils.unpack_tuple(builder, args[0], 3)
    iterator = context.make_helper(builder, types.range_iter64_type)
    iterator.iter, iterator.stop, iterator.step = cgutils.alloca_once_value(builder, start), stop, step
    return iterator._getvalue()


@words.lower("iternext", types.range_iter64_type)
def _next(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    iterator = context.make_helper(builder, sig.args[0], value=args[0])
    value = builder.load(iterator.iter)
    builder.store(builder.add(value, iterator.step, flags=["nsw"]), iterator.iter)
    going = builder.icmp_signed("<", value, iterator.stop)
    return context.make_tuple(builder, sig.return_type, (value, going))


def _typed(function: Any, result: Any, *arguments: Any) -> None:
    """A signature of a function, which Numba then finds before its own, for arguments of these very types."""

    class Exact(templates.ConcreteTemplate):
        key = function
        cases = (typing.signature(result, *arguments),)
        exact_match_required = True

    names.register_global(function, types.Function(Exact))


def _chosen(function: Any, sign: str) -> None:
    """A builtin function that gives the first of two integers where it is `sign` the second, else the second."""
    _typed(function, types.int64, types.int64, types.int64)

    @words.lower(function, types.int64, types.int64)
    def chosen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(sign, *args), *args)


def _elementary(name: str) -> None:
    """NumPy's function of one float64, by the function of that name that LLVM knows."""
    function = getattr(np, name)
    _typed(function, types.float64, types.float64)

    @words.lower(function, types.float64)
    def computed(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic(f"llvm.{name}", [args[0].type]), args)


_chosen(min, "<")
_chosen(max, ">")
_elementary("sqrt")
_elementary("log")
for name in ("add", "sub", "mul", "floordiv", "mod"):
    _typed(getattr(operator, name), types.int64, types.int64, types.int64)
    _typed(getattr(operator, f"i{name}"), types.int64, types.int64, types.int64)
for name in ("lt", "le", "gt", "ge", "eq", "ne"):
    _typed(getattr(operator, name), types.boolean, types.int64, types.int64)
