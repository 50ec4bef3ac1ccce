"""The arena: buffers that live at the same time never share a byte."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from netdsl.plan.memory import ALIGNMENT, Buffer, allocate

LIVES = st.tuples(st.integers(0, 300), st.integers(0, 12), st.integers(0, 5))


@settings(deadline=None)
@given(st.lists(LIVES, max_size=24))
def test_living_buffers_never_overlap(lives: list[tuple[int, int, int]]) -> None:
    buffers = [Buffer(size, first, first + length) for size, first, length in lives]
    offsets, total = allocate(buffers)
    for i, a in enumerate(buffers):
        assert offsets[i] % ALIGNMENT == 0 and offsets[i] + a.bytes <= total
        for j, b in enumerate(buffers[:i]):
            if a.first <= b.last and b.first <= a.last:
                assert offsets[i] + a.bytes <= offsets[j] or offsets[j] + b.bytes <= offsets[i]


def test_a_chain_needs_two_buffers() -> None:
    chain = [Buffer(640, i, i + 1) for i in range(20)]
    assert allocate(chain)[1] == 2 * 640


def test_the_arena_is_never_smaller_than_what_lives_at_once() -> None:
    assert allocate([Buffer(64, 0, 2), Buffer(128, 1, 1), Buffer(64, 2, 2)])[1] == 192
    assert allocate([]) == ([], 0)
