"""Convolutions over one input that are added become one with the sum of their kernels: A x + B x = (A + B) x.

A smaller kernel stands within the larger, where its taps meet the same cells. A normalisation of the input is a 1x1
convolution of each channel by itself, and the input itself (a skip) one with weights of 1.
Source: Ding et al., RepVGG, arXiv:2101.03697, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from netdsl.frozen import frozen
from netdsl.graph.ir import Constant, Derived, Graph, Node, Weight
from netdsl.ops.base import Array
from netdsl.ops.conv import Conv
from netdsl.ops.join import Add
from netdsl.ops.norm import BatchNorm, Scale
from netdsl.passes.fold_batchnorm import affine_weights
from netdsl.passes.kernel_algebra import Axis, axes, by_groups, placed
from netdsl.passes.rewrite import joint_path, rebuilt, sole_readers


@frozen
class Term:
    """A term of a sum as a convolution of node `source`.

    node     the layer, in whose name the sum goes on; None for the input itself and a normalisation of it
    made_by  nodes that it stands for
    """

    node: Node | None
    source: int
    op: Conv
    weights: Mapping[str, Weight]
    made_by: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many weights a layer has; 0 where none is."""
        return math.prod(self.weights["weight"].shape) if self.node else 0


def sum_branches(graph: Graph) -> Graph:
    """Precondition: convolutions and normalisations are read by the addition alone, are no outputs, have no epilogue.

    One of them sees every cell and channel that the others see, with the same stride: it takes their weights in, and
    costs what it did.
    """
    readers = sole_readers(graph)
    nodes = dict(enumerate(graph.nodes))
    moved: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        if not isinstance(node.op, Add) or not node.type.is_map:
            continue
        terms = _summed([_term(graph.nodes[j], j, readers.get(j) == i) for j in node.inputs])
        if len(terms) == len(node.inputs):
            continue
        left = []
        for term in terms:
            at = max(term.made_by, default=term.source)
            if term.node:
                nodes[at] = replace(term.node, op=term.op, weights=term.weights)
                moved |= dict.fromkeys((j for j in term.made_by if j != at), at)
            left.append(at)
        nodes[i] = replace(node, inputs=tuple(left))
        if len(left) == 1:
            moved[i] = left[0]
    return rebuilt(graph, {i: n for i, n in nodes.items() if i not in moved}, moved)


def _term(node: Node, index: int, alone: bool) -> Term:
    """A node that an addition reads; `alone`: nobody else reads it."""
    if alone and not node.fused and isinstance(node.op, Conv):
        return Term(node, node.inputs[0], node.op, node.weights, (index,))
    channels, shape = node.type.channels, (node.type.channels, 1, 1, 1)
    point = Conv(channels, (1, 1), groups=channels, bias=False)
    if alone and not node.fused and isinstance(node.op, (BatchNorm, Scale)):
        scale, shift = affine_weights(node)
        weights: dict[str, Weight] = {"weight": Derived(_column, (scale,), shape), "bias": shift}
        return Term(None, node.inputs[0], replace(point, bias=True), weights, (index,))
    return Term(None, index, point, {"weight": Constant((1.0,) * channels, shape)}, ())


def _summed(terms: list[Term]) -> list[Term]:
    """What is left, in order, when each term, the smallest first, has been taken in by the largest that can."""
    left = dict(enumerate(terms))
    for i in sorted(left, key=lambda i: terms[i].size):
        holding = [j for j in left if j != i and _holds(left[j], left[i])]
        if holding:
            into = max(holding, key=lambda j: terms[j].size)
            left[into] = _sum(left[into], left.pop(i))
    return list(left.values())


def _holds(large: Term, small: Term) -> bool:
    """Whether one is a convolution that sees all that the other sees."""
    groups = small.op.groups % large.op.groups == 0
    windows = all(_covers(a, b) for a, b in zip(axes(large.op), axes(small.op), strict=True))
    return large.node is not None and large.source == small.source and groups and windows


def _covers(a: Axis, b: Axis) -> bool:
    return a.stride == b.stride and {t - b.before for t in b.taps} <= {t - a.before for t in a.taps}


def _sum(large: Term, small: Term) -> Term:
    assert large.node
    parts = {role: (large.weights.get(role), small.weights.get(role)) for role in ("weight", "bias")}
    shape = large.weights["weight"].shape
    weights: dict[str, Weight] = {"weight": Derived(partial(_total, large.op, small.op), parts["weight"], shape)}
    if any(parts["bias"]):
        weights["bias"] = Derived(_biases, parts["bias"], shape[:1])
    op = replace(large.op, bias=any(parts["bias"]))
    path = joint_path(large.node.path, small.node.path) if small.node else large.node.path
    return Term(replace(large.node, path=path), large.source, op, weights, large.made_by + small.made_by)


def _column(scale: Array) -> Array:
    return scale.reshape(-1, 1, 1, 1)


def _total(a: Conv, b: Conv, large: Array, small: Array) -> Array:
    inner = by_groups(small, b.groups, a.groups)
    first = [(a.pad[i] - b.pad[i]) // a.dilation[i] for i in (0, 1)]
    step = [max(1, b.dilation[i] // a.dilation[i]) for i in (0, 1)]
    within = placed(inner, a.kernel, (first[0], first[1]), (step[0], step[1]))
    return (large + within.reshape(large.shape)).astype(large.dtype)


def _biases(*biases: Array | None) -> Array:
    total: Array = np.stack([b.astype(np.float64) for b in biases if b is not None]).sum(axis=0)
    return total
