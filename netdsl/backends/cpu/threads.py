"""The team of threads that runs a compiled network: the caller and workers that wait for it.

Workers are Python threads that spend their life in machine code without the interpreter's lock. One call at a time has
the team; a call that finds it taken runs on its own thread alone, so many callers never wait for each other's barriers.
A call of some microseconds keeps the interpreter's lock, which takes longer than that to go round among many callers.
Results do not depend on which happens: work is split by outputs, never within a sum.

A worker that is woken is kept off its caller's processor, where the system says which that is (Linux). A scheduler that
packs light loads onto few processors would wake it there, where it waits until the caller has done all work by itself.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from netdsl.backends.cpu import jit
from netdsl.backends.cpu.mailbox import LINE, MAILBOX_BYTES, MOST_THREADS

_parameters = [ctypes.c_int64] * 6
_native = ctypes.CFUNCTYPE(None, *_parameters)
_native_brief = ctypes.PYFUNCTYPE(None, *_parameters)  # keeps the interpreter's lock
_own_processor = getattr(ctypes.CDLL(None), "sched_getcpu", None) if sys.platform == "linux" else None
_native_serve = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)


def available_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Team:
    """Workers, their mailbox, and the entry to run a table of steps on them."""

    def __init__(self) -> None:
        self._run = _native(jit.load(jit.RUN)[0])
        self._run_brief = _native_brief(jit.load(jit.RUN)[0])
        self._free = threading.Lock()
        self._counting = threading.Lock()
        self._callers = 0
        self._memory = np.zeros((MAILBOX_BYTES + LINE) // 8, np.int64)
        self._mailbox = -(-self._memory.ctypes.data // LINE) * LINE
        self._gates: list[threading.Semaphore] = [threading.Semaphore(0)]
        self._workers: dict[int, int] = {}  # what the system calls each worker's thread
        self._kept: dict[int, set[int]] = {}  # the processors that each worker was last kept to
        self._local = threading.local()

    def run(self, table: int, steps: int, threads: int) -> None:
        """Run a table of steps with up to so many threads."""
        if threads > 1:
            with self._counting:
                self._callers += 1
            try:
                if self._callers == 1 and self._free.acquire(blocking=False):
                    try:
                        return self._together(table, steps, min(threads, MOST_THREADS))
                    finally:
                        self._free.release()
                return self._alone(table, steps)
            finally:
                with self._counting:
                    self._callers -= 1
        return self._alone(table, steps)

    def starter(self, table: int, steps: int, brief: bool) -> Callable[[], Any]:
        """A function that runs a table of steps on its caller's thread, for one call at a time; survives a fork.

        Its arguments are ctypes' own numbers, made once: that takes half the time of a call.

        brief  the steps take less than the interpreter's lock takes to change hands among many callers, so that it is
               kept meanwhile: callers that gave it up for a few microseconds would spend more on getting it back
        """
        words = np.zeros(1, np.int64)
        values = [ctypes.c_int64(value) for value in (0, table, steps, 1, 1, words.ctypes.data)]
        start = functools.partial(self._run_brief if brief else self._run, *values)
        start.words = words  # type: ignore[attr-defined]  # keeps them
        return start

    def _alone(self, table: int, steps: int) -> None:
        self._run(0, table, steps, 1, 1, self._answer()[1])

    def _together(self, table: int, steps: int, threads: int) -> None:
        while len(self._gates) < threads:
            self._hire()
        answer, out = self._answer()
        self._run(self._mailbox, table, steps, threads, 0, out)
        parked = int(answer[0])
        if parked:
            woken = [t for t in range(1, threads) if parked >> t & 1]
            self._keep_off(woken)
            for t in woken:
                self._gates[t].release()
            self._run(self._mailbox, table, steps, threads, 1, out)

    def _keep_off(self, workers: Sequence[int]) -> None:
        """Keep workers to the processors that this thread may use, without the one that it runs on."""
        if _own_processor is None:
            return
        allowed = os.sched_getaffinity(0)
        others = allowed - {_own_processor()} or allowed
        for t in workers:
            if self._kept.get(t) != others:
                with suppress(OSError):  # where a sandbox forbids it
                    os.sched_setaffinity(self._workers[t], others)
                    self._kept[t] = others

    def _answer(self) -> tuple[Any, int]:
        """This thread's word for the answer of a native call, and its address."""
        try:
            found: tuple[Any, int] = self._local.answer
        except AttributeError:
            word = np.zeros(1, np.int64)
            found = self._local.answer = (word, word.ctypes.data)
        return found

    def _hire(self) -> None:
        t = len(self._gates)
        gate = threading.Semaphore(0)
        self._gates.append(gate)
        serve = _native_serve(jit.load(jit.SERVE)[0])
        seen = np.zeros(1, np.int64)
        mailbox = self._mailbox

        def work() -> None:
            address = seen.ctypes.data
            while True:
                serve(mailbox, t, address)
                gate.acquire()

        seen[0] = int(self._memory[(mailbox - self._memory.ctypes.data) // 8])
        worker = threading.Thread(target=work, name=f"netdsl-{t}", daemon=True)
        worker.start()
        assert worker.native_id is not None
        self._workers[t] = worker.native_id


_team: Team | None = None
_lock = threading.Lock()


def team() -> Team:
    """The team of this process."""
    global _team
    if _team is None:
        with _lock:
            if _team is None:
                _team = Team()
    return _team


def _after_fork() -> None:
    global _team, _lock
    _team, _lock = None, threading.Lock()  # a forked child has the caller's thread only


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
