"""The shapes that every backend is tested on: one list of cases, and a hypothesis strategy that draws more.

A maker builds one case of one operator from a `Picker`, which decides every choice; so the same makers serve the fixed
list `CASES` (a seeded picker) and `op_cases()` (hypothesis picks). Nasty on purpose: tails, strides beyond the window,
even and flat kernels, one-cell maps, channels and widths that are no multiple of any vector.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from netdsl.errors import Source
from netdsl.graph.ir import Graph, InputSpec, Node, OutputSpec, Stored
from netdsl.ops import OPERATORS, activation, conv, deconv, dense, filter, join, norm, pool, shape, softmax
from netdsl.ops.base import Array, Input, Op, Pad4, Pair
from netdsl.ops.window import covered
from netdsl.tensor import TensorType

CHANNELS = (1, 2, 3, 4, 7, 8, 12, 16, 17, 24, 32, 33, 48)
FEW_CHANNELS = (1, 2, 3, 4, 6)


class Case(NamedTuple):
    """An operator and the types of its inputs."""

    op: Op
    types: tuple[TensorType, ...]

    def __str__(self) -> str:
        """The id of a test: all attributes, and the input types."""
        return f"{self.op!r} on {', '.join(map(str, self.types))}".replace(" ", "")


class Picker:
    """Makes the choices of a case. `pick` takes one of a sequence; `small` keeps maps tiny for naive loops."""

    def __init__(self, pick: Callable[[Sequence[Any]], Any], small: bool = False) -> None:
        self.pick = pick
        self.small = small

    def flag(self) -> bool:
        return bool(self.pick((False, True)))

    def channels(self) -> int:
        return int(self.pick(FEW_CHANNELS if self.small else CHANNELS))

    def pair(self, *values: int) -> Pair:
        return self.pick(values), self.pick(values)

    def extra(self) -> int:
        """Cells by which a map is larger than it must be."""
        return int(self.pick((0, 1, 2, 3, 4, 5) if self.small else (0, 1, 2, 3, 5, 6, 9, 12, 13, 16, 21, 30)))

    def size(self) -> Pair:
        return 1 + self.extra(), 1 + self.extra()

    def map(self, channels: int | None = None) -> TensorType:
        return TensorType((channels or self.channels(), *self.size()))

    def either(self) -> TensorType:
        """A map or a vector."""
        return self.map() if self.pick((True, True, False)) else TensorType((self.pick((1, 3, 10, 16, 37, 100)),))

    def grouped(self) -> tuple[int, int, int]:
        """Input channels, output channels, groups: ordinary, grouped or depthwise."""
        style = self.pick(("ordinary", "ordinary", "grouped", "depthwise"))
        c = self.channels()
        if style == "ordinary":
            return c, self.channels(), 1
        if style == "grouped":
            groups = self.pick((2, 3, 4))
            return self.pick((1, 2, 5, 8)) * groups, self.pick((1, 2, 3, 8)) * groups, groups
        return c, c * self.pick((1, 1, 1, 2)), c


class _Window(NamedTuple):
    kernel: Pair
    stride: Pair
    pad: Pad4
    dilation: Pair

    def fitting(self, p: Picker, channels: int) -> TensorType:
        """A map into which at least one window fits."""
        cover = covered(self.kernel, self.dilation)
        least = [max(1, cover[i] - self.pad[i] - self.pad[2 + i]) for i in (0, 1)]
        return TensorType((channels, least[0] + p.extra(), least[1] + p.extra()))


def _pad(p: Picker, most: Pair) -> Pad4:
    """Mostly none or symmetrical, sometimes different on each side; at most `most` cells."""
    style = p.pick(("none", "even", "any"))
    if style == "none":
        return 0, 0, 0, 0
    if style == "even":
        return most[0] // 2, most[1] // 2, most[0] // 2, most[1] // 2
    return tuple(p.pick(range(most[i % 2] + 1)) for i in range(4))  # type: ignore[return-value]


def _window(p: Picker, *, dilated: bool = True) -> _Window:
    kernel = p.pick(((3, 3), (3, 3), (1, 1), (2, 2), (5, 5), (4, 4), (7, 7), (1, 3), (5, 1), (3, 2)))
    stride = p.pick(((1, 1), (1, 1), (2, 2), (3, 3), (1, 2), (2, 1), (4, 3)))
    dilation = p.pick(((1, 1), (1, 1), (2, 2), (1, 3), (2, 1))) if dilated else (1, 1)
    cover = covered(kernel, dilation)
    return _Window(kernel, stride, _pad(p, (cover[0] - 1, cover[1] - 1)), dilation)


def _conv(p: Picker) -> Case:
    c, k, groups = p.grouped()
    w = _window(p)
    return Case(conv.Conv(k, *w, groups=groups, bias=p.flag()), (w.fitting(p, c),))


def _deconv(p: Picker) -> Case:
    c, k, groups = p.grouped()
    kernel, stride, pad, dilation = _window(p)
    extra = [p.pick(range(max(stride[i], dilation[i]))) for i in (0, 1)]
    cover = covered(kernel, dilation)
    least = [-(-max(0, pad[i] + pad[2 + i] + 1 - cover[i]) // stride[i]) + 1 for i in (0, 1)]
    x = TensorType((c, least[0] + p.pick((0, 1, 2, 4)), least[1] + p.pick((0, 1, 2, 3, 6))))
    return Case(deconv.Deconv(k, kernel, stride, pad, (extra[0], extra[1]), dilation, groups, p.flag()), (x,))


def _filter(p: Picker) -> Case:
    w = _window(p)
    values = tuple(
        tuple(p.pick((-2.0, -1.0, 0.0, 0.5, 1.0, 3.0)) for _ in range(w.kernel[1])) for _ in range(w.kernel[0])
    )
    return Case(filter.Filter(values, w.stride, w.pad, w.dilation, p.flag()), (w.fitting(p, p.channels()),))


def _maxpool(p: Picker) -> Case:
    w = _window(p)
    x = w.fitting(p, p.channels())
    room = max(w.dilation)  # a window that steps over the whole map has no largest value
    x = TensorType((x.channels, max(x.height, room), max(x.width, room)))
    return Case(pool.MaxPool(*w, ceil=p.flag()), (x,))


def _avgpool(p: Picker) -> Case:
    w = _window(p, dilated=False)
    return Case(pool.AvgPool(w.kernel, w.stride, w.pad, p.flag(), p.flag()), (w.fitting(p, p.channels()),))


def _lppool(p: Picker) -> Case:
    w = _window(p, dilated=False)._replace(pad=(0, 0, 0, 0))
    return Case(pool.LpPool(p.pick((1, 2, 2, 3)), w.kernel, w.stride, p.flag()), (w.fitting(p, p.channels()),))


def _adaptive(kind: type[pool.AdaptiveMaxPool | pool.AdaptiveAvgPool]) -> Callable[[Picker], Case]:
    return lambda p: Case(kind(p.pick(((1, 1), (1, 1), (2, 3), (6, 6), (7, 7), (5, 1)))), (p.map(),))


def _groupnorm(p: Picker) -> Case:
    groups = p.pick((1, 2, 3, 4))
    x = p.map(groups * p.pick((1, 2, 5, 8)))
    return Case(norm.GroupNorm(groups, 1e-5, p.flag()), (x,))


def _lrn(p: Picker) -> Case:
    return Case(norm.Lrn(p.pick((1, 2, 3, 5, 8)), p.pick((1e-4, 1.0)), 0.75, p.pick((1.0, 2.0))), (p.map(),))


def _pad_op(p: Picker) -> Case:
    mode = p.pick(("zero", "constant", "reflect", "edge"))
    pad = tuple(p.pick((0, 1, 2, 3)) for _ in range(4))
    x = TensorType((p.channels(), 4 + p.extra(), 4 + p.extra()))
    return Case(shape.Pad(pad, mode, 0.5 if mode == "constant" else 0.0, p.pair(0, 0, 1, 8)), (x,))


def _crop(p: Picker) -> Case:
    x = p.map()
    height, width = p.pick(range(1, x.height + 1)), p.pick(range(1, x.width + 1))
    top, left = p.pick(range(x.height - height + 1)), p.pick(range(x.width - width + 1))
    return Case(shape.Crop(top, left, height, width), (x,))


def _upsample(p: Picker) -> Case:
    mode = p.pick(("nearest", "bilinear"))
    return Case(shape.Upsample(p.pair(1, 2, 2, 3), mode, mode == "bilinear" and p.flag()), (p.map(),))


def _pixelshuffle(p: Picker) -> Case:
    factor = p.pick((1, 2, 3))
    return Case(shape.PixelShuffle(factor), (p.map(factor * factor * p.pick((1, 2, 3, 5))),))


def _channelshuffle(p: Picker) -> Case:
    groups = p.pick((1, 2, 3, 4))
    return Case(shape.ChannelShuffle(groups), (p.map(groups * p.pick((1, 2, 5, 8))),))


def _mul(p: Picker) -> Case:
    x = p.either()
    gate = TensorType((x.channels, 1, 1)) if x.is_map else x
    return Case(join.Mul(), p.pick(((x, x), (x, gate), (gate, x), (x, gate, x))))


def _concat(p: Picker) -> Case:
    x = p.map()
    others = [TensorType((p.channels(), x.height, x.width)) for _ in range(p.pick((1, 1, 2, 3)))]
    return Case(join.Concat(), (x, *others))


def _on_map(make: Callable[[Picker], Op]) -> Callable[[Picker], Case]:
    return lambda p: Case(make(p), (p.map(),))


def _on_either(make: Callable[[Picker], Op]) -> Callable[[Picker], Case]:
    return lambda p: Case(make(p), (p.either(),))


MAKERS: Mapping[type[Op], Callable[[Picker], Case]] = {
    conv.Conv: _conv,
    deconv.Deconv: _deconv,
    filter.Filter: _filter,
    pool.MaxPool: _maxpool,
    pool.AvgPool: _avgpool,
    pool.LpPool: _lppool,
    pool.AdaptiveMaxPool: _adaptive(pool.AdaptiveMaxPool),
    pool.AdaptiveAvgPool: _adaptive(pool.AdaptiveAvgPool),
    norm.BatchNorm: _on_either(lambda p: norm.BatchNorm(p.pick((1e-5, 1e-3)), p.flag())),
    norm.InstanceNorm: _on_map(lambda p: norm.InstanceNorm(1e-5, p.flag())),
    norm.GroupNorm: _groupnorm,
    norm.Lrn: _lrn,
    norm.Scale: _on_either(lambda p: norm.Scale(p.flag())),
    dense.Dense: lambda p: Case(
        dense.Dense(p.pick((1, 7, 10, 16, 33)), p.flag()), (TensorType((p.pick((1, 3, 16, 50, 129)),)),)
    ),
    shape.Flatten: _on_either(lambda p: shape.Flatten()),
    shape.Pad: _pad_op,
    shape.Crop: _crop,
    shape.PixelShuffle: _pixelshuffle,
    shape.ChannelShuffle: _channelshuffle,
    shape.Dropout: _on_either(lambda p: shape.Dropout(0.5)),
    shape.Upsample: _upsample,
    activation.Relu: _on_either(lambda p: activation.Relu()),
    activation.Relu6: _on_either(lambda p: activation.Relu6()),
    activation.Leaky: _on_either(lambda p: activation.Leaky(p.pick((0.01, 0.2)))),
    activation.PRelu: _on_either(lambda p: activation.PRelu(p.flag())),
    activation.Elu: _on_either(lambda p: activation.Elu(p.pick((1.0, 0.5)))),
    activation.Gelu: _on_either(lambda p: activation.Gelu(p.flag())),
    activation.Silu: _on_either(lambda p: activation.Silu()),
    activation.HardSwish: _on_either(lambda p: activation.HardSwish()),
    activation.HardSigmoid: _on_either(lambda p: activation.HardSigmoid()),
    activation.Sigmoid: _on_either(lambda p: activation.Sigmoid()),
    activation.Tanh: _on_either(lambda p: activation.Tanh()),
    softmax.Softmax: _on_either(lambda p: softmax.Softmax()),
    softmax.LogSoftmax: _on_either(lambda p: softmax.LogSoftmax()),
    join.Add: lambda p: Case(join.Add(), (p.either(),) * p.pick((2, 2, 3))),
    join.Mul: _mul,
    join.Concat: _concat,
}


@st.composite
def op_cases(draw: st.DrawFn, kinds: Sequence[type[Op]] = tuple(MAKERS), small: bool = False) -> Case:
    """Draws a case of one of the given operators (all of them unless given)."""
    picker = Picker(lambda choices: draw(st.sampled_from(choices)), small)
    return MAKERS[draw(st.sampled_from(kinds))](picker)


def _map(*sizes: int) -> tuple[TensorType]:
    return (TensorType(sizes),)


def _convolutions() -> list[Case]:
    """Convolutions that networks have, on maps whose sizes leave tails."""
    conv3, out = conv.Conv, []
    for width in (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 17, 28, 31):
        out.append(Case(conv3(16, (3, 3), pad=(1, 1, 1, 1)), _map(16, 1 + width % 7, width)))
        out.append(Case(conv3(17, (1, 1)), _map(33, 3, width)))
    for c, k in ((1, 6), (3, 16), (3, 33), (16, 16), (17, 33), (48, 48), (33, 17), (32, 64), (64, 15), (130, 32)):
        out.append(Case(conv3(k, (3, 3), pad=(1, 1, 1, 1)), _map(c, 9, 11)))
        out.append(Case(conv3(k, (3, 3), (2, 2), (1, 1, 1, 1), bias=False), _map(c, 9, 10)))
        out.append(Case(conv3(k, (1, 1), (2, 2)), _map(c, 7, 8)))
    for kernel in ((2, 2), (4, 4), (1, 7), (7, 1), (5, 5), (6, 3), (11, 11)):
        half = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
        pad = half[0], half[1], kernel[0] - 1 - half[0], kernel[1] - 1 - half[1]
        out.append(Case(conv3(17, kernel, pad=pad), _map(8, 12, 13)))
        out.append(Case(conv3(16, kernel, (2, 3), pad), _map(5, 13, 12)))
    for c in (1, 3, 15, 16, 17, 48, 70):
        for stride, dilation in ((1, 1), (2, 1), (1, 2)):
            op = conv3(c, (3, 3), (stride, stride), (1, 1, 1, 1), (dilation, dilation), c)
            out.append(Case(op, _map(c, 8, 15)))
    for groups, c, k in ((2, 32, 32), (4, 16, 64), (32, 128, 128), (3, 9, 21), (2, 34, 6)):
        out.append(Case(conv3(k, (3, 3), pad=(1, 1, 1, 1), groups=groups), _map(c, 7, 9)))
    out.append(Case(conv3(64, (7, 7), (2, 2), (3, 3, 3, 3), bias=False), _map(3, 32, 34)))
    out.append(Case(conv3(16, (3, 3), (1, 1), (5, 0, 1, 6)), _map(16, 1, 1)))
    return out


def _fixed(seed: int = 2026, each: int = 8) -> list[Case]:
    picker = Picker(random.Random(seed).choice)
    windows = deconv.Deconv, pool.MaxPool, pool.AvgPool, shape.Pad, shape.Upsample
    kinds = [kind for kind in MAKERS for _ in range(2 * each if kind in windows else each)]
    return [MAKERS[kind](picker) for kind in kinds]


CASES: tuple[Case, ...] = tuple(dict.fromkeys(_convolutions() + _fixed()))
assert set(MAKERS) == set(OPERATORS) - {Input}, "every operator has a maker of cases"


def random_params(op: Op, types: Sequence[TensorType], rng: np.random.Generator) -> dict[str, Array]:
    """float32 values for op.params: weights so scaled that results stay near 1, variances positive."""
    out = {}
    for role, param in op.params(*types).items():
        z = rng.standard_normal(param.shape)
        if role == "running_var":
            z = 0.5 + np.abs(z)
        elif len(param.shape) > 1:
            z = z / math.sqrt(max(1, math.prod(param.shape[1:])))
        out[role] = z.astype(np.float32)
    return out


def random_inputs(op: Op, types: Sequence[TensorType], batch: int, rng: np.random.Generator) -> list[Array]:
    """float32 [batch, *shape] for every input; without negative values where the operator asks for that."""
    values = [rng.standard_normal((batch, *t.shape)).astype(np.float32) for t in types]
    return [np.abs(x) for x in values] if isinstance(op, pool.LpPool) and op.norm == 3 else values


def graph_of(op: Op, types: Sequence[TensorType]) -> Graph:
    """The graph of one operation, its weights named "layer.role"."""
    inputs = tuple(Node(f"in{i}", Input(t), (), t) for i, t in enumerate(types))
    weights = {role: Stored(f"layer.{role}", p.shape, p.learnable) for role, p in op.params(*types).items()}
    node = Node("layer", op, tuple(range(len(types))), op.infer(*types), weights)
    specs = tuple(InputSpec(f"in{i}", i, t) for i, t in enumerate(types))
    return Graph("one", (*inputs, node), specs, (OutputSpec("out", len(types)),), Source("<test>", ""))


def stored(params: Mapping[str, Array]) -> dict[str, Array]:
    """Parameters by role, under the names that `graph_of` gives them."""
    return {f"layer.{role}": value for role, value in params.items()}


def reduction_length(op: Op, types: Sequence[TensorType]) -> int:
    """How many products or values are added up for one result, at most."""
    x = types[0]
    if isinstance(op, deconv.Deconv):
        return x.channels // op.groups * op.kernel[0] * op.kernel[1]
    if op.macs(*types):
        return op.macs(*types) // op.infer(*types).elements
    if isinstance(op, (norm.InstanceNorm, norm.GroupNorm, pool.AdaptiveAvgPool, softmax.Softmax, softmax.LogSoftmax)):
        return x.elements
    window = op.window(*types)
    return math.prod(window.kernel) if window else 1


def tolerance(op: Op, types: Sequence[TensorType], dtype: Any = np.float32) -> float:
    """Allowed error relative to the largest magnitude: rounding grows with the length of the reduction."""
    steps = 16.0 + 2 * reduction_length(op, types)
    if isinstance(op, (norm.InstanceNorm, norm.GroupNorm)):
        sets = op.groups if isinstance(op, norm.GroupNorm) else types[0].channels
        if types[0].elements // sets < 8:  # so few values may lie close together: then 1 / sqrt(eps) enlarges rounding
            steps += 4 / math.sqrt(op.eps)
    return float(np.finfo(dtype).eps) * steps


def assert_close(found: Array, expected: Array, tolerance: float) -> None:
    """Same shape, and each value within `tolerance` times the largest expected magnitude (1 at least)."""
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    if expected.size:
        largest = max(1.0, float(np.abs(expected).max()))
        error = float(np.abs(found.astype(np.float64) - expected).max())
        assert error <= tolerance * largest, f"error {error:.3g} over {tolerance:.3g} x {largest:.3g}"
