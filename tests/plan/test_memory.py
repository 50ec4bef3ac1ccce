"""The arena: buffers that live at the same time never share a byte."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from netdsl.plan.memory import ALIGNMENT, Buffer, allocate, place_buffers

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


@given(st.lists(st.tuples(LIVES, st.sampled_from([None, "a", "b"])), max_size=24))
def test_what_lasts_is_shared_by_the_same_only(buffers: list[tuple[tuple[int, int, int], str | None]]) -> None:
    sizes = [size for (size, _, _), _ in buffers]
    count = 1 + max((first + length for (_, first, length), _ in buffers), default=0)
    steps = [{i for i, ((_, a, n), _) in enumerate(buffers) if a <= s <= a + n} for s in range(count)]
    kept = {i: kind for i, (_, kind) in enumerate(buffers) if kind}
    offsets, total = place_buffers(sizes, steps, kept)
    for i, (_, first, length) in enumerate(life for life, _ in buffers):
        assert offsets[i] + sizes[i] <= total
        for j, (_, other, more) in enumerate(life for life, _ in buffers[:i]):
            apart = offsets[i] + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]
            at_once = first <= other + more and other <= first + length
            if at_once or ((i in kept or j in kept) and kept.get(i) != kept.get(j)):
                assert apart
            elif i in kept:
                assert apart or (offsets[i], sizes[i]) == (offsets[j], sizes[j])


def test_maps_that_follow_each_other_share_what_lasts() -> None:
    chain = [{0, 1}, {1, 2}, {2, 3}, {3, 4}]
    assert place_buffers([640] * 5, chain, dict.fromkeys(range(5), "halo"))[1] == 2 * 640
    assert place_buffers([640] * 5, chain, {1: "halo", 3: "other"})[1] == 3 * 640
