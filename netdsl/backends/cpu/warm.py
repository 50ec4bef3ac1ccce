"""Several processes that compile kernels into the cache, as Numba compiles one at a time in a process.

`python -m netdsl.backends.cpu.warm` is the helper: it reads kernels from standard input, a JSON list [module, factory,
constants] a line, compiles each into the cache and answers with a line.
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

from netdsl.backends.cpu.jit import Kernel, is_cached, load

MANY = 4  # chosen: so many kernels to compile are worth starting other processes for
PROCESSES = 4  # chosen: at most so many, each of which takes a second to load Numba
SECONDS = {"winograd": 0.6, "conv": 0.3}  # chosen: about what compiling takes, others less; only their order matters
PATIENCE = 10.0  # chosen: seconds until a helper counts as hung; to load Numba and compile the longest takes 1 or 2

Helper = subprocess.Popen[bytes]


def compile_all(kernels: Sequence[Kernel], started: Callable[[Kernel], None]) -> None:
    """Load kernels that are not in the cache, with helpers where there are many; `started` is told of each done here.

    The longest come first, so that all end at about the same time. What a helper fails to deliver is compiled here, as
    is what one still holds so long after all else is done that it must hang.
    """
    waiting = deque(sorted(kernels, key=lambda k: -SECONDS.get(k.factory, 0.0)))
    with _uncollected(), _helpers(len(kernels)) as helpers:
        feeders = [threading.Thread(target=_feed, args=(helper, waiting), daemon=True) for helper in helpers]
        for feeder in feeders:
            feeder.start()
        _drain(waiting, started)
        end = time.monotonic() + PATIENCE
        for helper, feeder in zip(helpers, feeders, strict=True):
            feeder.join(max(0.0, end - time.monotonic()))
            if feeder.is_alive():
                helper.kill()  # its kernel comes back
                feeder.join()
        _drain(waiting, started)


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


def _drain(waiting: deque[Kernel], started: Callable[[Kernel], None]) -> None:
    while kernel := _next(waiting):
        started(kernel)
        load(kernel)


def _next(waiting: deque[Kernel]) -> Kernel | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _feed(helper: Helper, waiting: deque[Kernel]) -> None:
    """Hand kernels to a helper, one at a time; that which it fails at goes back."""
    assert helper.stdin is not None and helper.stdout is not None
    while kernel := _next(waiting):
        answer = b""
        with suppress(OSError):  # it ended
            helper.stdin.write(json.dumps([kernel.module, kernel.factory, kernel.constants]).encode() + b"\n")
            answer = helper.stdout.readline()
        if not answer:
            waiting.appendleft(kernel)
            return


@contextmanager
def _helpers(kernels: int) -> Iterator[list[Helper]]:
    """Helpers for so many kernels, ended with the block."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(processors, PROCESSES, kernels) - 1 if kernels >= MANY and sys.executable else 0
    helpers: list[Helper] = []
    with ExitStack() as stack:
        for _ in range(count):
            # -P: nothing in the current folder may pose as a module
            command = [sys.executable, "-P", "-m", "netdsl.backends.cpu.warm"]
            with suppress(OSError):
                helper = subprocess.Popen(
                    command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                helpers.append(stack.enter_context(helper))
                stack.callback(helper.kill)  # one that was stopped would not end by itself
        yield helpers


def main() -> None:
    with _uncollected():
        for line in sys.stdin:
            module, factory, constants = json.loads(line)
            kernel = Kernel(module, factory, tuple(constants))
            if not is_cached(kernel):  # another process may have been faster
                load(kernel)
            sys.stdout.write("done\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
