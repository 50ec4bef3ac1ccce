"""Random weights: the same for a seed, independent of each other, and in a sensible range."""

import numpy as np
import weight_files as wf

from netdsl.errors import Source
from netdsl.graph.ir import Graph, InputSpec, Node, OutputSpec, Stored
from netdsl.ops.activation import PRelu, Relu
from netdsl.ops.base import Input
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.join import Add
from netdsl.ops.norm import BatchNorm
from netdsl.tensor import TensorType
from netdsl.weights import random_weights


def built(steps, channels=16, size=8):
    """A graph of (path, op, inputs) steps on one input; inputs are indices, -1 the step before."""
    kind = TensorType((channels, size, size))
    nodes = [Node("image", Input(kind), (), kind)]
    for path, op, inputs in steps:
        at = tuple(len(nodes) + i if i < 0 else i for i in inputs)
        types = [nodes[i].type for i in at]
        weights = {role: Stored(f"{path}.{role}", p.shape, p.learnable) for role, p in op.params(*types).items()}
        nodes.append(Node(path, op, at, op.infer(*types), weights))
    outputs = (OutputSpec("out", len(nodes) - 1),)
    return Graph("made", tuple(nodes), (InputSpec("image", 0, kind),), outputs, Source("<text>", ""))


def run(graph, weights):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal((2, *graph.inputs[0].type.shape)).astype(np.float32)]
    for node in graph.nodes[1:]:
        params = {role: weights[w.name] for role, w in node.weights.items()}
        values.append(node.op.reference(params, *(values[i] for i in node.inputs)))
    return values[-1]


def test_every_tensor_is_there_in_shape_and_type():
    graph = built([("c", Conv(8, (3, 3)), [-1]), ("b", BatchNorm(), [-1]), ("p", PRelu(), [-1])])
    weights = random_weights(graph, 3)
    assert {name: w.shape for name, w in weights.items()} == graph.tensors
    assert all(w.dtype == np.float32 and w.flags.c_contiguous for w in weights.values())
    assert (weights["b.running_var"] > 0.5).all() and abs(weights["b.weight"] - 1).max() < 0.2
    assert (weights["p.weight"] < 0.5).all()


def test_seed_and_name_alone_decide():
    small = wf.network({"a.weight": (4, 4), "b.weight": (4, 4)})
    other = wf.network({"z.weight": (9, 9), "b.weight": (4, 4)})
    first = random_weights(small, 7)
    np.testing.assert_array_equal(first["b.weight"], random_weights(other, 7)["b.weight"])
    np.testing.assert_array_equal(first["a.weight"], random_weights(small, 7)["a.weight"])
    assert (first["a.weight"] != first["b.weight"]).all()
    assert (first["a.weight"] != random_weights(small, 8)["a.weight"]).any()
    random_weights(small, -1)
    random_weights(small, 2**100)


def test_values_stay_in_range_through_a_very_deep_network():
    """A hundred residual sums of two convolutions each: the spread must neither vanish nor explode."""
    steps = [("stem", Conv(16, (3, 3), (1, 1), (1, 1, 1, 1)), [-1]), ("relu", Relu(), [-1])]
    for i in range(100):
        steps += [
            (f"{i}.conv1", Conv(16, (3, 3), (1, 1), (1, 1, 1, 1), bias=False), [-1]),
            (f"{i}.bn1", BatchNorm(), [-1]), (f"{i}.relu1", Relu(), [-1]),
            (f"{i}.conv2", Conv(16, (3, 3), (1, 1), (1, 1, 1, 1), bias=False), [-1]),
            (f"{i}.bn2", BatchNorm(), [-1]), (f"{i}.add", Add(), [-1, -6]), (f"{i}.relu", Relu(), [-1]),
        ]  # fmt: skip
    graph = built(steps)
    out = run(graph, random_weights(graph, 0))
    assert np.isfinite(out).all() and 0.01 < out.std() < 1000


def test_plain_and_transposed_convolutions_keep_the_spread():
    conv, deconv = Conv(32, (3, 3), (1, 1), (1, 1, 1, 1)), Deconv(32, (4, 4), (2, 2), (1, 1, 1, 1))
    plain = [step for i in range(20) for step in [(f"c{i}", conv, [-1]), (f"r{i}", Relu(), [-1])]]
    up = [step for i in range(4) for step in [(f"d{i}", deconv, [-1]), (f"r{i}", Relu(), [-1])]]
    for steps in (plain, up):
        graph = built(steps)
        assert 0.05 < run(graph, random_weights(graph, 0)).std() < 20
