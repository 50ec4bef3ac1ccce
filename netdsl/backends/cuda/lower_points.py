"""Lowering of point-by-point operations, normalisations and softmax."""

from __future__ import annotations

import numpy as np

from netdsl.backends.cuda.planner import Planner
from netdsl.backends.cuda.steps import Geometry, Kernel, block_each, one_each, team
from netdsl.backends.cuda.views import Address, Argument, Data, View
from netdsl.graph.ir import Node
from netdsl.ops.activation import PRelu
from netdsl.ops.norm import GroupNorm, InstanceNorm, Lrn
from netdsl.ops.softmax import LogSoftmax
from netdsl.passes.fold_batchnorm import affine_weights
from netdsl.plan.activations import elementwise, limits

FEW_CHANNELS = 32  # chosen: a softmax over no more is one thread's work


def lower_activation(plan: Planner, index: int) -> None:
    function, a = elementwise(plan.graph.nodes[index].op)
    _emit_points(plan, index, Kernel("elementwise", "unary", (function,)), {"a": a})


def lower_affine(plan: Planner, index: int) -> None:
    """A BatchNorm or Scale that no linear layer stands before."""
    node = plan.graph.nodes[index]
    scale, shift = affine_weights(node)
    low, high = limits(node.fused[0] if node.fused else None)
    arguments: dict[str, Argument] = {
        "scale": plan.channels(node, "scale", lambda: plan.bank.evaluate(scale)),
        "shift": plan.channels(node, "shift", lambda: plan.bank.evaluate(shift)),
        "low": low, "high": high,
    }  # fmt: skip
    _emit_points(plan, index, Kernel("elementwise", "affine"), arguments)


def lower_prelu(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    assert isinstance(node.op, PRelu)
    ones = np.ones(node.type.channels, np.float32)  # one slope may serve all channels
    slope = plan.channels(node, "slope", lambda: ones * plan.bank.required(node, "weight"))
    _emit_points(plan, index, Kernel("elementwise", "prelu"), {"slope": slope})


def _emit_points(plan: Planner, index: int, kernel: Kernel, more: dict[str, Argument], each: int | None = None) -> None:
    """A thread for `each` lanes, or for 16 bytes of them."""
    node = plan.graph.nodes[index]
    x, y = plan.views[node.inputs[0]], plan.output(index)
    values = plan.images * y.height * y.width * y.lanes
    _emit(plan, node, kernel, one_each(values // (each or plan.multiple)), x, y, {"images": plan.images, **more})


def _emit(
    plan: Planner, node: Node, kernel: Kernel, geometry: Geometry, x: View, y: View, more: dict[str, Argument]
) -> None:
    plan.emit(
        kernel.between(x, y), geometry, node, plan.images * node.type.elements, x=Address(x), y=Address(y),
        channels=y.channels, lanes=y.lanes, height=y.height, width=y.width, **x.strides("x"), **y.strides("y"), **more,
    )  # fmt: skip


def lower_join(plan: Planner, index: int) -> None:
    """A sum or product of two tensors or more, two at a time; limits apply to the last result."""
    node = plan.graph.nodes[index]
    views = plan.input_views(node)
    y, total = plan.output(index), views[0]
    for i, view in enumerate(views[1:], 2):
        last = i == len(views)
        low, high = limits(node.fused[0] if node.fused and last else None)
        # a partial product of gates is still a gate: only the last result has the full size for certain
        place = y if last else plan.fresh(node.type, "float32")
        values = plan.images * y.height * y.width * y.lanes
        plan.emit(
            Kernel("elementwise", "binary", (node.op.name,)).between(total, view, place),
            one_each(values // plan.multiple), node, values, b=Address(total), c=Address(view), y=Address(place),
            low=low, high=high, images=plan.images, lanes=y.lanes, height=y.height, width=y.width,
            **_spread(total, "b", y), **_spread(view, "c", y), **place.strides("y"),
        )  # fmt: skip
        total = place


def _spread(view: View, name: str, y: View) -> dict[str, int]:
    """Strides that repeat a gate's one pixel over the map."""
    strides = view.strides(name)
    if (view.height, view.width) != (y.height, y.width):
        strides[f"{name}_row"] = strides[f"{name}_pixel"] = 0
    return strides


def lower_groupnorm(plan: Planner, index: int) -> None:
    """A block for each group of each image."""
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, (GroupNorm, InstanceNorm))
    x, y = plan.views[node.inputs[0]], plan.output(index)
    groups = op.groups if isinstance(op, GroupNorm) else x.channels
    span = x.channels // groups
    threads = team(span * x.height * x.width)
    arguments: dict[str, Argument] = {
        "scale": _affine(plan, node, "weight", np.ones(x.channels, np.float32)), "shift": _affine(plan, node, "bias"),
        "eps": op.eps, "groups": groups, "span": span,
    }  # fmt: skip
    geometry = block_each(plan.images * groups, threads)
    _emit(plan, node, Kernel("norm", "groupnorm", (threads,)), geometry, x, y, arguments)


def _affine(
    plan: Planner, node: Node, role: str, default: np.ndarray[tuple[int], np.dtype[np.float32]] | None = None
) -> Data:
    def make() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None:
        found = plan.bank.value(node, role)
        return default if found is None else found

    return plan.channels(node, role, make)


def lower_lrn(plan: Planner, index: int) -> None:
    op = plan.graph.nodes[index].op
    assert isinstance(op, Lrn)
    arguments: dict[str, Argument] = {"alpha": op.alpha / op.size, "beta": op.beta, "k": float(op.k), "size": op.size}
    _emit_points(plan, index, Kernel("norm", "lrn"), arguments, each=1)


def lower_softmax(plan: Planner, index: int) -> None:
    """A block for each pixel of each image, or a thread where channels are few."""
    node = plan.graph.nodes[index]
    x, y = plan.views[node.inputs[0]], plan.output(index)
    pixels, logarithm = plan.images * y.height * y.width, isinstance(node.op, LogSoftmax)
    if x.channels <= FEW_CHANNELS:
        kernel, geometry = Kernel("norm", "softmax_points", (logarithm,)), one_each(pixels)
    else:
        threads = team(x.channels)
        kernel, geometry = Kernel("norm", "softmax", (logarithm, threads)), block_each(pixels, threads)
    _emit(plan, node, kernel, geometry, x, y, {"images": plan.images})
