"""One arena for all intermediate tensors: buffers whose lives do not overlap share its bytes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from types import MappingProxyType

from netdsl.frozen import frozen

ALIGNMENT = 64  # bytes; a cache line, and the widest vector


@frozen
class Buffer:
    """Bytes that must keep their content from step `first` to step `last`, both included."""

    bytes: int
    first: int
    last: int


def allocate(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """Offset of each buffer and the arena's size, in bytes.

    Largest first, each at the lowest offset that is free for its whole life (Pisarchyk and Lee, arXiv:2001.03288,
    section 4.2, "greedy by size").
    """
    offsets = [0] * len(buffers)
    placed: list[int] = []
    total = 0
    for i in sorted(range(len(buffers)), key=lambda i: (-buffers[i].bytes, i)):
        b = buffers[i]
        busy = sorted(
            (offsets[j], offsets[j] + buffers[j].bytes)
            for j in placed
            if buffers[j].first <= b.last and b.first <= buffers[j].last
        )
        at = 0
        for start, end in busy:
            if at + b.bytes <= start:
                break
            at = max(at, -(-end // ALIGNMENT) * ALIGNMENT)
        offsets[i] = at
        placed.append(i)
        total = max(total, at + b.bytes)
    return offsets, total


def place_buffers(
    sizes: Sequence[int], steps: Sequence[Set[int]], lasting: Mapping[int, Hashable] = MappingProxyType({})
) -> tuple[list[int], int]:
    """As `allocate`, for buffers of so many bytes that live from the first step that touches them to the last.

    lasting  buffers that keep something from one run of the steps to the next, each with what it keeps: they share
             memory with nothing but later buffers that keep the same
    """
    first, last = [len(steps)] * len(sizes), [0] * len(sizes)
    for i, touched in enumerate(steps):
        for b in touched:
            first[b], last[b] = min(first[b], i), max(last[b], i)
    buffers = [Buffer(n, f, e) for n, f, e in zip(sizes, first, last, strict=True)]
    shared: dict[int, int] = {}  # lasting buffers that lie where another one does
    kept: dict[Hashable, list[tuple[int, int]]] = {}  # (last step, buffer) of those with memory of their own
    for b in sorted(lasting, key=lambda b: first[b]):
        places = kept.setdefault((sizes[b], lasting[b]), [])
        free = next((k for k, (end, _) in enumerate(places) if end < first[b]), None)
        if free is None:
            places.append((last[b], b))
            buffers[b] = Buffer(sizes[b], 0, len(steps))
        else:
            shared[b] = places[free][1]
            places[free] = last[b], shared[b]
            buffers[b] = Buffer(0, 0, 0)
    offsets, total = allocate(buffers)
    for b, other in shared.items():
        offsets[b] = offsets[other]
    return offsets, total
