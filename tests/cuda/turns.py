"""The threads of a simulated block, one at a time, from barrier to barrier.

numba.cuda's simulator starts a thread of Python for each thread of a block and asks all of them, over and over, whether
they have come to a barrier; most of its time goes there. Here one thread of Python runs the block's threads one after
another, until one comes to a barrier: that one keeps its place, and another thread of Python goes on with the rest.
After a barrier they go on in the opposite order, so that what needs a barrier that is missing is found more often.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, ClassVar

import numpy as np
from numba.cuda.simulator import kernel


class Worker(kernel.BlockThread):  # type: ignore[misc]
    """A thread of Python that is, one after another, threads of a block."""

    def __init__(self) -> None:
        threading.Thread.__init__(self, daemon=True)
        self._turn, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self.start()

    def go(self, block: Block) -> None:
        """Run threads of a block until one comes to a barrier or none is left; returns then."""
        self._manager = self._block = block
        self._turn.release()
        self._done.acquire()

    def run(self) -> None:
        np.seterr(all="ignore")
        while True:
            self._turn.acquire()
            while self._block.points and not self._block.failure:
                self._be(self._block.points.popleft())
            self._block.idle.append(self)
            self._done.release()

    def _be(self, point: tuple[int, ...]) -> None:
        self.blockIdx, self.threadIdx = kernel.Dim3(*self._block.place), kernel.Dim3(*point)
        self.thread_id = self._block.number(self.threadIdx)
        try:
            self._block.function(*self._block.arguments)
        except Exception as error:
            self._block.failure = self._block.failure or error

    def syncthreads(self) -> None:
        """Wait until all threads of the block have come to a barrier or to their end."""
        self._block.blocked.append(self)
        self._done.release()
        self._turn.acquire()
        if self._block.failure:
            raise RuntimeError("another thread of the block failed")


class Block(kernel.BlockManager):  # type: ignore[misc]
    """Runs a block: what takes the place of the simulator's own manager of blocks."""

    idle: ClassVar[list[Worker]] = []  # of all blocks: they are run one after another

    def run(self, place: tuple[int, ...], *arguments: Any) -> None:
        self.place, self.function, self.arguments = place, self._f, arguments
        self.points = deque(np.ndindex(*self._block_dim))
        self.blocked: list[Worker] = []
        self.failure: Exception | None = None
        while self.points and not self.failure:
            (self.idle.pop() if self.idle else Worker()).go(self)
        while self.blocked:
            arrived, self.blocked = self.blocked, []
            for worker in reversed(arrived):
                worker.go(self)
        if self.failure:
            raise self.failure

    def number(self, at: Any) -> int:
        width, height, _ = self._block_dim
        return int(at.x + width * (at.y + height * at.z))


def take_turns() -> None:
    """Let the simulator of this process run blocks so."""
    kernel.BlockManager = Block
