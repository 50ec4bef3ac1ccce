"""Added convolutions over one input as one: the same function for every geometry, and only where it is no dearer."""

from __future__ import annotations

from importlib import import_module
from unittest import mock

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from linear_graphs import convolutions, graph_of_steps, maps, net, same_function

from netdsl.ops.base import ShapeFault
from netdsl.ops.conv import Conv
from netdsl.ops.join import Add
from netdsl.passes import rewrite
from netdsl.passes.sum_branches import sum_branches
from netdsl.tensor import TensorType

module = import_module("netdsl.passes.sum_branches")  # the package has a function of that name
AT_ANY_COST = mock.patch.object(module, "pays", lambda new, old: True)


def onto(op: Conv, x: TensorType, y: TensorType) -> Conv:
    """The convolution with the features of y, and padding at the end (or a smaller window) so that its size is y's."""
    pad = list(op.pad)
    for i in (0, 1):
        last = (y.shape[1 + i] - 1) * op.stride[i] - op.pad[i] + op.dilation[i] * (op.kernel[i] - 1)
        pad[2 + i] = max(0, last - (x.shape[1 + i] - 1))
    groups = op.groups if y.channels % op.groups == 0 else 1
    return Conv(y.channels, op.kernel, op.stride, tuple(pad), op.dilation, groups, op.bias)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), x=maps(), count=st.integers(2, 4), skip=st.booleans())
def test_every_geometry(data: st.DataObject, x: TensorType, count: int, skip: bool) -> None:
    first = data.draw(convolutions(x))
    y = first.infer(x)
    branches = [first, *(onto(data.draw(convolutions(x, first.stride)), x, y) for _ in range(count - 1))]
    try:
        assume(all(op.infer(x) == y for op in branches))
    except ShapeFault:
        assume(False)
    extra = [0] if skip and y == x and first.stride == (1, 1) else []
    graph = graph_of_steps(x, *((op, [0]) for op in branches), (Add(), [*range(1, count + 1), *extra]))
    with AT_ANY_COST:
        rewritten = same_function(graph, sum_branches)
    assert [type(n.op) for n in rewritten.nodes[1:]] == [Conv]


REPVGG = """branches add {{
  three: {{ conv 4 3x3 pad=1 stride={stride} bias=no | batchnorm }}
  one:   {{ 1x1 4 stride={stride} bias=no | batchnorm }}
  {skip}
}}
relu"""
SUMMED = {
    "RepVGG": (REPVGG.format(stride=1, skip="same: batchnorm"), ["conv 4 3x3"]),
    "RepVGG that shrinks": (REPVGG.format(stride=2, skip=""), ["conv 4 3x3 /2"]),
    "a linear residual": ("residual { conv 4 3x3 pad=1 }", ["conv 4 3x3"]),
    "a depthwise residual": ("residual { depthwise 3x3 pad=1 }", ["conv 4 3x3 groups 4"]),
    "a scaled skip": ("residual { conv 4 3x3 pad=1 } skip gate { scale }", ["conv 4 3x3"]),
    "a flat window within a square one": ("branches add { conv 8 3x3 pad=1\n conv 8 3x1 pad=1x0 }", ["conv 8 3x3"]),
    "a dilated window": ("branches add { conv 8 5x5 pad=2\n conv 8 3x3 pad=2 dilation=2 }", ["conv 8 5x5"]),
    "two of three": ("branches add { 1x1 4\n 1x1 4\n { tanh | 1x1 4 } }", ["conv 4 1x1", "tanh", "conv 4 1x1"]),
    "sums of sums": ("residual { residual { conv 4 3x3 pad=1 } }", ["conv 4 3x3"]),
    "a chain in one branch": ("branches add { conv 4 3x3 pad=1\n { 1x1 9 | 1x1 4 } }", ["conv 4 3x3"]),
    "then a chain": ("branches add { conv 4 3x3 pad=1\n 1x1 4 }\n 1x1 2 | batchnorm", ["conv 2 3x3"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SUMMED)
def test_summed(name: str) -> None:
    body, described = SUMMED[name]
    rewritten = same_function(net(body), rewrite, 1e-9)
    assert [n.op.describe() for n in rewritten.nodes[1:]] == described


KEPT = {
    "windows across each other": "branches add { conv 8 3x1 pad=1x0\n conv 8 1x3 pad=0x1 }",
    "windows side by side": "branches add { conv 8 1x2\n conv 8 1x2 pad=(0,7,0,0) dilation=1x8 }",
    "a dense one and a depthwise one": "branches add { 1x1 4\n depthwise 3x3 pad=1 }",
    "an activation in a branch": "branches add { { conv 4 3x3 pad=1 | relu }\n { 1x1 4 | relu } }",
    "other strides": "branches add { conv 4 1x1 stride=3x1\n conv 4 5x1 pad=(0,0,0,0) stride=2x1 }\n",
    "other inputs": "a: relu\n b: 1x1 4\n from a\n tanh\n 1x1 4\n add b",
    "a skip and a normalisation": "branches add { batchnorm\n skip }",
    "one branch twice": "a: 1x1 4\n add a",
    "an output": "a: 1x1 4\n output first\n from x\n 1x1 4\n add a\n output second",
    "a branch read elsewhere": "a: 1x1 4\n from x\n b: conv 4 3x3 pad=1\n add a\n mul b a",
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    graph = net(KEPT[name])
    assert sum_branches(graph) == graph


def test_products_do_not_grow() -> None:
    graph = net("branches add { conv 8 3x3 pad=1\n 1x1 8\n skip }", "8x9x9")
    assert rewrite(graph).macs == graph.macs - 8 * 8 * 9 * 9


def test_the_sum_is_named_after_its_convolutions() -> None:
    rewritten = rewrite(net(REPVGG.format(stride=1, skip="same: batchnorm")))
    assert [n.path for n in rewritten.nodes[1:]] == ["three.0+one.0"]
