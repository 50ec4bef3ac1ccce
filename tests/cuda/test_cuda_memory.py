"""The memory plan of whole networks: every layer computed by its definition, read from and written to its place.

What a place that is reused too early, or shared by two, would do to a network's answer shows here without a GPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from test_cuda_plan import Unpacked

from netdsl.backends.cuda.lower import plan_steps
from netdsl.backends.cuda.planner import Planner
from netdsl.backends.cuda.program import Plan, placed
from netdsl.backends.cuda.views import View
from netdsl.backends.reference.interpreter import evaluate, run
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.ops.base import Input
from netdsl.passes import rewrite
from netdsl.weights import random_weights

FACTS = json.loads((Path(__file__).parent.parent / "golden" / "networks" / "facts.json").read_text())
TOO_MUCH = 1.6e9  # chosen: multiply-accumulates that NumPy does in a few seconds


def within(arena: np.ndarray, plan: Plan, view: View, lanes: int) -> np.ndarray:
    """The lanes of a view as an array [N, lanes, H, W] that is part of the arena."""
    start = plan.offsets[view.buffer] + view.start
    strides = tuple(4 * s for s in (view.image, 1, view.row, view.pixel))
    return as_strided(arena[start:], (plan.images, lanes, view.height, view.width), strides)


def by_plan(graph: Graph, weights: dict[str, Any], inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a rewritten graph whose tensors lie where the plan says."""
    planner = Planner(graph, Unpacked({}), len(inputs[0]))
    plan_steps(planner)
    plan = placed(planner)
    arena = np.full(plan.arena_floats + 64, np.nan, np.float32)

    def read(index: int) -> np.ndarray:
        view = planner.views[index]
        return within(arena, plan, view, view.channels).reshape(plan.images, *graph.nodes[index].type.shape).copy()

    def write(index: int, values: np.ndarray) -> None:
        view = planner.views[index]
        place = within(arena, plan, view, view.lanes)
        place[:, view.channels :] = 0
        place[:, : view.channels] = values.reshape(place[:, : view.channels].shape)

    for spec, x in zip(graph.inputs, inputs, strict=True):
        write(spec.node, x)
    for index, node in enumerate(graph.nodes):
        if not isinstance(node.op, Input):
            write(index, evaluate(node, weights, [read(i) for i in node.inputs], np.float32))
    return [read(spec.node) for spec in graph.outputs]


def check(graph: Graph, images: int) -> None:
    weights, rng = random_weights(graph, 1), np.random.default_rng(0)
    inputs = [rng.standard_normal((images, *spec.type.shape)).astype(np.float32) for spec in graph.inputs]
    graph = rewrite(graph)
    for found, expected in zip(by_plan(graph, weights, inputs), run(graph, weights, inputs, np.float32), strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", [n for n in FACTS if FACTS[n]["macs"] < TOO_MUCH])
def test_networks_keep_what_they_still_need(name: str) -> None:
    check(build(name), images=1)


TANGLES = {
    "cumulative joins": "conv 4 1x1\n repeat 3 { branches concat { skip\n batchnorm | relu | conv 4 3x3 pad=1 } }",
    "joined twice": "a: conv 4 1x1\n concat a\n b: conv 4 1x1\n concat a b",
    "joins in joins": "branches concat { branches concat { conv 4 1x1\n conv 8 1x1 }\n conv 5 1x1 }\n maxpool 2x2",
    "residuals in a row": "conv 4 1x1\n repeat 3 { residual { conv 4 3x3 pad=1 | relu | conv 4 3x3 pad=1 }\n relu }",
    "a residual read again": "a: conv 4 1x1\n residual { 1x1 6 | 1x1 4 }\n add a",
    "a residual flattened before": "a: 1x1 4\n f: flatten\n from a\n residual { 1x1 6 | 1x1 4 }\n output one\n"
    " from f\n dense 5\n output two",
    "a residual joined before": "s: 1x1 4 | a: 1x1 4\n concat s\n output one\n from a\n residual { 1x1 6 | 1x1 4 }\n"
    " output two",
    "outputs on the way": "conv 4 1x1\n output first\n residual { conv 4 3x3 pad=1 }\n output last",
    "one pixel flattened": "avgpool global | flatten | a: dense 6 | relu | dense 6 | add a",
    "phases": "conv 4 1x1\n residual { conv 4 2x2 stride=2 | deconv 4 2x2 stride=2 }",
}


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("name", TANGLES)
def test_tangles(name: str, images: int) -> None:
    check(build(f"netdsl 1\nnet sample {{\n  input x 8x6x4\n{TANGLES[name]}\n}}\n"), images)
