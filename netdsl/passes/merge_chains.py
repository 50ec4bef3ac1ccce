"""Two linear layers in a row become one where that costs no more: A (B x) = (A B) x.

Cells meet cells: kernel cell r of the second layer sees what cell r' of the first sees at r dilation stride' +
r' dilation' of the input. So strides multiply, paddings add as before' + stride' before, and the composed kernel is the
product over the channels between, summed over all pairs (r, r') that fall on one cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import numpy as np

from netdsl.frozen import frozen
from netdsl.graph.ir import Derived, Graph, Node, Weight
from netdsl.ops.base import Array, Op, Pair
from netdsl.ops.conv import Conv
from netdsl.ops.dense import Dense
from netdsl.passes.kernel_algebra import Axis, axes, by_groups, conv_of, placed, response
from netdsl.passes.rewrite import joint_path, rebuilt, sole_readers
from netdsl.tensor import TensorType

# Multiply-accumulates in the time that one weight takes from memory, at batch 1. Derived: one thread's 168 GFLOP/s and
# 15 GB/s (bench/results/ladder.json) make 23, and 67 TFLOP/s and 4.8 TB/s of an H200 (data sheet) make 28.
READING = 25
WINOGRAD = 0.35  # measured: time of Winograd's algorithm / of plain sums on one thread, bench/results/ladder.json
MAX_COMPOSITION = 10**10  # chosen: multiply-accumulates, about a second, spent on composing one kernel at bind time
BLOCK = 1 << 22  # chosen: weights of a dense layer that are turned into float64 at a time


def merge_chains(graph: Graph) -> Graph:
    """Precondition: nothing stands between the two, the first is read by the second alone and is not an output.

    At the borders it is exact where no window of the second meets its padding; or where the first would have made zero
    there, because it has no bias and its window would lie in its own padding altogether (as every 1x1 window does).
    Nothing is filled up with zeros: each output sees the inputs it saw before, and no others.
    """
    readers = sole_readers(graph)
    nodes = dict(enumerate(graph.nodes))
    moved: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        while isinstance(node.op, (Conv, Dense)) and not node.fused:
            before = node.inputs[0]
            merged = _merged(nodes[before], node, graph) if readers.get(before) == i else None
            if merged is None:
                break
            moved[before] = merged.inputs[0]
            node = nodes[i] = merged
    return rebuilt(graph, {i: n for i, n in nodes.items() if i not in moved}, moved)


def _merged(first: Node, second: Node, graph: Graph) -> Node | None:
    """Both as one node; None where that is not exact, or costs more."""
    if first.fused:
        return None
    made = None
    if isinstance(first.op, Dense) and isinstance(second.op, Dense):
        made = _dense(first, second)
    elif isinstance(first.op, Conv) and isinstance(second.op, Conv):
        made = _conv(first, second, first.op, second.op, graph.nodes[first.inputs[0]].type)
    return made if made and _gains(first, second, made) else None


def _dense(first: Node, second: Node) -> Node:
    shape = second.type.channels, first.weights["weight"].shape[1]
    return _composite(first, second, Dense(second.type.channels), shape, _product, 1)


def _conv(first: Node, second: Node, a: Conv, b: Conv, x: TensorType) -> Node | None:
    op = _composed(a, b, x)
    if op is None:
        return None
    shape = op.features, x.channels // op.groups, *op.kernel
    return _composite(first, second, op, shape, partial(_composition, a, b, op), b.groups)


def _composite(
    first: Node, second: Node, op: Conv | Dense, shape: tuple[int, ...], product: Callable[..., Array], groups: int
) -> Node:
    inner, outer = first.weights["weight"], second.weights["weight"]
    biases = first.weights.get("bias"), second.weights.get("bias")
    weights: dict[str, Weight] = {"weight": Derived(product, (inner, outer), shape)}
    if any(biases):
        weights["bias"] = Derived(partial(_bias, groups), (biases[0], outer, biases[1]), shape[:1])
    op = replace(op, bias=any(biases))
    return replace(second, path=joint_path(first.path, second.path), op=op, inputs=first.inputs, weights=weights)


def _gains(first: Node, second: Node, made: Node) -> bool:
    shapes = [node.weights["weight"].shape for node in (made, first, second)]
    composing = math.prod(shapes[0][:2]) * shapes[2][1] * math.prod(shapes[1][2:]) * math.prod(shapes[2][2:])
    new, *old = (cost(node.op, s, node.type) for node, s in zip((made, first, second), shapes, strict=True))
    return composing <= MAX_COMPOSITION and pays(new, old)


def _composed(first: Conv, second: Conv, x: TensorType) -> Conv | None:
    """The convolution that does both; None where it would differ at the borders, or have more taps than are needed."""
    groups = math.gcd(first.groups, second.groups)
    pairs = zip(axes(first), axes(second), x.shape[1:], strict=True)
    down, across = (_composed_axis(a, b, length, first.bias) for a, b, length in pairs)
    if down is None or across is None or groups not in (first.groups, second.groups):
        return None
    return conv_of(down, across, second.features, groups)


def _composed_axis(a: Axis, b: Axis, length: int, bias: bool) -> Axis | None:
    for j in b.outside(a.positions(length)):
        if bias or any(0 <= i < length for i in a.cells(j)):
            return None
    dilation = math.gcd(a.step, a.stride * b.step) or 1
    reach = a.reach + a.stride * b.reach
    if len({i + a.stride * j for i in a.taps for j in b.taps}) <= reach // dilation:
        return None
    before, after = a.before + a.stride * b.before, a.after + a.stride * b.after
    return Axis(reach // dilation + 1, a.stride * b.stride, dilation, before, after)


def _product(first: Array, second: Array) -> Array:
    total = np.zeros((len(second), first.shape[1]))
    step = max(1, BLOCK // first.shape[1])
    for i in range(0, len(first), step):
        total += second[:, i : i + step].astype(np.float64) @ first[i : i + step].astype(np.float64)
    made: Array = total.astype(second.dtype)
    return made


def _composition(a: Conv, b: Conv, whole: Conv, first: Array, second: Array) -> Array:
    """[K, C / groups, R, S] of the composed convolution."""
    groups = whole.groups
    inner, outer = by_groups(first, a.groups, groups), by_groups(second, b.groups, groups)
    columns = inner.reshape(*inner.shape[:2], -1)
    total = np.zeros((groups, outer.shape[1], inner.shape[2], *whole.kernel))
    step: Pair = (_steps(a, whole, 0), _steps(a, whole, 1))
    for r, s in np.ndindex(*b.kernel):
        start = tuple(at * b.dilation[i] * a.stride[i] // whole.dilation[i] for i, at in enumerate((r, s)))
        product = (outer[..., r, s] @ columns).reshape(groups, outer.shape[1], *inner.shape[2:])
        total += placed(product, whole.kernel, (start[0], start[1]), step)
    return total.reshape(whole.features, inner.shape[2], *whole.kernel).astype(second.dtype)


def _steps(op: Conv, whole: Conv, axis: int) -> int:
    return max(1, op.dilation[axis] // whole.dilation[axis])


def _bias(groups: int, first: Array | None, weight: Array, second: Array | None) -> Array:
    made = np.zeros(len(weight)) if first is None else response(weight, groups, first)
    return made if second is None else made + second


@frozen
class Cost:
    """What a layer costs: multiply-accumulates for an image by its definition, and in effect.

    In effect a 3x3 convolution runs by Winograd's algorithm where that is possible, and weights have to be read.
    """

    macs: int = 0
    effective: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.effective + other.effective)


def cost(op: Op, weight: tuple[int, ...], y: TensorType) -> Cost:
    """The cost of a linear layer with a weight of the given shape and the result y."""
    count = math.prod(weight)
    macs = count // weight[0] * y.elements
    shrinks = isinstance(op, Conv) and (op.kernel, op.stride, op.dilation, op.groups) == ((3, 3), (1, 1), (1, 1), 1)
    return Cost(macs, (WINOGRAD if shrinks else 1.0) * macs + READING * count)


def pays(new: Cost, old: Iterable[Cost]) -> bool:
    """Whether one layer costs no more, by either count, than those it replaces."""
    whole = sum(old, Cost())
    return new.macs <= whole.macs and new.effective <= whole.effective
