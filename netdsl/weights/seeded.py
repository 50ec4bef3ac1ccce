"""Random weights that keep the values of a deep network in a sensible range."""

from __future__ import annotations

import math
from zlib import crc32

import numpy as np

from netdsl.graph.ir import Graph, Node, Stored
from netdsl.ops.base import Array
from netdsl.ops.deconv import Deconv
from netdsl.ops.join import Add
from netdsl.tensor import Shape

BRANCH_GAIN = 0.25  # chosen: fifty residual sums then grow the spread by (1 + 1/16)^25, less than 5 times


def random_weights(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """float32 arrays for every stored tensor of the graph.

    Each tensor depends on the seed, its name and its shape alone. Filters and dense weights are uniform with variance
    2 / fan-in; normalization weights and running variances lie near 1, biases and running means near 0; what ends the
    body of a residual sum is made smaller, so that very deep networks stay in range.
    Source: He et al., arXiv:1502.01852, section 2.2.
    """
    small = _body_ends(graph)
    out: dict[str, Array] = {}
    for i, node in enumerate(graph.nodes):
        for role, stored in node.weights.items():
            if isinstance(stored, Stored) and stored.name not in out:
                low, high = _limits(node, role, stored.shape)
                gain = np.float32(BRANCH_GAIN if i in small and role == "weight" else 1)
                rng = np.random.Generator(np.random.SFC64([seed % 2**64, crc32(stored.name.encode())]))
                values = rng.random(stored.shape, np.float32)
                values *= np.float32(high - low) * gain
                values += np.float32(low) * gain
                out[stored.name] = values
    return out


def _limits(node: Node, role: str, shape: Shape) -> tuple[float, float]:
    """The range that a tensor's values are drawn from."""
    if role == "running_var":
        return 0.8, 1.2
    if role != "weight":
        return -0.1, 0.1
    if node.op.name == "prelu":
        return 0.2, 0.3
    if len(shape) == 1:
        return 0.9, 1.1
    limit = math.sqrt(6 / max(1, _fan_in(node, shape)))
    return -limit, limit


def _fan_in(node: Node, shape: Shape) -> float:
    """Input values that one output value sums; for a transposed convolution on average, as strides skip some."""
    if isinstance(node.op, Deconv):
        channels, _, height, width = shape
        return channels / node.op.groups * height * width / math.prod(node.op.stride)
    return math.prod(shape[1:])


def _body_ends(graph: Graph) -> set[int]:
    """The last node with a weight on the way into each sum's first input."""
    ends = set()
    for node in graph.nodes:
        if isinstance(node.op, Add):
            at = node.inputs[0]
            while "weight" not in graph.nodes[at].weights and len(graph.nodes[at].inputs) == 1:
                at = graph.nodes[at].inputs[0]
            ends.add(at)
    return ends
