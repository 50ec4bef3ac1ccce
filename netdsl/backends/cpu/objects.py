"""Object files placed into memory without a linker.

Kernels are compiled for the large code model: every address in them is an absolute one of 64 bits, so nothing has to
lie near anything else, and a linker is left with copying sections and filling in addresses. Where an object asks for
more than that, or the system is another than x86-64 Linux, `place` declines and LLVM's linker does it; but loading LLVM
takes a tenth of a second and 50 MB.

Format: System V ABI, chapters 4 and 5, and its AMD64 supplement, section 4.4 (relocation types).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

from netdsl.frozen import frozen

_X86_64_RELOCATABLE = struct.pack("<4sBBB9xHHI", b"\x7fELF", 2, 1, 1, 1, 62, 1)  # the first 24 bytes of the file
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_PROGBITS, _SYMTAB, _RELA, _NOBITS, _UNWIND = 1, 2, 4, 8, 0x70000001
_WRITE, _ALLOC, _TLS = 1, 2, 0x400
_R_64 = 1  # the address of a symbol, 64 bits, plus an addend
_UNDEFINED = 0


class _Declined(Exception):
    """An object asks for what is not done here."""


@frozen
class _Section:
    kind: int
    flags: int
    at: int  # in the file
    size: int
    link: int
    target: int
    align: int


def place(code: bytes, symbol: str) -> int | None:
    """The address of a function of an object file, whose code can now be run; None where LLVM must link it."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    with suppress(_Declined, OSError, ValueError, IndexError, OverflowError, struct.error):  # a file gone wrong too
        return _place(code, symbol.encode())
    return None


def _place(code: bytes, symbol: bytes) -> int:
    """Memory with code in it is never given back: a thread may run it to the very end of the process."""
    sections = _sections(code)
    offsets, size = _layout(sections)
    base = _memory(size)
    try:
        names, addresses = _symbols(code, sections, {i: base + offset for i, offset in offsets.items()})
        entry = addresses[names.index(symbol)]
        ctypes.memmove(base, bytes(_filled(code, sections, offsets, size, addresses)), size)
        if entry is None or not _executable(base, size):
            raise _Declined
    except BaseException:
        _process().munmap(base, size)
        raise
    return entry


def _filled(
    code: bytes, sections: list[_Section], offsets: dict[int, int], size: int, addresses: list[int | None]
) -> bytearray:
    """What memory is to hold: the sections, addresses filled in."""
    image = bytearray(size)
    for i, offset in offsets.items():
        image[offset : offset + sections[i].size] = code[sections[i].at : sections[i].at + sections[i].size]
    for offset, index, addend in _relocations(code, sections, offsets):
        address = addresses[index]
        if address is None:
            raise _Declined
        struct.pack_into("<Q", image, offset, (address + addend) % 2**64)
    return image


def _sections(code: bytes) -> list[_Section]:
    if not code.startswith(_X86_64_RELOCATABLE):
        raise _Declined
    (start,) = struct.unpack_from("<Q", code, 40)
    each, count = struct.unpack_from("<HH", code, 58)
    if each != _SECTION.size:
        raise _Declined
    found = []
    for i in range(count):
        _, kind, flags, _, at, size, link, target, align, _ = _SECTION.unpack_from(code, start + i * each)
        if kind != _NOBITS and at + size > len(code):
            raise _Declined
        found.append(_Section(kind, flags, at, size, link, target, align))
    return found


def _layout(sections: list[_Section]) -> tuple[dict[int, int], int]:
    """Where each section that is needed at run time lies, and the bytes of all. Tables for unwinding are not needed."""
    offsets, size = {}, 0
    for i, section in enumerate(sections):
        if not section.flags & _ALLOC or section.kind == _UNWIND:
            continue
        if section.kind != _PROGBITS or section.flags & (_WRITE | _TLS) or section.align > mmap.PAGESIZE:
            raise _Declined
        align = max(1, section.align)
        offsets[i] = -(-size // align) * align
        size = offsets[i] + section.size
    if not size:
        raise _Declined
    return offsets, size


def _symbols(code: bytes, sections: list[_Section], bases: dict[int, int]) -> tuple[list[bytes], list[int | None]]:
    """Names and addresses of the symbol table's entries; None for one in a section that is not placed."""
    tables = [s for s in sections if s.kind == _SYMTAB]
    if len(tables) != 1 or tables[0].link >= len(sections):
        raise _Declined
    (table,), strings = tables, sections[tables[0].link]
    names: list[bytes] = []
    addresses: list[int | None] = []
    for at in range(table.at, table.at + table.size, _SYMBOL.size):
        name, _, _, section, value, _ = _SYMBOL.unpack_from(code, at)
        start = strings.at + name
        names.append(code[start : code.index(b"\0", start)])
        if section in bases:
            addresses.append(bases[section] + value)
        elif section == _UNDEFINED and names[-1]:
            addresses.append(_outside(names[-1]))
        else:
            addresses.append(None)
    return names, addresses


def _outside(name: bytes) -> int:
    """The address of a function of the process, such as fmaf."""
    try:
        function = _process()[name.decode()]
    except AttributeError:
        raise _Declined from None
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address
    return address


def _relocations(code: bytes, sections: list[_Section], offsets: dict[int, int]) -> Iterator[tuple[int, int, int]]:
    """What to fill in: (place, index of a symbol, addend)."""
    for section in sections:
        if section.kind != _RELA or section.target not in offsets:
            continue
        for at in range(section.at, section.at + section.size, _RELOCATION.size):
            offset, info, addend = _RELOCATION.unpack_from(code, at)
            if info & 0xFFFFFFFF != _R_64 or offset + 8 > sections[section.target].size:
                raise _Declined
            yield offsets[section.target] + offset, info >> 32, addend


def _memory(size: int) -> int:
    """Memory of one's own, zeros, that can be written."""
    rights, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address: int = _process().mmap(None, size, rights, kind, -1, 0)
    if address == 2**64 - 1:
        raise _Declined
    return address


def _executable(address: int, size: int) -> bool:
    """Make memory executable rather than writable; whether the system allows it."""
    done: int = _process().mprotect(address, size, mmap.PROT_READ | mmap.PROT_EXEC)
    return done == 0


@cache
def _process() -> ctypes.CDLL:
    """What this process has loaded, the C library among it."""
    library, pointer, size, number = ctypes.CDLL(None), ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    library.mmap.restype = pointer
    library.mmap.argtypes = pointer, size, number, number, number, ctypes.c_long
    library.mprotect.argtypes = pointer, size, number
    library.munmap.argtypes = pointer, size
    return library
