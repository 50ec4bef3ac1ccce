"""The way through page-locked memory, on a stream that does everything as late as it may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from netdsl.backends.cuda.staging import LARGEST, SMALLEST, Staging, staging

FLOATS = 5  # of a piece


class LateStream:
    """Copies happen only when a mark behind them, or the stream, is waited for."""

    def __init__(self) -> None:
        self.queue: list[Callable[[], None]] = []

    def send(self, values: np.ndarray, array: np.ndarray) -> None:
        self.queue.append(lambda: np.copyto(array[: values.size], values))

    def fetch(self, array: np.ndarray, values: np.ndarray) -> None:
        self.queue.append(lambda: np.copyto(values, array[: values.size]))

    def mark(self) -> Any:
        stream, place = self, len(self.queue)

        class Mark:
            def wait(self) -> None:
                stream.run(place)

        return Mark()

    def run(self, until: int) -> None:
        for i in range(until):
            todo, self.queue[i] = self.queue[i], lambda: None
            todo()


def made() -> tuple[Staging, LateStream]:
    return Staging([np.full(FLOATS, np.nan, np.float32) for _ in range(2)]), LateStream()


@pytest.mark.parametrize("size", [0, 1, 4, 5, 6, 10, 11, 23])
def test_there_and_back(size: int) -> None:
    way, stream = made()
    x, there, back = np.arange(size, dtype=np.float32), np.full(size, -1, np.float32), np.full(size, -1, np.float32)
    given = x.copy()
    way.send(stream, given, there)
    given[:] = -2  # the caller's again
    way.fetch(stream, there, back)
    assert np.array_equal(there, x) and np.array_equal(back, x)


def test_arrays_one_after_another_keep_apart() -> None:
    way, stream = made()
    xs = [np.arange(n, dtype=np.float32) + 100 * n for n in (3, 12, 7, 1)]
    there = [np.empty_like(x) for x in xs]
    for x, place in zip(xs, there, strict=True):
        way.send(stream, x, place)
    backs = [np.empty_like(x) for x in xs]
    for place, back in zip(there, backs, strict=True):
        way.fetch(stream, place, back)
    for again in xs:
        way.send(stream, again, there[1])  # pieces that outputs came through
    stream.run(len(stream.queue))
    assert all(map(np.array_equal, xs, backs)) and np.array_equal(there[1][:1], xs[-1])


def test_pieces_fit_the_largest_array_within_limits() -> None:
    class Runtime:
        @staticmethod
        def page_locked(count: int) -> np.ndarray:
            return np.empty(count, np.float32)

    sizes = {n: staging(Runtime, n).floats for n in (1, 150_528, 10**8)}  # type: ignore[union-attr]
    assert sizes == {1: SMALLEST, 150_528: 37_632, 10**8: LARGEST}


def test_without_page_locked_memory_there_is_no_way() -> None:
    class Runtime:
        @staticmethod
        def page_locked(count: int) -> None:
            return None

    assert staging(Runtime, 10) is None
