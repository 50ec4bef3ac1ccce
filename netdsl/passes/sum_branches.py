"""Convolutions over one input that are added become one with the sum of their kernels: A x + B x = (A + B) x.

A smaller kernel stands within the larger where its taps meet the same cells. A normalisation of the input is a 1x1
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
from netdsl.passes.kernel_algebra import Axis, Cost, axes, by_groups, conv_of, cost, pays, placed
from netdsl.passes.rewrite import joint_path, rebuilt, sole_readers
from netdsl.tensor import TensorType


@frozen
class Branch:
    """A term of the sum as a convolution of `node.inputs[0]`.

    place    where it stands among the terms
    made_by  nodes that vanish with it
    cost     what it costs as it stands
    """

    place: int
    node: Node
    op: Conv
    made_by: tuple[int, ...]
    cost: Cost


def sum_branches(graph: Graph) -> Graph:
    """Precondition: convolutions and normalisations are read by the addition alone, are no outputs, have no epilogue.

    Strides must agree, and the sum must not cost more than the convolutions it replaces.
    """
    readers = sole_readers(graph)
    nodes = dict(enumerate(graph.nodes))
    moved: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        if not isinstance(node.op, Add) or not node.type.is_map:
            continue
        sums, left = _summed(graph, _branches(graph, readers, i), list(node.inputs))
        for branch in sums:
            at = max(branch.made_by)
            nodes[at] = branch.node
            moved |= dict.fromkeys((j for j in branch.made_by if j != at), at)
        if len(left) == 1:
            moved[i] = left[0]
        nodes[i] = replace(node, inputs=tuple(left))
    return rebuilt(graph, {i: n for i, n in nodes.items() if i not in moved}, moved)


def _branches(graph: Graph, readers: Mapping[int, int], add: int) -> list[Branch]:
    """The terms of an addition that may be summed, the most expensive convolutions first."""
    found = []
    for place, j in enumerate(graph.nodes[add].inputs):
        node = graph.nodes[j]
        alone = readers.get(j) == add and not node.fused
        if alone and isinstance(node.op, Conv):
            price = cost(node.op, node.weights["weight"].shape, node.type)
            found.append(Branch(place, node, node.op, (j,), price))
        elif alone and isinstance(node.op, (BatchNorm, Scale)):
            scale, shift = affine_weights(node)
            found.append(_pointwise(place, node, node.inputs[0], scale, {"bias": shift}, (j,)))
        else:
            ones = Constant((1.0,) * node.type.channels, (node.type.channels,))
            found.append(_pointwise(place, node, j, ones, {}, ()))
    return sorted(found, key=lambda b: (-b.cost.macs, b.place))


def _pointwise(
    place: int, node: Node, source: int, scale: Weight, bias: Mapping[str, Weight], made_by: tuple[int, ...]
) -> Branch:
    channels = node.type.channels
    op = Conv(channels, (1, 1), groups=channels, bias=bool(bias))
    weight = Derived(_column, (scale,), (channels, 1, 1, 1))
    made = replace(node, op=op, inputs=(source,), weights={"weight": weight, **bias})
    return Branch(place, made, op, made_by, Cost())


def _summed(graph: Graph, branches: list[Branch], inputs: list[int]) -> tuple[list[Branch], list[int]]:
    """Branches summed of several, and what the addition has to read now."""
    sums: list[Branch] = []
    reads: dict[int, int | None] = dict(enumerate(inputs))
    for branch in branches:
        source = branch.node.inputs[0]
        for n, other in enumerate(sums):
            if other.node.inputs[0] == source and (both := _sum(other, branch, graph.nodes[source].type)):
                sums[n], reads[branch.place] = both, None
                break
        else:
            if branch.cost.macs:
                sums.append(branch)
    changed = [b for b in sums if b.node is not graph.nodes[inputs[b.place]]]
    for branch in changed:
        reads[branch.place] = max(branch.made_by)
    return changed, [j for j in reads.values() if j is not None]


def _sum(a: Branch, b: Branch, x: TensorType) -> Branch | None:
    """Two branches as one, in the place of the first; None where it does not pay."""
    y = a.node.type
    pairs = zip(axes(a.op), axes(b.op), x.shape[1:], y.shape[1:], strict=True)
    down, across = (_joint(p, q, length, count) for p, q, length, count in pairs)
    if down is None or across is None:
        return None
    op = conv_of(down, across, a.op.features, math.gcd(a.op.groups, b.op.groups))
    op = replace(op, bias=a.op.bias or b.op.bias)
    shape = op.features, x.channels // op.groups, *op.kernel
    price = cost(op, shape, y)
    if not pays(price, (a.cost, b.cost)):
        return None
    weights = {"weight": Derived(partial(_total, op, a.op, b.op), _parts(a, b, "weight"), shape)}
    if op.bias:
        weights["bias"] = Derived(_biases, _parts(a, b, "bias"), (op.features,))
    path = joint_path(a.node.path, b.node.path) if b.cost.macs else a.node.path
    return Branch(a.place, replace(a.node, path=path, op=op, weights=weights), op, a.made_by + b.made_by, price)


def _parts(a: Branch, b: Branch, role: str) -> tuple[Weight | None, ...]:
    return a.node.weights.get(role), b.node.weights.get(role)


def _joint(a: Axis, b: Axis, length: int, count: int) -> Axis | None:
    """Windows that hold those of both, for `count` outputs of a map of `length`."""
    if a.stride != b.stride:
        return None
    before = max(a.before, b.before)
    dilation = math.gcd(a.step, b.step, a.before - b.before) or 1
    reach = max(before - a.before + a.reach, before - b.before + b.reach)
    after = max(0, (count - 1) * a.stride - before + reach - (length - 1))
    return Axis(reach // dilation + 1, a.stride, dilation, before, after)


def _column(scale: Array) -> Array:
    return scale.reshape(-1, 1, 1, 1)


def _total(whole: Conv, a: Conv, b: Conv, first: Array, second: Array) -> Array:
    total = _within(whole, a, first) + _within(whole, b, second)
    return total.reshape(whole.features, -1, *whole.kernel).astype(first.dtype)


def _within(whole: Conv, op: Conv, weight: Array) -> Array:
    first = [(whole.pad[i] - op.pad[i]) // whole.dilation[i] for i in (0, 1)]
    step = [max(1, op.dilation[i] // whole.dilation[i]) for i in (0, 1)]
    return placed(by_groups(weight, op.groups, whole.groups), whole.kernel, (first[0], first[1]), (step[0], step[1]))


def _biases(*biases: Array | None) -> Array:
    total: Array = np.stack([b.astype(np.float64) for b in biases if b is not None]).sum(axis=0)
    return total
