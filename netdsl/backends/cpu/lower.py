"""From a rewritten graph to steps: for each operator, the function that lowers it."""

from __future__ import annotations

from collections.abc import Callable

from netdsl.backends.cpu.lower_linear import lower_conv, lower_deconv, lower_dense
from netdsl.backends.cpu.lower_moves import (
    lower_channelshuffle,
    lower_concat,
    lower_crop,
    lower_flatten,
    lower_input,
    lower_output,
    lower_pad,
    lower_pixelshuffle,
    lower_upsample,
)  # fmt: skip
from netdsl.backends.cpu.lower_points import (
    lower_activation,
    lower_affine,
    lower_groupnorm,
    lower_join,
    lower_lrn,
    lower_prelu,
    lower_softmax,
)  # fmt: skip
from netdsl.backends.cpu.lower_pool import (
    lower_adaptive_avgpool,
    lower_adaptive_maxpool,
    lower_avgpool,
    lower_lppool,
    lower_maxpool,
)  # fmt: skip
from netdsl.backends.cpu.planner import Planner
from netdsl.ops.activation import (
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    Leaky,
    PRelu,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    Tanh,
)  # fmt: skip
from netdsl.ops.base import Input, Op
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.dense import Dense
from netdsl.ops.join import Add, Concat, Mul
from netdsl.ops.norm import BatchNorm, GroupNorm, InstanceNorm, Lrn, Scale
from netdsl.ops.pool import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, LpPool, MaxPool
from netdsl.ops.shape import ChannelShuffle, Crop, Flatten, Pad, PixelShuffle, Upsample
from netdsl.ops.softmax import LogSoftmax, Softmax

LOWERINGS: dict[type[Op], Callable[[Planner, int], None]] = {
    Conv: lower_conv, Deconv: lower_deconv, Dense: lower_dense,
    MaxPool: lower_maxpool, AvgPool: lower_avgpool, LpPool: lower_lppool,
    AdaptiveMaxPool: lower_adaptive_maxpool, AdaptiveAvgPool: lower_adaptive_avgpool,
    BatchNorm: lower_affine, Scale: lower_affine, GroupNorm: lower_groupnorm, InstanceNorm: lower_groupnorm,
    Lrn: lower_lrn, PRelu: lower_prelu, Softmax: lower_softmax, LogSoftmax: lower_softmax,
    **dict.fromkeys(
        (Elu, Gelu, HardSigmoid, HardSwish, Leaky, Relu, Relu6, Sigmoid, Silu, Tanh), lower_activation
    ),
    Add: lower_join, Mul: lower_join, Concat: lower_concat,
    Flatten: lower_flatten, Pad: lower_pad, Crop: lower_crop, Upsample: lower_upsample,
    PixelShuffle: lower_pixelshuffle, ChannelShuffle: lower_channelshuffle,
}  # fmt: skip


def plan_steps(plan: Planner) -> None:
    """Emit the steps of the whole graph: inputs, operations in order, outputs."""
    ports = {spec.node: i for i, spec in enumerate(plan.graph.inputs)}
    for index, node in enumerate(plan.graph.nodes):
        plan.images = plan.together[index]
        if isinstance(node.op, Input):
            lower_input(plan, index, ports[index])
        else:
            LOWERINGS[type(node.op)](plan, index)
    plan.images = plan.batch
    for i, spec in enumerate(plan.graph.outputs):
        lower_output(plan, spec.node, i)
