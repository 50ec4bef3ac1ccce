"""Two linear layers in a row as one: the same function for every geometry, and only where it is exact and cheaper."""

from __future__ import annotations

import math
from importlib import import_module
from unittest import mock

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from linear_graphs import convolutions, graph_of_steps, maps, net, same_function

from netdsl.ops.conv import Conv
from netdsl.ops.dense import Dense
from netdsl.passes import rewrite
from netdsl.passes.kernel_algebra import Axis, axes
from netdsl.passes.merge_chains import merge_chains
from netdsl.tensor import TensorType

module = import_module("netdsl.passes.merge_chains")  # the package has a function of that name
AT_ANY_COST = mock.patch.object(module, "pays", lambda new, old: True)


def sees_the_map(op: Conv, x: TensorType) -> bool:
    """Whether every window of a convolution meets a cell that is not padding."""
    pairs = zip(axes(op), x.shape[1:], strict=True)
    return all(set(a.cells(j)) & set(range(n)) for a, n in pairs for j in range(a.positions(n)))


def nothing_between(first: Conv, second: Conv) -> bool:
    """Whether every cell and channel of the composed kernel is met."""
    cells = [{i + a.stride * j for i in a.taps for j in b.taps} for a, b in zip(axes(first), axes(second), strict=True)]
    steps = [math.gcd(*taps) or 1 for taps in cells]
    full = all(len(taps) == max(taps) // step + 1 for taps, step in zip(cells, steps, strict=True))
    return full and math.gcd(first.groups, second.groups) in (first.groups, second.groups)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), x=maps())
def test_every_geometry(data: st.DataObject, x: TensorType) -> None:
    """What is merged is exact; what is not would not have been, if no window lies in the padding altogether.

    Unless the composed kernel would have been filled up with zeros.
    """
    first = data.draw(convolutions(x))
    second = data.draw(convolutions(first.infer(x)))
    graph = graph_of_steps(x, (first, [0]), (second, [1]))
    with AT_ANY_COST:
        merged = len(same_function(graph, merge_chains).nodes) == 2
    event(f"merged: {merged}")
    seen = sees_the_map(first, x) and sees_the_map(second, first.infer(x))
    if not merged and seen and nothing_between(first, second):
        with AT_ANY_COST, mock.patch.object(Axis, "outside", lambda axis, length: set()), pytest.raises(AssertionError):
            same_function(graph, merge_chains)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=3, max_size=5), biases=st.integers(0, 15))
def test_dense_layers(sizes: list[int], biases: int) -> None:
    layers = [Dense(n, bool(biases >> i & 1)) for i, n in enumerate(sizes[1:])]
    graph = net("flatten", f"{sizes[0]}x1x1")
    x = graph.nodes[1].type
    with AT_ANY_COST:
        rewritten = same_function(graph_of_steps(x, *((op, [i]) for i, op in enumerate(layers))), merge_chains)
    assert [n.op for n in rewritten.nodes[1:]] == [Dense(sizes[-1], any(op.bias for op in layers))]


MERGED = {
    "a projection after a window": ("conv 16 3x3 pad=1 | 1x1 4", "conv 4 3x3"),
    "an expansion before a window": ("1x1 16 bias=no | conv 8 3x3 pad=1", "conv 8 3x3"),
    "a window without padding": ("1x1 16 | conv 8 3x3", "conv 8 3x3"),
    "separable, of many channels between": ("conv 32 3x1 | conv 32 1x3 | 1x1 1", "conv 1 3x3"),
    "only every second": ("conv 8 3x3 pad=1 | 1x1 8 stride=2", "conv 8 3x3 /2"),
    "full padding": ("conv 32 2x2 pad=2 bias=no | conv 4 2x2 pad=1", "conv 4 3x3"),
    "a filter that scales": ("kernel [[2]] | conv 8 3x3 pad=1", "conv 8 3x3"),
    "groups": ("conv 32 3x3 groups=2 | 1x1 4 groups=2", "conv 4 3x3 groups 2"),
    "with batch norm": ("conv 16 3x3 bias=no | batchnorm | 1x1 4 | batchnorm", "conv 4 3x3"),
}


@pytest.mark.parametrize("name", MERGED)
def test_merged(name: str) -> None:
    body, described = MERGED[name]
    rewritten = same_function(net(body), rewrite, 1e-9)
    assert [n.op.describe() for n in rewritten.nodes[1:]] == [described]


KEPT = {
    "an activation between": "conv 16 3x3 | relu | 1x1 4",
    "another reader": "a: conv 16 1x1\n b: conv 16 1x1\n mul a",
    "an output": "conv 16 3x3\n output middle\n 1x1 4\n output last",
    "padding and a bias": "1x1 16 | conv 8 3x3 pad=1",
    "padding where the first would see the map": "conv 32 3x3 pad=1 bias=no | conv 1 3x3 pad=1",
    "a bottleneck": "1x1 1 | 1x1 8",
    "a depthwise separable convolution": "sepconv 8 3x3 pad=1",
    "two windows of few channels": "conv 4 3x3 | conv 4 3x3",
    "pooling between": "conv 16 3x3 | maxpool 2x2 | 1x1 4",
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    graph = net(KEPT[name])
    assert merge_chains(graph) == graph


def test_winograds_algorithm_is_not_given_up() -> None:
    graph = net("conv 3 3x3 | conv 2 3x3", "2x20x20")
    assert graph.macs > 25 * 2 * 2 * 16**2  # one 5x5 convolution has fewer products by the definition
    assert merge_chains(graph) == graph


def test_weights_are_not_enlarged_for_a_few_products() -> None:
    body = "conv 64 1x1 stride=1 bias=no | conv 64 6x6 | 1x1 64"
    assert [n.op.describe() for n in merge_chains(net(body, "64x6x6")).nodes[1:]] == ["conv 64 6x6"]
    wide = net("conv 8 3x3 pad=1 bias=no | conv 2048 7x7", "8x7x7")
    assert merge_chains(wide) == wide


def test_nothing_takes_long_to_compose() -> None:
    with mock.patch.object(module, "MAX_COMPOSITION", 4 * 16 * 4 * 9 - 1):
        graph = net("conv 16 3x3 pad=1 | 1x1 4")
        assert merge_chains(graph) == graph


def test_a_merged_layer_is_named_after_both() -> None:
    rewritten = rewrite(net("stem: conv 16 3x3 | head: 1x1 4"))
    assert rewritten.nodes[1].path == "stem+head"
    assert isinstance(rewritten.nodes[1].op, Conv)


def test_float32_weights_stay_float32() -> None:
    (node,) = rewrite(net("conv 16 3x3 | 1x1 4")).nodes[1:]
    made = node.weights["weight"].evaluate(lambda name: np.ones((16, 4, 3, 3) if "0" in name else (4, 16, 1, 1), "f4"))
    assert made.dtype == np.float32 and made.shape == node.weights["weight"].shape


@pytest.mark.parametrize("body", ["conv 4 2x1 dilation=3x1 | conv 4 2x1", "conv 6 1x1 groups=2 | conv 6 1x1 groups=3"])
def test_no_kernel_is_filled_up_with_zeros(body: str) -> None:
    graph = net(body, "4x9x9" if "dil" in body else "2x9x9")
    with AT_ANY_COST:
        assert merge_chains(graph) == graph
