"""Batch normalisation and per-channel scaling fold into the linear layer before them.

With s = gamma / sqrt(var + eps):  bn(W x + b) = (s W) x + (s (b - mean) + beta), at bind time; s and the
bias are computed in float64.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from netdsl.graph.ir import Derived, Graph, Node, Weight, is_rowwise
from netdsl.ops.base import Array
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.dense import Dense
from netdsl.ops.norm import BatchNorm, Scale
from netdsl.passes.rewrite import rebuilt, sole_readers


def fold_batchnorm(graph: Graph) -> Graph:
    """Precondition: the linear layer is read by the normalisation alone, is not an output, and has no epilogue."""
    readers = sole_readers(graph)
    nodes = dict(enumerate(graph.nodes))
    moved: dict[int, int] = {}
    for i in nodes:
        linear, end = nodes[i], i  # `end`: the last node folded into this one, whose reader is next
        while isinstance(linear.op, (Conv, Deconv, Dense)) and not linear.fused and end in readers:
            norm = graph.nodes[readers[end]]
            if not isinstance(norm.op, (BatchNorm, Scale)):
                break
            linear = nodes[i] = _folded(linear, norm)
            moved[readers[end]] = end
            end = readers[end]
    return rebuilt(graph, {i: n for i, n in nodes.items() if i not in moved}, moved)


def affine_weights(norm: Node) -> tuple[Derived, Derived]:
    """Scale and shift per channel that a BatchNorm or Scale node amounts to."""
    shape = (norm.type.channels,)
    if isinstance(norm.op, BatchNorm):
        parts = tuple(norm.weights.get(r) for r in ("weight", "bias", "running_mean", "running_var"))
        return (
            Derived(partial(_bn_scale, norm.op.eps), parts, shape, is_rowwise(*parts)),
            Derived(partial(_bn_shift, norm.op.eps), parts, shape, is_rowwise(*parts)),
        )
    weight, bias = norm.weights["weight"], norm.weights.get("bias")
    same = Derived(_same, (weight,), shape, is_rowwise(weight))
    return same, Derived(_or_zero, (bias, weight), shape, is_rowwise(bias, weight))


def _folded(linear: Node, norm: Node) -> Node:
    assert isinstance(linear.op, (Conv, Deconv, Dense))
    scale, shift = affine_weights(norm)
    weight = linear.weights["weight"]
    axis = 1 if isinstance(linear.op, Deconv) else 0
    groups = linear.op.groups if isinstance(linear.op, Deconv) else 1
    rowwise = axis == 0 and is_rowwise(weight, scale)
    weights: dict[str, Weight] = {
        "weight": Derived(partial(_scaled, axis, groups), (weight, scale), weight.shape, rowwise),
        "bias": Derived(_scaled_bias, (linear.weights.get("bias"), scale, shift), shift.shape),
    }
    return replace(linear, weights=weights, op=replace(linear.op, bias=True))


def _bn_scale(eps: float, gamma: Array | None, beta: Array | None, mean: Array, var: Array) -> Array:
    inverse = 1.0 / np.sqrt(var.astype(np.float64) + eps)
    return inverse if gamma is None else gamma * inverse


def _bn_shift(eps: float, gamma: Array | None, beta: Array | None, mean: Array, var: Array) -> Array:
    shift = -mean * _bn_scale(eps, gamma, beta, mean, var)
    return shift if beta is None else shift + beta


def _same(weight: Array) -> Array:
    return weight.astype(np.float64)


def _or_zero(bias: Array | None, like: Array) -> Array:
    return _same(np.zeros_like(like) if bias is None else bias)


def _scaled(axis: int, groups: int, weight: Array, scale: Array) -> Array:
    """The scales are rounded to the weights' type first: products in float64 take four times as long."""
    if axis == 0:
        return _times(weight, scale.reshape(-1, *[1] * (weight.ndim - 1)))
    inputs, outputs = weight.shape[:2]  # transposed: [C, K / groups, R, S], groups stacked along C
    grouped = weight.reshape(groups, inputs // groups, outputs, *weight.shape[2:])
    return _times(grouped, scale.reshape(groups, 1, outputs, 1, 1)).reshape(weight.shape)


def _times(weight: Array, scale: Array) -> Array:
    out: Array = weight * scale.astype(weight.dtype)
    return out


def _scaled_bias(bias: Array | None, scale: Array, shift: Array) -> Array:
    return shift if bias is None else bias * scale + shift
