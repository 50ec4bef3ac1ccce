"""Operators: every one of them, and every layer word, by explicit lists.

An example of a layer (`Layer.example`) is a pipeline that suits a 16x32x32 input.
"""

from netdsl.ops import activation, conv, deconv, dense, filter, join, norm, pool, shape, softmax
from netdsl.ops.base import Input, Layer, Op

OPERATORS: tuple[type[Op], ...] = (
    Input,
    conv.Conv,
    deconv.Deconv,
    filter.Filter,
    pool.MaxPool,
    pool.AvgPool,
    pool.LpPool,
    pool.AdaptiveMaxPool,
    pool.AdaptiveAvgPool,
    norm.BatchNorm,
    norm.InstanceNorm,
    norm.GroupNorm,
    norm.Lrn,
    norm.Scale,
    dense.Dense,
    shape.Flatten,
    shape.Pad,
    shape.Crop,
    shape.PixelShuffle,
    shape.ChannelShuffle,
    shape.Dropout,
    shape.Upsample,
    activation.Relu,
    activation.Relu6,
    activation.Leaky,
    activation.PRelu,
    activation.Elu,
    activation.Gelu,
    activation.Silu,
    activation.HardSwish,
    activation.HardSigmoid,
    activation.Sigmoid,
    activation.Tanh,
    softmax.Softmax,
    softmax.LogSoftmax,
    join.Add,
    join.Mul,
    join.Concat,
)

_WORDS: tuple[Layer, ...] = (
    *conv.WORDS,
    *deconv.WORDS,
    *filter.WORDS,
    *pool.WORDS,
    *norm.WORDS,
    *dense.WORDS,
    *shape.WORDS,
    *activation.WORDS,
    *softmax.WORDS,
)

LAYERS: dict[str, Layer] = {word: layer for layer in _WORDS for word in (layer.name, *layer.aliases)}
