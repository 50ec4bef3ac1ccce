"""Batch normalisation and per-channel scaling fold into the layers that read them.

With x' = s x + t:  W x' + b = (W s) x + (b + W t), computed in float64 at bind time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from netdsl.graph.ir import Derived, Graph, Node, Weight
from netdsl.ops.base import Array
from netdsl.ops.conv import Conv
from netdsl.ops.dense import Dense
from netdsl.ops.norm import BatchNorm, Scale
from netdsl.ops.shape import Flatten
from netdsl.passes.fold_batchnorm import affine_weights
from netdsl.passes.kernel_algebra import reads_padding, response
from netdsl.passes.rewrite import rebuilt


def fold_forward(graph: Graph) -> Graph:
    """Precondition: every reader takes it up, and it is not an output.

    A convolution takes it up where no window meets the padding, which the shift would have to fill, or where there is
    no shift (`scale bias=no`). A dense layer takes it up, also behind a flattening, and so does another normalisation.
    """
    consumers, outputs = graph.consumers(), {o.node for o in graph.outputs}
    nodes = dict(enumerate(graph.nodes))
    moved: dict[int, int] = {}
    for i in range(len(nodes)):
        norm = nodes[i]
        if not isinstance(norm.op, (BatchNorm, Scale)) or norm.fused or i in outputs or not consumers[i]:
            continue
        readers = {k for j in consumers[i] for k in _behind(graph, consumers, outputs, j)}
        taken = {j: _taken_up(norm, nodes[j]) for j in readers}
        if all(taken.values()):
            nodes |= {j: node for j, node in taken.items() if node}
            moved[i] = norm.inputs[0]
    return rebuilt(graph, {i: n for i, n in nodes.items() if i not in moved}, moved)


def _behind(graph: Graph, consumers: list[list[int]], outputs: set[int], index: int) -> list[int]:
    """The readers of a flattening instead of itself, if they are all there is."""
    flat = isinstance(graph.nodes[index].op, Flatten) and index not in outputs and consumers[index]
    return consumers[index] if flat else [index]


def _taken_up(norm: Node, reader: Node) -> Node | None:
    """The reader with a normalisation folded into it; None where that is not exact."""
    scale, shift = affine_weights(norm)
    op = reader.op
    shifts = not (isinstance(norm.op, Scale) and not norm.op.bias)
    if reader.fused:
        return None
    if isinstance(op, (BatchNorm, Scale)):
        own_scale, own_shift = affine_weights(reader)
        weights: Mapping[str, Weight] = {
            "weight": Derived(np.multiply, (scale, own_scale), scale.shape),
            "bias": Derived(_shifted, (shift, own_scale, own_shift), scale.shape),
        }
        return replace(reader, op=Scale(), weights=weights)
    if not isinstance(op, (Conv, Dense)) or (isinstance(op, Conv) and shifts and reads_padding(op, norm.type)):
        return None
    groups, weight = (op.groups if isinstance(op, Conv) else 1), reader.weights["weight"]
    weights = dict(reader.weights) | {"weight": Derived(partial(_scaled_inputs, groups), (weight, scale), weight.shape)}
    if shifts:
        bias = (reader.weights.get("bias"), weight, shift)
        weights["bias"] = Derived(partial(_bias, groups), bias, weight.shape[:1])
    return replace(reader, op=replace(op, bias=op.bias or shifts), weights=weights)


def _shifted(shift: Array, own_scale: Array, own_shift: Array) -> Array:
    return own_scale * shift + own_shift


def _scaled_inputs(groups: int, weight: Array, scale: Array) -> Array:
    """Weights [K, C / groups, ...], each input channel's times its scale; a flattened map has several inputs of one."""
    factors = np.repeat(scale, groups * weight.shape[1] // len(scale)).reshape(groups, 1, weight.shape[1], 1)
    out: Array = np.empty(weight.shape, weight.dtype)
    shape = groups, len(weight) // groups, weight.shape[1], -1
    np.multiply(weight.reshape(shape), factors, out=out.reshape(shape), dtype=np.float64, casting="same_kind")
    return out


def _bias(groups: int, bias: Array | None, weight: Array, shift: Array) -> Array:
    made = response(weight, groups, np.repeat(shift, groups * weight.shape[1] // len(shift)))
    return made if bias is None else bias + made
