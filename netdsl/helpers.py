"""Several processes that compile kernels into the cache, as Numba compiles one at a time in a process.

A helper is `python -m` a backend's module `warm`, which calls `serve`: it reads kernels from standard input, each as a
line of JSON, compiles each into the cache and answers with a line.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from netdsl import kept

MANY = 4  # chosen: so many kernels to compile are worth starting other processes for

Helper = subprocess.Popen[bytes]
K = TypeVar("K")


@dataclass(frozen=True)
class Compiler(Generic[K]):
    """How a backend compiles.

    module      what a helper runs
    line        what a helper is told of a kernel, for JSON
    load        compiles a kernel in this process, unless it is in the cache
    processes   at most so many, this one included, each of which loads Numba first
    patience    seconds until a helper counts as hung: more than loading Numba and compiling the longest kernel take
    """

    module: str
    line: Callable[[K], Any]
    load: Callable[[K], Any]
    processes: int
    patience: float

    def compile_all(self, kernels: Sequence[K], started: Callable[[K], None]) -> None:
        """Load kernels that are not in the cache, with helpers where there are many; `started` is told of each done
        here.

        Where the longest come first, all end at about the same time. What a helper fails to deliver is compiled here,
        as is what one still holds so long after all else is done that it must hang.
        """
        waiting = deque(kernels)
        with _uncollected(), self._helpers(len(kernels)) as helpers:
            feeders = [threading.Thread(target=self._feed, args=(helper, waiting), daemon=True) for helper in helpers]
            for feeder in feeders:
                feeder.start()
            self._drain(waiting, started)
            end = time.monotonic() + self.patience
            for helper, feeder in zip(helpers, feeders, strict=True):
                feeder.join(max(0.0, end - time.monotonic()))
                if feeder.is_alive():
                    helper.kill()  # its kernel comes back
                    feeder.join()
            self._drain(waiting, started)

    def _drain(self, waiting: deque[K], started: Callable[[K], None]) -> None:
        for kernel in _taken(waiting):
            started(kernel)
            self.load(kernel)

    def _feed(self, helper: Helper, waiting: deque[K]) -> None:
        """Hand kernels to a helper, one at a time; that which it fails at goes back."""
        assert helper.stdin is not None and helper.stdout is not None
        for kernel in _taken(waiting):
            answer = b""
            with suppress(OSError):  # it ended
                helper.stdin.write(json.dumps(self.line(kernel)).encode() + b"\n")
                answer = helper.stdout.readline()
            if not answer:
                waiting.appendleft(kernel)
                return

    @contextmanager
    def _helpers(self, kernels: int) -> Iterator[list[Helper]]:
        """Helpers for so many kernels, ended with the block."""
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        worth = kernels >= MANY and sys.executable and _can_keep()
        count = min(processors, self.processes, kernels) - 1 if worth else 0
        helpers: list[Helper] = []
        with ExitStack() as stack:
            for _ in range(count):
                # -P: nothing in the current folder may pose as a module
                command = [sys.executable, "-P", "-m", self.module]
                with suppress(OSError):
                    helper = subprocess.Popen(
                        command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                    )
                    helpers.append(stack.enter_context(helper))
                    stack.callback(helper.kill)  # one that was stopped would not end by itself
            yield helpers


def _can_keep() -> bool:
    """Whether what helpers compile would reach this process."""
    with suppress(OSError):
        kept.check_writable(kept.folder("kernels"))
        return True
    return False


def _taken(waiting: deque[K]) -> Iterator[K]:
    """What waits, one after another, while others take of it too."""
    while True:
        try:
            kernel = waiting.popleft()
        except IndexError:
            return
        yield kernel


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without looking for garbage: compilations leave little, and it would take a tenth of their time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def serve(load: Callable[[Any], None]) -> None:
    """A helper's work: `load` is given what a line says."""
    with _uncollected():
        for line in sys.stdin:
            load(json.loads(line))
            sys.stdout.write("done\n")
            sys.stdout.flush()
