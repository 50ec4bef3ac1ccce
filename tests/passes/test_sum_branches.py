"""Added convolutions over one input as one: the same function for every geometry, and never more to compute."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from linear_graphs import convolutions, graph_of_steps, maps, net, same_function

from netdsl.backends import reference
from netdsl.ops.conv import Conv
from netdsl.ops.join import Add
from netdsl.passes import rewrite
from netdsl.passes.kernel_algebra import Axis, axes, conv_of
from netdsl.passes.sum_branches import sum_branches
from netdsl.tensor import TensorType
from netdsl.weights import random_weights


@st.composite
def within(draw: st.DrawFn, op: Conv, x: TensorType) -> Conv:
    """A convolution whose taps are some of another's, and whose groups are those or finer."""
    kernel, before, dilation = [], [], []
    for axis in axes(op):
        first = draw(st.integers(0, min(axis.kernel - 1, axis.before // axis.dilation)))
        step = draw(st.integers(1, axis.kernel))
        kernel.append(draw(st.integers(1, (axis.kernel - 1 - first) // step + 1)))
        before.append(axis.before - first * axis.dilation)
        dilation.append(step * axis.dilation)
    y = op.infer(x)
    ends = zip(y.shape[1:], op.stride, before, dilation, kernel, x.shape[1:], strict=True)
    after = [max(0, (count - 1) * s - b + d * (k - 1) - (length - 1)) for count, s, b, d, k, length in ends]
    finer = [g for g in range(1, 7) if not g % op.groups and not x.channels % g and not op.features % g]
    return Conv(op.features, tuple(kernel), op.stride, (*before, *after), tuple(dilation), draw(st.sampled_from(finer)),
                draw(st.booleans()))  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(data=st.data(), x=maps(), count=st.integers(1, 3), place=st.integers(0, 3))
def test_every_geometry(data: st.DataObject, x: TensorType, count: int, place: int) -> None:
    large = data.draw(convolutions(x))
    branches = [data.draw(within(large, x)) for _ in range(count)]
    assume(all(op.infer(x) == large.infer(x) for op in branches))
    branches.insert(place, large)
    graph = graph_of_steps(x, *((op, [0]) for op in branches), (Add(), range(1, count + 2)))
    rewritten = same_function(graph, sum_branches)
    (node,) = rewritten.nodes[1:]
    assert node.op.kernel == large.kernel and node.op.bias == any(op.bias for op in branches)
    assert rewritten.macs == large.macs(x)


@st.composite
def elsewhere(draw: st.DrawFn, axis: Axis) -> Axis:
    """Other windows along an axis, as many as those."""
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    padding = axis.before + axis.after - axis.reach + dilation * (kernel - 1)
    if padding < 0:
        kernel, dilation, padding = axis.kernel, axis.dilation, axis.before + axis.after
    before = draw(st.integers(0, padding))
    return Axis(kernel, axis.stride, dilation, before, padding - before)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), x=maps(), skip=st.booleans())
def test_any_two(data: st.DataObject, x: TensorType, skip: bool) -> None:
    """Whatever is done with them, the function and the cost stay."""
    a = data.draw(convolutions(x))
    down, across = (data.draw(elsewhere(axis)) for axis in axes(a))
    b = conv_of(down, across, a.features, 1)
    extra = [0] if skip and a.infer(x) == x else []
    graph = graph_of_steps(x, (a, [0]), (b, [0]), (Add(), [1, 2, *extra]))
    assert same_function(graph, sum_branches).macs <= graph.macs


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
    "windows that overlap": "branches add { conv 8 3x3 pad=1\n conv 8 3x3 pad=(2,2,0,0) }",
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


def test_nan_spreads_no_further() -> None:
    graph = net("branches add { depthwise 3x3 pad=1\n depthwise 1x3 pad=0x1\n skip }")
    weights, x = random_weights(graph, 3), np.zeros((1, 4, 9, 9))
    x[0, 1, 4, 4] = np.nan
    before, after = (np.isnan(reference.run(g, weights, [x])[0]) for g in (graph, rewrite(graph)))
    assert before.sum() == 9 and np.array_equal(before, after)


def test_the_sum_is_named_after_its_convolutions() -> None:
    rewritten = rewrite(net(REPVGG.format(stride=1, skip="same: batchnorm")))
    assert [n.path for n in rewritten.nodes[1:]] == ["three.0+one.0"]
