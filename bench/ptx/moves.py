"""What PTX instructions do with memory: loads, stores, atomic additions, fences, asynchronous copies.

Source: NVIDIA, Parallel Thread Execution ISA, chapters 5 (state spaces) and 9.7.9 (data movement).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ptx.memory import Array, Fault
from ptx.operands import TYPES, Lanes, Word, address_of, source, target
from ptx.text import Code, Instruction, Memory

if TYPE_CHECKING:
    from ptx.machine import Launch

ELSEWHERE = {"shared": 1 << 60, "local": 1 << 61}  # where other memory than the global lies among all addresses


def _cvta(instruction: Instruction, code: Code) -> Word:
    """Addresses of global memory are the same everywhere; shared and local memory lie behind all others."""
    put, get = target(instruction.operands[0], code), source(instruction.operands[1], "s64", code)
    away = next((place for space, place in ELSEWHERE.items() if space in instruction.parts), 0)
    away = -away if "to" in instruction.parts else away
    return lambda m, idx: put(m, idx, get(m, idx) + away)


def _width(parts: tuple[str, ...]) -> int:
    return next((int(p[1]) for p in parts if p in ("v2", "v4")), 1)


def _fetch(m: Launch, idx: Lanes, space: str, addresses: Array, dtype: Any, width: int) -> Array:
    """Values [lanes, width] at addresses."""
    size = np.dtype(dtype).itemsize
    threads = m.thread if idx is None else m.thread[idx]
    _count(m, idx, "load", space, addresses, size * width)
    if space == "global":
        places = m.card.places(addresses, size * width)
        if m.watching:
            units = (places >> 1)[:, None] + np.arange(max(1, size * width // 2))
            who = np.broadcast_to(threads[:, None], units.shape)
            m.watching.reads(units.ravel(), who.ravel(), m.clock, m.in_order)
        return m.card.bytes.view(dtype).reshape(-1, width)[places // (size * width)]
    if space == "local":
        return m.local[_own(m, idx, addresses, size * width)].view(dtype)
    words = _near(m, idx, addresses, size * width)
    if m.near:
        m.near.reads(words.ravel(), np.repeat(threads, words.shape[1]), m.clock, m.in_block_order)
        m.copies.landed(words)
    return m.shared[words].view(dtype)


def _store(m: Launch, idx: Lanes, space: str, addresses: Array, values: Array) -> None:
    """Values [lanes, width] to addresses."""
    size, width = values.dtype.itemsize, values.shape[1]
    threads = m.thread if idx is None else m.thread[idx]
    _count(m, idx, "store", space, addresses, size * width)
    if space == "global":
        places = m.card.places(addresses, size * width)
        if m.watching:
            units = (places >> 1)[:, None] + np.arange(max(1, size * width // 2))
            who = np.broadcast_to(threads[:, None], units.shape)
            m.watching.writes(units.ravel(), who.ravel(), m.clock, m.in_order)
        m.card.bytes.view(values.dtype).reshape(-1, width)[places // (size * width)] = values
        return
    if space == "local":
        m.local[_own(m, idx, addresses, size * width)] = values.view(np.uint32)
        return
    words = _near(m, idx, addresses, size * width)
    if m.near:
        m.near.writes(words.ravel(), np.repeat(threads, words.shape[1]), m.clock, m.in_block_order)
        m.copies.landed(words)
    m.shared[words] = values.view(np.uint32)


def _count(m: Launch, idx: Lanes, kind: str, space: str, addresses: Array, size: int) -> None:
    """Count what lanes move, where somebody counts."""
    if m.traffic and len(addresses):
        lanes = np.arange(m.n) if idx is None else idx
        if space == "global":
            m.traffic.of_global(kind, lanes, addresses, size)
        elif space == "shared":
            m.traffic.of_shared(lanes, addresses, size)


def _near(m: Launch, idx: Lanes, addresses: Array, size: int) -> Array:
    """Words [lanes, size / 4] of shared memory."""
    return _words(m.block if idx is None else m.block[idx], m.shared_words, addresses, size)


def _own(m: Launch, idx: Lanes, addresses: Array, size: int) -> Array:
    """Words [lanes, size / 4] of local memory."""
    return _words(np.arange(m.n) if idx is None else idx, m.local_words, addresses, size)


def _words(owners: Array, each: int, addresses: Array, size: int) -> Array:
    """Words at addresses in memory of which every owner has so many words."""
    if size < 4 or (addresses & size - 1).any():
        raise Fault(f"an address is no multiple of {max(4, size)}")
    if (addresses < 0).any() or (addresses + size > 4 * each).any():
        raise Fault("an address is outside of the block's or thread's memory")
    return (owners * each + (addresses >> 2))[:, None] + np.arange(size // 4)


def _space(instruction: Instruction) -> str:
    space = instruction.parts[1]
    if space not in ("global", "shared", "local", "param"):
        raise ValueError(f"unknown space: {instruction.text}")
    return space


def _ld(instruction: Instruction, code: Code) -> Word:
    space, kind, width = _space(instruction), instruction.parts[-1], _width(instruction.parts)
    to, place = instruction.operands
    puts = [target(part, code) for part in (to if isinstance(to, tuple) else (to,))]
    if space == "param":
        assert isinstance(place, Memory) and not place.offset
        name, dtype = place.base, TYPES[kind]

        def parameter(m: Launch, idx: Lanes) -> None:
            word = np.int64(m.parameters[name])
            puts[0](m, None, np.atleast_1d(word).view(dtype)[0])

        return parameter
    address = address_of(place, code)

    def load(m: Launch, idx: Lanes) -> None:
        found = _fetch(m, idx, space, address(m, idx), TYPES[kind], width)
        for put, column in zip(puts, found.T, strict=True):
            put(m, idx, np.ascontiguousarray(column))

    return load


def _st(instruction: Instruction, code: Code) -> Word:
    space, kind = _space(instruction), instruction.parts[-1]
    place, what = instruction.operands
    address = address_of(place, code)
    gets = [source(part, kind, code) for part in (what if isinstance(what, tuple) else (what,))]

    def store(m: Launch, idx: Lanes) -> None:
        to = address(m, idx)
        values = np.stack([np.broadcast_to(get(m, idx), len(to)) for get in gets], axis=1)
        _store(m, idx, space, to, values)

    return store


def _atom(instruction: Instruction, code: Code) -> Word:
    if instruction.name != "atom.global.add.u32":
        raise ValueError(f"unknown instruction: {instruction.text}")
    put, address = target(instruction.operands[0], code), address_of(instruction.operands[1], code)
    get = source(instruction.operands[2], "u32", code)

    def add(m: Launch, idx: Lanes) -> None:
        places = m.card.places(address(m, idx), 4) >> 2
        words, more = m.card.bytes.view(np.uint32), np.broadcast_to(get(m, idx), len(places))
        old = np.empty(len(places), np.uint32)
        for i, place in enumerate(places):
            old[i] = words[place]
            words[place] += more[i]
        m.acquired[(m.thread if idx is None else m.thread[idx]) // m._size] = m.clock
        put(m, idx, old)

    return add


class Copies:
    """Asynchronous copies to shared memory: they arrive when their thread waits for them, and not before."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._closed = np.zeros(launch.n, np.int32)  # groups that a lane has closed
        self._flying: list[tuple[Array, Array, Array, Array]] = []  # lanes, their groups, words, values
        self._aimed = np.zeros(len(launch.shared), bool)  # whether a copy is on its way to a word

    def start(self, idx: Lanes, words: Array, values: Array) -> None:
        m = self._launch
        lanes = np.arange(m.n) if idx is None else idx
        self.landed(words)
        if m.near:
            m.near.writes(words.ravel(), np.repeat(m.thread[lanes], words.shape[1]), m.clock, m.in_block_order)
        self._aimed[words] = True
        m.shared[words] = 0xFFFFFFFF
        self._flying.append((lanes, self._closed[lanes], words, values))

    def commit(self, idx: Lanes) -> None:
        self._closed[slice(None) if idx is None else idx] += 1

    def wait(self, idx: Lanes, newest: int) -> None:
        """Copies of all but the newest groups of these lanes arrive."""
        m = self._launch
        asked = np.zeros(m.n, bool)
        asked[slice(None) if idx is None else idx] = True
        flying, self._flying = self._flying, []
        for lanes, groups, words, values in flying:
            there = asked[lanes] & (groups < self._closed[lanes] - newest)
            m.shared[words[there]] = values[there]
            self._aimed[words[there]] = False
            if m.near:
                m.near.written[words[there].ravel()] = m.clock  # other threads see them after a barrier from now
            if not there.all():
                left = ~there
                self._flying.append((lanes[left], groups[left], words[left], values[left]))

    def landed(self, words: Array) -> None:
        """Raises Fault if a copy is on its way to any of the words."""
        if self._aimed[words].any():
            raise Fault("shared memory is touched to which a copy is on its way")


def _cp(instruction: Instruction, code: Code) -> Word:
    if instruction.name == "cp.async.commit_group":
        return lambda m, idx: m.copies.commit(idx)
    if instruction.name == "cp.async.wait_group":
        newest = int(instruction.operands[0])  # type: ignore[arg-type]
        return lambda m, idx: m.copies.wait(idx, newest)
    if instruction.name != "cp.async.cg.shared.global" or instruction.operands[2] != 16:
        raise ValueError(f"unknown instruction: {instruction.text}")
    to, place = address_of(instruction.operands[0], code), address_of(instruction.operands[1], code)
    count = source(instruction.operands[3], "u32", code) if len(instruction.operands) > 3 else None

    def copy(m: Launch, idx: Lanes) -> None:
        """16 bytes, of which those past `count` are zeros and are not read."""
        lanes = np.arange(m.n) if idx is None else idx
        whole = np.ones(len(lanes), bool)
        if count is not None:
            sizes = np.broadcast_to(count(m, idx), len(lanes))
            if not np.isin(sizes, (0, 16)).all():
                raise ValueError("a copy of a part of 16 bytes")
            whole = sizes == 16
        sources = place(m, idx)
        values = np.zeros((len(lanes), 4), np.uint32)
        if (sources & 15).any():
            raise Fault("an address is no multiple of 16")
        if whole.any():
            values[whole] = _fetch(m, lanes[whole], "global", sources[whole], np.uint32, 4)
        _count(m, idx, "store", "shared", to(m, idx), 16)
        m.copies.start(idx, _near(m, idx, to(m, idx), 16), values)

    return copy


MAKERS: dict[str, Callable[[Instruction, Code], Word]] = {
    "cvta": _cvta, "ld": _ld, "st": _st, "atom": _atom, "cp": _cp,
}  # fmt: skip
