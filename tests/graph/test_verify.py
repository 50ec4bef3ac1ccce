"""Graphs that break a promise are noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from graph.texts import built
from netdsl.graph.build import build
from netdsl.graph.ir import Graph, Node, OutputSpec, Stored
from netdsl.graph.library import names
from netdsl.graph.verify import verify
from netdsl.ops import LAYERS
from netdsl.ops.activation import Relu
from netdsl.ops.join import Add
from netdsl.tensor import TensorType


def changed(graph: Graph, i: int, **fields: object) -> Graph:
    nodes = list(graph.nodes)
    nodes[i] = replace(nodes[i], **fields)  # type: ignore[arg-type]
    return replace(graph, nodes=tuple(nodes))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda g: changed(g, 2, path=g.nodes[1].path),
        lambda g: changed(g, 1, inputs=(2,)),
        lambda g: changed(g, 1, inputs=(1,)),
        lambda g: changed(g, 1, inputs=(-1,)),
        lambda g: changed(g, 1, type=TensorType((4, 8, 8))),
        lambda g: changed(g, 1, weights={"weight": Stored("a", (1, 2))}),
        lambda g: replace(g, outputs=()),
        lambda g: replace(g, outputs=(OutputSpec("out", 9),)),
        lambda g: replace(g, inputs=()),
        lambda g: replace(g, inputs=(replace(g.inputs[0], node=1),)),
        lambda g: replace(g, nodes=(*g.nodes, Node("more", g.nodes[0].op, (), g.nodes[0].type))),
    ],
)
def test_broken_promises(spoil: Callable[[Graph], Graph]) -> None:
    graph = built("conv 4 3x3\nrelu")
    verify(graph)
    with pytest.raises(AssertionError):
        verify(spoil(graph))


def test_fused_operations() -> None:
    graph = built("a: relu\nconv 3 3x3 pad=1")
    verify(changed(graph, 2, fused=(Add(), Relu()), inputs=(1, 0)))
    with pytest.raises(AssertionError):
        verify(
            changed(
                built("a: maxpool 2x2\nfrom image\nconv 3 3x3 pad=1\noutput o\nfrom a\noutput p"),
                2,
                fused=(Add(),),
                inputs=(0, 1),
            )
        )


@pytest.mark.parametrize("name", names())
def test_shipped_networks(name: str) -> None:
    verify(build(name))


@pytest.mark.parametrize("word", LAYERS)
def test_every_layer_has_an_example_that_builds(word: str) -> None:
    graph = built(LAYERS[word].example, size="16x32x32")
    verify(graph)
    assert len(graph.nodes) > 1
