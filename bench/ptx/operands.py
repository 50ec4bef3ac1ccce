"""Operands of PTX instructions: registers, constants and addresses as values of the threads that run.

Lanes are None for all of those that run together, else their numbers. Registers hold an array of a value for each lane,
or one value for all; an array is never changed in place, as several registers may share it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ptx.memory import Array, Fault
from ptx.text import Code, Memory, Operand

if TYPE_CHECKING:
    from ptx.machine import Launch

Lanes = Array | None
Word = Callable[["Launch", Lanes], None]
Get = Callable[["Launch", Lanes], Any]
Put = Callable[["Launch", Lanes, Any], None]

TYPES: dict[str, Any] = {
    "pred": np.bool_, "b16": np.int16, "u16": np.uint16, "s16": np.int16, "b32": np.int32, "u32": np.uint32,
    "s32": np.int32, "b64": np.int64, "u64": np.uint64, "s64": np.int64, "f32": np.float32, "f64": np.float64,
}  # fmt: skip


def source(operand: Operand, kind: str, code: Code) -> Get:
    """Reads an operand as values of a type: an array with a value for each lane, or one value."""
    dtype = np.dtype(TYPES[kind])
    if isinstance(operand, np.generic):
        constant = np.asarray(operand).astype(dtype)[()]
        return lambda m, idx: constant
    if not isinstance(operand, str):
        raise ValueError(f"no value: {operand}")
    if operand in code.variables:
        place = np.int64(code.variables[operand]).astype(dtype)
        return lambda m, idx: place

    def get(m: Launch, idx: Lanes) -> Any:
        value = m.registers.get(operand) if operand in code.registers else m.special[operand]
        if value is None:
            raise Fault(f"{operand} is read before it is written")
        if value.dtype != dtype:
            value = value.view(dtype) if value.dtype.itemsize == dtype.itemsize else value.astype(dtype)
        return value if idx is None or not value.ndim else value[idx]

    return get


def target(operand: Operand, code: Code) -> Put:
    """Writes values to a register, those of a smaller type extended."""
    assert isinstance(operand, str)
    dtype = np.dtype(TYPES[code.registers[operand]])

    def put(m: Launch, idx: Lanes, value: Any) -> None:
        if value.dtype != dtype:
            value = value.view(dtype) if value.dtype.itemsize == dtype.itemsize else value.astype(dtype)
        if idx is not None:
            old = m.registers.get(operand)
            whole = np.zeros(m.n, dtype) if old is None else np.array(np.broadcast_to(old, m.n))
            whole[idx] = value
            value = whole
        m.registers[operand] = value

    return put


def address_of(operand: Operand, code: Code) -> Get:
    """The addresses an operand means, one for each lane."""
    assert isinstance(operand, Memory)
    get = source(operand.base, "s64" if code.registers.get(operand.base) != "b32" else "u32", code)

    def address(m: Launch, idx: Lanes) -> Any:
        count = m.n if idx is None else len(idx)
        return np.broadcast_to(get(m, idx).astype(np.int64) + operand.offset, count)

    return address
