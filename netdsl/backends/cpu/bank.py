"""Stored weights, and what is packed of them: once for all batch sizes, by several threads at a time."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.pages import release
from netdsl.backends.cpu.views import Data, aligned
from netdsl.graph.ir import Node, Weight, is_rowwise

F32 = NDArray[np.float32]

SLAB_FLOATS = 4 << 20  # chosen: 16 MiB at a time
PACKERS = 4  # chosen: threads that pack at most, as each needs room for what it works on


class Packed(Data):
    """Constant values that are packed when they are first asked for."""

    def __init__(self, make: Callable[[], F32]) -> None:
        self._make = make
        self._made: F32 | None = None
        self.unlock()

    def unlock(self) -> None:
        """A lock that nobody holds."""
        self._making = threading.Lock()

    @property
    def values(self) -> F32:
        """Raises what packing raises: WeightsError."""
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made


class Rows:
    """A weight [K, ...] whose rows are read and computed as they are taken, so that little of it is in memory at once.

    Pages of a mapped file that rows were made of are let go when the next are taken.
    """

    def __init__(self, bank: WeightBank, weight: Weight) -> None:
        self.shape = weight.shape
        self._bank, self._weight = bank, weight

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> F32:
        self._bank.let_go()
        return np.asarray(self._weight.evaluate(lambda name: self._bank.read(name, rows)), np.float32)


class WeightBank:
    """Stored tensors, and what was packed from them once for all batch sizes; in what precision, see precision.py."""

    def __init__(self, stored: Mapping[str, NDArray[Any]], precision: str = "float32") -> None:
        self.stored, self.precision = stored, precision
        self.packed: dict[tuple[Any, ...], Packed] = {}
        self._waiting: deque[Packed] = deque()
        self._local = _Reads()
        self._slabs: list[F32] = []
        self._used = 0  # floats of the last slab
        self.unlock()
        _banks.add(self)

    def unlock(self) -> None:
        """Locks that nobody holds, here and in all that is packed."""
        self._placing = threading.Lock()
        for packed in self.packed.values():
            packed.unlock()

    def value(self, node: Node, role: str) -> F32 | None:
        """A node's weight as float32, or None when it has none of that role."""
        return self.required(node, role) if node.weights.get(role) else None

    def required(self, node: Node, role: str) -> F32:
        """A node's weight as float32, which it must have."""
        return np.asarray(node.weights[role].evaluate(self.read), np.float32)

    def rows(self, node: Node, role: str) -> F32 | Rows:
        """A node's weight as float32, which it must have, to be taken some rows at a time."""
        weight = node.weights[role]
        return Rows(self, weight) if is_rowwise(weight) else self.required(node, role)

    def read(self, name: str, rows: slice = slice(None)) -> NDArray[Any]:
        """A stored tensor. Pages of a mapped file that it reads stay in memory until something is packed from them."""
        self._local.arrays.append(self.stored[name][rows])
        return self._local.arrays[-1]

    def let_go(self) -> None:
        """Of the pages of mapped files that this thread has read."""
        while self._local.arrays:
            release(self._local.arrays.pop())

    def pack(self, key: tuple[Any, ...], make: Callable[[], F32]) -> Data:
        """The packed form under `key`, on a cache line; made once, by `finish` unless it is asked for before."""
        if key not in self.packed:
            packed = Packed(lambda: self._placed(make()))
            self._waiting.append(packed)
            self.packed[key] = packed
        return self.packed[key]

    def finish(self, threads: int) -> None:
        """Pack what was asked for, on up to so many threads. Raises what packing raises: WeightsError."""
        waiting = list(self._waiting)
        helpers = [threading.Thread(target=self._work, daemon=True) for _ in range(min(threads, PACKERS) - 1)]
        for helper in helpers[: len(waiting)]:
            helper.start()
        self._work()
        for helper in helpers[: len(waiting)]:
            helper.join()
        for packed in waiting:  # what failed fails again, where its error is heard
            packed.values  # noqa: B018

    def _work(self) -> None:
        with suppress(IndexError):
            while True:
                packed = self._waiting.popleft()
                with suppress(Exception):
                    packed.values  # noqa: B018

    def _placed(self, made: F32) -> F32:
        if not self._holds(made):
            place = self.empty(made.size).reshape(made.shape)
            place[:] = made
            made = place
        self.let_go()
        return made

    def empty(self, count: int) -> F32:
        """Room for so many floats on a cache line: side by side in slabs, so that large pages can hold them."""
        whole = -(-count // 16) * 16
        with self._placing:
            if not self._slabs or self._used + whole > self._slabs[-1].size:
                self._slabs.append(aligned(max(whole, SLAB_FLOATS)))
                self._used = 0
            self._used += whole
            return self._slabs[-1][self._used - whole :][:count]

    def _holds(self, made: F32) -> bool:
        starts = [(s.ctypes.data, s.nbytes) for s in self._slabs]
        return any(a <= made.ctypes.data < a + size for a, size in starts) and made.flags.c_contiguous


class _Reads(threading.local):
    """Stored tensors that a thread has read and not packed yet."""

    def __init__(self) -> None:
        self.arrays: list[NDArray[Any]] = []


_banks: WeakSet[WeightBank] = WeakSet()


def _after_fork() -> None:
    for bank in _banks:  # a thread that was packing is not in the child: what it began is packed when it is asked for
        bank.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
