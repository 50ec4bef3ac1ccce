"""Joined layers over one input as one wider layer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_graphs import convolutions, graph_of_steps, maps, net, same_function

from netdsl.ops.conv import Conv
from netdsl.ops.join import Concat
from netdsl.passes import rewrite
from netdsl.passes.merge_siblings import merge_siblings
from netdsl.tensor import TensorType


@settings(max_examples=80, deadline=None)
@given(data=st.data(), x=maps(), features=st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=2, max_size=4))
def test_every_geometry(data: st.DataObject, x: TensorType, features: list[tuple[int, bool]]) -> None:
    one = data.draw(convolutions(x))
    ops = [Conv(k, one.kernel, one.stride, one.pad, one.dilation, 1, bias) for k, bias in features]
    graph = graph_of_steps(
        x, *((op, [0]) for op in ops), (Concat(), data.draw(st.permutations(range(1, len(ops) + 1))))
    )
    rewritten = same_function(graph, merge_siblings)
    assert [n.op.describe() for n in rewritten.nodes[1:]] == [
        Conv(sum(k for k, _ in features), *_window(one)).describe()
    ]


def _window(op: Conv) -> tuple:  # type: ignore[type-arg]
    return op.kernel, op.stride, op.pad, op.dilation


MERGED = {
    "with activations": ("branches concat { { conv 3 3x3 | relu }\n { conv 5 3x3 bias=no | relu } }", ["conv 8 3x3"]),
    "normalised": ("branches concat { { 1x1 3 bias=no | batchnorm }\n 1x1 5\n 1x1 2 }\n tanh", ["conv 10 1x1"]),
    "of vectors": ("flatten\n branches concat { dense 3\n dense 2 bias=no }", ["flatten", "dense 5"]),
    "neighbours only": ("branches concat { 1x1 3\n 1x1 2\n skip\n 1x1 4 }", ["conv 5 1x1", "conv 4 1x1", "concat"]),
    "runs of two kinds": ("branches concat { 1x1 3\n 1x1 2\n conv 4 3x3 pad=1\n conv 5 3x3 pad=1 }",
                          ["conv 5 1x1", "conv 9 3x3", "concat"]),
    "joined in another order": ("a: 1x1 3\n from x\n b: 1x1 4\n from a\n concat b\n relu6", ["conv 7 1x1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MERGED)
def test_merged(name: str) -> None:
    body, described = MERGED[name]
    rewritten = same_function(net(body), rewrite, 1e-9)
    assert [n.op.describe() for n in rewritten.nodes[1:]] == described


KEPT = {
    "other activations": "branches concat { { 1x1 3 | relu }\n { 1x1 5 | tanh } }",
    "another padding": "branches concat { conv 3 3x3 pad=1\n conv 5 5x5 pad=2 }",
    "groups": "branches concat { conv 4 1x1 groups=2\n conv 4 1x1 groups=2 }",
    "other inputs": "a: 1x1 3\n relu\n 1x1 5\n concat a",
    "read elsewhere": "a: 1x1 4\n from x\n b: 1x1 4\n concat a\n 1x1 4\n add b",
    "an output": "a: 1x1 4\n output first\n from x\n 1x1 4\n concat a\n output second",
    "joined twice": "a: 1x1 4\n concat a",
    "a tensor added": "b: 1x1 4\n tanh\n a: 1x1 4\n branches concat { { 1x1 4 | add b }\n { 1x1 4 | add b } }",
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    before = rewrite(net(KEPT[name]))
    assert merge_siblings(before) == before
    assert any(isinstance(n.op, Concat) for n in before.nodes)


def test_the_wider_layer_is_named_after_its_parts() -> None:
    rewritten = rewrite(net("branches concat { a: 1x1 3\n b: 1x1 2\n c: 1x1 1\n skip\n d: 1x1 1\n e: 1x1 1 }"))
    assert [n.path for n in rewritten.nodes[1:]] == ["a+...+c", "d+e", rewritten.nodes[-1].path]
