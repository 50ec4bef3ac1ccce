"""Arrays of the host on their way to the GPU and back, through two pieces of page-locked memory.

From page-locked memory the GPU copies by itself, at the full speed of the bus, while the host fills or empties the
other piece. Out of ordinary memory the driver would take the same way round with the host waiting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

SMALLEST, LARGEST = 1 << 14, 1 << 20  # chosen: floats of a piece; 64 KiB to 4 MiB
PIECES = 4  # chosen: what the largest array is cut into, so that copies of host and GPU overlap


class Piece:
    """Page-locked memory, and the mark behind the last copy out of it."""

    def __init__(self, values: F32) -> None:
        self.values = values
        self.sent: Any = None


class Staging:
    """The way of one workspace: one call at a time, all copies on one stream."""

    def __init__(self, pieces: Sequence[F32]) -> None:
        self.floats = len(pieces[0])
        self._turns = cycle([Piece(values) for values in pieces])

    def send(self, stream: Any, values: F32, array: Any) -> None:
        """Queue the copy of a flat array to one on the GPU; `values` may change once this returns."""
        for part in self._parts(values.size):
            piece = next(self._turns)
            if piece.sent is not None:
                piece.sent.wait()
            held = piece.values[: part.stop - part.start]
            np.copyto(held, values[part])
            stream.send(held, array[part])
            piece.sent = stream.mark()

    def fetch(self, stream: Any, array: Any, values: F32) -> None:
        """Copy an array of the GPU to a flat one; complete when this returns."""
        under_way: list[tuple[Any, F32, slice]] = []
        for part in self._parts(values.size):
            if len(under_way) == 2:
                _arrive(values, *under_way.pop(0))
            held = next(self._turns).values[: part.stop - part.start]
            stream.fetch(array[part], held)
            under_way.append((stream.mark(), held, part))
        for waiting in under_way:
            _arrive(values, *waiting)

    def _parts(self, size: int) -> Iterator[slice]:
        for start in range(0, size, self.floats):
            yield slice(start, min(size, start + self.floats))


def _arrive(values: F32, mark: Any, held: F32, part: slice) -> None:
    mark.wait()
    np.copyto(values[part], held)


def staging(runtime: Any, largest: int) -> Staging | None:
    """A way for arrays of up to `largest` floats, or None where there is no page-locked memory."""
    floats = min(LARGEST, max(SMALLEST, -(-largest // PIECES)))
    pieces = [runtime.page_locked(floats) for _ in range(2)]
    return None if any(piece is None for piece in pieces) else Staging(pieces)
