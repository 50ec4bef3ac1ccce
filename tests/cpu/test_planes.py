"""Maps of few channels are kept plane by plane where every kernel around them can: which, and with the same answers."""

from __future__ import annotations

import numpy as np
import pytest

from netdsl.backends import cpu, reference
from netdsl.backends.cpu.demands import halos, planar_maps
from netdsl.backends.cpu.target import WIDTH
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.passes import rewrite
from netdsl.weights import random_weights

pytestmark = pytest.mark.skipif(WIDTH < 8, reason="with four lanes or fewer, three channels are not few")

ALL_PLANAR = """netdsl 1
net all_planar {
  input image 3x13xWIDE
  conv 3 3x3 stride=2x1 pad=1 | relu
  pad (1, 2, 0, 1) mode=MODE
  branches add {
    pad (1, 2, 1, 1) | depthwise 3x3 dilation=1x2 pad=(0, 0, 0, 1) | silu
    skip }
  sigmoid
  residual { pad (0, 1, 0, 3) | conv 3 1x5 groups=3 }
  leaky
  branches mul {
    pad (0, 0, 1, 1) | conv 3 2x2 bias=no
    relu6 }
}
"""


def planar(graph: Graph) -> list[bool]:
    """For each node of the rewritten graph whether its result is planar."""
    rewritten = rewrite(graph)
    found = planar_maps(rewritten, halos(rewritten, {}))
    return [i in found for i in range(len(rewritten.nodes))]


@pytest.mark.parametrize("mode", ["edge", "reflect", "zero"])
@pytest.mark.parametrize("width", [3, 16, 31, 150])
def test_chains_of_planes(mode: str, width: int) -> None:
    graph = build(ALL_PLANAR.replace("WIDE", str(width)).replace("MODE", mode))
    assert all(planar(graph))
    weights = random_weights(graph, 3)
    x = np.random.default_rng(width).standard_normal((3, 3, 13, width)).astype(np.float32)
    (expected,) = reference.run(graph, weights, [x])
    for threads in (1, 2):
        (y,) = cpu.lower(graph, weights, threads)([x])
        np.testing.assert_allclose(y, expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("conv 16 3x3 pad=1", [True, False]),  # a wide result is blocked; its thin input need not be
        ("conv 4 3x3 stride=2", [True, False]),  # pixels of a row do not follow each other
        ("maxpool 2x2", [False, False]),  # a reader that knows blocks only
        ("conv 4 3x3 | maxpool 2x2", [True, False, False]),
        ("residual { conv 3 3x3 pad=1 }", [True, True]),
        ("sigmoid | conv 3 3x3 pad=1", [False, False, False]),  # zeros around the sigmoid would not be a sigmoid's
        ("relu | pad 1 channels=(0,1) | conv 3 3x3", [False, False, False, False]),
    ],
)
def test_which_maps_are_planar(layers: str, expected: list[bool]) -> None:
    graph = build(f"netdsl 1\nnet n {{\n  input image 3x12x12\n  {layers}\n}}\n")
    assert planar(graph) == expected
    weights = random_weights(graph, 0)
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    (answer,) = reference.run(graph, weights, [x])
    np.testing.assert_allclose(cpu.lower(graph, weights, 2)([x])[0], answer, atol=1e-5)
