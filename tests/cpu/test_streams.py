"""Large maps that are made and read some channels at a time: the same bits as of whole ones, in less memory."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from netdsl.backends import cpu, reference
from netdsl.backends.cpu import streams
from netdsl.backends.cpu.ahead import plan_ahead
from netdsl.backends.cpu.program import Program
from netdsl.backends.cpu.streams import streamed_maps
from netdsl.backends.cpu.target import WIDTH
from netdsl.graph.build import build
from netdsl.passes import rewrite
from netdsl.weights import random_weights

CHANNELS = 9 * WIDTH - 3  # several tiles of outputs, the last block not full
STREAMED = {
    "pointwise": f"conv {CHANNELS} 1x1 | relu6\n depthwise 3x3 pad=1 | relu6\n conv 7 1x1",
    "strided": f"conv {CHANNELS} 3x3 stride=2 pad=1 | relu\n depthwise 3x3 stride=2 pad=(0,1,1,2) | tanh",
    "dilated": f"conv {CHANNELS} 1x1 bias=no | silu\n depthwise 3x5 dilation=2 bias=no",
    "a residual before": f"a: conv {CHANNELS} 1x1 | tanh\n conv {CHANNELS} 1x1 | add a | relu\n depthwise 3x3 pad=1",
    "a residual after": f"a: conv {CHANNELS} 1x1 | tanh\n conv {CHANNELS} 1x1 | relu\n depthwise 3x3 pad=1 | add a",
    "into a join": f"a: relu\n conv {2 * WIDTH} 1x1 | relu\n concat a\n"
    f"branches concat {{ {{ conv {8 * WIDTH} 1x1 | relu | depthwise 3x3 pad=1 | relu }}\n conv 5 1x1 }}",
}
WHOLE = {
    "read twice": f"a: conv {CHANNELS} 1x1 | relu\n depthwise 3x3 pad=1 | relu | add a",
    "an output": f"conv {CHANNELS} 1x1 | relu\n output middle\n depthwise 3x3 pad=1\n output last",
    "grouped": f"conv {8 * WIDTH} 1x1 groups=2 | relu\n depthwise 3x3 pad=1",
    "not depthwise": f"conv {CHANNELS} 1x1 | relu\n conv 5 3x3 pad=1",
    "one tile": f"conv {WIDTH} 1x1 | relu\n depthwise 3x3 pad=1",
}


def text(body: str) -> str:
    return f"netdsl 1\nnet sample {{\n  input x {WIDTH}x9x10\n{body}\n}}\n"


def images(batch: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal((batch, WIDTH, 9, 10)).astype(np.float32)


def bound(body: str) -> Program:
    graph = build(text(body))
    return cpu.lower(graph, random_weights(graph, 2), 2)


def answers(body: str, batch: int) -> list[NDArray[np.float32]]:
    program, x = bound(body), images(batch)
    program([x])  # halos that are kept from call to call
    return program([x])


def streamed(body: str) -> bool:
    """Whether some layer is computed by more than one step that computes."""
    nodes = [step.node for step in plan_ahead(build(text(body))).steps if step.kernel.module == "conv"]
    return len(set(nodes)) < len(nodes)


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("body", STREAMED.values(), ids=STREAMED.keys())
def test_streaming_changes_no_bit(body: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answers(body, batch)
    assert not streamed(body)
    monkeypatch.setattr(streams, "STREAM_BYTES", 1)
    assert streamed(body)
    for found, expected in zip(answers(body, batch), whole, strict=True):
        assert np.array_equal(found, expected)
    graph = build(text(body))
    for found, expected in zip(whole, reference.run(graph, random_weights(graph, 2), [images(batch)]), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("first", [1, 1 << 40])
@pytest.mark.parametrize("body", STREAMED.values(), ids=STREAMED.keys())
def test_one_batch_size_may_stream_and_another_not(body: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answers(body, 5)
    monkeypatch.setattr(streams, "STREAM_BYTES", first)
    program = bound(body)  # plans one image
    monkeypatch.setattr(streams, "STREAM_BYTES", (1 << 40) + 1 - first)
    for found, y in zip(program([images(5)]), expected, strict=True):
        assert np.array_equal(found, y)


@pytest.mark.parametrize("body", WHOLE.values(), ids=WHOLE.keys())
def test_what_others_need_is_made_whole(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAM_BYTES", 1)
    assert not streamed(body)


def test_as_few_parts_as_keep_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = rewrite(build(text(f"conv {24 * WIDTH} 1x1 | relu\n depthwise 3x3 pad=1")))
    block = 4 * WIDTH * 9 * 10
    for limit in (4, 8, 12, 23, 24):
        monkeypatch.setattr(streams, "STREAM_BYTES", limit * block)
        found = streamed_maps(graph, (), (), [1] * len(graph.nodes))
        assert all(limit - 4 < n <= limit for n in found.values())  # four blocks are the widest tile
        assert bool(found) == (limit < 24)
    assert not streamed_maps(graph, [1], (), [1] * len(graph.nodes))
    assert not streamed_maps(graph, (), (), [1, 1, 2])


def test_a_streamed_map_takes_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build("mobilenet_v2")
    less = plan_ahead(graph).arena_bytes
    monkeypatch.setattr(streams, "STREAM_BYTES", 1 << 40)
    assert less < plan_ahead(graph).arena_bytes
