"""What PTX instructions do that only compute and branch: each becomes a function of a launch and the lanes that run.

Source: NVIDIA, Parallel Thread Execution ISA, chapter 9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from netdsl.halves import bfloat16_bits
from ptx.memory import Fault
from ptx.operands import TYPES, Lanes, Word, source, target
from ptx.text import Code, Instruction

if TYPE_CHECKING:
    from ptx.machine import Launch


def _plain(function: Callable[..., Any], places: int) -> Callable[[Instruction, Code], Word]:
    """A maker of instructions of the type that their name ends with, for operands and result alike."""

    def maker(instruction: Instruction, code: Code) -> Word:
        kind = instruction.parts[-1]
        put = target(instruction.operands[0], code)
        gets = [source(o, kind, code) for o in instruction.operands[1 : places + 1]]

        def word(m: Launch, idx: Lanes) -> None:
            put(m, idx, function(*[get(m, idx) for get in gets]))

        return word

    return maker


def _fused(a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once: the product of two float32 is exact in float64."""
    return (np.multiply(a, b, dtype=np.float64) + c).astype(np.float32)


def _down(a: Any, b: Any, c: Any) -> Any:
    """The same, rounded down; exact where the sum is exact in float64."""
    exact = np.multiply(a, b, dtype=np.float64) + c
    near = exact.astype(np.float32)
    return np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)


def _fma(instruction: Instruction, code: Code) -> Word:
    if instruction.parts[-1] != "f32" or instruction.parts[1] not in ("rn", "rm"):
        raise ValueError(f"unknown instruction: {instruction.text}")
    return _plain(_fused if instruction.parts[1] == "rn" else _down, 3)(instruction, code)


def _divided(a: Any, b: Any) -> Any:
    if a.dtype.kind == "f":
        return a / b
    if not np.all(b):
        raise Fault("a division by zero")
    quotient = a // b
    return quotient + ((quotient * b != a) & ((a < 0) != (b < 0))).astype(a.dtype)


def _shifted_left(a: Any, by: Any) -> Any:
    width = 8 * a.dtype.itemsize
    return np.where(by < width, a << np.minimum(by, width - 1).astype(a.dtype), a.dtype.type(0))


def _shifted_right(a: Any, by: Any) -> Any:
    width = 8 * a.dtype.itemsize
    moved = a >> np.minimum(by, width - 1).astype(a.dtype)
    return moved if a.dtype.kind == "i" else np.where(by < width, moved, a.dtype.type(0))


def _flushed(x: Any) -> Any:
    """Without subnormal numbers."""
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


_add, _sub = _plain(np.add, 2), _plain(np.subtract, 2)
_and, _or, _xor = _plain(np.bitwise_and, 2), _plain(np.bitwise_or, 2), _plain(np.bitwise_xor, 2)
_neg, _abs, _not = _plain(np.negative, 1), _plain(np.abs, 1), _plain(np.invert, 1)
_min, _max = _plain(np.fmin, 2), _plain(np.fmax, 2)
_div = _plain(_divided, 2)
_rem = _plain(lambda a, b: a - _divided(a, b) * b, 2)
_copysign = _plain(lambda sign, size: np.copysign(size, sign), 2)
_sqrt = _plain(np.sqrt, 1)
_rcp = _plain(lambda x: np.float32(1) / x, 1)
_ex2 = _plain(lambda x: _flushed(np.exp2(x)), 1)
_lg2 = _plain(np.log2, 1)


def _mul(instruction: Instruction, code: Code) -> Word:
    kind, *_ = reversed(instruction.parts)
    if "hi" in instruction.parts:
        raise ValueError(f"unknown instruction: {instruction.text}")
    if "wide" not in instruction.parts:
        return _plain(np.multiply, 2)(instruction, code)
    put, wide = target(instruction.operands[0], code), TYPES[kind[0] + "64"]
    a, b = (source(o, kind, code) for o in instruction.operands[1:])
    return lambda m, idx: put(m, idx, a(m, idx).astype(wide) * b(m, idx).astype(wide))


def _mad(instruction: Instruction, code: Code) -> Word:
    if "lo" not in instruction.parts:
        raise ValueError(f"unknown instruction: {instruction.text}")
    return _plain(lambda a, b, c: a * b + c, 3)(instruction, code)


def _shift(function: Callable[[Any, Any], Any]) -> Callable[[Instruction, Code], Word]:
    def maker(instruction: Instruction, code: Code) -> Word:
        put = target(instruction.operands[0], code)
        a, by = (
            source(instruction.operands[1], instruction.parts[-1], code),
            source(instruction.operands[2], "u32", code),
        )
        return lambda m, idx: put(m, idx, function(a(m, idx), by(m, idx)))

    return maker


_shl, _shr = _shift(_shifted_left), _shift(_shifted_right)

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "nan": lambda a, b: np.isnan(a) | np.isnan(b), "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
}  # fmt: skip
_OPPOSITE = {"ltu": "ge", "leu": "gt", "gtu": "le", "geu": "lt", "equ": "ne"}  # true of nan too


def _setp(instruction: Instruction, code: Code) -> Word:
    _, how, kind = instruction.parts
    put = target(instruction.operands[0], code)
    a, b = (source(o, kind, code) for o in instruction.operands[1:])
    if how in _OPPOSITE:
        compare = _COMPARE[_OPPOSITE[how]]
        return lambda m, idx: put(m, idx, ~compare(a(m, idx), b(m, idx)))
    if how == "ne" and kind[0] == "f":  # of numbers alone; "neu" is NumPy's
        return lambda m, idx: put(m, idx, (a(m, idx) < b(m, idx)) | (a(m, idx) > b(m, idx)))
    compare = _COMPARE[how.removesuffix("u") if how == "neu" else how]
    return lambda m, idx: put(m, idx, compare(a(m, idx), b(m, idx)))


def _selp(instruction: Instruction, code: Code) -> Word:
    put, kind = target(instruction.operands[0], code), instruction.parts[-1]
    a, b = (source(o, kind, code) for o in instruction.operands[1:3])
    choice = source(instruction.operands[3], "pred", code)
    return lambda m, idx: put(m, idx, np.where(choice(m, idx), a(m, idx), b(m, idx)))


def _mov(instruction: Instruction, code: Code) -> Word:
    to, what = instruction.operands
    if isinstance(to, tuple):  # a word as its two halves
        low, high = (target(part, code) for part in to)
        get = source(what, "b32", code)

        def split(m: Launch, idx: Lanes) -> None:
            word = get(m, idx)
            low(m, idx, word.astype(np.int16))
            high(m, idx, (word >> 16).astype(np.int16))

        return split
    return _plain(lambda value: value, 1)(instruction, code)


def _cvt(instruction: Instruction, code: Code) -> Word:
    put, (*how, to, kind) = target(instruction.operands[0], code), instruction.parts[1:]
    if to in ("f16x2", "bf16x2"):
        bits = bfloat16_bits if to == "bf16x2" else lambda x: x.astype(np.float16).view(np.uint16)
        high, low = (source(o, "f32", code) for o in instruction.operands[1:])

        def pair(m: Launch, idx: Lanes) -> None:
            two = [np.broadcast_to(get(m, idx), m.n if idx is None else len(idx)) for get in (low, high)]
            a, b = (bits(np.ascontiguousarray(x)).astype(np.uint32) for x in two)
            put(m, idx, a | b << 16)

        return pair
    if kind == "f16":
        get = source(instruction.operands[1], "b16", code)
        return lambda m, idx: put(m, idx, get(m, idx).view(np.float16).astype(np.float32))
    get = source(instruction.operands[1], kind, code)
    if to == "tf32":
        return lambda m, idx: put(m, idx, tf32(get(m, idx)))
    convert = _converter(tuple(how), to, kind)
    return lambda m, idx: put(m, idx, convert(get(m, idx)))


def tf32(x: Any) -> Any:
    """float32 as words rounded to 10 bits of fraction, nearest, ties away from zero."""
    word = x.view(np.uint32)
    return np.where(np.isfinite(x), word + np.uint32(0x1000) & np.uint32(0xFFFFE000), word)


def _converter(how: tuple[str, ...], to: str, kind: str) -> Callable[[Any], Any]:
    dtype = TYPES[to]
    rounded = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}
    if how == ("sat",) and to == kind == "f32":
        return lambda x: np.fmin(np.fmax(x, np.float32(0)), np.float32(1))
    if len(how) == 1 and how[0] in rounded and kind == "f32":
        bounds = None if to[0] == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)

        def to_whole(x: Any) -> Any:
            whole = rounded[how[0]](x)
            if bounds is None:
                return whole
            return np.clip(np.nan_to_num(whole.astype(np.float64)), *bounds).astype(dtype)

        return to_whole
    if how in ((), ("rn",)):
        return lambda x: x.astype(dtype)
    raise ValueError(f"unknown conversion: {how} {to} {kind}")


def _prmt(instruction: Instruction, code: Code) -> Word:
    """Bytes of a word chosen of eight, the sign of one repeated where asked."""
    put, (first, second, choice) = target(instruction.operands[0], code), instruction.operands[1:]
    a, b = source(first, "u32", code), source(second, "u32", code)
    if not isinstance(choice, np.generic) or len(instruction.parts) != 2:
        raise ValueError(f"unknown instruction: {instruction.text}")
    numbers = [int(choice) >> 4 * i & 15 for i in range(4)]

    def word(m: Launch, idx: Lanes) -> None:
        whole = a(m, idx).astype(np.uint64) | b(m, idx).astype(np.uint64) << np.uint64(32)
        out: Any = np.uint32(0)
        for i, number in enumerate(numbers):
            byte = (whole >> np.uint64(8 * (number & 7)) & np.uint64(255)).astype(np.uint32)
            if number & 8:
                byte = np.where(byte >> np.uint32(7), np.uint32(255), np.uint32(0))
            out = out | byte << np.uint32(8 * i)
        put(m, idx, out)

    return word


# Where to go on


def _bra(instruction: Instruction, code: Code) -> Word:
    to = code.labels[str(instruction.operands[0])]
    if instruction.guard is None:
        return lambda m, idx: m.go(idx, to)
    name, negated = instruction.guard
    get = source(name, "pred", code)

    def branch(m: Launch, idx: Lanes) -> None:
        m.go(idx, np.where(get(m, idx) ^ negated, to, m.pc if idx is None else m.pc[idx]))

    return branch


def _ret(instruction: Instruction, code: Code) -> Word:
    return lambda m, idx: m.leave(idx)


def _bar(instruction: Instruction, code: Code) -> Word:
    if instruction.name == "bar.sync" and len(instruction.operands) == 1:
        return lambda m, idx: m.wait(idx)
    if instruction.name != "bar.red.or.pred" or len(instruction.operands) != 3:
        raise ValueError(f"unknown instruction: {instruction.text}")
    put, get = target(instruction.operands[0], code), source(instruction.operands[2], "pred", code)

    def vote(m: Launch, idx: Lanes) -> None:
        m.vote(idx, get(m, idx), lambda value: put(m, idx, value if idx is None else value[idx]))

    return vote


def _membar(instruction: Instruction, code: Code) -> Word:
    def fence(m: Launch, idx: Lanes) -> None:
        m.fenced[m.thread if idx is None else m.thread[idx]] = m.clock

    return fence


MAKERS: dict[str, Callable[[Instruction, Code], Word]] = {
    "fma": _fma, "add": _add, "sub": _sub, "and": _and, "or": _or, "xor": _xor, "neg": _neg, "abs": _abs, "not":
    _not, "min": _min, "max": _max, "div": _div, "rem": _rem, "copysign": _copysign, "sqrt": _sqrt, "rcp": _rcp,
    "ex2": _ex2, "lg2": _lg2, "mul": _mul, "mad": _mad, "shl": _shl, "shr": _shr, "setp": _setp, "selp": _selp,
    "mov": _mov, "cvt": _cvt, "prmt": _prmt, "bra": _bra, "ret": _ret, "bar": _bar, "membar": _membar,
}  # fmt: skip
