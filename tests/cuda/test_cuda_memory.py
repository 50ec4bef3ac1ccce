"""The memory plan of whole networks: every layer computed by its definition, read from and written to its place.

What a place that is reused too early, or shared by two, would do to a network's answer shows here without a GPU, and
so does what rounding does to it: tensors have the types in memory that the plan gives them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from test_cuda_plan import Unpacked

from cuda_convolutions import of_bits
from netdsl.backends.cuda.lower import plan_steps
from netdsl.backends.cuda.planner import Planner
from netdsl.backends.cuda.precision import tensor_types
from netdsl.backends.cuda.program import Plan, placed
from netdsl.backends.cuda.views import Address, View
from netdsl.backends.reference.interpreter import evaluate, run
from netdsl.graph.build import build
from netdsl.graph.ir import Derived, Graph, Node, Weight
from netdsl.halves import BITS
from netdsl.ops.base import Input
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.dense import Dense
from netdsl.passes import rewrite
from netdsl.weights import random_weights

FACTS = json.loads((Path(__file__).parent.parent / "golden" / "networks" / "facts.json").read_text())
TOO_MUCH = 1.6e9  # chosen: multiply-accumulates that NumPy does in a few seconds


def within(arena: np.ndarray, plan: Plan, view: View, lanes: int) -> np.ndarray:
    """The lanes of a view as an array [N, lanes, H, W] that is part of the arena: float32, or the bits of halves."""
    elements = arena.view(np.float32 if view.dtype == "float32" else np.uint16)
    strides = tuple(elements.itemsize * s for s in (view.image, 1, view.row, view.pixel))
    start = Address(view).within(plan.offsets[view.buffer])
    return as_strided(elements[start:], (plan.images, lanes, view.height, view.width), strides)


def by_plan(
    graph: Graph, weights: dict[str, Any], inputs: list[np.ndarray], precision: str = "float32"
) -> list[np.ndarray]:
    """The outputs of a rewritten graph whose tensors lie where the plan says."""
    planner = Planner(graph, Unpacked({}), len(inputs[0]), precision)
    plan_steps(planner)
    plan = placed(planner)
    arena = np.full(plan.arena_floats + 64, np.nan, np.float32)

    def read(index: int) -> np.ndarray:
        view = planner.views[index]
        values = within(arena, plan, view, view.channels).reshape(plan.images, *graph.nodes[index].type.shape).copy()
        return values if view.dtype == "float32" else of_bits(values, view.dtype)

    def write(index: int, values: np.ndarray) -> None:
        view = planner.views[index]
        place = within(arena, plan, view, view.lanes)
        place[:, view.channels :] = 0
        if view.dtype != "float32":
            values = BITS[view.dtype](np.ascontiguousarray(values, np.float32))
        place[:, : view.channels] = values.reshape(place[:, : view.channels].shape)

    for spec, x in zip(graph.inputs, inputs, strict=True):
        write(spec.node, x)
    for index, node in enumerate(graph.nodes):
        if not isinstance(node.op, Input):
            write(index, evaluate(node, weights, [read(i) for i in node.inputs], np.float32))
    return [read(spec.node) for spec in graph.outputs]


def rounded(graph: Graph, weights: dict[str, Any], precision: str) -> Graph:
    """The graph with the weights of convolutions and dense layers as they are stored, in half precision."""

    def stored(weight: Weight) -> Weight:
        values = np.asarray(weight.evaluate(weights.__getitem__), np.float32)
        return Derived(lambda: of_bits(BITS[precision](values), precision), (), values.shape)

    def changed(node: Node) -> Node:
        if not isinstance(node.op, (Conv, Deconv, Dense)):
            return node
        return replace(node, weights={**node.weights, "weight": stored(node.weights["weight"])})

    return replace(graph, nodes=tuple(map(changed, graph.nodes)))


def error(name: str, precision: str) -> float:
    """How far a network is from its answer in float64 when tensors have the types of the plan, of the largest value."""
    graph = build(name)
    weights, rng = random_weights(graph, 1), np.random.default_rng(0)
    inputs = [rng.standard_normal((1, *spec.type.shape)).astype(np.float32) for spec in graph.inputs]
    expected = run(graph, weights, inputs)
    graph = rewrite(graph)
    found = by_plan(rounded(graph, weights, precision), weights, inputs, precision)
    return max(float(np.abs(y - e).max() / np.abs(e).max()) for y, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", [n for n in FACTS if FACTS[n]["macs"] < TOO_MUCH])
def test_networks_in_half_precision_stay_within_a_hundredth(name: str, precision: str) -> None:
    assert error(name, precision) <= 1e-2


def kept_apart(graph: Graph, weights: dict[str, Any], inputs: list[np.ndarray], precision: str) -> list[np.ndarray]:
    """The outputs of a rewritten graph whose tensors share no memory, each rounded to its type."""
    values: list[np.ndarray] = []
    given = {spec.node: x for spec, x in zip(graph.inputs, inputs, strict=True)}
    for index, dtype in enumerate(tensor_types(graph, precision)):
        node = graph.nodes[index]
        made = given.get(index)
        if made is None:
            made = evaluate(node, weights, [values[i] for i in node.inputs], np.float32)
        made = np.ascontiguousarray(made, np.float32)
        values.append(made if dtype == "float32" else of_bits(BITS[dtype](made), dtype))
    return [values[spec.node] for spec in graph.outputs]


def check(graph: Graph, images: int, precision: str = "float32") -> None:
    weights, rng = random_weights(graph, 1), np.random.default_rng(0)
    inputs = [rng.standard_normal((images, *spec.type.shape)).astype(np.float32) for spec in graph.inputs]
    graph = rewrite(graph)
    answers = kept_apart(graph, weights, inputs, precision)
    for found, expected in zip(by_plan(graph, weights, inputs, precision), answers, strict=True):
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


@pytest.mark.parametrize(("images", "precision"), [(1, "float32"), (3, "float32"), (1, "float16"), (3, "bfloat16")])
@pytest.mark.parametrize("name", TANGLES)
def test_tangles(name: str, images: int, precision: str) -> None:
    body = TANGLES[name] if precision == "float32" else TANGLES[name].replace("1x1 4", "1x1 8").replace(" 4 ", " 8 ")
    check(build(f"netdsl 1\nnet sample {{\n  input x 8x6x4\n{body}\n}}\n"), images, precision)
