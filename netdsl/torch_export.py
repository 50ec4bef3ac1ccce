"""A netdsl graph as a PyTorch module, for comparing with PyTorch. Needs the package `torch`.

Where `torch.nn.functional` has an operator of the same meaning, that one is called; its attributes are worked out once,
outside the call. Uneven pads, and what PyTorch lacks, are written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from netdsl.graph.ir import Graph, Node
from netdsl.ops import activation, conv, deconv, dense, filter, join, norm, pool, shape, softmax
from netdsl.ops.base import Array, Input, Op, Pad4
from netdsl.ops.window import covered
from netdsl.tensor import TensorType

Apply = Callable[..., Any]  # (input tensors) -> the result
Place = Callable[[Any], Any]  # (tensor) -> tensor


class Network(torch.nn.Module):
    """The graph as a module: called with a float32 tensor [N, *shape] for each input, returns a tuple.

    place  what becomes of each weight once it is a float32 tensor of the host: its device, type and layout
    """

    def __init__(self, graph: Graph, weights: Mapping[str, Array], place: Place | None = None) -> None:
        super().__init__()
        self.graph = graph
        self.steps: list[Apply | None] = []
        for i, node in enumerate(graph.nodes):
            if node.fused:
                raise ValueError(f"{node.path}: a graph with epilogues cannot be exported")
            if isinstance(node.op, Input):
                self.steps.append(None)
                continue
            site = Site(node, graph.input_types(node), weights, place)
            self.steps.append(EXPORT[type(node.op)](site))
            for role, value in site.tensors.items():
                self.register_buffer(f"node{i}_{role}", value)

    def forward(self, *inputs: Any) -> Any:
        values = list(inputs)  # inputs come first in the order of nodes
        for node, step in zip(self.graph.nodes, self.steps, strict=True):
            if step is not None:
                values.append(step(*(values[i] for i in node.inputs)))
        return tuple(values[spec.node] for spec in self.graph.outputs)


class Site:
    """Where one node is exported: its operator, types, and weights as tensors (those asked for are in `tensors`)."""

    def __init__(
        self, node: Node, types: Sequence[TensorType], weights: Mapping[str, Array], place: Place | None = None
    ) -> None:
        self.op: Any = node.op  # of the class that the exporting function is listed for
        self.x, self.type = types[0], node.type
        self.node, self.stored, self.place = node, weights, place
        self.tensors: dict[str, Any] = {}

    def weight(self, role: str, *reshape: int) -> Any:
        """A weight as a float32 tensor, or None if the operator has none of that role."""
        if role not in self.node.weights:
            return None
        value = self.node.weights[role].evaluate(self.stored.__getitem__)
        return self.keep(role, value.reshape(reshape) if reshape else value)

    def keep(self, role: str, value: Any) -> Any:
        tensor = torch.from_numpy(np.array(value, np.float32))
        self.tensors[role] = self.place(tensor) if self.place else tensor
        return self.tensors[role]

    def per_channel(self, role: str) -> Any:
        return self.weight(role, -1, *[1] * (len(self.x.shape) - 1))


def _around(pad: Pad4) -> tuple[int, int, int, int]:
    """Pads in the order of F.pad: left, right, top, bottom."""
    top, left, bottom, right = pad
    return left, right, top, bottom


def _padded(pad: Pad4, value: float = 0.0) -> tuple[Apply, tuple[int, int]]:
    """What pads first where sides differ, and the pads that are left for the operator itself."""
    top, left, bottom, right = pad
    if (top, left) == (bottom, right):
        return (lambda x: x), (top, left)
    return (lambda x: F.pad(x, _around(pad), value=value)), (0, 0)


def _conv(to: Site) -> Apply:
    op, weight, bias = to.op, to.weight("weight"), to.weight("bias")
    before, pad = _padded(op.pad)
    return lambda x: F.conv2d(before(x), weight, bias, op.stride, pad, op.dilation, op.groups)


def _deconv(to: Site) -> Apply:
    op, weight, bias = to.op, to.weight("weight"), to.weight("bias")
    top, left = op.pad[:2]
    if op.pad[:2] == op.pad[2:]:
        rule = op.stride, (top, left), op.output_pad, op.groups, op.dilation
        return lambda x: F.conv_transpose2d(x, weight, bias, *rule)
    rows, columns = slice(top, top + to.type.height), slice(left, left + to.type.width)
    rule = op.stride, (0, 0), op.output_pad, op.groups, op.dilation
    return lambda x: F.conv_transpose2d(x, weight, bias, *rule)[:, :, rows, columns]


def _filter(to: Site) -> Apply:
    op, channels = to.op, to.x.channels
    weight = to.keep("weight", op.weight(channels))
    before, pad = _padded(op.pad)
    return lambda x: F.conv2d(before(x), weight, None, op.stride, pad, op.dilation, channels)


def _ends(to: Site, dilation: tuple[int, int] = (1, 1)) -> tuple[int, int, int, int]:
    """Pads for F.pad with which rounding down gives exactly the windows of the node, one over the edge included."""
    op, cover, size = to.op, covered(to.op.kernel, dilation), to.type.shape[1:]
    ends = [(size[i] - 1) * op.stride[i] + cover[i] - to.x.shape[1 + i] - op.pad[i] for i in (0, 1)]
    return _around((op.pad[0], op.pad[1], max(ends[0], 0), max(ends[1], 0)))


def _direct(op: Any) -> bool:
    """Whether PyTorch takes the pads of a pooling as they are: alike on opposite sides, at most half the window."""
    return op.pad[:2] == op.pad[2:] and all(2 * p <= k for p, k in zip(op.pad[:2], op.kernel, strict=True))


def _maxpool(to: Site) -> Apply:
    op = to.op
    if _direct(op):
        return lambda x: F.max_pool2d(x, op.kernel, op.stride, op.pad[:2], op.dilation, op.ceil)
    around = _ends(to, op.dilation)
    return lambda x: F.max_pool2d(F.pad(x, around, value=-torch.inf), op.kernel, op.stride, 0, op.dilation)


def _avgpool(to: Site) -> Apply:
    op = to.op
    if _direct(op):
        return lambda x: F.avg_pool2d(x, op.kernel, op.stride, op.pad[:2], op.ceil, op.count_pad)
    around, scale = _ends(to), to.keep("scale", math.prod(op.kernel) / op.counts(to.x))
    return lambda x: F.avg_pool2d(F.pad(x, around), op.kernel, op.stride) * scale


def _lppool(to: Site) -> Apply:
    op, cells = to.op, math.prod(to.op.kernel)
    return lambda x: (F.avg_pool2d(x**op.norm, op.kernel, op.stride, 0, op.ceil) * cells) ** (1 / op.norm)


def _batchnorm(to: Site) -> Apply:
    mean, var, eps = to.weight("running_mean"), to.weight("running_var"), to.op.eps
    weight, bias = to.weight("weight"), to.weight("bias")
    return lambda x: F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)


def _groupnorm(to: Site) -> Apply:
    op, weight, bias = to.op, to.weight("weight"), to.weight("bias")
    groups = op.groups if isinstance(op, norm.GroupNorm) else to.x.channels
    return lambda x: F.group_norm(x, groups, weight, bias, op.eps)


def _lrn(to: Site) -> Apply:
    op = to.op
    return lambda x: F.local_response_norm(x, op.size, op.alpha, op.beta, op.k)


def _scale(to: Site) -> Apply:
    weight, bias = to.per_channel("weight"), to.per_channel("bias")
    return (lambda x: x * weight) if bias is None else (lambda x: x * weight + bias)


def _dense(to: Site) -> Apply:
    weight, bias = to.weight("weight"), to.weight("bias")
    return lambda x: F.linear(x, weight, bias)


def _pad(to: Site) -> Apply:
    op, (before, after) = to.op, to.op.channels
    mode = {"zero": "constant", "edge": "replicate"}.get(op.mode, op.mode)
    value = {"value": op.value} if op.mode == "constant" else {}
    around, channels = _around(op.pad), (0, 0, 0, 0, before, after)

    def pad(x: Any) -> Any:
        y = F.pad(x, around, mode=mode, **value)
        return F.pad(y, channels, **value) if before or after else y

    return pad


def _crop(to: Site) -> Apply:
    op = to.op
    rows, columns = slice(op.top, op.top + op.height), slice(op.left, op.left + op.width)
    return lambda x: x[:, :, rows, columns]


def _upsample(to: Site) -> Apply:
    op = to.op
    scale = tuple(map(float, op.scale))
    if op.mode == "nearest":
        return lambda x: F.interpolate(x, scale_factor=scale, mode="nearest")
    return lambda x: F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=op.corners)


def _channelshuffle(to: Site) -> Apply:
    return lambda x: F.channel_shuffle(x, to.op.groups)


def _prelu(to: Site) -> Apply:
    weight = to.weight("weight")
    return lambda x: F.prelu(x, weight)


def _chain(combine: Callable[[Any, Any], Any]) -> Callable[[Site], Apply]:
    def apply(*xs: Any) -> Any:
        y = xs[0]
        for x in xs[1:]:
            y = combine(y, x)
        return y

    return lambda to: apply


def _plain(function: Callable[..., Any], **attributes: Any) -> Callable[[Site], Apply]:
    return lambda to: lambda x: function(x, **attributes)


EXPORT: Mapping[type[Op], Callable[[Site], Apply]] = {
    conv.Conv: _conv,
    deconv.Deconv: _deconv,
    filter.Filter: _filter,
    pool.MaxPool: _maxpool,
    pool.AvgPool: _avgpool,
    pool.LpPool: _lppool,
    pool.AdaptiveMaxPool: lambda to: lambda x: F.adaptive_max_pool2d(x, to.op.size),
    pool.AdaptiveAvgPool: lambda to: lambda x: F.adaptive_avg_pool2d(x, to.op.size),
    norm.BatchNorm: _batchnorm,
    norm.InstanceNorm: _groupnorm,
    norm.GroupNorm: _groupnorm,
    norm.Lrn: _lrn,
    norm.Scale: _scale,
    dense.Dense: _dense,
    shape.Flatten: _plain(torch.flatten, start_dim=1),
    shape.Pad: _pad,
    shape.Crop: _crop,
    shape.PixelShuffle: lambda to: lambda x: F.pixel_shuffle(x, to.op.factor),
    shape.ChannelShuffle: _channelshuffle,
    shape.Dropout: lambda to: lambda x: x,
    shape.Upsample: _upsample,
    activation.Relu: _plain(F.relu),
    activation.Relu6: _plain(F.relu6),
    activation.Leaky: lambda to: lambda x: F.leaky_relu(x, to.op.slope),
    activation.PRelu: _prelu,
    activation.Elu: lambda to: lambda x: F.elu(x, to.op.alpha),
    activation.Gelu: lambda to: lambda x: F.gelu(x, approximate="tanh" if to.op.tanh else "none"),
    activation.Silu: _plain(F.silu),
    activation.HardSwish: _plain(F.hardswish),
    activation.HardSigmoid: _plain(F.hardsigmoid),
    activation.Sigmoid: _plain(torch.sigmoid),
    activation.Tanh: _plain(torch.tanh),
    softmax.Softmax: _plain(F.softmax, dim=1),
    softmax.LogSoftmax: _plain(F.log_softmax, dim=1),
    join.Add: _chain(lambda x, y: x + y),
    join.Mul: _chain(lambda x, y: x * y),
    join.Concat: lambda to: lambda *xs: torch.cat(xs, 1),
}
