"""Normalisations folded into the layers that read them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_graphs import convolutions, graph_of_steps, maps, net, same_function

from netdsl.ops.norm import BatchNorm, Scale
from netdsl.passes import rewrite
from netdsl.passes.fold_forward import fold_forward
from netdsl.passes.kernel_algebra import reads_padding
from netdsl.tensor import TensorType


@settings(max_examples=150, deadline=None)
@given(data=st.data(), x=maps(), norm=st.sampled_from((BatchNorm(), BatchNorm(affine=False), Scale(), Scale(False))))
def test_every_geometry(data: st.DataObject, x: TensorType, norm: BatchNorm | Scale) -> None:
    op = data.draw(convolutions(x))
    rewritten = same_function(graph_of_steps(x, (norm, [0]), (op, [1])), fold_forward)
    assert len(rewritten.nodes) == (3 if norm != Scale(False) and reads_padding(op, x) else 2)


FOLDED = {
    "a convolution": ("relu | batchnorm | conv 8 3x3", ["relu", "conv 8 3x3"]),
    "padding that no window meets": ("maxpool 2x2 | batchnorm | conv 8 2x2 stride=2 pad=(0,0,1,1)",
                                     ["maxpool 2x2 /2", "conv 8 2x2 /2"]),
    "a gain alone, with padding": ("tanh | scale bias=no | conv 8 3x3 pad=1 bias=no", ["tanh", "conv 8 3x3"]),
    "groups": ("tanh | batchnorm | conv 8 3x3 groups=2", ["tanh", "conv 8 3x3 groups 2"]),
    "a dense layer": ("flatten | batchnorm | dense 5", ["flatten", "dense 5"]),
    "behind a flattening": ("relu | batchnorm | flatten | dense 5 bias=no", ["relu", "flatten", "dense 5"]),
    "normalisations in a row": ("batchnorm | scale | batchnorm affine=no | relu", ["scale"]),
    "all readers": ("relu | n: batchnorm\n a: 1x1 4\n from n\n tanh | conv 4 1x1\n add a",
                    ["relu", "batchnorm", "conv 4 1x1", "tanh", "conv 4 1x1"]),
    "several readers": ("relu | n: batchnorm\n a: 1x1 4\n from n\n conv 4 1x1 | tanh\n add a",
                        ["relu", "conv 4 1x1", "conv 4 1x1", "add"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name: str) -> None:
    body, described = FOLDED[name]
    rewritten = same_function(net(body), rewrite, 1e-9)
    assert [n.op.describe() for n in rewritten.nodes[1:]] == described


KEPT = {
    "a shift and padding": "relu | batchnorm | conv 8 3x3 pad=1",
    "an activation between": "batchnorm | relu | 1x1 4",
    "an output": "batchnorm\n output first\n 1x1 4\n output second",
    "a flattened output": "batchnorm | flatten\n output first\n dense 4\n output second",
    "a transposed convolution": "scale | deconv 4 3x3",
    "a network's end": "relu | batchnorm",
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    graph = net(KEPT[name])
    assert fold_forward(graph) == graph
