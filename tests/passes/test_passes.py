"""Rewrites keep the function: the definition of the graph before and after agrees in float64."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from netdsl.backends import reference
from netdsl.graph import library
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.graph.verify import verify
from netdsl.ops.activation import Relu, Tanh
from netdsl.ops.conv import Conv
from netdsl.ops.join import Add
from netdsl.ops.norm import BatchNorm
from netdsl.passes import PASSES, rewrite
from netdsl.weights import random_weights


def net(body: str) -> Graph:
    return build(f"netdsl 1\nnet sample {{\n  input x 4x9x9\n{body}\n}}\n")


SAMPLES = {
    "batchnorm": ("conv 8 3x3 bias=no | batchnorm | relu", 2),
    "batchnorm twice": ("conv 8 3x3 | batchnorm eps=0.001 | scale | relu", 2),
    "grouped deconv": ("deconv 6 3x3 stride=2 groups=2 bias=no | batchnorm", 2),
    "dense": ("flatten | dense 7 | batchnorm | tanh", 3),
    "residual": ("residual { conv 4 3x3 pad=1 | batchnorm }\n relu", 2),
    "projection": ("residual { conv 6 3x3 pad=1 | batchnorm } skip down { tanh | conv 6 1x1 | batchnorm }\n relu6", 4),
    "dropout": ("conv 8 3x3 | dropout | relu", 2),
    "filter": ("kernel [[0,1,2],[3,4,5],[6,7,8]] flip=yes | relu", 2),
    "read twice": ("a: conv 4 3x3 pad=1\n batchnorm\n add a", 4),
    "output in the middle": ("conv 4 3x3 pad=1\n output first\n relu\n output second", 3),
    "activation before addition": ("residual { conv 4 3x3 pad=1 | relu }\n relu", 3),
    "pre-activation": ("batchnorm | relu | conv 4 1x1", 3),
    "one tensor added to itself": ("a: conv 4 1x1\n add a", 3),
    "pooled tanh": ("conv 8 3x3 | tanh | maxpool 2x2 | conv 4 1x1", 4),
    "pooled leaky": ("maxpool 2x2 | leaky 0.1 | maxpool 3x3 stride=1 pad=1 | sigmoid | maxpool global", 5),
    "pooled silu": ("conv 8 3x3 | silu | maxpool 2x2", 3),
    "chain": ("conv 8 1x1 | tanh | relu", 3),
}


def outputs(graph: Graph, weights: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    x = np.random.default_rng(3).standard_normal((2, *graph.inputs[0].type.shape))
    return reference.run(graph, weights, [x])


@pytest.mark.parametrize("name", SAMPLES)
def test_every_pass_keeps_the_function(name: str) -> None:
    body, size = SAMPLES[name]
    graph = net(body)
    weights = random_weights(graph, 3)
    expected = outputs(graph, weights)
    for run in PASSES:
        graph = run(graph)
        for a, b in zip(outputs(graph, weights), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=run.__name__)
    assert len(graph.nodes) == size, [n.op for n in graph.nodes]


def test_a_residual_block_becomes_two_kernels() -> None:
    graph = rewrite(net("residual { conv 4 3x3 pad=1 | batchnorm | relu\n conv 4 3x3 pad=1 | batchnorm }\n relu"))
    first, second = graph.nodes[1:]
    assert isinstance(first.op, Conv) and first.fused == (Relu(),)
    assert isinstance(second.op, Conv) and second.fused == (Add(), Relu()) and second.inputs == (1, 0)


def test_a_result_that_is_read_twice_is_not_overwritten() -> None:
    graph = rewrite(net("a: conv 4 1x1\n tanh\n add a"))
    assert [type(n.op) for n in graph.nodes[1:]] == [Conv, Tanh, Add]


def test_a_normalisation_without_a_linear_layer_stays() -> None:
    graph = rewrite(net("maxpool 3x3 | batchnorm | relu"))
    assert isinstance(graph.nodes[2].op, BatchNorm) and graph.nodes[2].fused == (Relu(),)


def test_rewriting_changes_neither_the_graph_nor_its_costs() -> None:
    graph = net("conv 8 3x3 bias=no | batchnorm | relu")
    before = graph.nodes
    assert rewrite(graph).macs == graph.macs
    assert graph.nodes is before and len(before) == 4


@pytest.mark.parametrize("name", library.names())
def test_no_network_that_ships_costs_more(name: str) -> None:
    graph = build(name)
    rewritten = rewrite(graph)
    verify(rewritten)
    assert rewritten.macs <= graph.macs or "filters" in name  # fixed filters become convolutions, which count


@pytest.mark.parametrize("body", ["scale", "1x1 4", "residual { 1x1 4 }"])
def test_a_chain_of_any_length_can_be_evaluated(body: str) -> None:
    graph = net(f"1x1 4\n repeat 1200 {{ {body} }}")
    (made,) = rewrite(graph).nodes[1:]
    weights = {n: np.zeros(w.shape) for n, w in random_weights(graph, 3).items()}
    assert not made.weights["weight"].evaluate(weights.__getitem__).any()
