"""Lowering of point-by-point operations, normalisations and softmax."""

from __future__ import annotations

import math

import numpy as np

from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.planner import Planner
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.views import NO_HALO, Address, Argument, Data, View, floats, layout
from netdsl.graph.ir import Node, Weight
from netdsl.ops.activation import PRelu
from netdsl.ops.norm import GroupNorm, InstanceNorm, Lrn
from netdsl.ops.softmax import LogSoftmax
from netdsl.passes.fold_batchnorm import affine_weights
from netdsl.plan.activations import elementwise, limits


def _grid(plan: Planner, y: View) -> dict[str, Argument]:
    return {"images": plan.images, "blocks": y.blocks, "height": y.height, "width": y.width}


def lower_activation(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    work = node.type.elements * plan.images
    x, y = plan.views[node.inputs[0]].as_vectors(), plan.output(index, 4 * work).as_vectors()
    function, parameter = elementwise(node.op)
    plan.emit(
        Kernel("elementwise", "unary", (function,)), node, 4 * work, x=Address(x), y=Address(y), a=floats(parameter),
        **_grid(plan, y), **x.strides("x"), **y.strides("y"),
    )  # fmt: skip


def lower_affine(plan: Planner, index: int) -> None:
    """A BatchNorm or Scale that no linear layer stands before."""
    node = plan.graph.nodes[index]
    scale, shift = affine_weights(node)
    low, high = limits(node.fused[0] if node.fused else None)
    _emit_affine(
        plan, index, _channels(plan, node, "scale", scale), _channels(plan, node, "shift", shift), 0, low, high
    )


def lower_prelu(plan: Planner, index: int) -> None:
    """max(x, 0) + slope * min(x, 0)."""
    node = plan.graph.nodes[index]
    assert isinstance(node.op, PRelu)
    ones = np.ones(node.type.channels, np.float32)
    scale = plan.bank.pack((node.path, "ones"), lambda: _padded(ones))
    shift = plan.bank.pack((node.path, "zeros"), lambda: _padded(0 * ones))
    slope = plan.bank.pack((node.path, "slope"), lambda: _padded(ones * plan.bank.required(node, "weight")))
    _emit_affine(plan, index, scale, shift, slope, 0.0, 0.0)


def _emit_affine(plan: Planner, index: int, scale: Data, shift: Data, slope: Argument, low: float, high: float) -> None:
    node = plan.graph.nodes[index]
    x = plan.views[node.inputs[0]]
    work = node.type.elements * plan.images
    y = plan.output(index, work)
    plan.emit(
        Kernel("elementwise", "affine"), node, work, x=Address(x), y=Address(y), scale=scale, shift=shift, slope=slope,
        limits=floats(low, high), **_grid(plan, y), **x.strides("x"), **y.strides("y"),
    )  # fmt: skip


def _channels(plan: Planner, node: Node, role: str, weight: Weight) -> Data:
    def make() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return _padded(np.asarray(weight.evaluate(plan.bank.read), np.float32))

    return plan.bank.pack((node.path, role), make)


def _padded(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    out = np.zeros(math.ceil(len(values) / WIDTH) * WIDTH, np.float32)
    out[: len(values)] = values
    return out


def lower_join(plan: Planner, index: int) -> None:
    """A sum or product of two tensors or more, two at a time; limits apply to the last result."""
    node = plan.graph.nodes[index]
    work = node.type.elements * plan.images
    y = plan.output(index, work * (len(node.inputs) - 1))
    block, y, views = y.block, y.as_vectors(), [v.as_vectors() for v in plan.input_views(node)]
    total = views[0]
    for i, view in enumerate(views[1:], 2):
        last = i == len(views)
        low, high = limits(node.fused[0] if node.fused and last else None)
        # a partial product of gates is still a gate: only the last result has the full size for certain
        place = y if last else plan.buffer(*layout(node.type, block, NO_HALO)).as_vectors()
        plan.emit(
            Kernel("elementwise", "binary", (node.op.name,)), node, work, a=Address(total), b=Address(view),
            y=Address(place), limits=floats(low, high), **_grid(plan, place),
            **_spread(total, "a", place), **_spread(view, "b", place), **place.strides("y"),
        )  # fmt: skip
        total = place


def _spread(view: View, name: str, y: View) -> dict[str, int]:
    """Strides that repeat a gate's one pixel over the map."""
    strides = view.strides(name)
    if (view.height, view.width) != (y.height, y.width):
        strides[f"{name}_row"] = strides[f"{name}_pixel"] = 0
    return strides


def lower_groupnorm(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, (GroupNorm, InstanceNorm))
    x = plan.views[node.inputs[0]]
    groups = op.groups if isinstance(op, GroupNorm) else x.channels
    work = 4 * node.type.elements * plan.images
    y = plan.output(index, work)
    clear_tail(plan, node, y)
    ones = np.ones(x.channels, np.float32)
    scale = plan.bank.pack(
        (node.path, "scale"), lambda: _padded(plan.bank.required(node, "weight") if op.affine else ones)
    )
    shift = plan.bank.pack(
        (node.path, "shift"), lambda: _padded(plan.bank.required(node, "bias") if op.affine else 0 * ones)
    )
    plan.emit(
        Kernel("norm", "groupnorm"), node, work, x=Address(x), y=Address(y), scale=scale, shift=shift,
        eps=floats(op.eps), images=plan.images, groups=groups, span=x.channels // groups, height=y.height,
        width=y.width, **x.strides("x"), **y.strides("y"),
    )  # fmt: skip


def lower_lrn(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    op = node.op
    assert isinstance(op, Lrn)
    x = plan.views[node.inputs[0]]
    work = op.size * node.type.elements * plan.images
    y = plan.output(index, work)
    clear_tail(plan, node, y)
    plan.emit(
        Kernel("norm", "lrn"), node, work, x=Address(x), y=Address(y), facts=floats(op.alpha / op.size, op.beta, op.k),
        size=op.size, images=plan.images, channels=x.channels, height=y.height, width=y.width,
        **x.strides("x"), **y.strides("y"),
    )  # fmt: skip


def lower_softmax(plan: Planner, index: int) -> None:
    node = plan.graph.nodes[index]
    x = plan.views[node.inputs[0]]
    work = 8 * node.type.elements * plan.images
    y = plan.output(index, work)
    plan.emit(
        Kernel("norm", "softmax", (isinstance(node.op, LogSoftmax),)), node, work, x=Address(x), y=Address(y),
        images=plan.images, channels=x.channels, height=y.height, width=y.width, **x.strides("x"), **y.strides("y"),
    )  # fmt: skip


def clear_tail(plan: Planner, node: Node, y: View) -> None:
    """Zeros in the last block before a kernel that writes single lanes: empty lanes must stay finite."""
    if y.channels % y.block:
        offset = (y.blocks - 1) * y.plane - y.halo[0] * y.row - y.halo[1] * y.pixel
        plan.emit(
            Kernel("move", "clear"), node, 1, y=Address(y, offset), images=plan.images, y_image=y.image, bytes=y.plane
        )
