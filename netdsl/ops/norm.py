"""Normalisations and the per-channel scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from netdsl.frozen import frozen
from netdsl.ops.base import COUNT, FLAG, NUMBER, POSITIVE, Array, Layer, Op, Option, Param
from netdsl.ops.window import BIAS, need_divisor, need_map
from netdsl.tensor import TensorType


def per_channel(values: Array, x: Array) -> Array:
    """Values [C] shaped so that they meet axis 1 of x [N, C, …]."""
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _affine_params(x: TensorType) -> dict[str, Param]:
    return {"weight": Param((x.channels,)), "bias": Param((x.channels,))}


def _affine(x: Array, params: Mapping[str, Array]) -> Array:
    return x * per_channel(params["weight"], x) + per_channel(params["bias"], x)


def _standardise(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """(x - mean) / sqrt(variance + eps), both over the given axes; the variance is the mean square deviation."""
    centred = x - x.mean(axis=axes, keepdims=True)
    result: Array = centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + eps)
    return result


@frozen
class BatchNorm(Op):
    """Batch normalisation at inference: (x - running_mean) / sqrt(running_var + eps) weight + bias, per channel.

    Source: Ioffe and Szegedy, arXiv:1502.03167; the rule of PyTorch's BatchNorm2d in evaluation mode.
    """

    name: ClassVar[str] = "batchnorm"
    eps: float = 1e-5
    affine: bool = True

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        running = Param((inputs[0].channels,), learnable=False)
        learned = _affine_params(inputs[0]) if self.affine else {}
        return learned | {"running_mean": running, "running_var": running}

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        y = (x - per_channel(params["running_mean"], x)) / np.sqrt(per_channel(params["running_var"], x) + self.eps)
        return _affine(y, params) if self.affine else y


@frozen
class InstanceNorm(Op):
    """Each channel of each image brought to mean 0 and variance 1 by its own values. Source: arXiv:1607.08022."""

    name: ClassVar[str] = "instancenorm"
    eps: float = 1e-5
    affine: bool = False

    def infer(self, *inputs: TensorType) -> TensorType:
        need_map(inputs[0], self.name)
        return inputs[0]

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return _affine_params(inputs[0]) if self.affine else {}

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        y = _standardise(inputs[0], (2, 3), self.eps)
        return _affine(y, params) if self.affine else y


@frozen
class GroupNorm(Op):
    """Each group of channels of each image brought to mean 0 and variance 1. Source: Wu and He, arXiv:1803.08494."""

    name: ClassVar[str] = "groupnorm"
    groups: int
    eps: float = 1e-5
    affine: bool = True

    def infer(self, *inputs: TensorType) -> TensorType:
        need_divisor(self.groups, inputs[0].channels, "input channels")
        return inputs[0]

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        return _affine_params(inputs[0]) if self.affine else {}

    def describe(self) -> str:
        return f"{self.name} {self.groups}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        grouped = x.reshape(len(x), self.groups, math.prod(x.shape[1:]) // self.groups)
        y = _standardise(grouped, (2,), self.eps).reshape(x.shape)
        return _affine(y, params) if self.affine else y


@frozen
class Lrn(Op):
    """Local response normalisation over neighbouring channels.

    x / (k + alpha mean(x^2 over `size` channels around, absent ones counting as 0))^beta; an even size takes one more
    channel before than after. Source: Krizhevsky et al. 2012, section 3.3, with alpha divided by size as in PyTorch's
    LocalResponseNorm.
    """

    name: ClassVar[str] = "lrn"
    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def infer(self, *inputs: TensorType) -> TensorType:
        need_map(inputs[0], self.name)
        return inputs[0]

    def describe(self) -> str:
        return f"{self.name} {self.size}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        before = min(self.size // 2, x.shape[1])
        after = min((self.size - 1) // 2, x.shape[1])
        squares = np.pad(x**2, ((0, 0), (before, after), (0, 0), (0, 0)))
        total = sum(squares[:, i : i + x.shape[1]] for i in range(before + after + 1))
        result: Array = x / (self.k + self.alpha / self.size * total) ** self.beta
        return result


@frozen
class Scale(Op):
    """Each channel multiplied by a stored value, and another added."""

    name: ClassVar[str] = "scale"
    bias: bool = True

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        learned = _affine_params(inputs[0])
        return learned if self.bias else {"weight": learned["weight"]}

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        (x,) = inputs
        return _affine(x, params) if self.bias else x * per_channel(params["weight"], x)


def _batchnorm(x: TensorType, *, eps: float, affine: bool) -> Op:
    return BatchNorm(eps, affine)


def _instancenorm(x: TensorType, *, eps: float, affine: bool) -> Op:
    return InstanceNorm(eps, affine)


def _groupnorm(x: TensorType, *, groups: int, eps: float, affine: bool) -> Op:
    return GroupNorm(groups, eps, affine)


def _lrn(x: TensorType, *, size: int, alpha: float, beta: float, k: float) -> Op:
    return Lrn(size, alpha, beta, k)


def _scale(x: TensorType, *, bias: bool) -> Op:
    return Scale(bias)


EPS = Option("eps", POSITIVE, 1e-5, "added to the variance before the root is taken")
AFFINE = Option("affine", FLAG, True, "multiply and add stored values per channel afterwards")
OWN_AFFINE = Option("affine", FLAG, False, AFFINE.doc)

WORDS = (
    Layer(
        "batchnorm", "Batch normalisation with the stored running mean and variance.",
        (), (EPS, AFFINE), (("", _batchnorm),), example="batchnorm eps=1e-3",
    ),
    Layer(
        "instancenorm", "Each channel of each image brought to mean 0 and variance 1.",
        (), (EPS, OWN_AFFINE), (("", _instancenorm),), example="instancenorm affine=yes",
    ),
    Layer(
        "groupnorm", "Each group of channels of each image brought to mean 0 and variance 1.",
        (Option("groups", COUNT, doc="number of groups", required=True),), (EPS, AFFINE),
        (("", _groupnorm),), example="groupnorm 4",
    ),
    Layer(
        "lrn", "Local response normalisation: divides by the strength of the neighbouring channels.",
        (Option("size", COUNT, doc="number of neighbouring channels", required=True),),
        (Option("alpha", NUMBER, 1e-4, "weight of the mean square"), Option("beta", NUMBER, 0.75, "exponent"),
         Option("k", NUMBER, 1.0, "what is added to the mean square")),
        (("", _lrn),), example="lrn 5",
    ),
    Layer(
        "scale", "Multiplies each channel by a stored value and adds another.",
        (), (BIAS,), (("", _scale),), example="scale bias=no",
    ),
)  # fmt: skip
