"""Small graphs of linear layers, drawn or written, and the check that a rewrite keeps their function to rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from netdsl.backends import reference
from netdsl.errors import Source
from netdsl.graph.build import build
from netdsl.graph.ir import Graph, InputSpec, Node, OutputSpec, Stored
from netdsl.graph.verify import verify
from netdsl.ops.base import Input, Op
from netdsl.ops.conv import Conv
from netdsl.tensor import TensorType
from netdsl.weights import random_weights

EXACT = 1e-12  # of the largest value: rounding in float64


def net(body: str, shape: str = "4x9x9") -> Graph:
    """The graph of a body behind one input."""
    return build(f"netdsl 1\nnet sample {{\n  input x {shape}\n{body}\n}}\n")


def graph_of_steps(x: TensorType, *steps: tuple[Op, Sequence[int]]) -> Graph:
    """Node 0 is the input x, node i the i-th step (operation, the nodes it reads); the last is the output."""
    nodes = [Node("x", Input(x), (), x)]
    for i, (op, inputs) in enumerate(steps, 1):
        types = [nodes[j].type for j in inputs]
        weights = {role: Stored(f"n{i}.{role}", p.shape, p.learnable) for role, p in op.params(*types).items()}
        nodes.append(Node(f"n{i}", op, tuple(inputs), op.infer(*types), weights))
    return Graph("steps", tuple(nodes), (InputSpec("x", 0, x),), (OutputSpec("y", len(steps)),), Source("<test>", ""))


def same_function(graph: Graph, run: Callable[[Graph], Graph], tolerance: float = EXACT) -> Graph:
    """The rewritten graph, whose answers on random weights are those of the graph within rounding."""
    rewritten = run(graph)
    verify(rewritten)
    rng = np.random.default_rng(7)
    weights = {n: w.astype(np.float64) for n, w in random_weights(graph, 5).items()}
    weights |= {n: rng.standard_normal(w.shape) for n, w in weights.items() if not n.endswith("running_var")}
    inputs = [rng.standard_normal((2, *spec.type.shape)) for spec in graph.inputs]
    before, after = (reference.run(g, weights, inputs) for g in (graph, rewritten))
    for a, b in zip(before, after, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * np.abs(a).max()
    return rewritten


@st.composite
def maps(draw: st.DrawFn) -> TensorType:
    return TensorType((draw(st.sampled_from((1, 2, 4, 6))), draw(st.integers(1, 9)), draw(st.integers(1, 9))))


@st.composite
def convolutions(draw: st.DrawFn, x: TensorType, stride: tuple[int, int] | None = None) -> Conv:
    """Any convolution that fits onto a map."""
    axes = [_axis(draw, length) for length in x.shape[1:]]
    kernel, strides, dilation, before, after = zip(*axes, strict=True)
    features = draw(st.sampled_from((1, 2, 4, 6)))
    groups = draw(st.sampled_from([g for g in (1, 1, 2, 3, 4, 6) if not x.channels % g and not features % g]))
    return Conv(features, kernel, stride or strides, (*before, *after), dilation, groups, draw(st.booleans()))


def _axis(draw: st.DrawFn, length: int) -> tuple[int, int, int, int, int]:
    before, after = draw(st.sampled_from((0, 0, 1, 2, 4))), draw(st.sampled_from((0, 0, 1, 2, 3)))
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    if dilation * (kernel - 1) >= length + before + after:
        kernel = 1
    return kernel, draw(st.sampled_from((1, 1, 2, 3))), dilation, before, after
