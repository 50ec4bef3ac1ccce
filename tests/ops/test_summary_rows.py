"""Costs, memory and receptive fields against values worked out by hand."""

import math
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from words import make

from netdsl.backends.reference import run
from netdsl.errors import Source
from netdsl.graph.ir import Graph, InputSpec, Node, OutputSpec, Stored
from netdsl.graph.show import bytes_text, summary
from netdsl.ops.activation import Relu
from netdsl.ops.base import Input, Op, Word
from netdsl.ops.join import Add, Concat, Mul
from netdsl.tensor import TensorType


class Builder:
    """Appends nodes one by one, with layer words or operators."""

    def __init__(self, *shape: int) -> None:
        kind = TensorType(shape)
        self.nodes = [Node("image", Input(kind), (), kind)]

    def add(self, op: Op, *inputs: int) -> int:
        sources = inputs or (len(self.nodes) - 1,)
        types = [self.nodes[i].type for i in sources]
        path = f"layer{len(self.nodes)}"
        weights = {r: Stored(f"{path}.{r}", p.shape, p.learnable) for r, p in op.params(*types).items()}
        self.nodes.append(Node(path, op, sources, op.infer(*types), weights))
        return len(self.nodes) - 1

    def word(self, word: str, *inputs: int, **given: object) -> int:
        return self.add(make(word, self.nodes[inputs[0] if inputs else -1].type, **given), *inputs)

    def graph(self) -> Graph:
        inputs = (InputSpec("image", 0, self.nodes[0].type),)
        return Graph("made", tuple(self.nodes), inputs, (OutputSpec("out", len(self.nodes) - 1),), Source("", ""))


def fields(builder: Builder) -> list[tuple[int, int]]:
    return [row.receptive_field for row in summary(builder.graph())]


def test_receptive_field_of_vgg16() -> None:
    """Two or three 3x3 convolutions and a pooling, five times: 212 cells at the end, then all of them."""
    b = Builder(3, 224, 224)
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            b.word("conv", features=8, kernel=3, pad=1)
        b.word("maxpool", kernel=2)
    expected = [1, 3, 5, 6, 10, 14, 16, 24, 32, 40, 44, 60, 76, 92, 100, 132, 164, 196, 212]
    assert fields(b) == [(n, n) for n in expected]
    b.word("flatten")
    b.word("dense", features=10)
    b.word("dense", features=10)
    assert fields(b)[-3:] == [(212, 212), (404, 404), (404, 404)]  # 212 + 6 steps of 32


def test_receptive_field_of_alexnet() -> None:
    b = Builder(3, 224, 224)
    for kernel, stride, pooled in ((11, 4, True), (5, 1, True), (3, 1, False), (3, 1, False), (3, 1, True)):
        b.word("conv", features=8, kernel=kernel, stride=stride, pad=kernel // 2)
        if pooled:
            b.word("maxpool", kernel=3, stride=2)
    assert [f[0] for f in fields(b)] == [1, 11, 19, 51, 67, 99, 131, 163, 195]


def test_receptive_field_is_rectangular_and_dilated() -> None:
    b = Builder(3, 64, 64)
    b.word("conv", features=4, kernel=(1, 7), stride=(1, 2))
    b.word("conv", features=4, kernel=(3, 3), dilation=(2, 3))
    assert fields(b) == [(1, 1), (1, 7), (5, 19)]


def test_receptive_field_of_joins_is_the_widest_and_points_keep_it() -> None:
    b = Builder(4, 32, 32)
    narrow = b.word("conv", 0, features=4, kernel=1)
    wide = b.word("conv", 0, features=4, kernel=5, pad=2)
    b.add(Concat(), narrow, wide)
    b.word("batchnorm")
    b.add(Relu())
    assert [f[0] for f in fields(b)] == [1, 1, 5, 5, 5, 5]


def test_a_gate_sees_the_whole_map() -> None:
    b = Builder(4, 32, 32)
    b.word("avgpool", 0, kernel=Word("global"))
    b.add(Mul(), 0, 1)
    b.word("conv", features=4, kernel=3)
    assert fields(b) == [(1, 1), (32, 32), (32, 32), (32, 32)]


def test_receptive_field_after_enlarging() -> None:
    """Down by 2 and up by 2: a 3x3 window then lies over two of the 3x3 fields."""
    b = Builder(4, 32, 32)
    b.word("conv", features=4, kernel=3, stride=2, pad=1)
    b.word("upsample", scale=2)
    b.word("conv", features=4, kernel=3, pad=1)
    assert [f[0] for f in fields(b)] == [1, 3, 3, 5]
    b = Builder(4, 8, 8)
    b.word("deconv", features=4, kernel=4, stride=2, pad=1)  # each output lies under two stamps
    b.word("conv", features=4, kernel=2)  # some lie over two outputs that see three inputs
    b.word("pixelshuffle", factor=2)
    assert [f[0] for f in fields(b)] == [1, 2, 3, 3]
    b = Builder(4, 8, 8)
    b.word("deconv", features=4, kernel=(3, 5), stride=2)  # under one or two stamps, under two or three
    assert fields(b)[1] == (2, 3)


LINE = {
    "conv": lambda b, k, s: b.word("conv", features=1, kernel=(k, 1), stride=(s, 1), pad=(k // 2, 0), bias=False),
    "spread": lambda b, k, s: b.word("conv", features=1, kernel=(k, 1), dilation=(2, 1), pad=(k - 1, 0), bias=False),
    "pool": lambda b, k, s: b.word("avgpool", kernel=(k, 1), stride=(s, 1)),
    "nearest": lambda b, k, s: b.word("upsample", scale=(s, 1)),
    "deconv": lambda b, k, s: b.word("deconv", features=1, kernel=(k, 1), stride=(s, 1), bias=False),
}


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(sorted(LINE)), st.integers(1, 4), st.integers(1, 3)), max_size=4))
@example(steps=[("conv", 1, 3), ("conv", 1, 3), ("conv", 1, 3), ("spread", 4, 1)])  # no window of it fits the map
def test_receptive_field_is_what_outputs_depend_on(steps: list[tuple[str, int, int]]) -> None:
    """One lit cell for each image of a batch shows which outputs see which cells, in the middle of a long map."""
    b = Builder(1, 150, 1)
    for word, k, s in steps:
        LINE[word](b, k, s)
    graph = b.graph()
    ones = {name: np.ones(shape) for name, shape in graph.tensors.items()}
    (y,) = run(graph, ones, [np.eye(150).reshape(150, 1, 150, 1)])
    seen = y[:, 0, :, 0] > 0  # [input cell, output cell]
    inner = seen[:, ~(seen[0] | seen[-1]) & seen.any(axis=0)]
    extents = seen.shape[0] - np.argmax(inner[::-1], axis=0) - np.argmax(inner, axis=0)
    found = fields(b)[-1][0]
    if inner.size:
        assert found >= extents.max()
        enlarged = [i for i, (word, _, s) in enumerate(steps) if word in ("nearest", "deconv") and s > 1]
        after = steps[enlarged[0] + 1 :] if enlarged else []
        aligned = any(word == "spread" or s > 1 for word, _, s in after)  # then not every phase occurs
        apart = math.prod(s for word, _, s in steps if word in ("conv", "pool"))  # so far lie the windows of neighbours
        assert aligned or found + apart > len(seen) or found == extents.max()


def test_receptive_field_of_bins() -> None:
    b = Builder(4, 9, 12)
    b.word("avgpool", kernel=Word("adaptive"), size=(3, 5))
    assert fields(b)[1] == (3, 4)  # 12 cells in 5 bins: the longest covers 4 (from 2.4 to 4.8)


def test_costs_and_memory_of_a_residual() -> None:
    """4 maps of 8x8x8 floats; the input lives until the addition, so three are alive at once at most."""
    b = Builder(8, 8, 8)
    b.word("conv", features=8, kernel=3, pad=1)
    b.word("batchnorm")
    b.add(Add(), 2, 0)
    report = summary(b.graph())
    assert [row.parameters for row in report] == [0, 8 * 8 * 9 + 8, 16, 0]
    assert [row.macs for row in report] == [0, 8 * 8 * 8 * 8 * 9, 0, 0]
    assert report.flop == 2 * report.macs == 2 * 36864
    assert report.weight_bytes == 4 * (8 * 8 * 9 + 8 + 32)
    assert report.activation_bytes == 4 * 8 * 8 * 8 * 4
    assert report.peak_bytes == 3 * 8 * 8 * 8 * 4
    assert report.parameters == 600 and len(report) == 4


def test_printed() -> None:
    b = Builder(3, 224, 224)
    b.word("conv", features=64, kernel=7, stride=2, pad=3, bias=False)
    text = str(summary(b.graph()))
    assert re.search(r"layer1 +conv 64 7x7 /2 +64x112x112 +9,408 +118,013,952 +3\.1 MiB +7x7$", text, re.MULTILINE)
    assert "parameters: 9,408 (36.8 KiB stored)" in text
    assert "multiply-accumulates: 118,013,952 an image (236,027,904 FLOP)" in text
    assert "<td>conv 64 7x7 /2</td>" in summary(b.graph())._repr_html_()


@pytest.mark.parametrize(("count", "text"), [
    (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB"),
    (7 << 40, "7.0 TiB"), (9 << 50, "9216.0 TiB"),
])  # fmt: skip
def test_bytes_for_people(count: int, text: str) -> None:
    assert bytes_text(count) == text
