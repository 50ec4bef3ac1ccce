"""PTX run without a GPU: a machine made of NumPy that holds kernels to the rules, whether or not a GPU would notice.

Every register is an array with a value for each thread of several blocks. Threads that have come apart go on from the
place furthest back, so that they meet again. What a kernel must not rely on does not happen: asynchronous copies arrive
when they are waited for and not before; threads that nothing orders may not touch the same place (`memory.py`); a
barrier is for all threads of a block, and a warp's product for all of a warp. Memory nobody wrote holds nan.

Not shown: what the assembler makes of PTX, and time.

Source: NVIDIA, Parallel Thread Execution ISA, chapters 8 (memory consistency) and 9 (instructions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ptx import moves, tensor, words
from ptx.memory import MANY, Array, Card, Fault, Watch
from ptx.operands import Lanes, Word, source
from ptx.text import Code, Instruction
from ptx.traffic import Traffic

LANES = 8192  # chosen: threads that run together, so that their registers stay in the second-level cache
WARP = 32


MAKERS = {**words.MAKERS, **moves.MAKERS, **tensor.MAKERS}


class Machine:
    """Runs kernels on a card's memory, one launch after another.

    watch    whether to see to it that threads do not meet in memory unordered (takes as long again)
    traffic  counts what is moved, if there is one
    """

    def __init__(self, card: Card, watch: bool = True, lanes: int = LANES, traffic: Traffic | None = None) -> None:
        self.card, self.watch, self.lanes, self.traffic = card, watch, lanes, traffic
        self._ready: dict[int, tuple[Code, list[Any]]] = {}

    def launch(self, code: Code, grid: Sequence[int], block: Sequence[int], parameters: Sequence[int]) -> None:
        """Run a grid to its end; parameters: their values, one word of 8 bytes each.

        Raises Fault for what a kernel may not do.
        """
        threads, blocks = math.prod(block), math.prod(grid)
        if code.threads not in (0, threads):
            raise Fault(f"compiled for {code.threads} threads, launched with {threads}")
        if threads > 1024 or max(grid[1:]) > 65535 or code.shared_bytes > 48 * 1024:
            raise Fault("no such launch is possible")
        if id(code) not in self._ready:
            self._ready[id(code)] = code, [[_built(i, code) for i in b] for b in code.blocks]
        run = Launch(self, code, self._ready[id(code)][1], tuple(grid), tuple(block), parameters)
        step = max(1, self.lanes // threads)
        for first in range(0, blocks, step):
            run.some(first, min(step, blocks - first))


class Launch:
    """The state of a launch. What concerns threads is an array: `lanes` of the blocks that run, `threads` of all."""

    def __init__(
        self, machine: Machine, code: Code, ready: list[Any], grid: tuple[int, ...], block: tuple[int, ...],
        parameters: Sequence[int],
    ) -> None:  # fmt: skip
        self.code, self.card, self.traffic = code, machine.card, machine.traffic
        self.watching = Watch(self.card.end // 2) if machine.watch else None
        self._blocks, self._grid, self._block, self._size = ready, grid, block, math.prod(block)
        self.parameters = dict(zip(code.parameters, parameters, strict=True))
        self.shared_words = max(1, -(-code.shared_bytes // 16) * 4)
        self.local_words = -(-code.local_bytes // 16) * 4
        threads = math.prod(grid) * self._size
        self.clock = 1
        self.fenced = np.zeros(threads, np.int32)  # when a thread last made what it wrote visible to all
        self.acquired = np.zeros(math.prod(grid), np.int32)  # when a block last asked what others have done
        self.met = np.zeros(math.prod(grid), np.int32)  # when a block last met at a barrier

    def some(self, first: int, count: int) -> None:
        """Run a number of blocks side by side."""
        n = self.n = count * self._size
        lanes = np.arange(n, dtype=np.int32)
        self.thread = lanes + first * self._size
        self.block = lanes // self._size  # number of a lane's block among those that run
        self.special = self._special(first, count)
        self.registers: dict[str, Any] = {}
        self.shared = np.full(count * self.shared_words, 0xFFFFFFFF, np.uint32)
        self.local = np.full(n * self.local_words, 0xFFFFFFFF, np.uint32)
        self.near = Watch(len(self.shared)) if self.watching else None
        self.copies = moves.Copies(self)
        self.pc, self.waiting = np.zeros(n, np.int32), np.zeros(n, bool)
        self._votes: list[Callable[[], None]] = []  # what is to be done when the barrier is passed
        end = len(self._blocks)
        while True:
            free = (self.pc < end) & ~self.waiting
            if not free.any():
                if not self.waiting.any():
                    return
                self._release()
                continue
            here = int(self.pc[free].min())
            now = free & (self.pc == here)
            self._run(here, None if now.all() else np.flatnonzero(now))

    def _run(self, here: int, idx: Array | None) -> None:
        """Let some lanes (None: all) run a block of instructions."""
        self.go(idx, here + 1)
        at = 0
        try:
            for at, word in enumerate(self._blocks[here]):  # noqa: B007
                word(self, idx)
                self.clock += 1
        except Fault as fault:
            raise Fault(f"{fault}, at: {self.code.blocks[here][at].text}") from None

    def go(self, idx: Array | None, to: Any) -> None:
        """Where lanes go on."""
        self.pc[slice(None) if idx is None else idx] = to

    def leave(self, idx: Array | None) -> None:
        """Lanes have come to their end."""
        self.go(idx, len(self._blocks))

    def wait(self, idx: Array | None) -> None:
        """Lanes have come to a barrier."""
        self.waiting[slice(None) if idx is None else idx] = True

    def _release(self) -> None:
        """All that can run have come to barriers: each block's threads go on if all are there."""
        waiting, pc = self.waiting.reshape(-1, self._size), self.pc.reshape(-1, self._size)
        some = waiting.any(axis=1)
        if not waiting[some].all():
            raise Fault("threads wait at a barrier that others of their block never come to")
        if (pc[some] != pc[some, :1]).any():
            raise Fault("threads of a block wait at different barriers")
        for block in np.flatnonzero(some):
            self.met[self.thread[block * self._size] // self._size] = self.clock
        pending, self._votes = self._votes, []
        for vote in pending:
            vote()
        self.clock += 1
        waiting[:] = False

    def vote(self, idx: Array | None, value: Array, put: Callable[[Array], None]) -> None:
        """Give every lane the disjunction over its block of `value`, once all have come."""
        given = np.zeros(self.n, bool)
        given[slice(None) if idx is None else idx] = value
        self.wait(idx)
        self._votes.append(lambda: put(np.repeat(given.reshape(-1, self._size).any(axis=1), self._size)))

    def whole_warps(self, idx: Array | None) -> Array:
        """The lanes of the warps that take part. Raises Fault where one is not whole."""
        lanes = np.arange(self.n) if idx is None else idx
        if self._size % WARP or len(lanes) % WARP:
            raise Fault("a part of a warp takes part in what is for all of it")
        lanes = lanes.reshape(-1, WARP)
        if (lanes != lanes[:, :1] + np.arange(WARP)).any() or (lanes[:, 0] % WARP).any():
            raise Fault("a part of a warp takes part in what is for all of it")
        return lanes

    def in_order(self, earlier: Array, times: Array, threads: Array) -> Array:
        """Whether what threads did then comes before what others do now."""
        block, other = threads // self._size, earlier // self._size
        fenced = self.fenced[earlier]
        across = (fenced > times) & (self.acquired[block] > fenced)
        return np.where(earlier == MANY, False, np.where(block == other, self.met[block] > times, across))

    def in_block_order(self, earlier: Array, times: Array, threads: Array) -> Array:
        """The same in shared memory, whose threads are of one block."""
        return self.met[threads // self._size] > times

    def _special(self, first: int, count: int) -> dict[str, Any]:
        lanes = np.arange(count * self._size)
        out = {}
        for name, number, sizes in (("tid", lanes % self._size, self._block),
                                    ("ctaid", lanes // self._size + first, self._grid)):  # fmt: skip
            for axis in "xyz":
                size = sizes["xyz".index(axis)]
                out[f"%{name}.{axis}"] = (number % size).astype(np.int32)
                number = number // size
        for name, sizes in (("ntid", self._block), ("nctaid", self._grid)):
            out |= {f"%{name}.{axis}": np.int32(size) for axis, size in zip("xyz", sizes, strict=True)}
        return out


def _built(instruction: Instruction, code: Code) -> Word:
    """An instruction as a function. Raises ValueError for one that is not known."""
    maker = MAKERS.get(instruction.parts[0])
    if maker is None:
        raise ValueError(f"unknown instruction: {instruction.text}")
    word = maker(instruction, code)
    if instruction.guard is None or instruction.parts[0] == "bra":
        return word
    return _guarded(word, instruction, code)


def _guarded(word: Word, instruction: Instruction, code: Code) -> Word:
    assert instruction.guard is not None
    name, negated = instruction.guard
    get = source(name, "pred", code)

    def guarded(m: Launch, idx: Lanes) -> None:
        chosen = np.broadcast_to(get(m, idx) ^ negated, m.n if idx is None else len(idx))
        lanes = np.flatnonzero(chosen) if idx is None else idx[chosen]
        if len(lanes) == m.n:
            word(m, None)
        elif len(lanes):
            word(m, lanes)

    return guarded
