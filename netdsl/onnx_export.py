"""A netdsl graph as an ONNX model with a dynamic batch, for comparing with ONNX Runtime. Needs the package `onnx`.

Where ONNX has an operator of the same meaning, that one is used, with attributes as other exporters write them, so that
times measured on the result are fair. Rules that ONNX lacks (PyTorch's ceil windows with counted padding, uneven
adaptive bins, even LRN sizes) are written out in basic operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from netdsl.graph.ir import Graph, Node
from netdsl.ops import activation, conv, deconv, dense, filter, join, norm, pool, shape, softmax
from netdsl.ops.base import Array, Input, Op, Pair
from netdsl.ops.window import covered
from netdsl.tensor import TensorType

OPSET = 21  # the first with GroupNormalization per channel; ONNX Runtime 1.18 and newer read it
IR_VERSION = 10


def to_onnx(graph: Graph, weights: Mapping[str, Array]) -> bytes:
    """The serialized float32 model of a graph as built (no epilogues); inputs and outputs keep their names.

    weights  stored tensors by dotted name. A model must stay below 2 GiB, protobuf's limit.
    """
    import onnx
    from onnx import TensorProto, helper

    writer = _Writer(weights)
    names: list[str] = []
    inputs = {spec.node: spec.name for spec in graph.inputs}
    for i, node in enumerate(graph.nodes):
        if node.fused:
            raise ValueError(f"{node.path}: a graph with epilogues cannot be exported")
        if isinstance(node.op, Input):
            names.append(inputs[i])
        else:
            types = graph.input_types(node)
            names.append(EXPORT[type(node.op)](_Site(writer, node, types), *(names[j] for j in node.inputs)))
    for spec in graph.outputs:
        writer.nodes.append(helper.make_node("Identity", [names[spec.node]], [spec.name]))

    def value(name: str, kind: TensorType) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *kind.shape])

    model = helper.make_model(
        helper.make_graph(
            writer.nodes,
            graph.name,
            [value(spec.name, spec.type) for spec in graph.inputs],
            [value(spec.name, graph.nodes[spec.node].type) for spec in graph.outputs],
            writer.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


class _Writer:
    """Collects ONNX nodes and constants under fresh names."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.count = 0

    def fresh(self, word: str) -> str:
        self.count += 1
        return f"{word}_{self.count}"

    def constant(self, value: Any, dtype: Any) -> str:
        from onnx import numpy_helper

        name = self.fresh("constant")
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        from onnx import helper

        name = self.fresh(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name


class _Site:
    """Where one netdsl node is exported: its operator, its input types, its weights."""

    def __init__(self, writer: _Writer, node: Node, types: Sequence[TensorType]) -> None:
        self.writer, self.types, self.type, self.path = writer, types, node.type, node.path
        self.op: Any = node.op  # of the class that the exporting function is listed for
        self.weights = node.weights

    @property
    def x(self) -> TensorType:
        return self.types[0]

    def weight(self, role: str, *reshape: int) -> str:
        value = self.weights[role].evaluate(self.writer.weights.__getitem__)
        return self.floats(value.reshape(reshape) if reshape else value)

    def per_channel(self, role: str) -> str:
        """A weight [C] so shaped that ONNX spreads it over the positions."""
        return self.weight(role, -1, *[1] * (len(self.x.shape) - 1))

    def floats(self, value: Any) -> str:
        return self.writer.constant(value, np.float32)

    def ints(self, *values: int) -> str:
        return self.writer.constant(values, np.int64)

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.writer.node(kind, inputs, **attributes)


def _conv(to: _Site, x: str) -> str:
    op = to.op
    bias = [to.weight("bias")] if op.bias else []
    return to("Conv", x, to.weight("weight"), *bias, kernel_shape=op.kernel, strides=op.stride, pads=op.pad,
              dilations=op.dilation, group=op.groups)  # fmt: skip


def _deconv(to: _Site, x: str) -> str:
    op = to.op
    rule = {"kernel_shape": op.kernel, "strides": op.stride, "dilations": op.dilation, "group": op.groups}
    if op.output_pad[0] < op.stride[0] and op.output_pad[1] < op.stride[1]:
        bias = [to.weight("bias")] if op.bias else []
        return to("ConvTranspose", x, to.weight("weight"), *bias, pads=op.pad, output_padding=op.output_pad, **rule)
    # ONNX Runtime refuses an output_padding as large as the stride: cut less from the end, and add what then lacks.
    less = [min(op.pad[2 + i], op.output_pad[i]) for i in (0, 1)]
    pads = op.pad[0], op.pad[1], op.pad[2] - less[0], op.pad[3] - less[1]
    y = to("ConvTranspose", x, to.weight("weight"), pads=pads, **rule)
    y = to("Pad", y, to.ints(0, 0, 0, 0, 0, 0, op.output_pad[0] - less[0], op.output_pad[1] - less[1]))
    return to("Add", y, to.weight("bias", -1, 1, 1)) if op.bias else y


def _filter(to: _Site, x: str) -> str:
    op, channels = to.op, to.x.channels
    return to("Conv", x, to.floats(op.weight(channels)), kernel_shape=op.size, strides=op.stride, pads=op.pad,
              dilations=op.dilation, group=channels)  # fmt: skip


def _ends(to: _Site, dilation: Pair, pad: tuple[int, int, int, int]) -> Sequence[int]:
    """Padding with which rounding down gives exactly the windows of the node, a last one over the edge included.

    The node's own padding wherever that does.
    """
    cover, size = covered(to.op.kernel, dilation), to.type.shape[1:]
    ends = [(size[i] - 1) * to.op.stride[i] + cover[i] - to.x.shape[1 + i] - pad[i] for i in (0, 1)]
    if all(0 <= pad[2 + i] - ends[i] < to.op.stride[i] for i in (0, 1)):
        return pad
    return [pad[0], pad[1], max(ends[0], 0), max(ends[1], 0)]


def _maxpool(to: _Site, x: str) -> str:
    op, pad = to.op, _ends(to, to.op.dilation, to.op.pad)
    if any(pad[i] >= op.kernel[i % 2] for i in range(4)):  # ONNX Runtime refuses it, though dilation makes room
        x = to("Pad", x, to.ints(0, 0, pad[0], pad[1], 0, 0, pad[2], pad[3]), to.floats(-np.inf))
        pad = [0, 0, 0, 0]
    return to("MaxPool", x, kernel_shape=op.kernel, strides=op.stride, pads=pad, dilations=op.dilation)


def _mean(to: _Site, x: str, pad: tuple[int, int, int, int]) -> str:
    """The mean over the cells of x alone in each window."""
    return to("AveragePool", x, kernel_shape=to.op.kernel, strides=to.op.stride, pads=_ends(to, (1, 1), pad),
              count_include_pad=0)  # fmt: skip


def _avgpool(to: _Site, x: str) -> str:
    op = to.op
    if not op.count_pad or not any(op.pad):
        return _mean(to, x, op.pad)
    ends = _ends(to, (1, 1), op.pad)
    if ends[2] <= op.pad[2] and ends[3] <= op.pad[3]:
        return to("AveragePool", x, kernel_shape=op.kernel, strides=op.stride, pads=ends, count_include_pad=1)
    around = to("Pad", x, to.ints(0, 0, op.pad[0], op.pad[1], 0, 0, op.pad[2], op.pad[3]))
    padded = TensorType((to.x.channels, to.x.height + op.pad[0] + op.pad[2], to.x.width + op.pad[1] + op.pad[3]))
    to.types = (padded,)
    return _mean(to, around, (0, 0, 0, 0))


def _lppool(to: _Site, x: str) -> str:
    op = to.op
    mean = _mean(to, to("Pow", x, to.floats(op.norm)), (0, 0, 0, 0))
    total = to("Mul", mean, to.floats(math.prod(op.kernel)))
    return to("Pow", total, to.floats(1 / op.norm))


def _adaptive(whole: str, window: str, reduce: str) -> Callable[[_Site, str], str]:
    def export(to: _Site, x: str) -> str:
        size, (height, width) = to.op.size, to.x.shape[1:]
        if size == (1, 1):
            return to(whole, x)
        if height % size[0] == 0 and width % size[1] == 0:
            kernel = height // size[0], width // size[1]
            return to(window, x, kernel_shape=kernel, strides=kernel)
        for axis, length, count in ((2, height, size[0]), (3, width, size[1])):
            x = to("Concat", *(_bin(to, x, axis, *ends, reduce) for ends in pool.bins(length, count)), axis=axis)
        return x

    return export


def _bin(to: _Site, x: str, axis: int, start: int, end: int, reduce: str) -> str:
    cells = to("Slice", x, to.ints(start), to.ints(end), to.ints(axis))
    return to(reduce, cells, to.ints(axis), keepdims=1)


def _batchnorm(to: _Site, x: str) -> str:
    channels = to.x.channels
    weight = to.weight("weight") if to.op.affine else to.floats(np.ones(channels))
    bias = to.weight("bias") if to.op.affine else to.floats(np.zeros(channels))
    running = to.weight("running_mean"), to.weight("running_var")
    return to("BatchNormalization", x, weight, bias, *running, epsilon=to.op.eps)


def _standardised(kind: str) -> Callable[[_Site, str], str]:
    def export(to: _Site, x: str) -> str:
        op, channels = to.op, to.x.channels
        weight = to.weight("weight") if op.affine else to.floats(np.ones(channels))
        bias = to.weight("bias") if op.affine else to.floats(np.zeros(channels))
        groups = {"num_groups": op.groups} if isinstance(op, norm.GroupNorm) else {}
        return to(kind, x, weight, bias, epsilon=op.eps, **groups)

    return export


def _lrn(to: _Site, x: str) -> str:
    op = to.op
    rule = {"size": op.size, "alpha": op.alpha, "beta": op.beta, "bias": op.k}
    if op.size % 2:
        return to("LRN", x, **rule)
    # Even windows: the mean of the squares as pooling along the channels of [N, 1, C, H W].
    c, h, w = to.x.shape
    squares = to("Reshape", to("Mul", x, x), to.ints(0, 1, c, h * w))
    ends = (op.size // 2, 0, (op.size - 1) // 2, 0)
    pooled = to("AveragePool", squares, kernel_shape=(op.size, 1), pads=ends, count_include_pad=1)
    mean = to("Reshape", pooled, to.ints(0, c, h, w))
    strength = to("Add", to("Mul", mean, to.floats(op.alpha)), to.floats(op.k))
    return to("Div", x, to("Pow", strength, to.floats(op.beta)))


def _scale(to: _Site, x: str) -> str:
    y = to("Mul", x, to.per_channel("weight"))
    return to("Add", y, to.per_channel("bias")) if to.op.bias else y


def _dense(to: _Site, x: str) -> str:
    bias = [to.weight("bias")] if to.op.bias else []
    return to("Gemm", x, to.weight("weight"), *bias, transB=1)


def _pad(to: _Site, x: str) -> str:
    op = to.op
    (top, left, bottom, right), (before, after) = op.pad, op.channels
    value = [to.floats(op.value)] if op.mode == "constant" else []
    mode = "constant" if op.mode == "zero" else op.mode
    if any(op.pad) or not any(op.channels):
        x = to("Pad", x, to.ints(0, 0, top, left, 0, 0, bottom, right), *value, mode=mode)
    return to("Pad", x, to.ints(0, before, 0, 0, 0, after, 0, 0), *value) if any(op.channels) else x


def _crop(to: _Site, x: str) -> str:
    op = to.op
    ends = to.ints(op.top + op.height, op.left + op.width)
    return to("Slice", x, to.ints(op.top, op.left), ends, to.ints(2, 3))


def _upsample(to: _Site, x: str) -> str:
    op = to.op
    scales = to.floats((1, 1, *op.scale))
    if op.mode == "nearest":
        return to("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric",
                  nearest_mode="floor")  # fmt: skip
    rule = "align_corners" if op.corners else "half_pixel"
    return to("Resize", x, "", scales, mode="linear", coordinate_transformation_mode=rule)


def _channelshuffle(to: _Site, x: str) -> str:
    c, h, w = to.x.shape
    groups = to.op.groups
    split = to("Reshape", x, to.ints(0, groups, c // groups, h * w))
    return to("Reshape", to("Transpose", split, perm=[0, 2, 1, 3]), to.ints(0, c, h, w))


def _prelu(to: _Site, x: str) -> str:
    return to("PRelu", x, to.per_channel("weight"))


def _silu(to: _Site, x: str) -> str:
    return to("Mul", x, to("Sigmoid", x))


def _chain(kind: str) -> Callable[..., str]:
    """A binary ONNX operator over all inputs."""

    def export(to: _Site, *xs: str) -> str:
        y = xs[0]
        for x in xs[1:]:
            y = to(kind, y, x)
        return y

    return export


def _plain(kind: str, attributes: Callable[[Any], dict[str, Any]] = lambda op: {}) -> Callable[[_Site, str], str]:
    return lambda to, x: to(kind, x, **attributes(to.op))


EXPORT: Mapping[type[Op], Callable[..., str]] = {
    conv.Conv: _conv,
    deconv.Deconv: _deconv,
    filter.Filter: _filter,
    pool.MaxPool: _maxpool,
    pool.AvgPool: _avgpool,
    pool.LpPool: _lppool,
    pool.AdaptiveMaxPool: _adaptive("GlobalMaxPool", "MaxPool", "ReduceMax"),
    pool.AdaptiveAvgPool: _adaptive("GlobalAveragePool", "AveragePool", "ReduceMean"),
    norm.BatchNorm: _batchnorm,
    norm.InstanceNorm: _standardised("InstanceNormalization"),
    norm.GroupNorm: _standardised("GroupNormalization"),
    norm.Lrn: _lrn,
    norm.Scale: _scale,
    dense.Dense: _dense,
    shape.Flatten: _plain("Flatten", lambda op: {"axis": 1}),
    shape.Pad: _pad,
    shape.Crop: _crop,
    shape.PixelShuffle: _plain("DepthToSpace", lambda op: {"blocksize": op.factor, "mode": "CRD"}),
    shape.ChannelShuffle: _channelshuffle,
    shape.Dropout: _plain("Identity"),
    shape.Upsample: _upsample,
    activation.Relu: _plain("Relu"),
    activation.Relu6: lambda to, x: to("Clip", x, to.floats(0), to.floats(6)),
    activation.Leaky: _plain("LeakyRelu", lambda op: {"alpha": op.slope}),
    activation.PRelu: _prelu,
    activation.Elu: _plain("Elu", lambda op: {"alpha": op.alpha}),
    activation.Gelu: _plain("Gelu", lambda op: {"approximate": "tanh" if op.tanh else "none"}),
    activation.Silu: _silu,
    activation.HardSwish: _plain("HardSwish"),
    activation.HardSigmoid: _plain("HardSigmoid", lambda op: {"alpha": 1 / 6, "beta": 0.5}),
    activation.Sigmoid: _plain("Sigmoid"),
    activation.Tanh: _plain("Tanh"),
    softmax.Softmax: _plain("Softmax", lambda op: {"axis": 1}),
    softmax.LogSoftmax: _plain("LogSoftmax", lambda op: {"axis": 1}),
    join.Add: _chain("Add"),
    join.Mul: _chain("Mul"),
    join.Concat: lambda to, *xs: to("Concat", *xs, axis=1),
}
