"""Each operator once more, by indices and loops over single values, to compare the definitions in the package with.

Nothing is shared with the package but the attributes of the operators. Slow: for tiny maps only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from netdsl.ops import activation, conv, deconv, dense, filter, join, norm, pool, shape, softmax
from netdsl.ops.base import Array, Op

Params = Mapping[str, Array]


def evaluate(op: Op, params: Params, inputs: Sequence[Array], shape_out: tuple[int, ...]) -> Array:
    """The result for a whole batch, float64."""
    batch = len(inputs[0])
    y = np.empty((batch, *shape_out))
    for n in range(batch):
        y[n] = IMAGE[type(op)](op, params, *(x[n].astype(np.float64) for x in inputs))
    return y


def _at(x: Array, i: int, j: int) -> float:
    """x[i, j], or 0 outside."""
    return float(x[i, j]) if 0 <= i < x.shape[0] and 0 <= j < x.shape[1] else 0.0


def _extended(x: Array, pad: Sequence[int], value: float = 0.0) -> Array:
    c, h, w = x.shape
    out = np.full((c, h + pad[0] + pad[2], w + pad[1] + pad[3]), value)
    out[:, pad[0] : pad[0] + h, pad[1] : pad[1] + w] = x
    return out


def seven_steps(op: conv.Conv, params: Params, x: Array) -> Array:
    """Convolution as an article for beginners tells it."""
    volume = _extended(x, op.pad)
    reach = [op.dilation[i] * (op.kernel[i] - 1) + 1 for i in (0, 1)]
    inside, outside = len(x) // op.groups, op.features // op.groups
    maps = []
    for k, kernel in enumerate(params["weight"]):
        first = k // outside * inside
        rows = []
        top = left = 0  # 1. start in the top left corner
        while top + reach[0] <= volume.shape[1]:
            row = []
            while left + reach[1] <= volume.shape[2]:
                bottom, right = top + reach[0], left + reach[1]
                # 2. take a slice with the kernel's field of view
                piece = volume[first : first + inside, top : bottom : op.dilation[0], left : right : op.dilation[1]]
                product = piece * kernel  # 3. multiply element by element
                row.append(product.sum())  # 4. add over the channels (and the window)
                left += op.stride[1]  # 5. step to the right
            rows.append(row)
            top, left = top + op.stride[0], 0  # 6. step down and begin from the left
        maps.append(rows)  # 7. repeat until it goes no further
    y = np.array(maps)
    return y + params["bias"][:, None, None] if op.bias else y


def stamps(op: deconv.Deconv, params: Params, x: Array) -> Array:
    """Transposed convolution: every input value stamps its multiple of the kernel onto the output."""
    c, h, w = x.shape
    inside, outside = c // op.groups, op.features // op.groups
    size = [
        (n - 1) * op.stride[i] + op.dilation[i] * (op.kernel[i] - 1) + 1 + op.output_pad[i]
        for i, n in enumerate((h, w))
    ]
    y = np.zeros((op.features, *size))
    for ci in range(c):
        first = ci // inside * outside
        for i in range(h):
            for j in range(w):
                for r in range(op.kernel[0]):
                    for s in range(op.kernel[1]):
                        p, q = i * op.stride[0] + r * op.dilation[0], j * op.stride[1] + s * op.dilation[1]
                        y[first : first + outside, p, q] += x[ci, i, j] * params["weight"][ci, :, r, s]
    top, left, bottom, right = op.pad
    y = y[:, top : y.shape[1] - bottom, left : y.shape[2] - right]
    return y + params["bias"][:, None, None] if op.bias else y


def filtered(op: filter.Filter, params: Params, x: Array) -> Array:
    """y[p, q] = sum of x[p + r, q + s] k[r, s], or of x[p + R-1 - r, q + S-1 - s] k[r, s] when flipped."""
    kernel, (c, h, w) = op.kernel, x.shape
    reach = [len(kernel), len(kernel[0])]
    size = [(n + op.pad[i] + op.pad[2 + i] - op.dilation[i] * (reach[i] - 1) - 1) // op.stride[i] + 1
            for i, n in enumerate((h, w))]  # fmt: skip
    y = np.zeros((c, *size))
    for ci, p, q in np.ndindex(y.shape):
        for r, s in np.ndindex(*reach):
            a, b = (reach[0] - 1 - r, reach[1] - 1 - s) if op.flip else (r, s)
            i = p * op.stride[0] + a * op.dilation[0] - op.pad[0]
            j = q * op.stride[1] + b * op.dilation[1] - op.pad[1]
            y[ci, p, q] += _at(x[ci], i, j) * kernel[r][s]
    return y


def _pool_size(op: Any, height: int, width: int) -> list[int]:
    """PyTorch's rule: rounded as asked, less a last window that would start in the padding at the end."""
    pad, dilation = getattr(op, "pad", (0, 0, 0, 0)), getattr(op, "dilation", (1, 1))
    out = []
    for i, n in enumerate((height, width)):
        steps = (n + pad[i] + pad[2 + i] - dilation[i] * (op.kernel[i] - 1) - 1) / op.stride[i]
        count = (math.ceil(steps) if op.ceil else math.floor(steps)) + 1
        while op.ceil and (count - 1) * op.stride[i] - pad[i] >= n:
            count -= 1
        out.append(count)
    return out


def largest(op: pool.MaxPool, params: Params, x: Array) -> Array:
    y = np.full((len(x), *_pool_size(op, *x.shape[1:])), -math.inf)
    for c, p, q in np.ndindex(y.shape):
        for r, s in np.ndindex(*op.kernel):
            i = p * op.stride[0] + r * op.dilation[0] - op.pad[0]
            j = q * op.stride[1] + s * op.dilation[1] - op.pad[1]
            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                y[c, p, q] = max(y[c, p, q], x[c, i, j])
    return y


def mean(op: pool.AvgPool, params: Params, x: Array) -> Array:
    y = np.zeros((len(x), *_pool_size(op, *x.shape[1:])))
    h, w = x.shape[1:]
    for c, p, q in np.ndindex(y.shape):
        cells = 0
        for r, s in np.ndindex(*op.kernel):
            i, j = p * op.stride[0] + r - op.pad[0], q * op.stride[1] + s - op.pad[1]
            real = 0 <= i < h and 0 <= j < w
            padded = -op.pad[0] <= i < h + op.pad[2] and -op.pad[1] <= j < w + op.pad[3]
            cells += padded if op.count_pad else real
            y[c, p, q] += _at(x[c], i, j)
        y[c, p, q] /= cells
    return y


def p_norm(op: pool.LpPool, params: Params, x: Array) -> Array:
    """A window that reaches over the edge is scaled up to a whole one."""
    y = np.zeros((len(x), *_pool_size(op, *x.shape[1:])))
    for c, p, q in np.ndindex(y.shape):
        top, left = p * op.stride[0], q * op.stride[1]
        values = [v for row in x[c, top : top + op.kernel[0]] for v in row[left : left + op.kernel[1]]]
        y[c, p, q] = (sum(v**op.norm for v in values) * math.prod(op.kernel) / len(values)) ** (1 / op.norm)
    return y


def adaptive(reduce: Callable[[Array], float]) -> Callable[..., Array]:
    def image(op: Any, params: Params, x: Array) -> Array:
        c, h, w = x.shape
        y = np.zeros((c, *op.size))
        for ci, p, q in np.ndindex(y.shape):
            rows = slice(math.floor(p * h / op.size[0]), math.ceil((p + 1) * h / op.size[0]))
            columns = slice(math.floor(q * w / op.size[1]), math.ceil((q + 1) * w / op.size[1]))
            y[ci, p, q] = reduce(x[ci, rows, columns])
        return y

    return image


def _affine(y: Array, params: Params) -> Array:
    for c in range(len(y)):
        y[c] = y[c] * params["weight"][c] + (params["bias"][c] if "bias" in params else 0)
    return y


def batch_norm(op: norm.BatchNorm, params: Params, x: Array) -> Array:
    y = np.array([(v - m) / math.sqrt(s + op.eps)
                  for v, m, s in zip(x, params["running_mean"], params["running_var"], strict=True)])  # fmt: skip
    return _affine(y, params) if op.affine else y


def group_norm(op: Any, params: Params, x: Array) -> Array:
    size = len(x) // getattr(op, "groups", len(x))
    y = np.empty_like(x)
    for first in range(0, len(x), size):
        part = x[first : first + size]
        average = sum(part.flat) / part.size
        variance = sum((v - average) ** 2 for v in part.flat) / part.size
        y[first : first + size] = (part - average) / math.sqrt(variance + op.eps)
    return _affine(y, params) if op.affine else y


def local_response(op: norm.Lrn, params: Params, x: Array) -> Array:
    y = np.empty_like(x)
    for c, i, j in np.ndindex(x.shape):
        around = [x[d, i, j] ** 2 for d in range(c - op.size // 2, c + (op.size - 1) // 2 + 1) if 0 <= d < len(x)]
        y[c, i, j] = x[c, i, j] / (op.k + op.alpha * sum(around) / op.size) ** op.beta
    return y


def matrix_vector(op: dense.Dense, params: Params, x: Array) -> Array:
    y = np.array([sum(a * b for a, b in zip(row, x, strict=True)) for row in params["weight"]])
    return y + params["bias"] if op.bias else y


def padded(op: shape.Pad, params: Params, x: Array) -> Array:
    (before, after), (top, left, bottom, right) = op.channels, op.pad
    c, h, w = x.shape
    y = np.full((c + before + after, h + top + bottom, w + left + right), op.value)
    for ci, p, q in np.ndindex(c, *y.shape[1:]):
        i, j = p - top, q - left
        if op.mode == "edge":
            i, j = min(max(i, 0), h - 1), min(max(j, 0), w - 1)
        if op.mode == "reflect":
            i, j = h - 1 - abs(h - 1 - abs(i)), w - 1 - abs(w - 1 - abs(j))
        if 0 <= i < h and 0 <= j < w:
            y[before + ci, p, q] = x[ci, i, j]
    return y


def cropped(op: shape.Crop, params: Params, x: Array) -> Array:
    y = np.empty((len(x), op.height, op.width))
    for c, p, q in np.ndindex(y.shape):
        y[c, p, q] = x[c, op.top + p, op.left + q]
    return y


def pixels(op: shape.PixelShuffle, params: Params, x: Array) -> Array:
    f = op.factor
    y = np.empty((len(x) // f**2, x.shape[1] * f, x.shape[2] * f))
    for c, p, q in np.ndindex(y.shape):
        y[c, p, q] = x[c * f * f + p % f * f + q % f, p // f, q // f]
    return y


def dealt(op: shape.ChannelShuffle, params: Params, x: Array) -> Array:
    each = len(x) // op.groups
    return np.array([x[c % op.groups * each + c // op.groups] for c in range(len(x))])


def upsampled(op: shape.Upsample, params: Params, x: Array) -> Array:
    c, h, w = x.shape
    y = np.empty((c, h * op.scale[0], w * op.scale[1]))
    for ci, p, q in np.ndindex(y.shape):
        if op.mode == "nearest":
            y[ci, p, q] = x[ci, p // op.scale[0], q // op.scale[1]]
            continue
        (i, k, u), (j, m, v) = _between(op, p, h, y.shape[1], 0), _between(op, q, w, y.shape[2], 1)
        upper = x[ci, i, j] * (1 - v) + x[ci, i, m] * v
        lower = x[ci, k, j] * (1 - v) + x[ci, k, m] * v
        y[ci, p, q] = upper * (1 - u) + lower * u
    return y


def _between(op: shape.Upsample, p: int, length: int, longer: int, axis: int) -> tuple[int, int, float]:
    """The cell before, the cell after, and how far between them output cell p lies."""
    if op.corners:
        place = p * (length - 1) / (longer - 1) if longer > 1 else 0.0
    else:
        place = max(0.0, (p + 0.5) / op.scale[axis] - 0.5)
    low = min(math.floor(place), length - 1)
    return low, min(low + 1, length - 1), place - low


def pointwise(function: Callable[[Any, float], float]) -> Callable[..., Array]:
    def image(op: Op, params: Params, x: Array) -> Array:
        return np.array([function(op, v) for v in x.flat]).reshape(x.shape)

    return image


def parametric(op: activation.PRelu, params: Params, x: Array) -> Array:
    weight = params["weight"]
    return np.array([np.where(v > 0, v, v * weight[0 if op.shared else c]) for c, v in enumerate(x)])


def soft(logarithm: bool) -> Callable[..., Array]:
    def image(op: Op, params: Params, x: Array) -> Array:
        y = np.exp(x) / sum(np.exp(v) for v in x)
        return np.log(y) if logarithm else y

    return image


def _hard(v: float) -> float:
    return min(max(v + 3, 0), 6) / 6


def _gelu(op: activation.Gelu, v: float) -> float:
    inner = math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)
    return v / 2 * (1 + (math.tanh(inner) if op.tanh else math.erf(v / math.sqrt(2))))


IMAGE: Mapping[type[Op], Callable[..., Array]] = {
    conv.Conv: seven_steps,
    deconv.Deconv: stamps,
    filter.Filter: filtered,
    pool.MaxPool: largest,
    pool.AvgPool: mean,
    pool.LpPool: p_norm,
    pool.AdaptiveMaxPool: adaptive(np.max),
    pool.AdaptiveAvgPool: adaptive(lambda v: float(np.sum(v)) / v.size),
    norm.BatchNorm: batch_norm,
    norm.InstanceNorm: group_norm,
    norm.GroupNorm: group_norm,
    norm.Lrn: local_response,
    norm.Scale: lambda op, params, x: _affine(x.copy(), params),
    dense.Dense: matrix_vector,
    shape.Flatten: lambda op, params, x: np.array(list(x.flat)),
    shape.Pad: padded,
    shape.Crop: cropped,
    shape.PixelShuffle: pixels,
    shape.ChannelShuffle: dealt,
    shape.Dropout: lambda op, params, x: x,
    shape.Upsample: upsampled,
    activation.Relu: pointwise(lambda op, v: max(v, 0.0)),
    activation.Relu6: pointwise(lambda op, v: min(max(v, 0.0), 6.0)),
    activation.Leaky: pointwise(lambda op, v: v if v > 0 else op.slope * v),
    activation.PRelu: parametric,
    activation.Elu: pointwise(lambda op, v: v if v > 0 else op.alpha * (math.exp(v) - 1)),
    activation.Gelu: pointwise(_gelu),
    activation.Silu: pointwise(lambda op, v: v / (1 + math.exp(-v))),
    activation.HardSwish: pointwise(lambda op, v: v * _hard(v)),
    activation.HardSigmoid: pointwise(lambda op, v: _hard(v)),
    activation.Sigmoid: pointwise(lambda op, v: 1 / (1 + math.exp(-v))),
    activation.Tanh: pointwise(lambda op, v: math.tanh(v)),
    softmax.Softmax: soft(logarithm=False),
    softmax.LogSoftmax: soft(logarithm=True),
    join.Add: lambda op, params, *xs: sum(xs),
    join.Mul: lambda op, params, *xs: math.prod(xs),  # NumPy spreads a Cx1x1 gate over the map
    join.Concat: lambda op, params, *xs: np.array([channel for x in xs for channel in x]),
}
