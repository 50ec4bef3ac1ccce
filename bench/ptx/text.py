"""PTX text as blocks of instructions, for `machine.py`: what numba.cuda's compiler writes of PTX, and no more.

Source: NVIDIA, Parallel Thread Execution ISA, chapters 4 (syntax) and 5 (state spaces, types, variables).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(\w+)")
_VARIABLE = re.compile(r"\.(shared|local)\s+\.align\s+(\d+)\s+\.b8\s+(\w+)\[(\d+)\]")
_GUARD = re.compile(r"@(!?)(%\w+)\s+")
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+([^;]+)")
_LABEL = re.compile(r"\$?\w+")
_END = re.compile(r"^(bra|ret|exit|bar|barrier)\b")  # what the instructions of a block end with

Scalar = np.generic


@dataclass(frozen=True)
class Memory:
    """An operand in brackets: a register or the name of a variable, and bytes to add."""

    base: str
    offset: int


Operand = str | Scalar | Memory | tuple["Operand", ...]  # a register or name, a number, an address, a vector


@dataclass(frozen=True)
class Instruction:
    """One instruction. name: with all its suffixes; guard: the predicate that it depends on, and whether negated."""

    name: str
    operands: tuple[Operand, ...]
    guard: tuple[str, bool] | None
    text: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The name, taken apart: ("fma", "rn", "f32")."""
        return tuple(self.name.split("."))


@dataclass(frozen=True)
class Code:
    """A kernel.

    parameters      types by name, in order
    registers       types by name
    variables       of shared and of local memory, each with places of its own: those by name
    shared_bytes    that variables of shared memory take together
    local_bytes     that those of local memory take, of each thread
    blocks          instructions between labels, branches and barriers
    labels          number of the block that follows each label
    threads         of a block that the kernel is compiled for, or 0
    """

    parameters: dict[str, str]
    registers: dict[str, str]
    variables: dict[str, int]
    shared_bytes: int
    local_bytes: int
    blocks: tuple[tuple[Instruction, ...], ...]
    labels: dict[str, int]
    threads: int


def parse(text: str) -> Code:
    """The one kernel of a PTX module. Raises ValueError for what is not understood."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)
    _, _, rest = text.partition(".entry")
    if not rest or ".entry" in rest or ".func" in text:
        raise ValueError("not a module of one kernel")
    variables, sizes = {}, {"shared": 0, "local": 0}
    for space, align, name, length in _VARIABLE.findall(text):
        variables[name] = -(-sizes[space] // int(align)) * int(align)
        sizes[space] = variables[name] + int(length)
    signature, _, body = rest.partition("{")
    threads = re.search(r"\.maxntid\s+(\d+)", signature)
    reader = _Reader()
    reader.read(body[: body.rindex("}")])
    blocks = tuple(tuple(block) for block in reader.blocks)
    return Code(
        {name: kind for kind, name in _PARAMETER.findall(signature)}, reader.registers, variables, sizes["shared"],
        sizes["local"], blocks, reader.labels, int(threads[1]) if threads else 0,
    )  # fmt: skip


class _Reader:
    """Collects the blocks of a kernel's body. Names in braces within it are registers of their own."""

    def __init__(self) -> None:
        self.blocks: list[list[Instruction]] = [[]]
        self.labels: dict[str, int] = {}
        self.registers: dict[str, str] = {}
        self._scopes: list[dict[str, str]] = [{}]
        self._numbers = count()

    def read(self, body: str) -> None:
        for statement in _statements(body):
            if statement == "{":
                self._scopes.append({})
            elif statement == "}":
                self._scopes.pop()
            elif statement.endswith(":"):
                self._next_block()
                self.labels[statement[:-1]] = len(self.blocks) - 1
            elif statement.startswith(".reg"):
                self._declare(statement)
            elif statement.startswith("."):
                if not statement.startswith((".pragma", ".local")):
                    raise ValueError(f"unknown directive: {statement}")
            else:
                self.blocks[-1].append(self._instruction(statement))
                if _END.match(self.blocks[-1][-1].name):
                    self._next_block()

    def _next_block(self) -> None:
        if self.blocks[-1]:
            self.blocks.append([])

    def _declare(self, statement: str) -> None:
        found = _REGISTERS.match(statement)
        if found is None:
            raise ValueError(f"unknown declaration: {statement}")
        kind, names = found[1], [name.strip() for name in found[2].split(",")]
        inner = f"@{next(self._numbers)}" if len(self._scopes) > 1 else ""
        for name in names:
            many = re.fullmatch(r"(.+)<(\d+)>", name)
            for each in [f"{many[1]}{i}" for i in range(int(many[2]))] if many else [name]:
                self._scopes[-1][each] = each + inner
                self.registers[each + inner] = kind

    def _instruction(self, statement: str) -> Instruction:
        guard = None
        if found := _GUARD.match(statement):
            guard = self._register(found[2]), bool(found[1])
            statement = statement[found.end() :]
        name, _, rest = statement.partition(" ")
        return Instruction(name, tuple(self._operand(o) for o in _split(rest)), guard, statement)

    def _register(self, name: str) -> str:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        return name

    def _operand(self, text: str) -> Operand:
        if text.startswith("{"):
            return tuple(self._operand(o) for o in _split(text[1:-1]))
        if text.startswith("["):
            base, _, offset = text[1:-1].partition("+")
            return Memory(self._register(base.strip()), int(offset or "0", 0))
        if re.match(r"0[fF][0-9a-fA-F]{8}$", text):
            return np.float32(struct.unpack(">f", bytes.fromhex(text[2:]))[0])
        if re.match(r"0[dD][0-9a-fA-F]{16}$", text):
            return np.float64(struct.unpack(">d", bytes.fromhex(text[2:]))[0])
        if re.match(r"-?(\d|0x)", text):
            number = int(text.rstrip("U"), 0)
            return np.int64(number - 2**64 if number >= 2**63 else number)
        return self._register(text)


def _statements(body: str) -> Iterator[str]:
    """Statements without their semicolons; labels with their colons; braces that open and close scopes."""
    start = depth = 0  # depth: of braces within the statement
    for i, char in enumerate(body):
        begun = body[start:i].strip()
        if char in "{}" and not begun:
            yield char
        elif char == ":" and _LABEL.fullmatch(begun):
            yield begun + ":"
        elif char == ";" and not depth:
            yield re.sub(r"\s+", " ", begun)
        else:
            depth += (char == "{") - (char == "}")
            continue
        start = i + 1


def _split(text: str) -> list[str]:
    """Operands: what stands between commas outside of braces and brackets."""
    out, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char in "{[") - (char in "}]")
        if char == "," and not depth:
            out.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*out, last] if last else out
