"""Layers that take a batch's images in turns give the same bits as layers that take them all together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdsl.backends import cpu
from netdsl.backends.cpu import planner, turns
from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.turns import buffers_in_use, images_together, in_turns, spanning
from netdsl.backends.cpu.views import Address, Step, View
from netdsl.graph.build import build
from netdsl.passes import rewrite
from netdsl.weights import random_weights
from tangles import CONCATS, RESIDUALS, REWRITTEN, kept_by

BATCH = 6
BODIES = {**CONCATS, **RESIDUALS, **REWRITTEN, "unflattened": "conv 7 1x1 | relu\n flatten | dense 9"}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_turns_change_no_bit(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build(f"netdsl 1\nnet sample {{\n  input x 8x9x10\n{kept_by(WIDTH, body)}\n}}\n")
    weights = random_weights(graph, 2)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((BATCH, 8, 9, 10)).astype(np.float32)
    maps = sum(node.type.is_map for node in rewrite(graph).nodes)
    cuts = [[n] * maps for n in (BATCH, 1, 2)] + [sorted(rng.choice([1, 2, 3, 6], maps).tolist()) for _ in range(6)]
    answers = []
    for cut in cuts:
        together = cut + [BATCH] * (len(rewrite(graph).nodes) - maps)
        monkeypatch.setattr(planner, "images_together", lambda *_, whole=together: whole)
        # one plan for all images, whatever the processors: a small network's batch would be cut by images besides
        program = cpu.lower(graph, weights, 1)
        program(x[None])  # halos that are kept from call to call
        answers.append(program(x[None]))
        assert {step.images for step in program.plan(BATCH).steps} <= {*cut, BATCH}
    for found in answers[1:]:
        for y, expected in zip(found, answers[0], strict=True):
            assert np.array_equal(y, expected)


NETWORK = """netdsl 1
net sample {
  input x 16x64x64
  conv 64 3x3 pad=1 | relu | maxpool 2x2 | conv 64 1x1 | relu | maxpool 2x2 | conv 32 1x1 | relu | maxpool 4x4
  conv 2048 1x1 | relu | conv 2048 1x1 | relu
  flatten | dense 10
}
"""


@pytest.mark.parametrize("images", [1, 2, 6, 7, 8, 16])
def test_how_many_images_go_together(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = rewrite(build(NETWORK))
    monkeypatch.setattr(turns, "TURN_BYTES", 4 << 20)
    together = images_together(graph, images, {})
    assert len(together) == len(graph.nodes) and together == sorted(together)
    assert all(images % n == 0 for n in together)
    # 1.25 MiB beside each other around the first convolution: three images fit
    assert together[1] == max(n for n in (1, 2, 3) if images % n == 0)
    # 2048 x 2048 weights weigh more than the maps of any batch
    assert together[-3:] == [images] * 3
    monkeypatch.setattr(turns, "TURN_BYTES", 1 << 40)
    assert images_together(graph, images, {}) == [images] * len(graph.nodes)


def test_weights_that_winograd_makes_large_end_the_turns() -> None:
    graph = rewrite(build("netdsl 1\nnet sample {\n  input x 64x40x40\n  conv 64 3x3 pad=1\n conv 64 3x3 pad=1\n}\n"))
    assert images_together(graph, 8, {}) == [2, 2, 2]  # 0.8 MiB beside 0.14 MiB of weights
    assert images_together(graph, 8, {2: 40}) == [2, 2, 8]


def step(buffers: set[int], images: int) -> Step:
    places = {f"x{b}": Address(View(b, 0, 1, 1, 1, WIDTH, 64, 64, 64)) for b in buffers}
    return Step(Kernel("move", "halo"), dict(places), 1, "node", images)


CUTS = st.lists(st.tuples(st.sets(st.integers(0, 5)), st.sampled_from([1, 2, 3, 6])), min_size=1, max_size=10)


@given(CUTS)
def test_what_is_kept_while_a_stage_takes_its_turns(cut: list[tuple[set[int], int]]) -> None:
    steps = [step(buffers, images) for buffers, images in cut]
    order = in_turns(steps, BATCH)
    for i, (_, images) in enumerate(cut):
        assert [first for at, first in order if at == i] == list(range(0, BATCH, images))
    assert [(at, first) for at, first in order if steps[at].images == BATCH] == [
        (i, 0) for i, (_, images) in enumerate(cut) if images == BATCH
    ]
    spans = spanning(steps)
    used = buffers_in_use(steps, spans, BATCH)
    lives = {b: [i for i, touched in enumerate(used) if b in touched] for b in range(6)}
    for b in spans:  # held while any step is at work that runs between the first that touches it and the last
        at = [k for k, (i, _) in enumerate(order) if b in cut[i][0]]
        between = {i for i, _ in order[at[0] : at[-1] + 1]}
        assert (lives[b][0], lives[b][-1]) == (min(between), max(between))
    for a, (buffers, _) in enumerate(cut):
        assert buffers <= used[a]
    for b in set(range(6)) - spans:  # all its steps lie in one run
        touching = [i for i, (buffers, _) in enumerate(cut) if b in buffers]
        assert not touching or len({n for _, n in cut[touching[0] : touching[-1] + 1]}) == 1


@pytest.mark.parametrize("images", [2, 3, 6, 7])
def test_images_cut_among_threads_go_in_turns(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each thread has some images of its own, and takes those in turns, each turn finds its own arrays."""
    graph = build("netdsl 1\nnet sample {\n  input x 8x40x40\n  conv 96 3x3 pad=1 | relu | conv 40 1x1\n}\n")
    weights = random_weights(graph, 1)
    x = np.random.default_rng(2).standard_normal((images, 8, 40, 40)).astype(np.float32)
    monkeypatch.setattr(turns, "TURN_BYTES", 1)
    one, two = cpu.lower(graph, weights, 1), cpu.lower(graph, weights, 2)
    if two.threads < 2:
        pytest.skip("one processor")
    plans, _ = two._idle(images)
    assert len(plans) == 2 and any(first > 0 for plan in plans for _, first in plan.order) == (images > 2)
    assert np.array_equal(two([x])[0], one([x])[0])
