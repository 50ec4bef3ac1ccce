"""Activations: functions applied to each value on its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from netdsl.frozen import frozen
from netdsl.ops.base import FLAG, NUMBER, Array, Layer, Op, Option, Param
from netdsl.ops.norm import per_channel
from netdsl.tensor import TensorType


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) = inf gives 0, which is right
        result: Array = 1 / (1 + np.exp(-x))
    return result


def _erf(x: Array) -> Array:
    result: Array = np.vectorize(math.erf, otypes=[x.dtype])(x)
    return result


@frozen
class Relu(Op):
    """max(x, 0)."""

    name: ClassVar[str] = "relu"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        y: Array = np.maximum(inputs[0], 0)
        return y


@frozen
class Relu6(Op):
    """min(max(x, 0), 6)."""

    name: ClassVar[str] = "relu6"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        return np.clip(inputs[0], 0, 6)


@frozen
class Leaky(Op):
    """x where x >= 0, slope x elsewhere."""

    name: ClassVar[str] = "leaky"
    slope: float = 0.01

    def describe(self) -> str:
        return f"{self.name} {self.slope:g}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        return np.where(x >= 0, x, self.slope * x)


@frozen
class PRelu(Op):
    """x where x >= 0, weight x elsewhere; a weight [C], or one for all channels [1]. Source: arXiv:1502.01852."""

    name: ClassVar[str] = "prelu"
    shared: bool = False

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return {"weight": Param((1 if self.shared else inputs[0].channels,))}

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        return np.where(x >= 0, x, per_channel(params["weight"], x) * x)


@frozen
class Elu(Op):
    """x where x > 0, alpha (exp(x) - 1) elsewhere. Source: arXiv:1511.07289."""

    name: ClassVar[str] = "elu"
    alpha: float = 1.0

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))


@frozen
class Gelu(Op):
    """x times the normal distribution function of x; with `tanh` its usual approximation. Source: arXiv:1606.08415."""

    name: ClassVar[str] = "gelu"
    tanh: bool = False

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        if self.tanh:
            y: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        else:
            y = 0.5 * x * (1 + _erf(x / math.sqrt(2)))
        return y


@frozen
class Silu(Op):
    """x sigmoid(x)."""

    name: ClassVar[str] = "silu"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        return inputs[0] * _sigmoid(inputs[0])


@frozen
class HardSwish(Op):
    """x min(max(x + 3, 0), 6) / 6. Source: arXiv:1905.02244."""

    name: ClassVar[str] = "hardswish"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        y: Array = x * np.clip(x + 3, 0, 6) / 6
        return y


@frozen
class HardSigmoid(Op):
    """min(max(x + 3, 0), 6) / 6. Source: arXiv:1905.02244."""

    name: ClassVar[str] = "hardsigmoid"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        y: Array = np.clip(inputs[0] + 3, 0, 6) / 6
        return y


@frozen
class Sigmoid(Op):
    """1 / (1 + exp(-x))."""

    name: ClassVar[str] = "sigmoid"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        return _sigmoid(inputs[0])


@frozen
class Tanh(Op):
    """The hyperbolic tangent."""

    name: ClassVar[str] = "tanh"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        y: Array = np.tanh(inputs[0])
        return y


def _plain(kind: type[Op], formula: str) -> Layer:
    """The word of an activation without arguments."""

    def make(x: TensorType, **_: Any) -> Op:
        return kind()

    return Layer(kind.name, formula, (), (), (("", make),), example=kind.name)


def _leaky(x: TensorType, *, slope: float) -> Op:
    return Leaky(slope)


def _prelu(x: TensorType, *, shared: bool) -> Op:
    return PRelu(shared)


def _elu(x: TensorType, *, alpha: float) -> Op:
    return Elu(alpha)


def _gelu(x: TensorType, *, tanh: bool) -> Op:
    return Gelu(tanh)


WORDS = (
    _plain(Relu, "max(x, 0)."),
    _plain(Relu6, "min(max(x, 0), 6)."),
    Layer(
        "leaky", "x where x is positive, slope times x elsewhere.",
        (Option("slope", NUMBER, 0.01, "factor for negative values"),), (), (("", _leaky),), example="leaky 0.2",
    ),
    Layer(
        "prelu", "Like leaky, with a stored slope for each channel.",
        (), (Option("shared", FLAG, False, "one slope for all channels"),), (("", _prelu),), example="prelu",
    ),
    Layer(
        "elu", "x where x is positive, alpha (exp(x) - 1) elsewhere.",
        (Option("alpha", NUMBER, 1.0, "how far down it goes"),), (), (("", _elu),), example="elu",
    ),
    Layer(
        "gelu", "x times the normal distribution function of x.",
        (), (Option("tanh", FLAG, False, "the approximation with tanh"),), (("", _gelu),), example="gelu",
    ),
    _plain(Silu, "x sigmoid(x), also called swish."),
    _plain(HardSwish, "x min(max(x + 3, 0), 6) / 6."),
    _plain(HardSigmoid, "min(max(x + 3, 0), 6) / 6."),
    _plain(Sigmoid, "1 / (1 + exp(-x))."),
    _plain(Tanh, "The hyperbolic tangent."),
)  # fmt: skip
